"""Which files are tables, by their names."""

from __future__ import annotations

from pathlib import Path

CSV = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
JSON = (".json", ".ndjson", ".jsonl")
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")  # by which Arrow knows how to read CSV and JSON


def is_table(path: Path) -> bool:
    """Tell by its name whether a file is a table of numbers; JSON may be anything, and counts if named."""
    return path.suffix.lower() in PARQUET or ending_of(path) in CSV


def is_json(path: Path) -> bool:
    """Tell by its name whether a file is JSON."""
    return ending_of(path) in JSON


def ending_of(path: Path) -> str:
    """Return the ending of a name, without that of compression."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix
