"""Do the intervals of an experiment hold while one looks after every repetition, and does the number to come tell?

    python scripts/check_sequences.py [--runs 20000] [--looks 5 40] [--seed 0]

misses   Share of simulated experiments without a difference of which the 95 % interval, looked at after each
         repetition, ever excludes 0: for normal differences, and for those of the accuracies of two models on test
         sets of easy and hard examples. Target: at most 5 %. One-sided values show what skew does; an experiment's
         differences are of two models alike, and have none.
to tell  Experiments with a difference, in its standard deviations, that do not separate when first looked at: how
         many repetitions are said to tell, how many do, and how often they do by the number that was said.

Expect half a minute. Exits with 1 unless the target is met.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from memdb.experiment.sequences import half_width, mean_of, values_to_tell

LEVEL = 0.95
TARGET = 0.05
LONGEST = 300  # repetitions that are waited for
EFFECTS = (0.3, 0.5, 1.0, 1.5)
LOOKED_AT = (5, 10, 20)

Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]


def accuracies(n_test: int, accuracy: float) -> Draw:
    """Return differences of the accuracies of two models, of which examples are hard in different degrees."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        easy = rng.beta(accuracy, 1 - accuracy, n_test)
        right = [sum(rng.random(shape) < p for p in easy) for _ in range(2)]
        return np.asarray((right[0] - right[1]) / n_test, dtype=np.float64)

    return draw


KINDS: Mapping[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "1,000 test examples, 95 % right": accuracies(1000, 0.95),
    "360 test examples, 99 % right": accuracies(360, 0.99),
    "100 test examples, 99 % right": accuracies(100, 0.99),
    "one-sided (exponential)": lambda rng, shape: rng.exponential(size=shape) - 1,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--looks", type=int, nargs=2, default=[5, 40], metavar=("FIRST", "LAST"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, (first, last) = np.random.default_rng(given.seed), given.looks
    print(f"share of {given.runs:,} experiments that ever miss, looked at from {first} to {last} repetitions")
    most = 0.0
    for name, draw in KINDS.items():
        missed = float(excludes_zero(draw(rng, (given.runs, last)))[:, first - 1 :].any(axis=1).mean())
        most = most if name.startswith("one-sided") else max(most, missed)
        print(f"  {name:32} {missed:.4f}", flush=True)
    print("\ndifference  looked at  do not separate  said in all  do in all  by the number said")
    for effect in EFFECTS:
        for n in LOOKED_AT:
            print(to_tell(rng, effect, n, max(1, given.runs // 10)), flush=True)
    return int(most > TARGET)


def excludes_zero(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether the interval of the first n values of each row excludes 0, at n in columns."""
    n = np.arange(1, values.shape[1] + 1)
    mean = np.cumsum(values, axis=1) / n
    deviation = np.sqrt(np.maximum(0, np.cumsum(values**2, axis=1) / n - mean**2))
    width = np.array([half_width(k, LEVEL) for k in n.tolist()])
    excluded = np.isfinite(width) & (np.abs(mean) > np.where(np.isfinite(width), width, 0) * deviation)
    return np.asarray(excluded, dtype=np.bool_)


def to_tell(rng: np.random.Generator, effect: float, n: int, runs: int) -> str:
    """Return a line of the second table."""
    values = rng.normal(effect, 1, (runs, LONGEST))
    tells = excludes_zero(values)
    pending = np.flatnonzero(~tells[:, n - 1])
    said = [values_to_tell(mean_of(values[row, :n], LEVEL), LEVEL) for row in pending]
    expected = np.array([LONGEST + 1 if number is None else number for number in said])
    later = tells[pending, n:]
    needed = np.where(later.any(axis=1), later.argmax(axis=1) + n + 1, LONGEST + 1)
    if not len(pending):
        return f"{effect:10.1f}  {n:9}  {0:15.0%}"
    return (
        f"{effect:10.1f}  {n:9}  {len(pending) / runs:15.0%}  {np.median(expected):11.0f}  {np.median(needed):9.0f}"
        f"  {(needed <= np.minimum(expected, LONGEST)).mean():18.0%}"
    )


if __name__ == "__main__":
    sys.exit(main())
