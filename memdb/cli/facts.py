"""Answers that say of the whole what is more, or less, than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memdb.cli.output import Way, answer_of
from memdb.render.answer import Answer

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from memdb.database import Database

NO_INTERVAL = ("level", "interval")


def without_interval(db: Database, rows: DuckDBPyRelation, way: Way) -> Answer:
    """Return rows that have no intervals, and so no level and kind of them."""
    answer = answer_of(db, rows, way)
    return Answer(answer.table, {name: v for name, v in answer.facts.items() if name not in NO_INTERVAL})


def with_common(
    db: Database, rows: DuckDBPyRelation, way: Way, prefixes: tuple[str, ...], k: int | None = None
) -> tuple[Answer, dict[str, Any]]:
    """Return rows, or the first k, and what all of them say of the whole, which a document says once."""
    answer = answer_of(db, rows, way)
    answer = answer if k is None else Answer(answer.table.slice(0, k), answer.facts)
    first = next(answer.rows(), {})
    kept = ("n_in", "n_out")
    common = {name: v for name, v in first.items() if name.startswith(prefixes) and name not in kept}
    facts = {**answer.facts, **common}
    if way.rows_stand_alone:
        return Answer(answer.table, facts), common
    return Answer(answer.table.drop_columns(list(common)), facts), common
