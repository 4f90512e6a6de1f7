"""How many planted near-duplicates `memdb duplicates` finds, and how much memorization twins hide.

.venv/bin/python scripts/figures_duplicates.py [--models 300] [--workers 2] [--folder DIR]
.venv/bin/python scripts/figures_duplicates.py --mnist DIR [--examples 10000] [--folder DIR]

Trains stores of digits: two of the plain ones; one with twins of 50 random training digits; one with twins of the 50
that are most memorized in the first; and five with these but a fifth of them each. A twin is moved by a pixel, has noise of a twentieth of the range, or both.
Prints

    found   of the 50 twins, how many are listed beside what they were made of
    other   pairs of training examples that nobody planted, though they may be near-duplicates all the same
    hidden  memorization without any twin, in the second plain store, which did not choose the 50; without its own twin,
            in one of the five, where most of the others are; with its twin there; and there with both held out

Then --mnist: pairs in the first examples of MNIST, and between them and its test set, by content and by the sketches of
a few models, of which a figure in the folder shows the pictures, the nearest first.

Run again with the same folder, it goes on where it ended.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pyarrow as pa
from numpy.typing import NDArray

import memdb
from memdb.datasets import Dataset, load
from memdb.datasets.appearance import of_dataset
from memdb.environment import n_cores
from memdb.look.couples import couples
from memdb.look.figures import DPI, draw_couples
from memdb.render.answer import Answer
from memdb.render.drawing import write_figure
from memdb.render.duplicates import pairs_of
from memdb.render.tables import console, plain

N_TWINS = 50
N_DRAWN = 40  # pairs of MNIST
FIFTHS = 5
N_SKETCHED = 10  # models of a store, or all of MNIST's
NOISE = 0.05  # standard deviation; 1 is black on white
SIDE = 8
KINDS = ("moved", "noisy", "both")
STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))
Pictures = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=300, help="of each store")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--folder", type=Path)
    planted.add_arguments(parser, noise=0.0)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    if given.mnist is None:
        of_digits(folder, given)
    else:
        of_mnist(folder, given)
    spent = sum(os.times()[:4])
    elapsed = time.perf_counter() - started
    print(f"{n_cores()} cores; {elapsed:.0f} s and {spent:.0f} CPU seconds in all. In {folder}.")


def of_digits(folder: Path, given: argparse.Namespace) -> None:
    """Print what is found of planted twins."""
    digits, rows = load("digits"), []
    with store_of(folder / "plain.zarr", with_twins(digits, ()), given.models, given) as db:
        chosen = np.argsort(-np.nan_to_num(scores(db)))[:N_TWINS]
    with store_of(folder / "judge.zarr", with_twins(digits, ()), given.models, given, seed=2) as db:
        known = scores(db)
    sources = {
        "random": np.random.default_rng(1).choice(len(digits.train), N_TWINS, replace=False),
        "memorized": chosen,
    }
    for name, of in sources.items():
        data = with_twins(digits, of)
        with store_of(folder / f"{name}.zarr", data, given.models, given) as db:
            rows += [
                {"twins of": name, "by": by, **found(db, data, of, by)}
                for by in ("content", "sketches", "influence", "all")
            ]
            if name == "memorized":
                hiding = hidden(db, data, of, known, lacking(folder, data, of, given))
    for found_rows in (rows, hiding):
        console().print(plain(Answer(pa.Table.from_pylist(found_rows), {})))
    print(f"{given.models} models a store, {N_SKETCHED} of them sketched.")


def of_mnist(folder: Path, given: argparse.Namespace) -> None:
    """Print how many pairs of MNIST each way finds, and draw them."""
    about, rows = planted.planted(given), []
    with store_of(folder / "mnist.zarr", about.data, N_SKETCHED, given, recipe_options=about.options) as db:
        for by in ("content", "sketches"):
            began = time.process_time()
            found = db.duplicates(by=by, dataset=about.data).to_arrow_table()
            seconds = time.process_time() - began
            draw(db, found, folder / f"mnist-{by}.png", about.data)
            pairs = [
                row
                for row in Answer(found, {}).rows()
                if row["test_id"] is not None or row["train_id"] < row["target_id"]
            ]
            n_test = sum(row["test_id"] is not None for row in pairs)
            rows.append({"by": by, "within training": len(pairs) - n_test, "with test": n_test,
                         "CPU seconds": round(seconds, 1)})  # fmt: skip
    console().print(plain(Answer(pa.Table.from_pylist(rows), {})))


def draw(db: memdb.Database, found: pa.Table, path: Path, data: Dataset) -> None:
    """Draw the first pairs."""
    pairs = list(islice(pairs_of(Answer(found, {}).rows()), N_DRAWN))
    shown = couples(db.relations(), pairs, 0.95, "selected")
    write_figure(draw_couples(shown, of_dataset(data)), path, DPI)


def with_twins(digits: Dataset, of: Iterable[int]) -> Dataset:
    """Return digits with twins of some training examples after all others."""
    rng = np.random.default_rng(0)
    train, test = (examples.array.reshape(-1, SIDE, SIDE) for examples in (digits.train, digits.test))
    twins = [twin(train[row], KINDS[number % 3], rng)[None] for number, row in enumerate(of)]
    labels = np.concatenate([digits.train.labels, digits.train.labels[list(of)]])
    return Dataset(np.concatenate([train, *twins]), labels, test, digits.test.labels)


def twin(picture: Pictures, kind: str, rng: np.random.Generator) -> Pictures:
    """Return a picture moved by a pixel, black coming in, with noise, or both."""
    if kind != "noisy":
        down, right = STEPS[rng.integers(len(STEPS))]
        padded = np.pad(picture, 1)
        picture = padded[1 - down : 1 - down + SIDE, 1 - right : 1 - right + SIDE]
    if kind != "moved":
        picture = np.clip(picture + rng.normal(0, NOISE, picture.shape), 0, 1).astype(np.float32)
    return picture


def store_of(
    url: Path, data: Dataset, n_models: int, given: argparse.Namespace, **made: Any
) -> memdb.Database:
    """Open or create a store of this data, and train what it lacks of its models."""
    how: dict[str, Any] = {"recipe": "mlp", "seed": 1, "sketches": N_SKETCHED} | made
    db = memdb.open(str(url)) if url.exists() else memdb.init(str(url), data, **how)
    if db.n_models < n_models:
        db.train(n_models - db.n_models, dataset=data, workers=given.workers)
    return db


def scores(db: memdb.Database) -> NDArray[np.float64]:
    """Return the memorization of each training example; NaN where there is none."""
    column = db.memorization().to_arrow_table()["memorization"]
    return np.array(column.to_pylist(), dtype=np.float64)


def found(db: memdb.Database, data: Dataset, of: NDArray[np.int64], by: str) -> dict[str, object]:
    """Return how many of the twins are found, how many other pairs, and in what time."""
    began = time.process_time()
    rows = list(Answer(db.duplicates(by=by, dataset=data).to_arrow_table(), {}).rows())
    seconds = time.process_time() - began
    twins = {(int(row), len(data.train) - N_TWINS + number) for number, row in enumerate(of)}
    pairs = {
        (min(row["train_id"], row["target_id"]), max(row["train_id"], row["target_id"]))
        for row in rows
        if row["target_id"] is not None
    }
    other = len(pairs - twins)
    return {
        "found": len(pairs & twins),
        "of": N_TWINS,
        "other": other,
        "share other": round(other / max(1, len(pairs)), 3),
        "with test": sum(row["test_id"] is not None for row in rows),
        "hidden": sum(row["hidden_by"] is not None for row in rows),
        "CPU seconds": round(seconds, 2),
    }


def lacking(
    folder: Path, data: Dataset, of: NDArray[np.int64], given: argparse.Namespace
) -> NDArray[np.float64]:
    """Return the memorization of examples in stores with the other twins, of four fifths, but not their own."""
    found, first = np.full(len(data.train), np.nan), len(data.train) - N_TWINS
    for fifth in range(FIFTHS):
        kept = np.arange(N_TWINS) % FIFTHS != fifth
        part = data.only(np.append(np.arange(first), first + np.flatnonzero(kept)))
        with store_of(folder / f"without-{fifth}.zarr", part, given.models, given, seed=3 + fifth) as db:
            found[of[~kept]] = scores(db)[of[~kept]]
    return found


def hidden(
    db: memdb.Database,
    data: Dataset,
    of: NDArray[np.int64],
    known: NDArray[np.float64],
    own: NDArray[np.float64],
) -> list[dict[str, object]]:
    """Return what twins of each kind hide of what they were made of, and how well it is recovered."""
    rows = Answer(db.duplicates(between="train", dataset=data).to_arrow_table(), {}).rows()
    first = len(data.train) - N_TWINS
    twin_of = dict(zip(of.tolist(), range(first, len(data.train)), strict=True))
    listed = [row for row in rows if twin_of.get(row["target_id"]) == row["train_id"]]
    found = []
    for number, kind in enumerate(KINDS):
        some = [row for row in listed if (row["train_id"] - first) % len(KINDS) == number]
        without, without_own = (of_all[[row["target_id"] for row in some]] for of_all in (known, own))
        seen, pair, low, high = (
            np.array([row[name] for row in some], dtype=np.float64)
            for name in ("memorization", "pair_memorization", "pair_lo", "pair_hi")
        )
        found.append(
            {
                "twin": kind,
                "n": len(some),
                "without any": without.mean(),
                "without its own": without_own.mean(),
                "with": seen.mean(),
                "both out": pair.mean(),
                "median error": np.median(np.abs(pair - without_own)),
                "holds any": ((low <= without) & (without <= high)).mean(),
                "holds own": ((low <= without_own) & (without_own <= high)).mean(),
                "surely hidden": sum(row["hidden_by"] is not None for row in some),
            }
        )
    return found


if __name__ == "__main__":
    main()
