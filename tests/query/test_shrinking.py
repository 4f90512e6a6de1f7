"""How much of a score is luck, judged by a fit that is slow and cannot jump: expectation maximization."""

from __future__ import annotations

import numpy as np
import pytest
from support.oracle import fitted_by_expectation_maximization

from memdb.query import statistics


def loss(abs_z, weights):
    """Minus the logarithm of what the fit maximizes: the likelihood of every |z|, and of ten that are 0 by decree."""
    density = np.exp(-((abs_z[:, None] / np.sqrt(1 + statistics.SPREADS**2)) ** 2) / 2) / np.sqrt(
        1 + statistics.SPREADS**2
    )
    return -np.log(density @ weights).sum() - statistics.PRIOR_NULLS * np.log(weights[0])


@pytest.mark.parametrize("n_far", [1, 3, 50])
@pytest.mark.parametrize("far", [10.025, 29.975, 39.975])
@pytest.mark.parametrize("n_null", [400, 5000])
def test_a_few_strong_pairs_do_not_keep_luck_from_being_shrunk(n_null, far, n_far):
    bins = np.abs(np.random.default_rng(0).normal(size=n_null)) // statistics.BIN
    abs_z = np.concatenate([(bins + 0.5) * statistics.BIN, np.full(n_far, far)])
    weights = statistics.fitted_mixture(statistics.binned(abs_z))
    slow = fitted_by_expectation_maximization(abs_z, statistics.SPREADS, statistics.PRIOR_NULLS, rounds=300)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert loss(abs_z, weights) <= loss(abs_z, slow) + 1e-3
    lucky, strong = statistics.shrinkage(np.array([1.0, far]), weights)
    assert lucky < 0.05
    assert strong > 0.98
