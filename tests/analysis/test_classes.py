"""Means over classes, against loops over their examples."""

from __future__ import annotations

import itertools
import math
from statistics import fmean

import numpy as np
import pytest
from support import oracle
from support.stores import N_MODELS, bits_of, dicts, small_database
from support.storing import batch

from memdb.errors import InvalidInputError, NotEnoughModelsError


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
        with pytest.raises(NotEnoughModelsError, match="has 0 models"):
            ask()
    with pytest.raises(InvalidInputError, match="^threshold 7"):
        db.classes(threshold=7)
