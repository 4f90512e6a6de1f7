"""The query layer: the only part of memdb that knows DuckDB."""
