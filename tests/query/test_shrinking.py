"""How much of a score is luck, judged by a fit that is slow and cannot jump: expectation maximization."""

from __future__ import annotations

import numpy as np
import pytest
from support.counted import of_counts
from support.oracle import fitted_by_expectation_maximization

from memdb.query import mixture, statistics


def loss(abs_z, weights):
    """Minus the logarithm of what the fit maximizes: the likelihood of every |z|, and of ten that are 0 by decree."""
    density = np.exp(-((abs_z[:, None] / np.sqrt(1 + mixture.SPREADS**2)) ** 2) / 2) / np.sqrt(
        1 + mixture.SPREADS**2
    )
    return -np.log(density @ weights).sum() - mixture.PRIOR_NULLS * np.log(weights[0])


@pytest.mark.parametrize("n_far", [1, 3, 50])
@pytest.mark.parametrize("far", [10.025, 29.975, 39.975])
@pytest.mark.parametrize("n_null", [400, 5000])
def test_a_few_strong_pairs_do_not_keep_luck_from_being_shrunk(n_null, far, n_far):
    bins = np.abs(np.random.default_rng(0).normal(size=n_null)) // mixture.BIN
    abs_z = np.concatenate([(bins + 0.5) * mixture.BIN, np.full(n_far, far)])
    weights = mixture.fitted_mixture(mixture.binned(abs_z))
    slow = fitted_by_expectation_maximization(abs_z, mixture.SPREADS, mixture.PRIOR_NULLS, rounds=300)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert loss(abs_z, weights) <= loss(abs_z, slow) + 1e-3
    lucky, strong = mixture.shrinkage(np.array([1.0, far]), weights)
    assert lucky < 0.05
    assert strong > 0.98


def pairs(n_models, effect, n=4000, n_strong=0):
    """Pairs of many test examples of any accuracy, the first few with an effect."""
    rng = np.random.default_rng(n_models)
    accuracy = np.where(np.arange(n) < n_strong, 0.4, rng.beta(2, 0.5, n))
    n_in = rng.binomial(n_models, 0.7, n)
    lift = np.where(np.arange(n) < n_strong, effect, 0.0)
    hits, misses = rng.binomial(n_in, accuracy + lift), rng.binomial(n_models - n_in, accuracy)
    return of_counts(n_in, n_models - n_in, hits, misses), lift


@pytest.mark.parametrize("n_models", [50, 100, 200, 400, 1000])
def test_what_small_arms_do_by_chance_is_no_effect(n_models):
    """With each arm's own variance up to 3 % of the squared scores was kept."""
    found, _ = pairs(n_models, 0.0)
    assert (statistics.shrunk(found) ** 2).sum() < 1e-3 * (found.score**2).sum()


@pytest.mark.parametrize(("n_models", "effect"), [(100, 0.55), (200, 0.5), (400, 0.4), (1000, 0.3)])
def test_few_strong_effects_among_many_null_ones_are_kept(n_models, effect):
    found, truth = pairs(n_models, effect, n_strong=20)
    left = statistics.shrunk(found)
    assert left[:20].mean() > 0.75 * effect
    assert ((left - truth) ** 2).sum() < 0.3 * (truth**2).sum()


def test_effects_are_believed_as_far_as_they_beat_chance():
    z = np.abs(np.random.default_rng(1).normal(size=(2000, 40)))
    supports = [mixture.Effects.fitted(mixture.binned(row)).support for row in z.T]
    assert np.mean(np.array(supports) > 0.5) < 0.1
    assert all(0 <= support <= 1 for support in supports)
    wide = mixture.Effects.fitted(mixture.binned(z[:, 0] * 2))
    assert wide.support > 0.999
    nothing = mixture.Effects.fitted(mixture.binned(np.zeros(0)))
    assert nothing.factors(np.array([0.0, 3.0])).tolist() == [0, 0]


def test_far_out_the_fit_goes_by_the_exact_p_value():
    """5 wrong answers of 100 models, all of them from the 30 that were held out: less rare than z says."""
    stats = pytest.importorskip("scipy.stats")
    found = of_counts(np.array([70]), np.array([30]), np.array([70]), np.array([25]))
    tail = stats.hypergeom.sf(69, 100, 95, 70)
    assert abs(found.null_z[0]) > statistics.EXACT_FROM
    assert statistics._chance_z(found) == pytest.approx(stats.norm.isf(tail), abs=0.01)
