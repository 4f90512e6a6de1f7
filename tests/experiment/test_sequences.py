"""Intervals that hold at all numbers of values at once."""

from __future__ import annotations

import numpy as np
import pytest

from memdb.experiment.sequences import fewest, half_width, mean_of, values_to_tell


def test_an_interval_takes_five_values_and_narrows():
    assert fewest(0.95) == 5
    widths = [half_width(n, 0.95) for n in (5, 10, 20, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert half_width(4, 0.95) == np.inf


def test_it_is_where_the_mixture_likelihood_ratio_reaches_its_bound():
    """At both ends, the ratio of the mixture to the null is 1 / alpha: the definition, not its solution."""
    values = np.random.default_rng(1).normal(3, 2, 12)
    found = mean_of(values, 0.9)
    for end in (found.lo, found.hi):
        x, n = values - end, len(values)
        ratio = (1 / (n + 1)) ** 0.5 * ((n + 1) * (x @ x) / ((n + 1) * (x @ x) - x.sum() ** 2)) ** (n / 2)
        assert ratio == pytest.approx(10)


def test_it_misses_in_at_most_a_twentieth_of_all_runs_that_peek():
    values = np.random.default_rng(2).normal(size=(2000, 60))
    missed = np.zeros(2000, dtype=bool)
    for n in range(5, 61):
        part = values[:, :n]
        missed |= np.abs(part.mean(axis=1)) > half_width(n, 0.95) * part.std(axis=1)
    assert missed.mean() < 0.05


def test_the_number_that_would_tell_does():
    values = np.random.default_rng(3).normal(0.2, 1, 10)
    found = mean_of(values, 0.95)
    n = values_to_tell(found, 0.95)
    assert (
        half_width(n, 0.95) * found.deviation < abs(found.value) <= half_width(n - 1, 0.95) * found.deviation
    )
    assert values_to_tell(mean_of([1.0], 0.95), 0.95) is None
