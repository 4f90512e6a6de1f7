"""Confidence sequences for the mean of few models' accuracies: intervals that hold however often one looks.

The interval is that of the t statistic with a normal mixture over the effect in units of the unknown standard
deviation (Lai 1976; Wang and Ramdas 2025, "Anytime-valid t-tests and confidence sequences for Gaussian means
with unknown variance"). It is exact for normal values from the first one on, with no variance to be known:
the asymptotic intervals that scores have would be too narrow for a handful of models. A model's accuracy is a
mean over the whole test set, which makes it nearly normal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

PRECISION = 1.0  # of the mixture: intervals are within 4 % of the narrowest from 8 to 100 values
MOST = 1_000_000  # values that are looked ahead to


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of ``n`` values with its interval; NaN where there are too few for one."""

    n: int
    value: float
    lo: float
    hi: float
    deviation: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.lo > 0 or self.hi < 0


def mean_of(values: Sequence[float] | NDArray[np.float64], level: float, step: float = 0.0) -> Mean:
    """Return the mean of independent values and its interval, which holds at all numbers of them at once.

    ``step`` is the least by which two values differ, if they do, such as a test example's share. Few equal
    values are taken for values of which one differs so much: on an easy test set, equal is not certain.
    """
    n = len(values)
    if n == 0:
        return Mean(0, math.nan, math.nan, math.nan, math.nan)
    value, deviation = float(np.mean(values)), float(np.std(values))
    deviation = max(deviation, step * math.sqrt(n - 1) / n)
    width = half_width(n, level) * deviation if n >= fewest(level) else math.nan
    return Mean(n, value, value - width, value + width, deviation)


def accuracy_of(values: Sequence[float] | NDArray[np.float64], level: float, step: float = 0.0) -> Mean:
    """Return the same of accuracies, whose intervals stay from 0 to 1."""
    mean = mean_of(values, level, step)
    return replace(mean, lo=max(0.0, mean.lo), hi=min(1.0, mean.hi)) if not math.isnan(mean.lo) else mean


def half_width(n: int, level: float) -> float:
    """Return the half-width for ``n`` values in (uncorrected) standard deviations; infinite for too few."""
    total = n + PRECISION
    grown = math.exp((math.log(total / PRECISION) / 2 - math.log(1 - level)) * 2 / n)
    room = total - grown * PRECISION
    return math.sqrt((grown - 1) * total / room) if room > 0 else math.inf


def fewest(level: float) -> int:
    """Return how many values an interval takes."""
    return next(n for n in range(2, MOST) if math.isfinite(half_width(n, level)))


def values_to_tell(mean: Mean, level: float) -> int | None:
    """Return how many values exclude 0 if mean and spread stay what they are; None for a million or more."""
    if mean.n < 2 or mean.value == 0:
        return None

    def tells(n: int) -> bool:
        return half_width(n, level) * mean.deviation < abs(mean.value)

    if not tells(MOST):
        return None
    few, many = 1, MOST
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if tells(middle) else (middle, many)
    return many
