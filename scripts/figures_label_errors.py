"""How many of the labels that were changed on purpose does `memdb label-errors` list first?

.venv/bin/python scripts/figures_label_errors.py [--models 300] [--noise 0.05] [--folder DIR]
.venv/bin/python scripts/figures_label_errors.py --mnist DIR [--examples 10000] --models 100

Changes a share of the training labels, trains a store that keeps predictions, and prints the precision at the number
changed: the share of the first that many rows whose label was changed. Beside it cleanlab's confident learning
(Northcutt and others 2021) on the same models' predictions, as shares of held-out votes, and rankings by parts of what
`memdb label-errors` uses. Run again with the same folder, it trains nothing. Needs cleanlab.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import planted
from numpy.typing import NDArray

import memdb
from memdb.analysis.label_errors import PATH, votes_of
from memdb.environment import n_cores
from memdb.format import bits

try:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
except ModuleNotFoundError:
    sys.exit("This compares with cleanlab: pip install cleanlab")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    planted.add_arguments(parser, noise=0.05)
    parser.add_argument("--models", type=int, default=300)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    url, about = folder / "noisy.zarr", planted.planted(given)
    started = time.process_time()
    outcomes = ("correct", "logit_confidence", "prediction")
    opened = memdb.open(str(url)) if url.exists() else None
    with opened or memdb.init(
        str(url), about.data, recipe_options=about.options, outcomes=outcomes, seed=1
    ) as db:
        db.train(seeds=range(given.models), dataset=about.data)
        trained = time.process_time()
        n_changed = len(about.flipped)
        listed = db.label_errors(n_changed).fetchnumpy()
        report = {"memdb label-errors": listed["train_id"], **by_parts(db), **by_cleanlab(db)}
        print(f"{n_changed} of {len(about.data.train):,} training labels changed, {db.n_models} models")
        for name, rows in report.items():
            first = rows[:n_changed]
            print(f"{name:44} {np.isin(first, about.flipped).sum() / n_changed:7.1%} of {len(first)} listed")
        right = np.isin(listed["train_id"], about.flipped)
        truth = planted.planted(argparse.Namespace(**{**vars(given), "noise": 0.0})).data.train.labels
        suggests = listed["suggested_label"] == truth[listed["train_id"]]
        print(f"of those found, the class suggested is the true one in {suggests[right].mean():.1%}")
        mean = db.sql("SELECT avg(train_accuracy), avg(test_accuracy) FROM models").fetchall()[0]
    print(
        f"mean accuracy {mean[0]:.2%} in, {mean[1]:.2%} test; {n_cores()} cores, {trained - started:.0f} CPU seconds "
        f"to train, {time.process_time() - trained:.1f} to rank. In {folder}."
    )


def by_parts(db: memdb.Database) -> dict[str, NDArray[np.int64]]:
    """Return the examples from the most suspect on, by parts of what the list is made of."""
    votes = votes_of(db.relations())
    scores = db.memorization().fetchnumpy()["memorization"]
    memorization = np.nan_to_num(np.ma.filled(scores, -1.0), nan=-1.0)
    n_out = np.maximum(votes.n_out, 1)
    return {
        "agreement on another class alone": np.argsort(-votes.k_suggested / n_out, kind="stable"),
        "memorization alone": np.argsort(-memorization, kind="stable"),
        "memorization times agreement": np.argsort(-memorization * votes.k_suggested / n_out, kind="stable"),
    }


def by_cleanlab(db: memdb.Database) -> dict[str, NDArray[np.int64]]:
    """Return the same by cleanlab, from the shares of held-out models that predict each class."""
    relations = db.relations()
    shares, labels = shares_of(relations), relations.labels("train")
    found = {
        f"cleanlab find_label_issues, {rule}": np.asarray(
            find_label_issues(labels, shares, filter_by=rule, return_indices_ranked_by="normalized_margin")
        )
        for rule in ("prune_by_noise_rate", "confident_learning")
    }
    scores = get_label_quality_scores(labels, shares, method="normalized_margin")
    return {**found, "cleanlab normalized margin": np.argsort(scores, kind="stable")}


def shares_of(relations: memdb.query.relations.Relations) -> NDArray[np.float64]:
    """Return the share of the models without each example that predict each class, [train, class]."""
    snapshot = relations.snapshot
    predicted = snapshot.outcome_values(PATH)
    outside = ~bits.unpack(relations.mask.view(np.uint8), snapshot.n_models).T
    counts = np.stack([((predicted == label) & outside).sum(axis=1) for label in range(relations.n_classes)])
    shares: NDArray[np.float64] = (counts / counts.sum(axis=0)).T
    return shares


if __name__ == "__main__":
    main()
