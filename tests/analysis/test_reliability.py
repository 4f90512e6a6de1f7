"""What two halves of the models agree on, against halves counted by hand."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
from support import oracle
from support.stores import bits_of, dicts

from memdb.analysis.reliability import Splitting, reliability
from memdb.errors import InvalidInputError, NotEnoughModelsError


def halves_by_hand(database, seed, split):
    """The model ids in the first half, by the rule in words: those with the smallest draws, in order of id."""
    ids = sorted(model.model_id for _, model in database.snapshot.models)
    draws = np.random.Philox(key=seed + (split << 64)).random_raw(len(ids))
    order = sorted(range(len(ids)), key=lambda at: draws[at])
    return {ids[at] for at in order[: len(ids) // 2]}


def measured(pairs, lists, threshold):
    known = [(i, a, b) for i, (a, b) in enumerate(pairs) if a is not None and b is not None]
    r = oracle.correlation([(a, b) for _, a, b in known])
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


@pytest.mark.parametrize("outcome", ["correct", "confidence"])
def test_memory_is_bounded_and_makes_no_difference(db, outcome, monkeypatch):
    at_once = db.reliability(splits=7, outcome=outcome).fetchall()
    monkeypatch.setattr("memdb.analysis.reliability.SUMS_AT_ONCE", 3 * 23)  # of eight selections, three
    assert db.reliability(splits=7, outcome=outcome).fetchall() == at_once


def test_an_odd_model_goes_to_the_second_half(asked):
    assert len(halves_by_hand(asked, 0, 0)) == 18  # of 37
    assert {row["n_splits"] for row in dicts(asked.reliability(splits=2, k=[1]))} == {2}


def test_lists_longer_than_what_is_scored_are_omitted(asked):
    rows = reliability(asked.relations("correct"), None, Splitting(2, lists=(24,)))
    assert rows.column("measure").to_pylist() == ["correlation", "spearman_brown", "confirmed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": [0]}, "k 0 is not a number from 1 to 23"), ({"k": [5, 24]}, "k 24"), ({"splits": 0}, "splits 0"),
        ({"splits": 100_000}, "splits 100000"), ({"seed": -1}, "seed -1"), ({"threshold": 1.5}, "threshold 1.5"),
        ({"test_id": 11}, "test_id 11 is out of range"), ({"outcome": "loss"}, "unknown outcome"),
    ],
)  # fmt: skip
def test_reliabilities_that_cannot_be_are_refused(db, options, message):
    with pytest.raises(InvalidInputError, match=message):
        db.reliability(**options)


def test_halves_need_models(empty):
    with pytest.raises(NotEnoughModelsError, match="too few for two halves"):
        empty.reliability()
