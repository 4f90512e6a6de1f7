"""Ranked lists: what they say of each row and of all that was ranked, against SciPy, statsmodels and loops."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from support import oracle
from support.cases import every
from support.counted import of_counts
from support.stores import bits_of, dicts, small_database
from support.storing import batch

from memdb.errors import InvalidInputError
from memdb.query import mixture, statistics
from memdb.query.statistics import Candidates

RNG = np.random.default_rng(5)


def candidates(n_models=100, n=400, accuracy=0.5, effect=0.0, seed=1):
    """Pairs of one target: the first tenth has an effect."""
    rng = np.random.default_rng(seed)
    n_in = rng.binomial(n_models, 0.7, n)
    lift = np.where(np.arange(n) < n / 10, effect, 0.0)
    hits = rng.binomial(n_in, np.clip(accuracy + lift, 0, 1))
    misses = rng.binomial(n_models - n_in, accuracy)
    return of_counts(n_in, n_models - n_in, hits, misses)


@pytest.mark.parametrize("n_models", [5, 40, 1000, 4000])
def test_hypergeometric_tails_are_scipys(n_models):
    stats = pytest.importorskip("scipy.stats")
    total, arm = RNG.integers(0, n_models + 1, (2, 300))
    right = RNG.integers(-1, np.minimum(total, arm) + 2)
    found = statistics.hypergeometric_tail(right, total, arm, n_models)
    expected = stats.hypergeom.sf(right - 1, n_models, total, arm)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-14)


def test_far_tails_keep_their_digits():
    stats = pytest.importorskip("scipy.stats")
    right, total, arm = np.array([700]), np.array([700]), np.array([700])
    found = statistics.hypergeometric_tail(right, total, arm, 1000)
    assert found[0] == pytest.approx(stats.hypergeom.pmf(700, 1000, 700, 700), rel=1e-9)
    assert 0 < found[0] < 1e-250


def test_the_normal_tail_is_scipys_within_what_it_says():
    stats = pytest.importorskip("scipy.stats")
    z = np.linspace(0, 35, 300)
    assert statistics.normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=0.01)
    z = np.linspace(1, 10, 300)
    assert statistics.normal_tail(z) == pytest.approx(stats.norm.sf(z), rel=0.003)


def test_p_values_are_those_of_the_randomization_test_where_they_are_small():
    stats = pytest.importorskip("scipy.stats")
    found = candidates(300, 2000, 0.9, -0.35)
    p = statistics.p_values(found)
    exact = [
        min(1.0, 2 * min(stats.hypergeom.sf(x - 1, 300, k, n), stats.hypergeom.cdf(x, 300, k, n)))
        for x, k, n in zip(found.hits, found.total, found.n_in, strict=True)
    ]
    surprising = np.abs(found.null_z) > statistics.EXACT_FROM
    assert 50 < surprising.sum() < 500
    assert p[surprising] == pytest.approx(np.array(exact)[surprising], rel=1e-8)
    assert np.abs(p - exact).max() < 0.25  # elsewhere a normal approximation, without its correction


def test_q_values_are_those_of_benjamini_and_hochberg():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = RNG.random(500) ** 3
    assert statistics.q_values(p) == pytest.approx(multitest.multipletests(p, method="fdr_bh")[1])
    assert statistics.q_values(np.zeros(0)).shape == (0,)


def test_candidates_that_stand_for_many_rank_as_many_do():
    few = candidates(n=300, effect=0.3)
    times = RNG.integers(1, 9, 300)
    many = Candidates(
        **{
            field.name: np.repeat(value, times) if isinstance(value, np.ndarray) else value
            for field in dataclasses.fields(few)
            for value in [getattr(few, field.name)]
        }
    )
    few = dataclasses.replace(few, times=times)
    assert (np.repeat(statistics.shrunk(few), times) == statistics.shrunk(many)).all()
    assert (
        np.repeat(statistics.q_values(statistics.p_values(few), times), times)
        == statistics.q_values(statistics.p_values(many))
    ).all()


def test_anytime_q_values_are_those_of_e_values():
    z, t = RNG.normal(size=300) * 3, 700
    alpha = 5 * 0.1 / 300
    tau = t / 400 * (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha) - alpha**2) - alpha**2)
    e = np.exp(z**2 * tau / (2 * (1 + tau))) / math.sqrt(1 + tau)
    found = statistics.anytime_q_values(z, t)
    order = np.argsort(-e)
    for q in (0.05, 0.1, 0.3):
        passing = [k for k in range(1, 301) if e[order[k - 1]] >= 300 / (q * k)]
        assert set(np.flatnonzero(found <= q)) == set(order[: max(passing, default=0)])


def test_the_mixture_is_the_most_likely_one():
    z = np.abs(np.where(RNG.random(20_000) < 0.1, RNG.normal(size=20_000) * 3, RNG.normal(size=20_000)))
    weights = mixture.fitted_mixture(mixture.binned(z))
    density = mixture._densities()
    counts = np.bincount((z / mixture.BIN).astype(int), minlength=len(density))

    def likelihood(w):
        return counts @ np.log(density @ w) + mixture.PRIOR_NULLS * np.log(w[0])

    best = likelihood(weights)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert 0.85 < weights[0] < 0.93
    for _ in range(300):  # no other is more likely
        other = weights + RNG.dirichlet(np.ones(len(weights))) * 0.01
        assert likelihood(other / other.sum()) <= best + 1e-6 * abs(best)
    slow = np.full(len(weights), 1 / len(weights))
    for _ in range(5000):
        slow *= density.T @ (counts / (density @ slow))
        slow[0] += mixture.PRIOR_NULLS
        slow /= slow.sum()
    assert likelihood(slow) <= best + 1e-9 * abs(best)
    at = np.arange(0.0, 8, 0.5)
    assert mixture.shrinkage(at, weights) == pytest.approx(mixture.shrinkage(at, slow), abs=0.01)


@pytest.mark.parametrize("n", [0, 1, 5e3, 5e6, 5e8])
@pytest.mark.parametrize(("spread", "share"), [(1, 1), (1.3, 1), (3, 0.01), (9, 0.001)])
def test_no_other_mixture_is_more_likely_however_many_scores_and_however_far(n, spread, share):
    """At the top of the likelihood no weight's gradient is above the multiplier (Karush, Kuhn, Tucker)."""
    z = mixture._centers()
    bells = share * np.exp(-((z / spread) ** 2) / 2) / spread + (1 - share) * np.exp(-(z**2) / 2)
    histogram = np.floor(n * bells * mixture.BIN * 0.8)
    weights = mixture.fitted_mixture(histogram)
    density = mixture._densities()[histogram > 0]
    gradient = density.T @ (histogram[histogram > 0] / (density @ weights))
    gradient[0] += mixture.PRIOR_NULLS / weights[0]
    assert gradient.max() / (histogram.sum() + mixture.PRIOR_NULLS) < 1 + 1e-5


def test_shrunk_scores_lie_between_0_and_the_score_and_noise_goes():
    found = candidates(400, 5000, 0.6, 0.0)
    values = statistics.shrunk(found)
    assert (np.abs(values) <= np.abs(found.score)).all()
    assert (values * found.score >= 0).all()
    assert np.abs(values).max() < 0.07 < np.abs(found.score).max()
    real = candidates(400, 5000, 0.5, 0.4)
    assert statistics.shrunk(real)[:500].mean() == pytest.approx(0.4, abs=0.05)


def test_a_perfect_split_of_few_models_is_no_finding_and_of_many_is():
    few = of_counts(
        np.array([3] * 50), np.array([1] * 50), np.array([3] + [2] * 49), np.array([0] + [1] * 49)
    )
    assert statistics.shrunk(few)[0] < 0.2
    many = of_counts(
        np.array([700] * 50),
        np.array([300] * 50),
        np.array([700] * 20 + [690] * 30),
        np.array([0] * 20 + [296] * 30),
    )
    assert statistics.shrunk(many)[0] > 0.95


@pytest.mark.parametrize("direction", ["helps", "hurts", "both"])
def test_rank_bounds_are_what_loops_find(direction):
    centre, half = RNG.normal(size=60) * 0.3, RNG.random(60) * 0.3
    lo, hi = centre - half, centre + half
    rows = np.array([0, 7, 33])
    first, last = statistics.rank_bounds(lo, hi, rows, direction)
    ends = {
        "helps": list(zip(lo, hi, strict=True)),
        "hurts": [(-h, -low) for low, h in zip(lo, hi, strict=True)],
        "both": [(max(0, low, -h), max(abs(low), abs(h))) for low, h in zip(lo, hi, strict=True)],
    }[direction]
    for place, row in enumerate(rows):
        assert first[place] == 1 + sum(other[0] > ends[row][1] for other in ends)
        assert last[place] == 60 - sum(other[1] < ends[row][0] for other in ends)


@pytest.mark.parametrize(
    ("n_models", "accuracy", "expected"),
    [(100, 0.5, 4246), (100, 0.9, 762), (400, 0.5, 142), (400, 0.7, 75), (1000, 0.5, 0.32)],
)
def test_chance_gives_as_many_as_the_specification_says(n_models, accuracy, expected):
    n_in = np.random.default_rng(3).binomial(n_models, 0.7, 50_000)
    total = np.random.default_rng(4).binomial(n_models, accuracy, 50_000)
    found = candidates(n_models)
    of_many = Candidates(
        *[np.zeros(50_000)] * 4,
        n_in=n_in,
        n_models=n_models,
        strata=np.ones(50_000, bool),
        hits=n_in,
        total=total,
    )
    assert statistics.expected_by_chance(of_many, 0.15, "helps") == pytest.approx(expected, rel=0.12)
    exact = sum(
        statistics.hypergeometric_tail(np.array([x]), np.array([k]), np.array([n]), n_models)[0]
        for n, k in zip(found.n_in, found.total, strict=True)
        if (x := next(x for x in range(n + 2) if x > n or x / n - (k - x) / (n_models - n) >= 0.15)) <= n
    )
    assert statistics.expected_by_chance(found, 0.15, "helps") == pytest.approx(exact)


def test_chance_helps_hurts_and_both():
    found = candidates(200)
    sides = [statistics.expected_by_chance(found, 0.1, way) for way in ("helps", "hurts")]
    assert statistics.expected_by_chance(found, 0.1, "both") == pytest.approx(sum(sides))
    assert sides[0] == pytest.approx(sides[1], rel=0.4)
    assert statistics.expected_by_chance(found, 0.0, "helps") == len(found)


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
@pytest.mark.parametrize("direction", every(3, ["helps", "hurts", "both"]))
@pytest.mark.parametrize("order", ["shrunk", "influence", "q_value", "lo"])
def test_a_list_is_in_its_order_and_the_first_rows_are_those_of_the_longer_list(
    asked, order, direction, outcome
):
    options = {"test_id": 4, "order": order, "direction": direction, "outcome": outcome}
    everything = dicts(asked.top_influence(k=100, interval="fixed", **options))
    assert len(everything) == 23
    sign = {"helps": lambda v: v, "hurts": lambda v: -v, "both": abs}[direction]
    keys = {
        "shrunk": lambda row: sign(row["shrunk"]),
        "influence": lambda row: sign(row["influence"]),
        "lo": lambda row: {"helps": row["lo"], "hurts": -row["hi"], "both": max(row["lo"], -row["hi"])}[
            direction
        ],
        "q_value": lambda row: -row["q_value"] - (sign(row["influence"]) <= 0),
    }
    found = [keys[order](row) for row in everything]
    assert found == sorted(found, reverse=True)
    first = dicts(asked.top_influence(k=5, interval="fixed", **options))
    assert [row["train_id"] for row in first] == [row["train_id"] for row in everything[:5]]
    assert all(row["n_ranked"] == 23 for row in first)
    assert 0 <= first[0]["n_null"] <= 46


def test_rank_intervals_are_there_when_asked_for_and_hold_the_row_itself(asked):
    assert "rank_lo" not in asked.top_memorized(3).columns
    found = dicts(asked.top_memorized(23, ranks=True, order="memorization"))
    for place, row in enumerate(found, 1):
        assert 1 <= row["rank_lo"] <= place <= row["rank_hi"] <= 23


def test_lists_of_examples_without_a_score_say_nothing_of_them(tmp_path):
    db = small_database(tmp_path / "s.zarr", outcomes=["correct"])
    infos, masks, outcomes = batch(db.store, range(12))
    masks[:, :] = True
    db.store.commit(infos, masks, outcomes)
    for row in dicts(db.top_memorized(4, ranks=True)) + dicts(db.top_influence(test_id=1, k=4, ranks=True)):
        assert {
            row[name] for name in ("shrunk", "lo", "hi", "q_value", "rank_lo", "n_null", "n_models_needed")
        } == {None}
        assert row["n_ranked"] == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("order", "size", "unknown order 'size'"), ("order", "memorization", "unknown order"),
        ("direction", "up", "unknown direction 'up'"), ("fdr", "never", "unknown fdr 'never'"),
        ("outcome", "margin", "unknown outcome 'margin'"), ("k", 0, "k 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_can(asked, option, value, said):
    with pytest.raises(InvalidInputError, match=said) as error:
        asked.top_influence(test_id=1, **{option: value})
    assert error.value.hint


def test_p_of_every_pair_is_summed_as_loops_sum_it(asked):
    masks, _, _ = bits_of(asked.snapshot)
    logits = {
        name: asked.snapshot.outcome_values(f"{name}/logit_confidence").astype(float).T
        for name in ("train", "test")
    }
    p = {name: 1 / (1 + np.exp(-values)) for name, values in logits.items()}
    for relation, target, name in (
        ("influence", "test_id", "test"),
        ("train_influence", "target_id", "train"),
    ):
        for row in dicts(asked.sql(f"FROM {relation}", outcome="confidence", interval="fixed")):
            y, inside = p[name][:, row[target]], masks[:, row["train_id"]]
            assert row["s_in"] == pytest.approx(y[inside].sum(), abs=1e-9)
            assert row["q_out"] == pytest.approx((y[~inside] ** 2).sum(), abs=1e-9)
            assert row[relation.split("_")[-1]] == pytest.approx(
                y[inside].mean() - y[~inside].mean(), abs=1e-9
            )
            expected = soft_interval(y[inside], y[~inside], oracle.fixed_z(0.05))
            assert (row["lo"], row["hi"]) == pytest.approx(expected, abs=1e-9)


def soft_interval(inside, outside, z):
    arms = []
    for y in (inside, outside):
        n = len(y) + z * z / 2
        mean = (y.sum() + z * z / 4) / n
        arms.append((mean, ((y * y).sum() + z * z / 4) / n / n - mean * mean / n))
    (m1, v1), (m0, v0) = arms
    half, score = z * math.sqrt(max(0, v1) + max(0, v0)), inside.mean() - outside.mean()
    return max(-1, min(score, m1 - m0 - half)), min(1, max(score, m1 - m0 + half))


def test_confidences_are_summed_alike_whatever_is_asked_for(asked):
    whole = dicts(asked.sql("FROM influence ORDER BY ALL", outcome="confidence"))
    for filters in ("test_id = 4", "train_id = 7", "train_id IN (3, 9)", "test_id IN (1, 5)"):
        found = dicts(asked.sql(f"FROM influence WHERE {filters} ORDER BY ALL", outcome="confidence"))
        wanted = {(row["train_id"], row["test_id"]): row for row in whole}
        assert found
        assert all(row == wanted[row["train_id"], row["test_id"]] for row in found)


def test_a_store_without_confidences_says_so(tmp_path):
    db = small_database(tmp_path / "s.zarr", outcomes=["correct"])
    db.train(seeds=range(5))
    with pytest.raises(Exception, match="keeps no confidences"):
        db.top_memorized(outcome="confidence")
