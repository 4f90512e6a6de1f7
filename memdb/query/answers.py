"""The questions that models and imported scores both answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from memdb.errors import InvalidInputError
from memdb.query.examples import ExampleRef, set_of
from memdb.query.intervals import IntervalSpec
from memdb.query.options import PairOptions, RankedQuery

if TYPE_CHECKING:
    import pyarrow as pa

    from memdb.query.relations import Relations


class Answers(Protocol):
    """Answers questions about scores as Arrow tables: from models, or from scores imported without models."""

    @property
    def relations(self) -> Relations:
        """The relations that SQL statements and comparisons read."""

    def top_memorized(self, class_name: str | None, query: RankedQuery) -> pa.Table:
        """Return the training examples that rank first by memorization, NULLs last."""

    def top_influence(self, fixed: ExampleRef, query: RankedQuery, *, same_class: bool = False) -> pa.Table:
        """Return the influences that rank first with one side fixed, NULLs last."""

    def score(self, train_id: int, target: ExampleRef | None, interval: IntervalSpec) -> pa.Table:
        """Return one memorization score, or the influence on one target."""

    def scores(
        self,
        relation: str,
        ids: Mapping[str, int | None],
        interval: IntervalSpec,
        *,
        same_class: bool = False,
    ) -> pa.Table:
        """Return the rows of a relation with these ids, by ascending ids; ``None`` matches any id."""

    def pairs(self, options: PairOptions) -> pa.Table:
        """Return the pairs that the options select: by test id, then from the strongest."""


def relation_of(target: ExampleRef | None) -> str:
    """Return the name of the relation that holds the scores on this target."""
    if target is None:
        return "memorization"
    return "influence" if target.column == "test_id" else "train_influence"


def ids_of(train_id: int, target: ExampleRef | None) -> dict[str, int | None]:
    """Return the ids, by column, of a training example and its target, if any."""
    return {"train_id": train_id, **({target.column: target.row} if target else {})}


def rows_of(relations: Relations, relation: str, ids: Mapping[str, int | None]) -> dict[str, int]:
    """Return the ids that are not None, each checked.

    Raises:
        InvalidInputError: an id out of range, or no id at all for a relation of pairs.
    """
    given = {
        name: relations.row_of(set_of(name), row, None, name) for name, row in ids.items() if row is not None
    }
    if relation != "memorization" and not given:
        raise InvalidInputError(
            f"{relation} of all pairs is too much at once",
            hint=f"name {' or '.join(ids)}, or use pairs for all of them",
        )
    return given


def rows_with(relation: str, given: Mapping[str, int], ids: Mapping[str, object], *, same_class: bool) -> str:
    """Return the SQL for the rows with the given ids, by ascending ids."""
    filters = [f"{name} = ${name}" for name in given] + ["same_class"] * same_class
    where = f" WHERE {' AND '.join(filters)}" if filters else ""
    return f"FROM {relation}{where} ORDER BY {', '.join(ids)}"
