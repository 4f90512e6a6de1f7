"""One example, what the models made of it, and its strongest partners both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from memdb.format import layout
from memdb.look.tiles import Hanging, Source, Tile, source_of
from memdb.query.answers import Answers
from memdb.query.examples import ExampleRef, require_models
from memdb.query.imported_scores import TableRelations
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Order, RankedQuery
from memdb.query.questions import SIDES
from memdb.render.tables import brief
from memdb.wording import count

if TYPE_CHECKING:
    import pyarrow as pa

INTERVALS = "anytime, of partners selected"


class Rate(NamedTuple):
    """A mean outcome of some models: ``in``, ``out`` or ``all``; None of no models."""

    models: str
    mean: float | None
    words: str


@dataclass(frozen=True)
class Portrait:
    """An example with its score and its partners.

    Attributes:
        owner: the example; of a training example with its memorization.
        rates: the mean outcome of models with it in their subset and without, or of all models on a test
            example, each with its name and in words.
        helps, hurts: the strongest partners either way.
        titles: what stands above these.
        rows: the same partners as a table, ``direction`` first.
        score: the row of the owner's score, empty for a test example.
    """

    owner: Tile
    rates: tuple[Rate, ...]
    helps: tuple[Tile, ...]
    hurts: tuple[Tile, ...]
    titles: tuple[str, str]
    source: Source
    rows: pa.Table
    score: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, Any]:
        """What a document says of the example itself."""
        owner = self.owner
        named = {"set": owner.set_name, "id": owner.row, "key": owner.key, "class": owner.class_name}
        return {**named, "score": dict(self.score) or None}


TITLES = {
    "train_id": ("helps these test examples most", "hurts these test examples most"),
    "test_id": ("helped most by these training examples", "hurt most by these training examples"),
    "target_id": ("helped most by these training examples", "hurt most by these training examples"),
}


def portrait(answers: Answers, fixed: ExampleRef, k: int, level: float) -> Portrait:
    """Return an example with its k strongest partners each way, as `top-influence` ranks them.

    A training example's partners are the test examples that it influences or, in a store that has none, the
    training examples that influence it.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: k or level out of range.
    """
    relations = answers.relations
    if not isinstance(relations, TableRelations):
        require_models(relations.snapshot)
    hanging = Hanging(relations)
    if fixed.column == "train_id" and not relations.snapshot.manifest.set_named(layout.TEST).n_examples:
        fixed = ExampleRef("target_id", fixed.row)
    partners = {direction: _partners(answers, fixed, direction, k, level) for direction in ("helps", "hurts")}
    listed = SIDES[fixed.column].listed
    helps, hurts = (
        tuple(hanging.partner(row, listed) for row in rows.to_pylist()) for rows in partners.values()
    )
    label = hanging.label_of(fixed.example_set, fixed.row)
    owner, score = hanging.tile(fixed.example_set, fixed.row, label), {}
    if fixed.example_set == layout.TEST:
        rates = _rate_on_test(answers, fixed)
    else:
        score = answers.score(fixed.row, None, IntervalSpec("anytime", level)).to_pylist()[0]
        owner, rates = hanging.memorized(score), _rates(score)
    source = source_of(relations, level, INTERVALS)
    return Portrait(owner, rates, helps, hurts, TITLES[fixed.column], source, _stacked(partners), score)


def _partners(answers: Answers, fixed: ExampleRef, direction: str, k: int, level: float) -> pa.Table:
    """Return the first k of a direction that go there at all."""
    import pyarrow.compute as pc  # noqa: PLC0415 - takes a while

    query = RankedQuery(k, Order(direction=direction), IntervalSpec("selected", level))
    rows = answers.top_influence(fixed, query)
    sign = 1 if direction == "helps" else -1
    return rows.filter(pc.greater(pc.multiply(rows.column("influence"), sign), 0))


def _stacked(found: Mapping[str, pa.Table]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    named = [
        table.add_column(0, "direction", pa.array([direction] * len(table), pa.string()))
        for direction, table in found.items()
    ]
    return pa.concat_tables(named)


def _rates(score: Mapping[str, Any]) -> tuple[Rate, ...]:
    if score["n_in"] is None:
        return ()
    counted = "k_in" in score
    return tuple(
        _rate(arm, score[f"k_{arm}" if counted else f"p_{arm}"], score[f"n_{arm}"], counted=counted)
        for arm in ("in", "out")
    )


def _rate_on_test(answers: Answers, fixed: ExampleRef) -> tuple[Rate, ...]:
    relations = answers.relations
    if isinstance(relations, TableRelations):
        return ()
    values = relations.values(layout.TEST, fixed.row)
    counted = relations.outcome == "correct"
    return (_rate("all", values.sum() if counted else values.mean(), len(values), counted=counted),)


def _rate(arm: str, value: float | None, n: int, *, counted: bool) -> Rate:
    if value is None or not n:
        return Rate(arm, None, "no models")
    if counted:
        return Rate(arm, value / n, f"{int(value):,} of {n:,} right")
    return Rate(arm, value, f"{brief(value)} over {count(n, 'model')}")
