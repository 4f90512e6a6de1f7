"""How many planted near-duplicates `memdb duplicates` finds, and how much memorization twins hide.

.venv/bin/python scripts/figures_duplicates.py [--models 300] [--workers 2] [--folder DIR]
.venv/bin/python scripts/figures_duplicates.py --mnist DIR [--examples 10000] [--folder DIR]

Trains four stores of digits: two of the plain ones; one with twins of 50 random training digits; and one with twins of
the 50 that are most memorized in the first. A twin is moved by a pixel, has noise of a twentieth of the range, or both.
Prints

    found   of the 50 twins, how many are listed beside what they were made of
    other   pairs of training examples that nobody planted, though they may be near-duplicates all the same
    hidden  memorization in the second plain store, which did not choose the 50, beside that with the twin there, and
            with both held out

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
from pathlib import Path
from typing import Any

import numpy as np
import planted
import pyarrow as pa
from numpy.typing import NDArray

import memdb
from memdb.datasets import Dataset, load
from memdb.environment import n_cores
from memdb.render.answer import Answer
from memdb.render.tables import console, plain

N_TWINS = 50
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
                hiding = hidden(db, data, of, known)
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
            pairs = [
                row
                for row in Answer(found, {}).rows()
                if row["test_id"] is not None or row["train_id"] < row["target_id"]
            ]
            n_test = sum(row["test_id"] is not None for row in pairs)
            rows.append({"by": by, "within training": len(pairs) - n_test, "with test": n_test,
                         "CPU seconds": round(seconds, 1)})  # fmt: skip
    console().print(plain(Answer(pa.Table.from_pylist(rows), {})))


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


def hidden(
    db: memdb.Database, data: Dataset, of: NDArray[np.int64], known: NDArray[np.float64]
) -> list[dict[str, object]]:
    """Return what twins of each kind hide of what they were made of, and how well it is recovered."""
    rows = Answer(db.duplicates(between="train", dataset=data).to_arrow_table(), {}).rows()
    first = len(data.train) - N_TWINS
    twin_of = dict(zip(of.tolist(), range(first, len(data.train)), strict=True))
    listed = [row for row in rows if twin_of.get(row["target_id"]) == row["train_id"]]
    found = []
    for number, kind in enumerate(KINDS):
        some = [row for row in listed if (row["train_id"] - first) % len(KINDS) == number]
        without = known[[row["target_id"] for row in some]]
        seen, pair, low, high = (
            np.array([row[name] for row in some], dtype=np.float64)
            for name in ("memorization", "pair_memorization", "pair_lo", "pair_hi")
        )
        found.append(
            {
                "twin": kind,
                "n": len(some),
                "without": without.mean(),
                "with": seen.mean(),
                "both out": pair.mean(),
                "median error": np.median(np.abs(pair - without)),
                "in interval": ((low <= without) & (without <= high)).mean(),
                "surely hidden": sum(row["hidden_by"] is not None for row in some),
            }
        )
    return found


if __name__ == "__main__":
    main()
