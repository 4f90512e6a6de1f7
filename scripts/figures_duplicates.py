"""Measure how many planted near-duplicates `memdb duplicates` finds, and how much memorization twins hide.

    .venv/bin/python scripts/figures_duplicates.py [FOLDER] [--models N]

Digits, in three stores of N models (300) each, which are kept in FOLDER and go on there:

    plain      the 1,437 training digits
    random     and twins of 50 random ones: shifted by a pixel, with noise, or both
    memorized  and twins of the 50 that are most memorized in the plain store

Found: of the 50 twins of each store, how many are listed beside what they were made of, and how many other pairs
are. Hidden: memorization in the plain store, beside memorization with the twin there, and beside the score of the
pair held out together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import memdb
from memdb.datasets import load

N_TWINS = 50
NOISE = 0.05  # standard deviation, as a share of the range from black to white
SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def shifted(picture, rows, columns):
    """Return a picture moved by some pixels, black where nothing was."""
    found = np.zeros_like(picture)
    height, width = picture.shape
    found[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = picture[
        max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)
    ]
    return found


def twin_of(picture, kind, rng):
    """Return a near-duplicate of a picture: shifted (0), with noise (1), or both (2)."""
    if kind != 1:
        picture = shifted(picture, *SHIFTS[rng.integers(len(SHIFTS))])
    if kind != 0:
        picture = np.clip(picture + rng.normal(0, NOISE, picture.shape).astype(picture.dtype), 0, 1)
    return picture


def planted(digits, sources):
    """Return the digits with a twin of each source at the end of the training set."""
    rng = np.random.default_rng(0)
    train, test = digits.train, digits.test
    pictures = train.array.reshape(len(train), 8, 8)
    twins = [twin_of(pictures[row], number % 3, rng)[None] for number, row in enumerate(sources)]
    x = np.concatenate([pictures, *twins])
    labels = np.concatenate([train.labels, train.labels[sources]])
    return memdb.Dataset(x, labels, test.array.reshape(len(test), 8, 8), test.labels)


def store_of(folder, name, data, n_models):
    """Open a store of this data with at least so many models, which it trains where they are missing."""
    place = folder / f"{name}.zarr"
    db = (
        memdb.open(str(place))
        if place.exists()
        else memdb.init(str(place), dataset=data, recipe="mlp", seed=1)
    )
    began = time.process_time()
    if db.n_models < n_models:
        db.train(add=n_models - db.n_models, dataset=data)
    print(f"{name}: {db.n_models} models, {time.process_time() - began:.0f} CPU seconds")
    return db


def memorization_of(db):
    return np.array(
        [
            np.nan if score is None else score
            for score in db.memorization().to_arrow_table()["memorization"].to_pylist()
        ]
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("figures_duplicates"))
    parser.add_argument("--models", type=int, default=300)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    digits = load("digits")
    plain = store_of(given.folder, "plain", planted(digits, np.zeros(0, dtype=int)), given.models)
    memorization = memorization_of(plain)
    sources = {
        "random": np.random.default_rng(1).choice(len(digits.train), N_TWINS, replace=False),
        "memorized": np.argsort(-np.nan_to_num(memorization))[:N_TWINS],
    }
    for name, rows in sources.items():
        data = planted(digits, rows)
        db = store_of(given.folder, name, data, given.models)


if __name__ == "__main__":
    main()
