"""What it costs to remove the memorized digits: the experiment of docs/experiments.md, small enough for a laptop.

.venv/bin/python scripts/figures_removal.py [--models 300] [--repetitions 20] [--workers 2] [--folder DIR]

Trains a store of digits, runs `memdb experiment removal` with every rule, control and --add-back on it, and prints
the table, the sentences, and what it took. Run again with the same folder, it goes on where it ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import memdb
from memdb.environment import n_cores
from memdb.render.answer import Answer
from memdb.render.removal import draw, table
from memdb.render.tables import console


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=300, help="of the store that chooses")
    parser.add_argument("--repetitions", type=int, default=20, help="models of each arm")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    url = folder / "digits.zarr"
    started = time.perf_counter()
    with memdb.open(str(url)) if url.exists() else memdb.init(str(url), seed=1) as db:
        missing = given.models - db.n_models
        if missing > 0:
            db.train(missing, workers=given.workers)
        chosen = time.perf_counter()
        found = db.removal_experiment(
            folder / "removal.zarr",
            rules=("raw", "lower", "shrunk"),
            add_back=True,
            models=given.repetitions,
            seed=1,
            workers=given.workers,
        )
        losses = found.losses(5, db.relations())
        answer = Answer(found.rows(), found.facts() | {"lost": list(Answer(losses, {}).rows())})
        console().print(table(answer, console().width))
        draw(folder / "removal.svg", answer)
        ended = time.perf_counter()
        n_chose = db.n_models
    spent = sum(os.times()[:4])
    print(
        f"{n_chose} models chose, {found.snapshot.n_models} judge, {given.repetitions} an arm; {n_cores()} cores, "
        f"{chosen - started:.0f} s to train the first, {ended - chosen:.0f} s for the experiment, "
        f"{spent:.0f} CPU seconds in all. In {folder}."
    )


if __name__ == "__main__":
    main()
