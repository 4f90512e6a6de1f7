"""Tests of what a prior ranks first: exact, and valid whatever the prior is worth."""

from __future__ import annotations

import numpy as np
import pytest
from support import sketched

from memdb.format import bits
from memdb.query.informed import screening
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.prior import GivenPrior
from memdb.query.informed.screening import parted, strongest
from memdb.query.statistics import q_values

N_MODELS, K = 60, 40
TRAINS, TESTS = np.arange(sketched.N_TRAIN), np.arange(sketched.N_TEST)
STORES = 120  # without any influence: every finding is false


def outcomes_of(effects, seed, fold_of):
    masks, found = sketched.outcomes_of(effects, len(fold_of), seed)
    right = found["test/correct"]
    return masks, right, Outcomes(bits.words(bits.pack(masks)), bits.words(bits.pack(right)), fold_of)


def raw(masks, right):
    n_in = masks.sum(axis=0)[:, None]
    k_in = masks.T.astype(float) @ right
    return k_in / n_in - (right.sum(axis=0) - k_in) / np.maximum(len(masks) - n_in, 1)


@pytest.mark.parametrize("n_models", [20, 60, 1000])
@pytest.mark.parametrize("n_sketched", [1, 10, 15])
def test_the_prior_has_the_sketched_models_and_a_few_more(n_models, n_sketched):
    sketched_models = np.random.default_rng(1).permutation(n_models)[:n_sketched]
    fold_of = parted(n_models, sketched_models)
    assert (fold_of[sketched_models] == 0).all()
    assert (fold_of == 0).sum() == max(10, n_sketched, round(0.05 * n_models))
    assert set(fold_of) == {0, 1}


@pytest.mark.parametrize("direction", ["helps", "hurts", "both"])
def test_the_strongest_pairs_are_those_of_a_sort(direction, monkeypatch):
    monkeypatch.setattr(screening, "ROWS", 7)
    monkeypatch.setattr(screening, "COLUMNS", 31)
    given = (
        np.random.default_rng(0).integers(-9, 9, (len(TRAINS), len(TESTS))).astype(np.float32)
    )  # with ties
    some = TRAINS[::2]
    train, test, strength = strongest(GivenPrior(given), 50, some, TESTS, direction)
    key = {"helps": given, "hurts": -given, "both": np.abs(given)}[direction]
    expected = sorted((-key[i, z], i, z) for i in some for z in TESTS)[:50]
    assert [(-s, i, z) for s, i, z in zip(strength, train, test, strict=True)] == expected


@pytest.mark.parametrize("direction", ["helps", "hurts", "both"])
def test_p_values_are_those_of_fisher_in_the_models_that_test(direction):
    fisher = pytest.importorskip("scipy.stats").hypergeom
    fold_of = parted(N_MODELS, np.arange(12))
    masks, right, outcomes = outcomes_of(sketched.planted(), 0, fold_of)
    train, test = np.repeat(TRAINS[:20], 10), np.tile(TESTS[-10:], 20)
    found = screening.tested(outcomes, train, test, direction)
    testing = fold_of == 1
    for at, (i, z) in enumerate(zip(train, test, strict=True)):
        m, y = masks[testing, i], right[testing, z]
        n, total, n_in, k_in = len(m), int(y.sum()), int(m.sum()), int((m & y).sum())
        above, below = fisher.sf(k_in - 1, n, total, n_in), fisher.cdf(k_in, n, total, n_in)
        expected = {"helps": above, "hurts": below, "both": min(1, 2 * min(above, below))}[direction]
        assert found.p[at] == pytest.approx(expected, rel=1e-9)
        assert (found.n_in[at], found.k_in[at], found.n_correct[at]) == (n_in, k_in, total)


def findings(prior, outcomes):
    train, test, _ = strongest(GivenPrior(prior), K, TRAINS, TESTS, "helps")
    return int((q_values(screening.tested(outcomes, train, test, "helps").p) <= 0.1).sum())


@pytest.mark.parametrize("kind", ["noise", "adversarial"])
def test_no_prior_makes_more_false_discoveries_than_allowed(kind):
    """Where nothing has an influence, at most a tenth of the stores have any finding.

    The adversary ranks by the raw influences of all models that it may see. If they were tested with as well, as
    the last lines do, there would be findings in almost every store: the test can fail.
    """
    none, fold_of = np.zeros((sketched.N_TRAIN, sketched.N_TEST)), parted(N_MODELS, np.arange(15))
    some = dipped = 0
    for seed in range(STORES):
        masks, right, outcomes = outcomes_of(none, seed, fold_of)
        seen = fold_of == 0
        noise = np.random.default_rng(seed).normal(size=none.shape)
        some += findings(noise if kind == "noise" else raw(masks[seen], right[seen]), outcomes) > 0
        every = Outcomes(outcomes.mask, outcomes.correct, np.ones(N_MODELS, dtype=np.int8))
        dipped += findings(raw(masks, right), every) > 0
    assert some <= 0.1 * STORES + 2 * (0.09 * STORES) ** 0.5
    assert dipped > 0.5 * STORES


def test_a_good_prior_finds_what_tests_of_all_pairs_do_not():
    effects = sketched.planted(effect=0.3)
    truth = effects + 0.02 * np.random.default_rng(0).normal(size=effects.shape)
    fold_of = parted(N_MODELS, np.arange(10))
    _, _, outcomes = outcomes_of(effects, 3, fold_of)
    every = Outcomes(outcomes.mask, outcomes.correct, np.ones(N_MODELS, dtype=np.int8))
    pairs = np.repeat(TRAINS, len(TESTS)), np.tile(TESTS, len(TRAINS))
    of_all = int((q_values(screening.tested(every, *pairs, "helps").p) <= 0.1).sum())
    assert findings(truth, outcomes) >= of_all + 5
