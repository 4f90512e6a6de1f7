"""How many models a goal takes, against trying every number of models."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import numpy as np
import pytest
from support import oracle
from support.stores import N_MODELS, bits_of, dicts, one, small_database
from support.storing import batch

import memdb
from memdb.analysis.plan import plan_without_store
from memdb.errors import InvalidInputError, NotEnoughModelsError


def by_goal(relation):
    return {row["goal"]: row for row in dicts(relation)}


def half_width(n, p_in, p_out, fraction=0.7, kind="anytime", level=0.95, **shares):
    lo, hi = bounds(n, p_in, p_out, fraction, kind, level, **shares)
    return (hi - lo) / 2


def bounds(n, p_in, p_out, fraction=0.7, kind="anytime", level=0.95, **shares):
    n_in, n_out = n * fraction, n * (1 - fraction)
    z = oracle.z_of(kind, n, level, **shares)
    return oracle.interval(n_in, n_out, n_in * p_in, n_out * p_out, z)


def fewest(reached):
    """The first number of models with which something is reached; what memdb finds by halving."""
    return next(n for n in range(1, 200_000) if reached(n))


@pytest.mark.parametrize(
    ("width", "by_formula"), [(0.1, 458), (0.05, 1830), (0.03, 5082), (0.02, 11433), (0.01, 45732)]
)
def test_the_worst_case_is_that_of_the_formula_less_the_few_models_that_the_interval_adds(width, by_formula):
    found = one(plan_without_store(0.7, width, interval="fixed"))["n_models_needed"]
    assert by_formula - 6 <= found <= by_formula


@pytest.mark.parametrize(
    ("level", "interval", "needed"),
    [(0.95, "fixed", 1824), (0.95, "anytime", 5091), (0.9999, "fixed", 7188), (0.999999, "fixed", 11362)],
)
def test_the_worst_case_is_the_one_that_was_worked_out_elsewhere(level, interval, needed):
    assert one(plan_without_store(0.7, level=level, interval=interval))["n_models_needed"] == needed


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"interval": "fixed"}, {}),
        ({"interval": "anytime", "level": 0.8}, {}),
        ({"interval": "selected", "k": 3, "n_ranked": 40}, {"n_shown": 3, "n_ranked": 40}),
        ({"interval": "simultaneous", "n_ranked": 40}, {"n_ranked": 40}),
    ],
)
@pytest.mark.parametrize(("fraction", "width"), [(0.7, 0.1), (0.5, 0.2), (0.9, 0.15)])
def test_a_plan_is_the_fewest_models_that_do(fraction, width, options, shares):
    row = one(plan_without_store(fraction, width, **options))
    kind, level = options["interval"], options.get("level", 0.95)
    expected = fewest(lambda n: half_width(n, 0.5, 0.5, fraction, kind, level, **shares) <= width)
    assert row["n_models_needed"] == row["n_models_more"] == expected
    assert (row["p_in"], row["p_out"], row["seconds_more"]) == (0.5, 0.5, None)


def rates_of(masks, correct):
    for i in range(masks.shape[1]):
        n_in, n_out, k_in, k_out = oracle.counts(masks, correct, i, i)
        yield (
            k_in / n_in,
            k_out / n_out,
            oracle.interval(n_in, n_out, k_in, k_out, oracle.z_of("anytime", N_MODELS, 0.95)),
        )


def test_a_store_plans_with_its_own_rates(db):
    masks, train, _ = bits_of(db.snapshot)
    rates = list(rates_of(masks, train))
    found = by_goal(db.plan(0.15, settle=0.75, threshold=0.3))
    assert list(found) == ["worst_case", "median", "percentile_95", "settled"]
    needed = sorted(fewest(lambda n, r=r: half_width(n, *r[:2]) <= 0.15) for r in rates)
    now = fmean((hi - lo) / 2 <= 0.15 for *_, (lo, hi) in rates)
    seconds = fmean(model.seconds for _, model in db.snapshot.models)
    for goal, share in (("median", 0.5), ("percentile_95", 0.95)):
        row = found[goal]
        assert row["n_models_needed"] == needed[math.ceil(share * len(rates)) - 1]
        assert row["n_models_more"] == row["n_models_needed"] - N_MODELS
        assert row["seconds_more"] == pytest.approx(row["n_models_more"] * seconds)
        assert (row["share"], row["share_now"]) == (share, now)
        assert half_width(row["n_models_needed"], row["p_in"], row["p_out"]) <= 0.15
    high = [r for r in rates if r[0] - r[1] >= 0.3]
    settled = sorted(fewest(lambda n, r=r: bounds(n, *r[:2])[0] > 0.3) for r in high)
    row = found["settled"]
    assert (row["n_examples"], row["threshold"]) == (len(high), 0.3)
    assert row["n_models_needed"] == settled[math.ceil(0.75 * len(high)) - 1]
    assert row["share_now"] == fmean(lo > 0.3 for *_, (lo, _) in high)


@pytest.mark.parametrize("target", [{}, {"test_id": 4}, {"target_id": 9}])
def test_a_named_score_is_planned_for_at_its_own_rates(db, target):
    masks, train, test = bits_of(db.snapshot)
    z = target.get("test_id", target.get("target_id", 3))
    n_in, n_out, k_in, k_out = oracle.counts(masks, test if "test_id" in target else train, 3, z)
    found = by_goal(db.plan(0.2, train_id=3, interval="fixed", **target))
    row, zero = found["named_half_width"], found["named_from_zero"]
    rates = k_in / n_in, k_out / n_out
    assert (row["p_in"], row["p_out"]) == rates
    reached = [half_width(N_MODELS + more, *rates, kind="fixed") <= 0.2 for more in (0, row["n_models_more"])]
    assert reached[1] or row["n_models_more"] == 0
    lo, hi = oracle.interval(n_in, n_out, k_in, k_out, oracle.fixed_z(0.05))
    if lo > 0 or hi < 0:
        assert zero["n_models_more"] == 0
    else:
        lo, hi = bounds(zero["n_models_needed"], *rates, kind="fixed")
        assert lo > 0 or hi < 0
        lo, hi = bounds(zero["n_models_needed"] - 1, *rates, kind="fixed")
        assert lo <= 0 <= hi or zero["n_models_needed"] == N_MODELS + 1


def test_what_no_number_of_models_reaches_is_null(tmp_path):
    assert one(plan_without_store(0.7, 0.00002))["n_models_needed"] is None
    with small_database(tmp_path / "always.zarr", outcomes=["correct"]) as other:
        models, masks, outcomes = batch(other.store, range(60))
        outcomes["test/correct"][:, 0] = True
        other.store.commit(models, masks, outcomes)
        other.refresh()
        found = by_goal(other.plan(0.1, train_id=2, test_id=0))
        assert found["named_from_zero"]["n_models_needed"] is None
        assert found["named_from_zero"]["n_models_more"] is None
        assert found["named_half_width"]["n_models_needed"] is not None


@pytest.mark.slow
def test_pairs_and_confidences_are_planned_for_too(db):
    pairs = by_goal(db.plan(0.1, kind="influence"))
    assert list(pairs) == ["worst_case", "median", "percentile_95"]
    masks, _, test = bits_of(db.snapshot)
    needed = []
    for i, z in itertools.product(range(23), range(11)):  # few enough that the sample is all of them
        n_in, n_out, k_in, k_out = oracle.counts(masks, test, i, z)
        needed.append(fewest(lambda n, r=(k_in / n_in, k_out / n_out): half_width(n, *r) <= 0.1))
    assert pairs["median"]["n_models_needed"] == sorted(needed)[math.ceil(0.5 * len(needed)) - 1]
    soft = by_goal(db.plan(0.1, outcome="confidence", train_id=3, test_id=4))
    assert soft["worst_case"] | {"outcome": "correct"} == pairs["worst_case"]
    score = one(db.score(3, test_id=4, outcome="confidence"))
    assert soft["named_half_width"]["p_in"] == pytest.approx(score["p_in"], abs=1e-12)
    # confidences here are .88 or .12: the noise is less than that of 0 and 1
    assert soft["median"]["n_models_needed"] < pairs["median"]["n_models_needed"]


def test_too_few_models_plan_for_the_worst_case_alone(asked, empty):
    for store in (asked, empty):
        assert list(by_goal(store.plan())) == ["worst_case"]
        with pytest.raises(NotEnoughModelsError, match="the rates of one score are not known"):
            store.plan(train_id=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_width": 0}, "half_width 0 is not"), ({"half_width": 1.0}, "half_width 1 is not"),
        ({"half_width": float("nan")}, "half_width nan"), ({"settle": 1.2}, "settle 1.2"),
        ({"kind": "shapley"}, "unknown kind 'shapley'"), ({"threshold": 2}, "threshold 2"),
        ({"interval": "wald"}, "unknown interval"), ({"k": 0}, "k 0 does not fit"), ({"k": 9, "n_ranked": 3}, "k 9 does not fit 3"),
        ({"train_id": 23}, "train_id 23 is out of range"), ({"test_id": 2}, "name exactly one example"),
        ({"outcome": "loss"}, "unknown outcome"), ({"level": 1.5}, "the level 1.5"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_refused(db, options, message):
    with pytest.raises(InvalidInputError, match=message):
        db.plan(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"subset_fraction": 0}, "fraction 0"), ({"interval": "selected"}, "how many scores are ranked")],
)
def test_plans_without_a_store_are_refused_likewise(options, message):
    with pytest.raises(InvalidInputError, match=message):
        plan_without_store(**{"subset_fraction": 0.7, **options})


@pytest.mark.slow
def test_examples_that_are_always_in_do_not_change_what_the_others_need(tmp_path):
    rng = np.random.default_rng(0)
    n_models, n_varying = 200, 30
    varying = rng.random((n_models, n_varying)) < 0.5
    right = rng.random((n_models, n_varying)) < np.where(varying, 0.9, 0.5)
    always = np.ones((n_models, 5 * n_varying), bool)
    needed = {}
    for name, mask, correct in (
        ("alone", varying, right),
        ("among", np.concatenate([varying, always], axis=1), np.concatenate([right, always], axis=1)),
    ):
        np.savez(tmp_path / f"{name}.npz", mask=mask, train_correct=correct)
        memdb.import_file(tmp_path / f"{name}.npz", str(tmp_path / f"{name}.zarr"))
        with memdb.open(str(tmp_path / f"{name}.zarr")) as db:
            needed[name] = {
                goal: row["n_models_needed"] for goal, row in by_goal(db.plan(train_id=3)).items()
            }
    assert needed["alone"].keys() == needed["among"].keys()
    for goal, n in needed["alone"].items():
        assert needed["among"][goal] == pytest.approx(n, rel=0.08), goal
