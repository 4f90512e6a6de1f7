"""Curves of a score, against counting the first models by hand."""

from __future__ import annotations

import numpy as np
import pytest
from support import oracle
from support.stores import bits_of, coin_recipe, dicts, one, small_dataset
from support.storing import batch

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import layout


@pytest.fixture
def disordered(database, monkeypatch):
    """Blocks, loose segments, and a segment committed before those that the blocks cover."""
    seeds = [model.seed for _, model in database.snapshot.models]
    database.compact()
    now_id = layout.segment_id
    with monkeypatch.context() as patch:
        patch.setattr(layout, "segment_id", lambda now, token: now_id(now.replace(year=2020), token))
        database.store.commit(*batch_with_confidences(database.store, [900, 901, 902]))
    database.train(seeds=[1000, 1001, 1002], dataset=small_dataset(), recipe=coin_recipe, compact=False)
    database.refresh()
    return database, [900, 901, 902, *seeds, 1000, 1001, 1002]


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
    for name in set(score) & set(last) - {"n_models", "interval"}:
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
    from memdb.analysis.convergence import usual_looks

    assert usual_looks(n_models) == looks


@pytest.mark.parametrize("n_models", [1, 2, 9, 10, 11, 60, 4000])
def test_a_curve_starts_with_the_first_look_and_ends_with_the_last(n_models):
    from memdb.analysis.convergence import dense_looks

    looks = dense_looks(n_models, 72)
    assert (looks[0], looks[-1]) == (min(10, n_models), n_models)
    assert looks == sorted(set(looks))
    assert len(looks) <= 72


@pytest.mark.parametrize("looks", [[], [0], [61], [-1, 5]])
def test_looks_that_cannot_be_are_refused(db, looks):
    with pytest.raises(InvalidInputError, match="name numbers from 1 to 60|looks after"):
        db.convergence(3, looks=looks)


def test_nothing_converges_without_models(empty):
    with pytest.raises(NotEnoughModelsError, match="has no models yet"):
        empty.convergence(3)
