"""Priors, their calibration and posteriors, against loops, simulations and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from support import sketched
from support.oracle import counts, score

from memdb.format import bits
from memdb.query.informed.calibration import (
    Fold,
    Sample,
    Spread,
    calibrated,
    isotonic,
    least_squares,
)
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.levelled import Levelled
from memdb.query.informed.posterior import noise, posterior
from memdb.query.informed.prior import (
    EVERY,
    FOLDS,
    Errors,
    GivenPrior,
    Kernel,
    SketchPrior,
    dealt,
    scores,
    second_moment,
    times,
    whitening,
)
from memdb.query.informed.sampling import sampled

N_MODELS = 200
ALL = slice(None)


@pytest.fixture(scope="module")
def effects():
    return sketched.planted()


@pytest.fixture(scope="module")
def made(effects):
    """Masks, outcomes, folds, and what is packed of them."""
    masks, outcomes = sketched.outcomes_of(effects, N_MODELS)
    fold_of = dealt(N_MODELS, np.arange(5))
    right = outcomes["test/correct"]
    return masks, right, Outcomes(bits.words(bits.pack(masks)), bits.words(bits.pack(right)), fold_of)


def truth_of(effects):
    return effects - (effects.sum(axis=0) - effects) / (len(effects) - 1)


@pytest.mark.parametrize("n_models", [20, 21, 103])
@pytest.mark.parametrize("n_sketched", [0, 1, 7, 20])
def test_folds_are_even_and_share_the_sketched_models(n_models, n_sketched):
    chosen = np.random.default_rng(0).permutation(n_models)[:n_sketched]
    fold_of = dealt(n_models, chosen)
    for sizes in (np.bincount(fold_of, minlength=FOLDS), np.bincount(fold_of[chosen], minlength=FOLDS)):
        assert sizes.max() - sizes.min() <= 1 or sizes.max() <= -(-n_models // FOLDS)
    assert np.bincount(fold_of, minlength=FOLDS).max() <= -(-n_models // FOLDS)


def test_whitened_products_are_those_of_the_inverse_second_moment():
    rng = np.random.default_rng(0)
    g = (rng.normal(size=(50, 8)) * np.arange(1, 9)).astype(np.float16)
    inside = rng.random(50) < 0.7
    chosen = g[inside].astype(np.float64)
    moment = chosen.T @ chosen / len(chosen)
    moment += 0.05 * np.trace(moment) / 8 * np.eye(8)
    expected = g.astype(np.float64) @ np.linalg.inv(moment) @ g.astype(np.float64).T
    root = whitening(second_moment(g, inside))
    kernel = Kernel.of(g[None], [times(root)])
    found = (kernel.numbers.astype(np.float64) * kernel.scale[:, None]) @ (
        kernel.numbers.astype(np.float64) * kernel.scale[:, None]
    ).T
    assert np.allclose((g @ root) @ (g @ root).T, expected, atol=1e-3)
    assert np.abs(found - expected).max() < 0.03 * expected.max()  # of rounding to whole numbers


def test_rounding_loses_little_of_sketches_whose_variance_is_in_few_directions():
    """As those of networks: nine directions of a thousand times the variance, and a long tail."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(256, 256)))[0]
    variance = np.concatenate([np.full(9, 1000.0), 50 / np.arange(1, 248)])
    g = (rng.normal(size=(600, 256)) * np.sqrt(variance)) @ turn
    moment = second_moment(g, np.ones(600, dtype=np.bool_))
    root, levelled = whitening(moment), Levelled.of(moment)
    inverse = root @ root.T
    exact = g @ inverse @ g.T

    def lost(left, right):
        train, test = Kernel.of([g], [left]), Kernel.of([g], [times(right)])
        counts = train.numbers.astype(np.float64) @ test.numbers.T.astype(np.float64)
        return (counts * train.scale[:, None] * test.scale - exact).std() / exact.std()

    assert lost(levelled, levelled.inverse(inverse)) < 0.01
    assert lost(np.array, inverse) > 0.02


def test_the_prior_is_the_formula_of_its_module(effects, made):
    """A loop over pairs and models, with whole-number sketches that are already white."""
    masks, _, outcomes = made
    rng = np.random.default_rng(1)
    width, of_fold = 4, [1, 1, 0, 0, 1]
    q = {name: rng.integers(-5, 6, (n, 3 * width)).astype(np.int8) for name, n in (("train", 9), ("test", 7))}
    kernels = {
        name: Kernel(values, np.linspace(0.5, 2, len(values), dtype=np.float32)) for name, values in q.items()
    }
    p, logits = rng.random((N_MODELS, 9)), rng.normal(1, 2, (N_MODELS, 7))
    out, fold = ~masks[:, :9], outcomes.fold_of
    errors = Errors(
        tuple(
            np.stack([(v * out)[fold == f].sum(axis=0) for f in range(FOLDS)]) for v in (p, np.ones_like(p))
        ),
        tuple(np.stack([(logits**e)[fold == f].sum(axis=0) for f in range(FOLDS)]) for e in (1, 2)),
        np.bincount(fold, minlength=FOLDS),
    )
    prior = SketchPrior(kernels["train"], kernels["test"], of_fold, width, errors)
    parts = {0: slice(0, 4), 1: slice(4, 8), 4: slice(8, 12)}
    assert np.allclose(prior.of_test(2), scores(prior, ALL, np.array([2]))[:, 0], rtol=1e-5)
    for folds in (EVERY, {0, 2, 4}, {1}):
        found = scores(prior, ALL, np.array([6, 2]), folds)
        within = np.isin(fold, sorted(folds))
        for i in range(9):
            for at, z in enumerate((6, 2)):
                w = kernels["train"].scale[i] * kernels["test"].scale[z]
                models = [f for f in parts if f in folds]
                dots = [
                    q["train"][i, parts[f]].astype(int) @ q["test"][z, parts[f]].astype(int) for f in models
                ]
                held = [p[m, i] for m in range(N_MODELS) if within[m] and not masks[m, i]]
                mu, sigma = logits[within, z].mean(), max(logits[within, z].std(), 0.1**0.5)
                sway = np.exp(-((mu / sigma) ** 2) / 2) / np.sqrt(2 * np.pi) / sigma
                expected = w * np.mean(dots) * (1 - (sum(held) + 0.5) / (len(held) + 1)) * sway
                assert found[i, at] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_raw_influences_of_a_fold_are_those_of_a_loop(made):
    masks, right, outcomes = made
    trains, tests = np.array([3, 50]), np.array([0, 7, 29])
    raw, weight = outcomes.of_fold(2, trains, tests)
    chosen = np.flatnonzero(outcomes.fold_of == 2)
    for a, i in enumerate(trains):
        for b, z in enumerate(tests):
            n_in, n_out, k_in, k_out = counts(masks[chosen].tolist(), right[chosen].tolist(), i, z)
            assert raw[b, a] == pytest.approx(score(n_in, n_out, k_in, k_out), abs=1e-6)
            assert weight[b, a] == pytest.approx(n_in * n_out / (n_in + n_out))


def informed(made, prior):
    masks, right, outcomes = made
    found, _ = calibrated(sampled(outcomes, prior))
    f = found.curve(scores(prior, ALL, ALL))
    n_in = masks.sum(axis=0)[:, None]
    k_in = masks.T.astype(float) @ right
    raw = k_in / n_in - (right.sum(axis=0) - k_in) / (len(masks) - n_in)
    a = (right.sum(axis=0) + 0.5) / (len(masks) + 1)
    return raw, found, posterior(raw, f, found.spread(f), noise(a, n_in, len(masks) - n_in))


def test_predictions_are_nearer_the_truth_and_cover_it(effects, made):
    truth = truth_of(effects)
    truth[:, -1] = 0  # all models get it right
    prior = GivenPrior(truth + 0.05 * np.random.default_rng(5).normal(size=truth.shape))
    raw, found, after = informed(made, prior)
    assert ((after.informed - truth) ** 2).mean() < 0.25 * ((raw - truth) ** 2).mean()
    assert (np.abs(after.informed - truth) <= 1.96 * after.deviation).mean() >= 0.93
    assert 0.1 < found.gain < 1


def test_scale_and_shape_of_a_prior_do_not_matter_only_its_order_does(effects, made):
    truth = truth_of(effects)
    noisy = truth + 0.05 * np.random.default_rng(5).normal(size=truth.shape)
    plain = informed(made, GivenPrior(noisy))[2].informed
    assert np.allclose(informed(made, GivenPrior(1000 * noisy))[2].informed, plain, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_a_prior_of_noise_or_worse_explains_nothing(effects, made, seed):
    truth = truth_of(effects)
    rng = np.random.default_rng(seed)
    for prior in (rng.normal(size=truth.shape), -truth, np.zeros_like(truth)):
        found, surplus = calibrated(sampled(made[2], GivenPrior(prior)))
        assert surplus <= 1
        assert found is None


def test_a_spread_is_at_least_what_there_is(effects, made):
    """The truth about a prior of 0 effects has the variance of the effects; the fit errs on the wide side."""
    truth = truth_of(effects)
    prior = GivenPrior(truth + truth.std() * np.random.default_rng(2).normal(size=truth.shape))
    _, found, _ = informed(made, prior)
    f = found.curve(scores(prior, ALL, ALL))
    assert found.spread(f).mean() >= 0.8 * ((truth - f) ** 2).mean()


def test_many_sure_predictions_do_not_hide_that_large_ones_are_off():
    """Test examples that all models get right have predictions near 0, and hardly any noise."""
    rng = np.random.default_rng(0)
    size = 90_000
    f = (10 ** rng.uniform(-6, -0.7, size)).astype(np.float32)
    spread = np.where(f > 0.003, 0.016 * f + 0.17 * f**2, 0)
    truth, noise_of = f + np.sqrt(spread) * rng.normal(size=size), np.minimum(0.05, 20 * f)
    raws = [(truth + noise_of * rng.normal(size=size)).astype(np.float32) for _ in range(FOLDS)]
    ones = np.ones(size, np.float32)
    sample = Sample([Fold(f, raw, 20 * ones) for raw in raws], f, 0.2 * ones, ones)
    at = np.array([0.005, 0.01, 0.02, 0.05], np.float32)
    ratio = calibrated(sample)[0].spread(at) / (0.016 * at + 0.17 * at**2)
    assert ((ratio > 0.75) & (ratio < 1.5)).all()


def test_isotonic_means_are_the_largest_least_means():
    """Of a value and those before it, the largest of the least means that start there and go on beyond it."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        values, weights = rng.normal(size=12) + np.linspace(0, 2, 12), rng.random(12) + 0.01
        expected = [
            max(
                min(np.average(values[a : b + 1], weights=weights[a : b + 1]) for b in range(i, 12))
                for a in range(i + 1)
            )
            for i in range(12)
        ]
        assert np.allclose(isotonic(values, weights), expected)


def test_coefficients_are_those_of_scipy():
    nnls = pytest.importorskip("scipy.optimize").nnls
    rng = np.random.default_rng(0)
    for _ in range(50):
        terms, values = rng.normal(size=(12, 3)), rng.normal(size=12)
        assert np.allclose(least_squares(terms, values), nnls(terms, values)[0], atol=1e-8)


def test_a_posterior_lies_between_prediction_and_raw_influence():
    spread = Spread(0.01, 0.0, 0.0)(np.zeros(3, np.float32)).astype(np.float64)
    found = posterior(np.array([0.4, 0.4, 0.4]), np.zeros(3), spread, np.array([0.01, 1e-12, 1e12]))
    assert found.informed == pytest.approx([0.2, 0.4, 0.0], abs=1e-6)
    assert found.deviation == pytest.approx([0.005**0.5, 0.0, 0.1], abs=1e-5)
