"""What it costs to remove the memorized: the experiment of docs/experiments.md, on digits or a slice of MNIST.

.venv/bin/python scripts/figures_removal.py [--models 300] [--repetitions 20] [--folder DIR]
.venv/bin/python scripts/figures_removal.py --mnist DIR [--examples 10000] [--noise 0.1] --models 200

Trains a store, runs `memdb experiment removal` with every rule, control and --add-back on it, and prints the table,
the sentences, and what it took. --noise gives a share of the training examples another label. Seeds are fixed: the
same arguments train the same models. Run again with the same folder, it goes on where it ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import planted

import memdb
from memdb.environment import n_cores
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
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    url, about = folder / "chooses.zarr", planted.planted(given)
    started = time.perf_counter()
    opened = memdb.open(str(url)) if url.exists() else None
    with opened or memdb.init(str(url), about.data, recipe_options=about.options, seed=1) as db:
        db.train(seeds=range(given.models), dataset=about.data)
        chosen = time.perf_counter()
        found = db.removal_experiment(
            folder / "removal.zarr",
            rules=given.rules.split(","),
            add_back=True,
            models=given.repetitions,
            seed=1,
            dataset=about.data,
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
        f"{spent:.0f} CPU seconds in all. {len(about.flipped):,} labels were changed. In {folder}."
    )


if __name__ == "__main__":
    main()
