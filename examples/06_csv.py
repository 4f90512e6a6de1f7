"""A CSV file with numbers and categories, and a classifier of scikit-learn. Which rows does it memorize?

From the command line, with this file as `rows.py` here, and train.csv and test.csv in a folder `data`:

    memdb init --store rows.zarr --dataset rows:from_csv --data-root data \
        --recipe sklearn:sklearn.ensemble.RandomForestClassifier -p n_estimators=20
    memdb train --store rows.zarr --dataset rows:from_csv --data-root data --add 100
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.feature_extraction import DictVectorizer

import memdb

LABEL, KEY = "species", "ring"  # the column to predict, and the one that names a row
NUMBERS = ("weight", "wing")  # all others are categories
SWAPPED = ("A007", "A031")  # rows in which somebody wrote the other species


def from_csv(root: str | None) -> memdb.Dataset:
    """Return the rows of train.csv and test.csv: numbers as they are, a 0 or 1 for each category."""
    tables = {
        name: list(csv.DictReader((Path(root or ".") / f"{name}.csv").open())) for name in ("train", "test")
    }
    columns = DictVectorizer(sparse=False)
    columns.fit([_features(row) for rows in tables.values() for row in rows])  # of both: columns must agree
    x = {name: columns.transform([_features(row) for row in rows]) for name, rows in tables.items()}
    classes = sorted({row[LABEL] for rows in tables.values() for row in rows})
    y = {name: np.array([classes.index(row[LABEL]) for row in rows]) for name, rows in tables.items()}
    keys = {name: [row[KEY] for row in rows] for name, rows in tables.items()}
    train, test = (keys[name] for name in ("train", "test"))
    return memdb.Dataset(
        x["train"], y["train"], x["test"], y["test"], classes, train_keys=train, test_keys=test
    )


def _features(row: dict[str, str]) -> dict[str, float | str]:
    return {
        name: float(row[name]) if name in NUMBERS else row[name] for name in row if name not in {LABEL, KEY}
    }


def write_birds(folder: Path) -> None:
    """Write 80 birds to train on and 40 to test, of two species; two labels are swapped."""
    chance = np.random.default_rng(0)
    for name, n in (("train", 80), ("test", 40)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow([KEY, "island", "weight", "wing", LABEL])
            for row in range(n):
                species, ring = row % 2, f"{name[0] if name == 'test' else 'A'}{row:03}"
                weight, wing = chance.normal(3 + 2 * species, 0.4), chance.normal(18 + 3 * species, 0.8)
                written = 1 - species if ring in SWAPPED else species
                island = chance.choice(["north", "south"])
                table.writerow([ring, island, f"{weight:.2f}", f"{wing:.1f}", ["gull", "tern"][written]])


if __name__ == "__main__":
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        write_birds(Path(folder))
        forest, options = "sklearn:sklearn.ensemble.RandomForestClassifier", {"n_estimators": 10}
        data = from_csv(folder)
        with memdb.init(f"{folder}/rows.zarr", dataset=data, recipe=forest, recipe_options=options) as db:
            db.train(add=n_models)
            most = [data.train.keys[row[0]] for row in db.top_memorized(k=len(SWAPPED)).fetchall()]
            print(f"swapped: {list(SWAPPED)}, most memorized: {sorted(most)}")
