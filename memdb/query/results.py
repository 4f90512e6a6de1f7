"""Computed rows as DuckDB relations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import ConstantExpression, StarExpression
from duckdb.sqltypes import BIGINT, DOUBLE, VARCHAR

if TYPE_CHECKING:
    import pyarrow as pa


class Results:
    """Presents tables as relations of a separate in-memory database, so that answers outlive their store.

    Opening a database takes longer than most answers, so all answers of a `Database` share one.
    """

    def __init__(self) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None

    def present(self, table: pa.Table, facts: Mapping[str, Any]) -> duckdb.DuckDBPyRelation:
        """Return a relation over an Arrow table; it keeps the in-memory database alive.

        ``facts`` become columns, which take no memory, unless the table has columns of these names.
        """
        rows = self._cursor().from_arrow(table)
        kinds = {"level": DOUBLE, "n_models": BIGINT}
        added = [
            ConstantExpression(value).cast(kinds.get(name, VARCHAR)).alias(name)
            for name, value in facts.items()
            if name not in table.column_names
        ]
        return rows.select(StarExpression(), *added) if added else rows

    def in_file(self, path: Path) -> duckdb.DuckDBPyRelation:
        """Return a relation over a Parquet file, which is read lazily."""
        return self._cursor().read_parquet(str(path))

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect()
        return self._connection.cursor()
