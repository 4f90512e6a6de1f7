"""Intervals that hold at all numbers of values at once."""

from __future__ import annotations

import numpy as np
import pytest

from memdb.experiment.sequences import accuracy_of, fewest, half_width, mean_of, values_to_tell


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


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.7, 0.95, 0.99])
def test_it_holds_for_accuracies_of_few_repetitions_that_peek_at_each(accuracy):
    """Of two models that are alike, on a small test set of easy and hard examples, from 5 to 40 repetitions."""
    rng = np.random.default_rng(4)
    easy = rng.beta(2 * accuracy, 2 * (1 - accuracy), 100)
    right = [sum(rng.random((5000, 40)) < p for p in easy) for _ in range(2)]
    values = (right[0] - right[1]) / 100
    for level in (0.9, 0.95, 0.99):
        missed = np.zeros(len(values), dtype=bool)
        for n in range(fewest(level), 41):
            part = values[:, :n]
            missed |= np.abs(part.mean(axis=1)) > half_width(n, level) * part.std(axis=1)
        assert 0 < missed.mean() < 1 - level


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "n_looked_at"), [(0.5, 10), (1.0, 5), (1.0, 10)])
def test_about_as_many_repetitions_tell_as_are_said_to(effect, n_looked_at):
    """In the middle of many experiments that do not separate at first."""
    values = np.random.default_rng(5).normal(effect, 1, (500, 200))
    said, needed = [], []
    for row in values:
        if mean_of(row[:n_looked_at], 0.95).excludes_zero:
            continue
        said.append(values_to_tell(mean_of(row[:n_looked_at], 0.95), 0.95) or 10**6)
        later = range(n_looked_at + 1, 201)
        needed.append(next((n for n in later if mean_of(row[:n], 0.95).excludes_zero), 10**6))
    assert len(said) > 100
    assert np.median(needed) == pytest.approx(np.median(said), rel=0.25)


def test_equal_accuracies_on_few_test_examples_are_not_certain():
    found = accuracy_of([1.0] * 5, 0.95, step=1 / 10)
    assert found.hi == 1
    assert found.lo < 0.9
    assert mean_of([0.1] * 5, 0.95, step=0.1).lo < 0
    values = np.random.default_rng(6).normal(size=9)
    assert mean_of(values, 0.95, step=1 / 10) == mean_of(values, 0.95)


def test_the_number_that_would_tell_does():
    values = np.random.default_rng(3).normal(0.2, 1, 10)
    found = mean_of(values, 0.95)
    n = values_to_tell(found, 0.95)
    assert (
        half_width(n, 0.95) * found.deviation < abs(found.value) <= half_width(n - 1, 0.95) * found.deviation
    )
    assert values_to_tell(mean_of([1.0], 0.95), 0.95) is None
