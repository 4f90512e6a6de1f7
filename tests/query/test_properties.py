"""What is true of every store's answers, as its user sees them.

Two things look true and are not: a higher level's interval holds a lower one's (it may not, in tiny arms), and one more
model narrows an interval (one that is wrong where all were right widens it).
"""

from __future__ import annotations

import contextlib
import uuid
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle
from support.cases import every, examples_of
from support.stores import N_TEST, N_TRAIN, bits_of, small_database
from support.storing import batch, forget

RELATIONS = {"memorization": "memorization", "influence": "influence", "train_influence": "influence"}
SEEDS = st.lists(st.integers(0, 10**6), min_size=2, max_size=60, unique=True)
few = settings(max_examples=examples_of(12), derandomize=True)


def add_confidences(outcomes):
    """Let each model be as sure of what it gets right and wrong as its own bits say."""
    for name in ("train", "test"):
        right = outcomes[f"{name}/correct"]
        sure = [np.random.default_rng(zlib.crc32(row.tobytes())).exponential(size=len(row)) for row in right]
        outcomes[f"{name}/logit_confidence"] = np.where(right, sure, np.negative(sure))


@contextlib.contextmanager
def stores(*contents):
    """Open one store for each content: seeds in segments, and what is done to masks and outcomes before."""
    with contextlib.ExitStack() as opened:
        found = []
        for segments, change in contents:
            db = opened.enter_context(small_database(f"memory://{uuid.uuid4().hex}/s.zarr"))
            for seeds in segments:
                models, masks, outcomes = batch(db.store, seeds)
                add_confidences(outcomes)
                change(masks, outcomes)
                db.store.commit(models, masks, outcomes)
            found.append(db)
        yield found
    for db in found:
        forget(db.url)


def unchanged(_masks, _outcomes):
    pass


def columns(db, relation, **options):
    """Every row of a relation as columns, by ascending ids; NULL as NaN."""
    found = db.sql(f"FROM {relation} ORDER BY ALL", **options).fetchnumpy()
    return {
        name: np.ma.filled(values, np.nan) if np.ma.isMA(values) else values for name, values in found.items()
    }


def lists(db, outcome, fdr):
    """Every row of every kind of list, in order."""
    options = {"k": 100, "fdr": fdr, "ranks": True, "outcome": outcome}
    return [
        db.top_memorized(**options).fetchall(),
        db.top_influence(test_id=3, direction="both", **options).fetchall(),
        db.top_influence(train_id=3, direction="hurts", order="influence", **options).fetchall(),
        db.top_influence(target_id=3, order="q_value", **options).fetchall(),
    ]


def by_id(listed):
    return {row[0]: row[1:] for row in listed.project("train_id, shrunk, q_value").fetchall()}


def complement_outcomes(_masks, outcomes):
    for path in outcomes:
        outcomes[path] = ~outcomes[path] if path.endswith("correct") else -outcomes[path]


def complement_masks(masks, _outcomes):
    masks ^= True


@pytest.mark.parametrize(
    ("complement", "outcome"),
    [
        (complement_outcomes, "correct"),
        (complement_masks, "confidence"),
        pytest.param(complement_outcomes, "confidence", marks=pytest.mark.slow),
        pytest.param(complement_masks, "correct", marks=pytest.mark.slow),
    ],
)
@few
@given(seeds=SEEDS)
def test_complementing_what_is_right_or_who_was_in_turns_every_score_and_interval_around(
    complement, outcome, seeds
):
    with stores(([seeds], unchanged), ([seeds], complement)) as (one, other):
        for relation, score in RELATIONS.items():
            before, after = (columns(db, relation, outcome=outcome) for db in (one, other))
            for name, mirrored in ((score, score), ("lo", "hi"), ("hi", "lo")):
                np.testing.assert_allclose(after[name], -before[mirrored], atol=1e-9, rtol=0)
        before, after = (by_id(db.top_memorized(100, outcome=outcome)) for db in (one, other))
        for train_id, (shrunk, q_value) in before.items():
            expected = (None, None) if shrunk is None else pytest.approx((-shrunk, q_value), abs=1e-6)
            assert after[train_id] == expected


@pytest.mark.slow
@settings(few, max_examples=examples_of(8))
@given(seeds=SEEDS, data=st.data())
def test_the_order_of_models_and_how_they_were_committed_change_no_answer_bit_for_bit(seeds, data):
    shuffled = data.draw(st.permutations(seeds))
    cut = data.draw(st.integers(1, len(seeds) - 1))
    fdr = data.draw(st.sampled_from(["once", "anytime"]))
    with stores(([seeds], unchanged), ([shuffled[cut:], shuffled[:cut]], unchanged)) as (one, other):
        assert one.models_sha256 == other.models_sha256
        for outcome in ("correct", "confidence"):
            for relation in RELATIONS:
                asked = [
                    db.sql(f"FROM {relation} ORDER BY ALL", outcome=outcome).fetchall() for db in (one, other)
                ]
                assert asked[0] == asked[1]
            before = lists(other, outcome, fdr)
            assert lists(one, outcome, fdr) == before
        other.compact()
        assert lists(other, outcome, fdr) == before


@pytest.mark.parametrize("outcome", every(2, ["confidence", "correct"]))
@few
@given(seeds=SEEDS, kind=st.sampled_from(["fixed", "anytime"]))
def test_memorization_is_an_examples_influence_on_itself_bit_for_bit(outcome, seeds, kind):
    with stores(([seeds], unchanged)) as (db,):
        sums = "k_in, k_out" if outcome == "correct" else "s_in, s_out, q_in, q_out"
        shown = f"lo, hi, n_in, n_out, {sums}"
        own = db.memorization(outcome=outcome, interval=kind).project(f"memorization, {shown}").fetchall()
        for train_id, row in enumerate(own):
            (pair,) = (
                db.train_influence(train_id=train_id, target_id=train_id, outcome=outcome, interval=kind)
                .project(f"influence, {shown}").fetchall()
            )  # fmt: skip
            assert pair == row


@few
@given(seeds=SEEDS, data=st.data())
def test_counts_of_a_union_are_the_sums_of_counts(seeds, data):
    cut = data.draw(st.integers(1, len(seeds) - 1))
    parts = (seeds[:cut], seeds[cut:])
    with stores(*(([part], unchanged) for part in parts), (parts, unchanged)) as (one, other, both):
        for target in ({}, {"test_id": 5}, {"target_id": 7}):
            halves, whole = (one.counts(**target), other.counts(**target)), both.counts(**target)
            for name, values in whole.items():
                assert (halves[0][name] + halves[1][name] == values).all()
        sums = "SELECT s_in, s_out, q_in, q_out FROM influence ORDER BY train_id, test_id"
        first, second, union = (
            np.array(db.sql(sums, outcome="confidence").fetchall()) for db in (one, other, both)
        )
        assert (first + second == union).all()


@few
@given(seeds=SEEDS)
def test_counts_are_the_oracles(seeds):
    with stores(([seeds], unchanged)) as (db,):
        masks, train, test = (found.tolist() for found in bits_of(db.snapshot))
        for target, correct in (({"test_id": 10}, test), ({"target_id": 22}, train), ({}, train)):
            found = db.counts(**target)
            for i in range(N_TRAIN):
                z = next(iter(target.values()), i)
                expected = oracle.counts(masks, correct, i, z)
                assert tuple(found[name][i] for name in ("n_in", "n_out", "k_in", "k_out")) == expected


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
@few
@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=12, unique=True))
def test_an_interval_holds_its_score_and_is_missing_only_where_an_arm_is_empty(outcome, seeds):
    with stores(([seeds], unchanged)) as (db,):
        for kind in ("fixed", "anytime", "simultaneous"):
            for relation, score in RELATIONS.items():
                found = columns(db, relation, outcome=outcome, interval=kind)
                empty = (found["n_in"] == 0) | (found["n_out"] == 0)
                estimate, lo, hi = found[score], found["lo"], found["hi"]
                for values in (estimate, lo, hi):
                    assert (np.isnan(values) == empty).all()
                kept = ~empty
                assert (lo[kept] >= -1).all()
                assert (lo[kept] <= estimate[kept]).all()
                assert (estimate[kept] <= hi[kept]).all()
                assert (hi[kept] <= 1).all()
        ranked = db.top_influence(test_id=0, k=100, outcome=outcome).project("influence, lo, hi").fetchall()
        assert len(ranked) == N_TRAIN
        assert all(lo <= estimate <= hi for estimate, lo, hi in ranked if estimate is not None)


def hold_nothing_out(masks, _outcomes):
    masks |= True


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
def test_a_list_without_any_score_has_no_ranks_either(outcome):
    with stores(([[1, 2, 3]], hold_nothing_out)) as (db,):
        for listed in (
            db.top_memorized(5, ranks=True, outcome=outcome),
            db.top_influence(test_id=0, k=5, ranks=True),
        ):
            shown = listed.project("train_id, shrunk, lo, hi, q_value, rank_lo, rank_hi, n_null").fetchall()
            assert shown == [(i, *[None] * 7) for i in range(5)]


def be_certain(_masks, outcomes):
    for name in ("train", "test"):
        outcomes[f"{name}/logit_confidence"] = np.where(outcomes[f"{name}/correct"], 30.0, -30.0)


@few
@given(seeds=SEEDS)
def test_confidences_of_0_and_1_give_the_scores_of_right_and_wrong_bit_for_bit(seeds):
    with stores(([seeds], be_certain)) as (db,):
        for relation, score in RELATIONS.items():
            certain, right = (columns(db, relation, outcome=outcome) for outcome in ("confidence", "correct"))
            for name in (score, "lo", "hi", "n_in", "n_out"):
                np.testing.assert_array_equal(certain[name], right[name])
        of_all = "train_id, influence, shrunk, lo, hi"
        listed = [
            db.top_influence(test_id=N_TEST - 1, k=100, order="influence", outcome=outcome)
            .project(of_all)
            .fetchall()
            for outcome in ("correct", "confidence")
        ]
        assert listed[0] == listed[1]
