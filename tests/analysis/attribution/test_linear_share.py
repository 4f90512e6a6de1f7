"""What is linear in the masks, against stores where it is known, and the forecasts and ceilings that follow."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from support.commands import run
from support.linear import N_TEST, SHARE, effects, linear_database
from support.stores import bits_of, dicts, one
from support.storing import batch

import memdb
from memdb.analysis.attribution.estimators import ESTIMATORS
from memdb.analysis.attribution.linear_share import LinearShare, linear_share
from memdb.analysis.attribution.model_outcomes import outcomes_on_tests
from memdb.errors import InvalidInputError, NotEnoughModelsError


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    with linear_database(tmp_path_factory.mktemp("linear") / "s.zarr", sketches=6, sketch_size=8) as db:
        yield db


def slope_by_loops(masks, values):
    """The slope of products of outcomes on the similarity of masks, over pairs of models."""
    x = (masks - masks.mean(axis=0)) / masks.std(axis=0)
    y = (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)
    similar, alike = [], []
    for a, b in itertools.combinations(range(len(masks)), 2):
        k = x[a] @ x[b] / x.shape[1]
        if abs(k) <= 0.5:
            similar.append(k)
            alike.append(y[a] @ y[b] / y.shape[1])
    return np.polyfit(similar, alike, 1)[0]


def test_the_share_is_a_regression_over_pairs_of_models(tmp_path):
    with linear_database(tmp_path / "s.zarr", n_models=40) as db:
        found = linear_share(db.relations(), "logit_confidence", 0.95)
        masks = bits_of(db.snapshot)[0].astype(float)
        values = outcomes_on_tests(db.relations(), "logit_confidence", np.arange(N_TEST)).T
        assert found.h2 == pytest.approx(slope_by_loops(masks, values), abs=1e-4)
        right = outcomes_on_tests(db.relations(), "correct", np.arange(N_TEST)).T
        of_bits = linear_share(db.relations(), "correct", 0.95)
        assert of_bits.h2 == of_bits.ranked == pytest.approx(slope_by_loops(masks, right), abs=1e-4)


def test_a_known_share_is_found_and_permuted_masks_have_none(linear):
    found = linear_share(linear.relations(), "logit_confidence", 0.95)
    assert found.lo < SHARE < found.hi
    assert found.hi - found.lo < 0.15
    assert abs(found.permuted) < 3 * found.permuted_se
    assert (found.n_models, found.n_tests, found.n_train) == (320, 24, 60)
    assert found.ceiling == pytest.approx(math.sqrt(SHARE), abs=0.06)
    assert found.ceiling_interval[0] < found.ceiling < found.ceiling_interval[1]


def test_models_with_one_mask_are_left_out_of_the_regression(tmp_path):
    """Seeds on one mask agree for reasons that no sum over the mask explains."""
    rng = np.random.default_rng(0)
    masks = np.repeat(rng.random((150, 200)) < 0.7, 2, axis=0)
    values = np.repeat(rng.normal(size=(150, 40)), 2, axis=0).astype(
        np.float16
    )  # a function of the mask, not linear
    outcomes = {"test_correct": values > 0, "test_logit_confidence": values, "train_correct": masks}
    np.savez(tmp_path / "r.npz", mask=masks, train_logit_confidence=masks.astype(np.float16), **outcomes)
    memdb.import_file(tmp_path / "r.npz", str(tmp_path / "s.zarr"))
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        found = linear_share(db.relations(), "logit_confidence", 0.95)
    assert abs(found.h2) < 0.1


@pytest.mark.parametrize("n_models", [60, 120])
def test_raw_influences_score_what_was_forecast(linear, n_models):
    row = one(linear.compare_lds(estimators=["raw"], pilots=n_models, resamples=10))
    assert row["mean_lds"] == pytest.approx(row["forecast"], abs=0.07)
    assert row["n_held_out"] == 320 - n_models
    assert row["of_ceiling"] == pytest.approx(row["mean_lds"] / row["ceiling"])


def share_of(ranked, variance=0.0, n_train=1000):
    return LinearShare(
        ranked, ranked, ranked, 0, 0, ranked, ranked - 0.1, ranked + 0.1, variance, 500, 50, n_train
    )


def test_a_forecast_is_the_formula_of_genomic_prediction():
    share = share_of(0.3)
    r = 0.3 / math.sqrt(0.3 + 1000 / 250) / math.sqrt(3 / math.pi)
    assert share.forecast(250) == pytest.approx(6 / math.pi * math.asin(r / 2))
    assert share.forecast(1e12) == pytest.approx(share.ceiling)
    n = share.models_for(0.2, 2**30)
    assert share.forecast(n) >= 0.2 > share.forecast(n - 1)
    assert share.models_for(share.ceiling + 0.01, 2**30) is None
    assert share_of(-0.01).ceiling == 0


def test_test_examples_that_differ_lower_the_ceiling(stats):
    share = share_of(0.3, variance=0.04)
    a, b = (p * (0.3 * 0.7 / 0.04 - 1) for p in (0.3, 0.7))
    expected = stats.beta(a, b).expect(
        lambda h: 6 / math.pi * np.arcsin(np.minimum(1, np.sqrt(h) / math.sqrt(3 / math.pi)) / 2)
    )
    assert share.ceiling == pytest.approx(expected, abs=1e-3)
    assert share.ceiling < share_of(0.3).ceiling


def test_estimators_are_graded_on_models_that_they_have_not_seen(linear):
    rows = {row["estimator"]: row for row in dicts(linear.compare_lds(pilots=120, resamples=20))}
    assert list(rows) == ["raw", "shrunk", "informed", "trak", "random"]
    assert abs(rows["random"]["mean_lds"]) < 0.05
    assert (
        rows["trak"]["mean_lds"] > rows["raw"]["mean_lds"] + 0.1
    )  # its sketches are the features themselves
    assert rows["raw"]["lo"] < rows["raw"]["mean_lds"] < rows["raw"]["hi"]
    assert rows["raw"]["n_models"] == 120
    assert {row["n_pilots"] for row in rows.values()} == {120}


def test_files_are_graded_beside_estimators(linear):
    class Truth:
        place, shape = "truth", (N_TEST, 60)

        def rows(self, start, stop):
            return effects().T[start:stop]

    rows = dicts(linear.compare_lds(estimators=["raw"], scores={"truth": Truth()}, resamples=20))
    assert [row["estimator"] for row in rows] == ["truth", "raw"]
    assert rows[0]["of_ceiling"] == pytest.approx(1, abs=0.15)
    whole = dicts(linear.lds(Truth(), resamples=20))[0]
    assert whole["of_ceiling"] == pytest.approx(whole["mean_lds"] / whole["ceiling"])
    assert whole["h2"] == pytest.approx(rows[0]["h2"])


def test_held_out_models_can_be_named(linear):
    ids = [model.model_id for _, model in linear.snapshot.models][200:]
    row = one(linear.compare_lds(estimators=["raw"], model_ids=ids, resamples=5))
    assert (row["n_pilots"], row["n_held_out"]) == (200, 120)


def test_a_plan_for_a_score_says_what_is_out_of_reach(linear):
    found = one(linear.plan_lds(0.4))
    assert found["n_models_least"] <= found["n_models_needed"] <= found["n_models_most"]
    assert found["n_models_more"] == max(0, found["n_models_needed"] - 320)
    assert found["outcome"] == "logit_confidence"
    beyond = one(linear.plan_lds(0.9))
    assert (beyond["n_models_needed"], beyond["n_models_more"]) == (None, None)
    assert beyond["ceiling"] < 0.9
    more = one(linear.plan_lds(found["lds_now"] + 0.05))
    assert more["n_models_more"] > 0
    assert more["seconds_more"] == pytest.approx(
        more["n_models_more"] * np.mean([model.seconds for _, model in linear.snapshot.models])
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"estimators": ["magic"]}, InvalidInputError, "unknown estimator 'magic'"),
        ({"estimators": ["screened"]}, InvalidInputError, "unknown estimator 'screened'"),
        ({"pilots": 319}, InvalidInputError, "pilots 319 is not a number from 5 to 315"),
        ({"tests": 0}, InvalidInputError, "tests 0 is not"),
        ({"outcome": "margin"}, InvalidInputError, "keeps no outcome 'margin'"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused(linear, options, error, message):
    with pytest.raises(error, match=message):
        linear.compare_lds(**options)


def test_too_few_models_are_neither_graded_nor_planned_with(asked, empty):
    with pytest.raises(NotEnoughModelsError, match="has 0 models, too few to compute scores"):
        empty.compare_lds()
    with pytest.raises(NotEnoughModelsError, match="do not tell how much"):
        asked.plan_lds(0.3)
    with pytest.raises(InvalidInputError, match="lds 1.5 is not between 0 and 1"):
        asked.plan_lds(1.5)


def test_models_that_agree_on_everything_have_no_ceiling(tmp_path):
    from support.stores import small_database

    with small_database(tmp_path / "same.zarr", outcomes=["correct"]) as db:
        models, masks, outcomes = batch(db.store, range(60))
        outcomes["test/correct"][:] = True
        db.store.commit(models, masks, outcomes)
        db.refresh()
        row = one(db.compare_lds(estimators=["raw"], resamples=3))
        assert (row["h2"], row["ceiling"], row["mean_lds"], row["of_ceiling"]) == (None,) * 4
        with pytest.raises(NotEnoughModelsError, match="do not tell how much"):
            db.plan_lds(0.3)


def test_estimators_that_need_sketches_say_so(asked):
    assert [row["estimator"] for row in dicts(asked.compare_lds(resamples=3))] == ["raw", "shrunk", "random"]
    for name in ("informed", "trak"):
        with pytest.raises(InvalidInputError, match="no gradient sketches"):
            asked.compare_lds(estimators=[name], resamples=3)


def test_help_names_every_estimator():
    from memdb.cli.attribution import MEANINGS

    assert set(MEANINGS) == {name for name, kind in ESTIMATORS.items() if kind.has_scores}


def test_what_sketches_cost_is_known_once_batches_with_and_without_them_can_be_compared(linear, tmp_path):
    row = one(linear.plan_sketches(10))
    assert (row["n_sketched_more"], row["bytes_more"]) == (4, 4 * row["bytes_per_model"])
    assert 0 < row["bytes_per_model"] < 10_000
    assert row["share_of_training"] >= 0
    assert row["seconds_more"] == pytest.approx(4 * row["seconds_per_model"])
    assert one(linear.plan_sketches(3))["bytes_more"] == 0
    given = run("plan", "--sketches", "20", "--store", linear.url, "-f", "json", cwd=tmp_path)
    assert json.loads(given.stdout)["rows"][0]["n_sketched_more"] == 14
    for words in (
        ["--sketches", "0"],
        ["--sketches", "5", "--half-width", "0.1"],
        ["--sketches", "5", "--lds", ".4"],
    ):
        refused = run("plan", *words, "--store", linear.url, cwd=tmp_path)
        assert refused.returncode in {1, 2}
        assert words[-2] in refused.stderr
