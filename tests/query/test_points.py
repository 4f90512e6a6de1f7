"""A named score that is counted from its two examples is the row of the relation, to the last bit."""

from __future__ import annotations

import pytest

from memdb.format import layout
from memdb.query.answers import rows_with
from memdb.query.intervals import IntervalSpec
from memdb.query.points import FEW, point
from memdb.query.relations import Relations
from memdb.store.model_ids import exclude_models

RELATIONS = {"memorization": None, "influence": "test_id", "train_influence": "target_id"}


def compared(relations, relation, ids, interval):
    given = dict(zip(("train_id", RELATIONS[relation]), ids, strict=False))
    given.pop(None, None)
    sql = rows_with(relation, given, given, same_class=False)
    found = point(relations, relation, given, interval)
    assert found.equals(relations.ask(sql, given, interval=interval))
    return found.to_pylist()[0]


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("kind", ["fixed", "anytime", "simultaneous"])
def test_a_named_score_is_the_row_of_its_relation(asked, relation, kind):
    relations = asked.relations()
    for ids in ((0, 0), (3, 1), (1, 2)):
        compared(relations, relation, ids, IntervalSpec(kind, 0.9))


def test_rows_of_blocks_are_read_alone_until_they_are_many(database):
    database.compact(alone=True)
    database.refresh()
    whole, alone = database.relations(), Relations(database.snapshot)
    assert all(alone.snapshot.counted)
    shape = database.store.manifest
    n_train, n_test = shape.train.n_examples, shape.set_named(layout.TEST).n_examples
    for row in range(FEW):
        ids = {"train_id": row % n_train, "test_id": row % n_test}
        asked_of = [
            point(relations, "influence", ids, IntervalSpec("anytime")) for relations in (whole, alone)
        ]
        whole.ask("FROM influence WHERE test_id = 0")  # which reads all
        assert asked_of[0].equals(asked_of[1])
    assert len(alone.read_alone) == FEW
    assert set(alone.bits) == {layout.MASK, "test/correct"}


def test_an_example_that_was_in_every_subset_has_no_score(asked):
    one = asked.store.snapshot().models[0][1].model_id
    others = [model.model_id for _, model in asked.snapshot.models if model.model_id != one]
    relations = Relations(exclude_models(asked.snapshot, others))
    found = compared(relations, "influence", (0, 0), IntervalSpec("anytime"))
    assert (found["influence"], found["lo"], found["n_in"] + found["n_out"]) == (None, None, 1)


def test_what_several_rows_fit_is_left_to_sql(asked):
    assert point(asked.relations(), "influence", {"test_id": 0}, IntervalSpec("anytime")) is None
    assert (
        point(asked.relations("confidence"), "memorization", {"train_id": 0}, IntervalSpec("anytime")) is None
    )
