"""Plans, convergence, reliability, classes and comparisons against slow, obvious answers."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import numpy as np
import oracle
import pytest
from conftest import bits_of, small_database, small_dataset
from storing import batch

import memdb
from memdb import layout
from memdb.assessing import plan_without_store
from memdb.errors import InvalidInput, Mismatch, NotEnoughModels, NotFound

N_MODELS = 60


def dicts(relation):
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def one(relation):
    (row,) = dicts(relation)
    return row


def by_goal(relation):
    return {row["goal"]: row for row in dicts(relation)}


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    """A store of 60 models: enough to plan with its own rates."""
    url = tmp_path_factory.mktemp("sixty") / "store.zarr"
    with small_database(url) as made:
        made.train(seeds=range(N_MODELS), compact=False)
    return url


@pytest.fixture(scope="module")
def db(sixty):
    with memdb.open(str(sixty)) as opened:
        yield opened


@pytest.fixture
def empty(tmp_path):
    with small_database(tmp_path / "empty.zarr") as made:
        yield made


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


# --- plan ------------------------------------------------------------------------------------------------------


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
    assert soft["worst_case"] == pairs["worst_case"]
    score = one(db.score(3, test_id=4, outcome="confidence"))
    assert soft["named_half_width"]["p_in"] == pytest.approx(score["p_in"], abs=1e-12)
    # confidences here are .88 or .12: the noise is less than that of 0 and 1
    assert soft["median"]["n_models_needed"] < pairs["median"]["n_models_needed"]


def test_too_few_models_plan_for_the_worst_case_alone(asked, empty):
    for store in (asked, empty):
        assert list(by_goal(store.plan())) == ["worst_case"]
        with pytest.raises(NotEnoughModels, match="the rates of one score are not known"):
            store.plan(train_id=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"half_width": 0}, "--half-width 0 is not"), ({"half_width": 1.0}, "--half-width 1 is not"),
        ({"half_width": float("nan")}, "--half-width nan"), ({"settle": 1.2}, "--settle 1.2"),
        ({"kind": "shapley"}, "unknown kind 'shapley'"), ({"threshold": 2}, "--threshold 2"),
        ({"interval": "wald"}, "unknown interval"), ({"k": 0}, "-k 0 out of"), ({"k": 9, "n_ranked": 3}, "-k 9 out of 3"),
        ({"train_id": 23}, "--train-id 23 is out of range"), ({"test_id": 2}, "name exactly one example"),
        ({"outcome": "loss"}, "unknown outcome"), ({"level": 1.5}, "the level 1.5"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_refused(db, options, message):
    with pytest.raises(InvalidInput, match=message):
        db.plan(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"subset_fraction": 0}, "fraction 0"), ({"interval": "selected"}, "how many scores are ranked")],
)
def test_plans_without_a_store_are_refused_likewise(options, message):
    with pytest.raises(InvalidInput, match=message):
        plan_without_store(**{"subset_fraction": 0.7, **options})


# --- convergence -----------------------------------------------------------------------------------------------


@pytest.fixture
def disordered(database, monkeypatch):
    """Blocks, loose segments, and a segment that was committed before what the blocks took in."""
    seeds = [model.seed for _, model in database.snapshot.models]
    database.compact()
    now_id = layout.segment_id
    with monkeypatch.context() as patch:
        patch.setattr(layout, "segment_id", lambda now, token: now_id(now.replace(year=2020), token))
        database.store.commit(*batch_with_confidences(database.store, [900, 901, 902]))
    database.train(seeds=[1000, 1001, 1002], dataset=small_dataset(), recipe=recipe(), compact=False)
    database.refresh()
    return database, [900, 901, 902, *seeds, 1000, 1001, 1002]


def recipe():
    from conftest import coin_recipe

    return coin_recipe


def batch_with_confidences(store, seeds):
    models, masks, outcomes = batch(store, seeds)
    values = {
        f"{name}/logit_confidence": np.where(outcomes[f"{name}/correct"], 3.0, -1.0)
        for name in ("train", "test")
    }
    return models, masks, outcomes | values


def histories(database):
    """Every model by its seed: mask, train/correct, test/correct."""
    masks, train, test = bits_of(database.snapshot)
    return {
        model.seed: (masks[at], train[at], test[at]) for at, (_, model) in enumerate(database.snapshot.models)
    }


@pytest.mark.parametrize("target", [None, "test_id", "target_id"])
def test_convergence_counts_models_in_the_order_of_commit(disordered, target):
    database, seeds = disordered
    found = histories(database)
    assert [m.seed for _, m in database.snapshot.models] != seeds  # the order of bits is another one
    which = 2 if target == "test_id" else 1
    z = 7 if target is None else 5
    ids = {} if target is None else {target: 5}
    looks = [1, 2, 3, 4, 10, 25, len(seeds)]
    rows = dicts(database.convergence(7, looks=looks, level=0.9, **ids))
    assert [row["n_models"] for row in rows] == looks
    name = "memorization" if target is None else "influence"
    for row in rows:
        first = [found[seed] for seed in seeds[: row["n_models"]]]
        counted = oracle.counts([m[0] for m in first], [m[which] for m in first], 7, z)
        assert tuple(row[key] for key in ("n_in", "n_out", "k_in", "k_out")) == counted
        score = oracle.score(*counted)
        assert row[name] == (None if score is None else pytest.approx(score, abs=1e-12))
        for kind in ("fixed", "anytime"):
            lo, hi = oracle.interval(*counted, oracle.z_of(kind, row["n_models"], 0.9))
            ends = (row[f"{kind}_lo"], row[f"{kind}_hi"])
            assert ends == ((None, None) if lo is None else pytest.approx((lo, hi), abs=1e-12))


def test_compaction_changes_no_curve(database):
    looks = range(1, 38)
    before = database.convergence(7, test_id=4, looks=looks).fetchall()
    database.compact()
    assert database.convergence(7, test_id=4, looks=looks).fetchall() == before


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
@pytest.mark.parametrize("target", [{}, {"test_id": 2}, {"target_id": 1}])
def test_the_last_look_is_the_score(db, outcome, target):
    last = dicts(db.convergence(3, outcome=outcome, **target))[-1]
    score = one(db.score(3, outcome=outcome, **target))
    for name in set(score) & set(last) - {"n_models"}:
        assert last[name] == pytest.approx(score[name], abs=1e-9), name
    ends = [last["anytime_lo"], last["anytime_hi"]]
    assert ends == pytest.approx([score["lo"], score["hi"]], abs=1e-9)


@pytest.mark.parametrize(
    ("n_models", "looks"),
    [
        (3, [3]),
        (10, [10]),
        (11, [10, 11]),
        (60, [10, 20, 50, 60]),
        (2000, [10, 20, 50, 100, 200, 500, 1000, 2000]),
    ],
)
def test_looks_go_by_1_2_5_and_end_with_all_models(n_models, looks):
    from memdb.query.convergence import usual_looks

    assert usual_looks(n_models) == looks


@pytest.mark.parametrize("n_models", [1, 2, 9, 10, 11, 60, 4000])
def test_a_curve_starts_with_the_first_look_and_ends_with_the_last(n_models):
    from memdb.query.convergence import dense_looks

    looks = dense_looks(n_models, 72)
    assert (looks[0], looks[-1]) == (min(10, n_models), n_models)
    assert looks == sorted(set(looks))
    assert len(looks) <= 72


@pytest.mark.parametrize("looks", [[], [0], [61], [-1, 5]])
def test_looks_that_cannot_be_are_refused(db, looks):
    with pytest.raises(InvalidInput, match="name numbers from 1 to 60|looks after"):
        db.convergence(3, looks=looks)


def test_nothing_converges_without_models(empty):
    with pytest.raises(NotEnoughModels, match="has no models yet"):
        empty.convergence(3)


# --- reliability -----------------------------------------------------------------------------------------------


def correlation(pairs):
    a, b = zip(*pairs, strict=True)
    mean_a, mean_b = fmean(a), fmean(b)
    products = sum((x - mean_a) * (y - mean_b) for x, y in pairs)
    return products / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def halves_by_hand(database, seed, split):
    """The model ids in the first half, by the rule in words: those with the smallest draws, in order of id."""
    ids = sorted(model.model_id for _, model in database.snapshot.models)
    draws = np.random.Philox(key=seed + (split << 64)).random_raw(len(ids))
    order = sorted(range(len(ids)), key=lambda at: draws[at])
    return {ids[at] for at in order[: len(ids) // 2]}


def measured(pairs, lists, threshold):
    known = [(i, a, b) for i, (a, b) in enumerate(pairs) if a is not None and b is not None]
    r = correlation([(a, b) for _, a, b in known])
    found = {("correlation", None): r, ("spearman_brown", None): 2 * r / (1 + r)}
    high_a, high_b = ({i for i, *ab in known if ab[half] >= threshold} for half in (0, 1))
    both = len(high_a & high_b)
    confirmed = (both / len(high_a) + both / len(high_b)) / 2 if high_a and high_b else None
    found["confirmed", threshold] = confirmed
    for k in lists:
        tops = [{i for i, *_ in sorted(known, key=lambda row: (-row[half], row[0]))[:k]} for half in (1, 2)]
        if k <= len(known):
            found["top_overlap", k] = len(tops[0] & tops[1]) / len(tops[0] | tops[1])
    return found


@pytest.mark.parametrize("target", [None, 4])
def test_reliability_is_what_halves_counted_by_hand_agree_on(db, target):
    found = {
        (row["measure"], row["at"]): row
        for row in dicts(db.reliability(test_id=target, k=[2, 5, 23], splits=3, seed=11, threshold=0.2))
    }
    masks, train, test = bits_of(db.snapshot)
    expected = {}
    for split in range(3):
        half = halves_by_hand(db, 11, split)
        inside = [model.model_id in half for _, model in db.snapshot.models]
        pairs = []
        for i in range(23):
            scores = []
            for wanted in (True, False):
                rows = [at for at, flag in enumerate(inside) if flag == wanted]
                right = train if target is None else test
                scores.append(
                    oracle.score(*oracle.counts(masks[rows], right[rows], i, i if target is None else target))
                )
            pairs.append(tuple(scores))
        for key, value in measured(pairs, [2, 5, 23], 0.2).items():
            expected.setdefault(key, []).append(value)
    assert set(found) == set(expected)
    for key, given in expected.items():
        values = [value for value in given if value is not None]
        row = found[key]
        assert row["n_splits"] == len(values), key
        if values:
            summary = [fmean(values), min(values), max(values)]
            assert [row["mean"], row["least"], row["most"]] == pytest.approx(summary, abs=1e-12), key


@pytest.mark.parametrize("target", [None, 4])
def test_confidences_that_tell_right_from_wrong_are_as_reliable_as_bits(db, target):
    # here p is .88 where a model is right and .12 where it is not: the same scores on another scale
    hard, soft = (
        dicts(db.reliability(test_id=target, splits=4, threshold=-0.9, outcome=outcome, k=[23]))
        for outcome in ("correct", "confidence")
    )
    for a, b in zip(hard, soft, strict=True):
        assert a["mean"] == pytest.approx(b["mean"], abs=1e-9)


def test_reliability_is_a_function_of_models_and_seed(database):
    before = database.reliability(seed=5, splits=4).fetchall()
    database.compact()
    assert database.reliability(seed=5, splits=4).fetchall() == before
    assert database.reliability(seed=6, splits=4).fetchall() != before


def test_an_odd_model_goes_to_the_second_half(asked):
    assert len(halves_by_hand(asked, 0, 0)) == 18  # of 37
    assert {row["n_splits"] for row in dicts(asked.reliability(splits=2, k=[1]))} == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": [0]}, "-k 0 is not a number from 1 to 23"), ({"k": [5, 24]}, "-k 24"), ({"splits": 0}, "--splits 0"),
        ({"splits": 100_000}, "--splits 100000"), ({"seed": -1}, "--seed -1"), ({"threshold": 1.5}, "--threshold 1.5"),
        ({"test_id": 11}, "--test-id 11 is out of range"), ({"outcome": "loss"}, "unknown outcome"),
    ],
)  # fmt: skip
def test_reliabilities_that_cannot_be_are_refused(db, options, message):
    with pytest.raises(InvalidInput, match=message):
        db.reliability(**options)


def test_halves_need_models(empty):
    with pytest.raises(NotEnoughModels, match="too few for two halves"):
        empty.reliability()


# --- classes ---------------------------------------------------------------------------------------------------


def test_classes_are_the_means_of_their_examples(db):
    masks, train, test = bits_of(db.snapshot)
    rows = dicts(db.classes(threshold=0.4))
    assert [row["difficulty"] for row in rows] == [1, 2, 3]
    assert [row["consistency"] for row in rows] == sorted(row["consistency"] for row in rows)
    assert {row["class_name"] for row in rows} == {"ant", "bee", "cat"}
    for row in rows:
        label = row["label"]
        counted = [oracle.counts(masks, train, i, i) for i in range(label, 23, 3)]
        assert row["consistency"] == pytest.approx(fmean(k_out / n_out for _, n_out, _, k_out in counted))
        assert row["train_rate"] == pytest.approx(fmean(k_in / n_in for n_in, _, k_in, _ in counted))
        assert row["memorization"] == pytest.approx(fmean(oracle.score(*c) for c in counted))
        assert row["n_memorized"] == sum(oracle.score(*c) >= 0.4 for c in counted)
        assert row["test_rate"] == pytest.approx(test[:, label::3].mean())
        assert (row["n_train"], row["n_test"], row["n_scored"]) == (
            len(counted),
            test[:, label::3].shape[1],
            len(counted),
        )


def test_classes_of_confidences_are_their_means(db):
    hard = {row["label"]: row for row in dicts(db.classes())}
    low, high = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))
    for row in dicts(db.classes(outcome="confidence")):
        for name in ("consistency", "train_rate", "test_rate"):
            expected = low + (high - low) * hard[row["label"]][name]
            assert row[name] == pytest.approx(expected, abs=1e-9)


def outcomes_of(database, outcome):
    _, _, test = bits_of(database.snapshot)
    if outcome == "correct":
        return test.astype(float)
    logits = database.snapshot.outcome_values("test/logit_confidence").T.astype(float)
    return 1 / (1 + np.exp(-logits))


def mean_influence(masks, values, trains, tests):
    found = []
    for i, z in itertools.product(trains, tests):
        inside = [value for mask, value in zip(masks[:, i], values[:, z], strict=True) if mask]
        outside = [value for mask, value in zip(masks[:, i], values[:, z], strict=True) if not mask]
        if inside and outside:
            found.append(fmean(inside) - fmean(outside))
    return fmean(found)


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
def test_class_influence_is_the_mean_over_all_pairs(db, outcome):
    masks, _, _ = bits_of(db.snapshot)
    values = outcomes_of(db, outcome)
    rows = dicts(db.class_influence(outcome=outcome))
    assert [(row["train_label"], row["test_label"]) for row in rows] == list(
        itertools.product(range(3), repeat=2)
    )
    for row in rows:
        trains, tests = range(row["train_label"], 23, 3), range(row["test_label"], 11, 3)
        assert row["influence"] == pytest.approx(mean_influence(masks, values, trains, tests), abs=1e-9)
        assert row["same_class"] == (row["train_label"] == row["test_label"])
        assert (row["n_train"], row["n_test"]) == (len(trains), len(tests))
        assert row["train_class"] == ("ant", "bee", "cat")[row["train_label"]]


def test_examples_without_a_score_are_left_out_of_their_class(tmp_path):
    with small_database(tmp_path / "few.zarr", outcomes=["correct"]) as few:
        models, masks, outcomes = batch(few.store, range(6))
        masks[:, 0], masks[:, 4] = True, False  # never out, never in
        few.store.commit(models, masks, outcomes)
        few.refresh()
        scored = [i for i in range(23) if 0 < masks[:, i].sum() < 6]
        assert {0, 4}.isdisjoint(scored)
        for row in dicts(few.class_influence()):
            trains = [i for i in scored if i % 3 == row["train_label"]]
            tests = range(row["test_label"], 11, 3)
            expected = mean_influence(masks, outcomes["test/correct"].astype(float), trains, tests)
            assert row["influence"] == pytest.approx(expected, abs=1e-12)
            assert row["n_train"] == len(trains)


def test_the_error_of_a_class_influence_is_that_of_dealing_outcomes_out_anew(db):
    masks, _, _ = bits_of(db.snapshot)
    values = outcomes_of(db, "correct")
    row = dicts(db.class_influence())[5]
    n_in = masks.sum(axis=0)
    weights = (masks / n_in - ~masks / (N_MODELS - n_in))[:, row["train_label"] :: 3].mean(axis=1)
    rng = np.random.default_rng(0)
    dealt = [weights @ rng.permutation(values[:, row["test_label"] :: 3].mean(axis=1)) for _ in range(4000)]
    assert np.std(dealt) == pytest.approx(row["null_se"], rel=0.05)


def test_classes_need_models_and_a_threshold_that_can_be(db, empty):
    for ask in (empty.classes, empty.class_influence):
        with pytest.raises(NotEnoughModels, match="has 0 models"):
            ask()
    with pytest.raises(InvalidInput, match="--threshold 7"):
        db.classes(threshold=7)


# --- comparison ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Another store of the same data: half of the training set in a subset, other models."""
    url = tmp_path_factory.mktemp("half") / "store.zarr"
    with small_database(url, subset_fraction=0.5) as made:
        made.train(seeds=range(500, 540))
    return url


def ranks(values):
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


@pytest.mark.parametrize("test_id", [None, 4])
@pytest.mark.parametrize("kind", ["selected", "fixed", "anytime", "simultaneous"])
def test_a_comparison_is_that_of_the_two_stores_scores(db, half, test_id, kind):
    with memdb.open(str(half)) as other:
        rows = dicts(db.compare(other, test_id=test_id, k=5, threshold=0.3, interval=kind))
        scores, counted = [], []
        for store in (db, other):
            masks, train, test = bits_of(store.snapshot)
            right = train if test_id is None else test
            counted.append(
                [oracle.counts(masks, right, i, i if test_id is None else test_id) for i in range(23)]
            )
            scores.append([oracle.score(*c) for c in counted[-1]])
    a, b = scores
    name = "memorization" if test_id is None else "influence"
    order = sorted(range(23), key=lambda i: (-round(abs(a[i] - b[i]), 12), i))[:5]
    assert [row["train_id"] for row in rows] == order
    high = [{i for i in range(23) if s[i] >= 0.3} for s in scores]
    tops = [set(sorted(range(23), key=lambda i, s=s: (-s[i], i))[:5]) for s in scores]
    for row in rows:
        i = row["train_id"]
        assert (row[f"{name}_a"], row[f"{name}_b"]) == pytest.approx((a[i], b[i]))
        assert row["difference"] == pytest.approx(a[i] - b[i])
        ends = []
        for c, n in zip(counted, (N_MODELS, 40), strict=True):
            z = oracle.z_of(kind, n, 0.975, n_shown=5, n_ranked=23)
            ends.append(oracle.interval(*c[i], z))
        (lo_a, hi_a), (lo_b, hi_b) = ends
        assert (row["lo"], row["hi"]) == pytest.approx((lo_a - hi_b, hi_a - lo_b), abs=1e-9)
        assert row["n_compared"] == 23
        assert (row["n_above_a"], row["n_above_b"]) == tuple(map(len, high))
        union = high[0] | high[1]
        assert row["jaccard"] == (pytest.approx(len(high[0] & high[1]) / len(union)) if union else None)
        assert row["top_overlap"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        assert row["spearman"] == pytest.approx(correlation(list(zip(ranks(a), ranks(b), strict=True))))
        assert row["mean_difference"] == pytest.approx(fmean(a) - fmean(b))
        assert (row["n_models_a"], row["n_models_b"], row["n_models_shared"]) == (N_MODELS, 40, 0)
        assert (row["subset_fraction_a"], row["subset_fraction_b"]) == (0.7, 0.5)
        assert row["same_recipe"]


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
@pytest.mark.parametrize("test_id", [None, 4])
def test_a_store_agrees_with_itself(db, outcome, test_id):
    row = dicts(db.compare(db, test_id=test_id, outcome=outcome, threshold=-0.9))[0]
    assert row["difference"] == row["mean_difference"] == 0
    assert (row["jaccard"], row["top_overlap"], row["n_models_shared"]) == (1, 1, N_MODELS)
    assert row["spearman"] == pytest.approx(1)
    assert row["lo"] < 0 < row["hi"]


def test_turned_round_a_comparison_changes_its_sign(db, half):
    with memdb.open(str(half)) as other:
        there, back = dicts(db.compare(other, k=23)), dicts(other.compare(db, k=23))
    assert [row["train_id"] for row in there] == [row["train_id"] for row in back]
    for a, b in zip(there, back, strict=True):
        assert (a["difference"], a["lo"], a["hi"]) == pytest.approx((-b["difference"], -b["hi"], -b["lo"]))
        assert (a["jaccard"], a["spearman"]) == pytest.approx((b["jaccard"], b["spearman"]))


def test_stores_of_other_data_are_refused_with_both_fingerprints(db, tmp_path):
    other = memdb.init(str(tmp_path / "other.zarr"), small_dataset(shift=1), recipe(), seed=7)
    with other, pytest.raises(Mismatch, match="the test sets differ") as caught:
        db.compare(other)
    for store in (db, other):
        assert store.store.manifest.set_named("test").fingerprint in str(caught.value)


def test_comparisons_that_cannot_be_are_refused(db, empty, tmp_path):
    for pair in ((db, empty), (empty, db)):
        with pytest.raises(NotEnoughModels, match=r"empty\.zarr has no models yet"):
            pair[0].compare(pair[1])
    for options, message in (
        ({"k": 0}, "-k 0"),
        ({"test_id": 11}, "--test-id 11"),
        ({"threshold": 4}, "--threshold 4"),
        ({"interval": "wald"}, "unknown interval"),
        ({"level": 7}, "the level 7"),
    ):
        with pytest.raises(InvalidInput, match=message):
            db.compare(db, **options)
    with small_database(tmp_path / "bits.zarr", outcomes=["correct"]) as bits_only:
        bits_only.store.commit(*batch(bits_only.store, range(8)))
        bits_only.refresh()
        with pytest.raises(NotFound, match=r"bits\.zarr keeps no confidences"):
            db.compare(bits_only, outcome="confidence")
        models, masks, outcomes = batch(empty.store, range(3))
        masks[:] = True
        values = {
            name.replace("correct", "logit_confidence"): v.astype(float) for name, v in outcomes.items()
        }
        empty.store.commit(models, masks, outcomes | values)
        empty.refresh()
        with pytest.raises(NotEnoughModels, match="no training example has a score in"):
            db.compare(empty)
