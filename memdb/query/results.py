"""Rows that are computed already, as DuckDB relations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


def present(table: pa.Table) -> duckdb.DuckDBPyRelation:
    """Return a relation over an Arrow table, in a connection of its own."""
    return duckdb.connect().from_arrow(table)  # goes, with its threads, when the relation does


def in_file(path: Path) -> duckdb.DuckDBPyRelation:
    """Return a relation over a Parquet file of ours, in a connection of its own."""
    return duckdb.connect().read_parquet(str(path))
