"""Computed rows as DuckDB relations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    import pyarrow as pa


def seen_as(html: Callable[[duckdb.DuckDBPyRelation], str]) -> type[duckdb.DuckDBPyRelation]:
    """Return a kind of relation that notebooks show as HTML."""

    class Rows(duckdb.DuckDBPyRelation):
        __slots__ = ()  # the same layout, so that a relation can become one: DuckDB alone makes them

        def _repr_html_(self) -> str:
            return html(self)

        def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002
            return {"text/plain": repr(self), "text/html": html(self)}  # in place of DuckDB's own

    return Rows


class Results:
    """Presents tables as relations of a separate in-memory database, so that answers outlive their store.

    Opening a database takes longer than most answers, so all answers of a `Database` share one.

    Args:
        html: shows a relation in a notebook; by default, DuckDB does.
    """

    def __init__(self, html: Callable[[duckdb.DuckDBPyRelation], str] | None = None) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._kind = duckdb.DuckDBPyRelation if html is None else seen_as(html)

    def present(self, table: pa.Table) -> duckdb.DuckDBPyRelation:
        """Return a relation over an Arrow table; it keeps the in-memory database alive."""
        return self._seen(self._cursor().from_arrow(table))

    def in_file(self, path: Path) -> duckdb.DuckDBPyRelation:
        """Return a relation over a Parquet file, which is read lazily."""
        return self._seen(self._cursor().read_parquet(str(path)))

    def _seen(self, relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
        relation.__class__ = self._kind
        return relation

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect()
        return self._connection.cursor()
