"""What memorization looks like on scikit-learn's digits, beside one earlier run of 500 models.

Makes a store in a temporary folder through the Python API. The band beside each figure is roughly where
another run of as many models would put it 19 times of 20: the figure, plus or minus 1.96 times sqrt(2) times
its standard deviation over bootstrap resamples of the models, taken from the store's own bits.

    python scripts/figures_digits.py
    python scripts/figures_digits.py --models 50 --resamples 200

Expect a minute or so on two cores, and with 500 models the reference in the bands or close by: its accuracy
is known to 0.001 only, and other versions of the libraries were used. With few models more examples seem
memorized than are, since noise carries some across the thresholds.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time

import numpy as np
from numpy.typing import NDArray

import memdb
from memdb.format import bits

THRESHOLDS = (0.25, 0.5)
REFERENCE = {"test accuracy": 0.984, "memorization >= 0.25": 54.0, "memorization >= 0.5": 32.0}
REFERENCE_TOP = "0.99 to 1.0"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=1000, help="of the models, for the errors")
    parser.add_argument("--top", type=int, default=10, help="how many of the highest scores to show")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        db = memdb.init(f"{folder}/digits.zarr", dataset="digits")
        db.train(add=options.models)
        trained = time.perf_counter()
        figures = db.info().project("test_accuracy, n_memorized_25, n_memorized_50").fetchall()[0]
        top = db.top_memorized(options.top).fetchall()
        deviations = bootstrap(db, options.resamples)
        db.close()

    print(f"digits, {options.models:,} models")
    print("                      reference  this run  another run, 95 %")
    for (name, reference), figure, deviation in zip(REFERENCE.items(), figures, deviations, strict=True):
        reach = 1.96 * math.sqrt(2) * deviation
        print(f"{name:21} {reference:9.4g} {figure:9.4g}   {figure - reach:.4g} to {figure + reach:.4g}")
    print(
        f"top {options.top} scores: {', '.join(f'{row[2]:.3f}' for row in top)} (reference: {REFERENCE_TOP})"
    )
    print(f"their training examples: {', '.join(str(row[0]) for row in top)}")
    seconds = trained - started
    print(f"{seconds:.1f} seconds to make and train, {seconds / options.models:.3f} a model")
    return 0


def bootstrap(db: memdb.Database, n_resamples: int) -> NDArray[np.float64]:
    """Return the standard deviation of each figure over resamples of the store's models."""
    read = db.snapshot
    mask = bits.unpack(read.mask(), read.n_models)  # [model, train]
    correct = bits.unpack(read.outcome_bits("train/correct"), read.n_models)
    test_accuracy = bits.unpack(read.outcome_bits("test/correct"), read.n_models).mean(axis=1)
    random = np.random.default_rng(0)
    figures = []
    for _ in range(n_resamples):
        drawn = random.multinomial(read.n_models, np.full(read.n_models, 1 / read.n_models)).astype(
            np.float64
        )
        n_in, k_in, n_out, k_out = (
            drawn @ models for models in (mask, mask & correct, ~mask, ~mask & correct)
        )
        scored = (n_in > 0) & (n_out > 0)
        memorization = k_in[scored] / n_in[scored] - k_out[scored] / n_out[scored]
        counts = [(memorization >= threshold).sum() for threshold in THRESHOLDS]
        figures.append([drawn @ test_accuracy / read.n_models, *counts])
    deviations: NDArray[np.float64] = np.std(figures, axis=0)
    return deviations


if __name__ == "__main__":
    sys.exit(main())
