"""Data of your own, and questions from Python: which mislabelled examples does a network memorize?

Two clouds of points, five labels flipped. A network that gets a flipped example right has memorized it.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np

import memdb

N_FLIPPED = 5


def two_clouds(_root: str | None = None) -> memdb.Dataset:
    """Return 200 points to train on, the first five with the wrong label, and 100 to test."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    points = (rng.normal(size=(300, 20)) + 1.5 * labels[:, None]).astype(np.float32)
    given = labels.copy()
    given[:N_FLIPPED] = 1 - given[:N_FLIPPED]
    return memdb.Dataset(points[:200], given[:200], points[200:], labels[200:], ["left", "right"])


if __name__ == "__main__":
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with (
        tempfile.TemporaryDirectory() as folder,
        memdb.init(f"{folder}/clouds.zarr", dataset=two_clouds(), recipe_options={"epochs": 40}) as db,
    ):
        db.train(add=n_models)
        most = [row[0] for row in db.top_memorized(k=N_FLIPPED).fetchall()]
        print(f"flipped: {list(range(N_FLIPPED))}, most memorized: {sorted(most)}")
        harmful = db.sql(
            "SELECT train_id, avg(influence) AS mean_influence FROM influence "
            "GROUP BY train_id ORDER BY mean_influence, train_id LIMIT 5"
        )
        print(harmful)
