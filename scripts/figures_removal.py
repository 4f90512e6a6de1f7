"""What it costs to remove the memorized: the experiment of docs/experiments.md, on digits or a slice of images.

.venv/bin/python scripts/figures_removal.py [--models 300] [--repetitions 20] [--folder DIR]
.venv/bin/python scripts/figures_removal.py --mnist DIR [--examples 10000] [--noise 0.1] [-p weight_decay=5e-4]
.venv/bin/python scripts/figures_removal.py --cifar100 DIR [--classes 10]

Trains a store, runs `memdb experiment removal` with every rule, control and --add-back on it, and prints the table,
the sentences, and what it took. --noise gives a share of the training examples another label; -p is an option of the
recipe, by which both kinds of models are trained, --judge-with one by which the judges alone are: what do the same
examples cost them? --scores-at trains another store whose subsets are another share of the training set, and asks
again which examples its scores choose. --twins adds copies with noise of the test examples that are least like their
class, which the columns without near-duplicates have to find. Seeds are fixed: the same arguments train the same
models. Run again with the same folder, it goes on where it ended; with more --repetitions, it adds these.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import planted

import memdb
from memdb.environment import n_cores
from memdb.experiment.report import Findings
from memdb.format import bits
from memdb.render.answer import Answer
from memdb.render.removal import draw, table
from memdb.render.tables import console


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    planted.add_arguments(parser, noise=0.0)
    parser.add_argument("--models", type=int, default=300, help="of the store that chooses")
    parser.add_argument("--repetitions", type=int, default=20, help="models of each arm")
    parser.add_argument("--rules", default="raw,lower,shrunk")
    parser.add_argument("--thresholds", default="0.1,0.25,0.5")
    parser.add_argument("--scores-at", type=float, metavar="P", help="choose by subsets of this share, too")
    parser.add_argument("--judge-with", metavar="NAME=VALUE", help="train the judges otherwise")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    about, started = planted.planted(given), time.perf_counter()
    print(f"{len(about.data.train):,} training and {len(about.data.test):,} test examples, recipe {about.recipe} "
          f"{about.options}; {len(about.flipped):,} labels were changed, {given.twins:,} twins of test examples added.", flush=True)  # fmt: skip
    with store(folder / "chooses.zarr", about, given.models, 0.7) as db:
        print(described(db))
        chosen = time.perf_counter()
        if given.judge_with is None:
            found = asked(db, folder / "removal.zarr", about, given)
        else:
            judges = planted.with_options(about, [given.judge_with])
            with store(folder / f"judges-{given.judge_with}.zarr", judges, 0, 0.7) as trained_so:
                found = asked(trained_so, folder / f"removal-{given.judge_with}.zarr", about, given, db)
        n_models = found.snapshot.n_models
        if given.scores_at is not None:
            with store(folder / "other.zarr", about, given.models, given.scores_at) as other:
                print(described(other))
                asked(db, folder / "removal-other.zarr", about, given, other)
    ended, spent = time.perf_counter(), sum(os.times()[:4])
    print(
        f"{given.models} models chose, {n_models} judge, {given.repetitions} an arm; {n_cores()} cores, "
        f"{chosen - started:.0f} s to train the first, {ended - chosen:.0f} s for the experiment, "
        f"{spent:.0f} CPU seconds in all. In {folder}."
    )


def store(url: Path, about: planted.Planted, n_models: int, share: float) -> memdb.Database:
    """Return a store with these models; what is missing is trained."""
    db = memdb.open(str(url)) if url.exists() else memdb.init(
        str(url), about.data, about.recipe, recipe_options=about.options, subset_fraction=share, seed=1
    )  # fmt: skip
    if n_models:
        db.train(seeds=range(n_models), dataset=about.data)
    return db


def described(db: memdb.Database) -> str:
    """Say how often the models that choose are right."""
    snapshot = db.store.snapshot()
    packed = snapshot.mask(), *(snapshot.outcome_bits(f"{name}/correct") for name in ("train", "test"))
    mask, train, test = (bits.unpack(part, snapshot.n_models) for part in packed)
    right = " and ".join(f"{100 * np.mean(of):.2f} %" for of in (train[mask], train[~mask]))
    return (
        f"{snapshot.n_models} models on {100 * snapshot.manifest.subset_fraction:g} % subsets are right on {right} of "
        f"the training examples they saw and did not see, and on {100 * test.mean():.2f} % of the test examples."
    )


def asked(
    db: memdb.Database, into: Path, about: planted.Planted, given: argparse.Namespace,
    scores_from: memdb.Database | None = None,
) -> Findings:  # fmt: skip
    """Run the experiment, and print and draw what it found."""
    found = db.removal_experiment(
        into,
        thresholds=[float(text) for text in given.thresholds.split(",")],
        rules=given.rules.split(","),
        add_back=True,
        scores_from=scores_from,
        models=given.repetitions,
        seed=1,
        dataset=about.data,
    )
    losses = found.losses(5, (scores_from or db).relations())
    answer = Answer(found.rows(), found.facts() | {"lost": list(Answer(losses, {}).rows())})
    console().print(table(answer, console().width))
    draw(into.with_suffix(".svg"), answer)
    return found


if __name__ == "__main__":
    main()
