"""Samples of pairs that stand for all of them, where few pairs of very many have any influence."""

from __future__ import annotations

import numpy as np
import pytest

from memdb.format import bits
from memdb.query.informed.calibration import calibrated
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.posterior import noise, posterior
from memdb.query.informed.prior import GivenPrior, dealt
from memdb.query.informed.sampling import Budget, drawn, sampled

N_MODELS, N_TRAIN, N_TEST, N_STRONG = 300, 1000, 500, 60
SMALL = Budget(pairs=1 << 13, strong=1 << 9)
ALL = Budget(pairs=N_TRAIN * N_TEST)


@pytest.fixture(scope="module")
def sparse():
    """Models, of which 60 pairs of half a million have an influence, and a prior that hides them in noise."""
    rng = np.random.default_rng(0)
    effects = np.zeros((N_TRAIN, N_TEST), dtype=np.float32)
    effects.flat[rng.choice(effects.size, N_STRONG, replace=False)] = rng.uniform(0.1, 0.6, N_STRONG)
    masks = rng.random((N_MODELS, N_TRAIN)) < 0.7
    right = rng.random((N_MODELS, N_TEST)) < np.clip(0.5 + (masks - 0.7) @ effects, 0.02, 0.98)
    outcomes = Outcomes(*(bits.words(bits.pack(values)) for values in (masks, right)), dealt(N_MODELS, []))
    prior = 6 * (effects > 0) + rng.normal(size=effects.shape).astype(np.float32)
    return masks, right, effects, outcomes, prior


def informed(sparse, budget, most_looked_at=1 << 40):
    """Predictions from a sample, [train, test], beside the raw influences; None where the answer is raw."""
    masks, right, _, outcomes, prior = sparse
    found, _ = calibrated(sampled(outcomes, GivenPrior(prior, most_looked_at=most_looked_at), budget))
    if found is None:
        return None
    n_in = masks.sum(axis=0)[:, None]
    k_in = masks.T.astype(np.float32) @ right
    raw = k_in / n_in - (right.sum(axis=0) - k_in) / (N_MODELS - n_in)
    accuracy = (right.sum(axis=0) + 0.5) / (N_MODELS + 1)
    f = found.curve(prior)
    return raw, posterior(raw, f, found.spread(f), noise(accuracy, n_in, N_MODELS - n_in))


def error(found, truth):
    return float(((found - truth) ** 2).mean())


@pytest.mark.parametrize("most_looked_at", [1 << 40, 1 << 18])
def test_sparse_strong_influences_are_found_by_a_sample_as_by_all_pairs(sparse, most_looked_at):
    truth = sparse[2]
    raw, of_all = informed(sparse, ALL)
    _, of_some = informed(sparse, SMALL, most_looked_at)
    for found in (of_all, of_some):
        assert error(found.informed, truth) < 0.005 * error(raw, truth)
    strong = truth > 0  # most of them: those that the prior hides are taken for none by either
    assert error(of_some.informed[strong], truth[strong]) < 2 * error(of_all.informed[strong], truth[strong])
    first = np.argsort(-of_some.informed, axis=None)[:N_STRONG]
    assert (truth.flat[first] > 0).mean() > 0.8
    assert (np.abs(of_some.informed - truth) <= 1.96 * of_some.deviation).flat[first].mean() >= 0.8


def test_every_pair_is_counted_once(sparse):
    """Sums over the sample are those over all pairs, of weak and of strong ones."""
    _, _, effects, outcomes, prior = sparse
    found = sampled(outcomes, GivenPrior(prior, most_looked_at=1 << 18), SMALL)
    assert found.stands_for.sum() == pytest.approx(effects.size, rel=0.05)
    everyone = sampled(outcomes, GivenPrior(prior), ALL)
    for beyond in (2.0, 3.5):
        strong, of_all = found.prior > beyond, everyone.prior > beyond
        assert found.stands_for[strong].sum() == pytest.approx(of_all.sum(), rel=0.25)
    assert (found.prior > 5).sum() > 10 * SMALL.pairs / effects.size * (everyone.prior > 5).sum()


def test_raw_influences_of_single_pairs_are_those_of_a_grid(sparse):
    outcomes = sparse[3]
    trains, tests = np.array([3, 50, 999]), np.array([0, 499])
    for found, expected in zip(
        outcomes.of_pairs(2, np.tile(trains, 2), np.repeat(tests, 3)),
        outcomes.of_fold(2, trains, tests),
        strict=True,
    ):
        assert found == pytest.approx(expected.ravel(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_prior_of_noise_explains_nothing_in_a_sample_either(sparse, seed):
    rng = np.random.default_rng(seed)
    for prior in (rng.normal(size=(N_TRAIN, N_TEST)), rng.standard_cauchy((N_TRAIN, N_TEST)), -sparse[4]):
        found, surplus = calibrated(sampled(sparse[3], GivenPrior(prior.astype(np.float32)), SMALL))
        assert found is None
        assert surplus <= 1


def test_sampled_examples_stand_for_all_of_them():
    favour = np.random.default_rng(0).random(3000) ** 4
    rows, weights = drawn(3000, 500, favour)
    assert len(rows) == len(set(rows.tolist()))
    assert abs(len(rows) - 500) <= 1
    assert weights.sum() == pytest.approx(3000, rel=0.1)
    assert (favour[rows] * weights).sum() == pytest.approx(favour.sum(), rel=0.1)
    assert weights.max() <= 2 * 3000 / 500 + 1e-9
    assert favour[rows].mean() > 1.5 * favour.mean()
    assert np.array_equal(drawn(3000, 500, favour)[0], rows)
