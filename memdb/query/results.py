"""Rows that are computed already, as DuckDB relations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    import pyarrow as pa


class Results:
    """Gives tables as relations, in a database of their own: an answer outlives the store it came from.

    Making a database takes longer than most answers, so all of a reader's answers share one.
    """

    def __init__(self) -> None:
        self._connection: duckdb.DuckDBPyConnection | None = None

    def present(self, table: pa.Table) -> duckdb.DuckDBPyRelation:
        """Return a relation over an Arrow table; the database goes with the last relation and this."""
        return self._cursor().from_arrow(table)

    def in_file(self, path: Path) -> duckdb.DuckDBPyRelation:
        """Return a relation over a Parquet file of ours, which is read when the relation is."""
        return self._cursor().read_parquet(str(path))

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = duckdb.connect()
        return self._connection.cursor()
