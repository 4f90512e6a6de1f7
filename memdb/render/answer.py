"""An answer: rows, and what every format has to say about them."""

from __future__ import annotations

import csv
import io
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from memdb.errors import InvalidInput, StorageFailed

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "json", "ndjson", "csv")
SUFFIXES = (".json", ".ndjson", ".csv", ".parquet")
LIST_FACTS = ("n_ranked", "n_null", "n_models_needed")  # the same in every row of a ranked list
ROW_FACTS = ("interval", "level", "outcome", "n_models", *LIST_FACTS)  # what a row needs to be read alone
LEFT_OUT = "n_excluded"  # likewise, where models were left out
ROWS_AT_ONCE = 4096  # that are Python objects
RUN = secrets.token_hex(4)  # of this process, in the names of files that it writes


@dataclass(frozen=True)
class Answer:
    """Rows with their provenance. ``facts`` are the fields of the JSON document beside ``rows``."""

    table: pa.Table  # or a RecordBatchReader, whose rows are there once
    facts: Mapping[str, Any]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows as JSON values: numbers as numbers, NULL and NaN as None."""
        for batch in self.batches():
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield from rows_of(batch.slice(start, ROWS_AT_ONCE))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow has them."""
        yield from self.table.to_batches() if hasattr(self.table, "to_batches") else self.table

    def with_facts(self) -> pa.RecordBatchReader:
        """Return the rows with what they need to be read alone as columns."""
        import pyarrow as pa  # noqa: PLC0415 - only tables for programs need it here

        schema = self.table.schema
        given = [name for name in (*ROW_FACTS, LEFT_OUT) if name in self.facts and name not in schema.names]
        values = [pa.scalar(self.facts[name]) for name in given]
        for name, value in zip(given, values, strict=True):
            schema = schema.append(pa.field(name, value.type))
        batches = (
            pa.RecordBatch.from_arrays(
                [*batch.columns, *(pa.repeat(value, batch.num_rows) for value in values)], schema=schema
            )
            for batch in self.batches()
        )
        return pa.RecordBatchReader.from_batches(schema, batches)

    def text(self, kind: str) -> str:
        """Return the answer as ``json``, ``ndjson`` or ``csv``."""
        whole = io.StringIO(newline="")
        self.write_text(whole, kind)
        return whole.getvalue()

    def write_text(self, file: TextIO, kind: str) -> int:
        """Write the answer as ``json``, ``ndjson`` or ``csv``, row by row; return how many rows it has."""
        n_rows = 0
        if kind == "json":
            head, _, tail = _json({**self.facts, "rows": []}, indent=2).rpartition("[]")
            file.write(head)
            rows = self.rows()
            while some := list(islice(rows, ROWS_AT_ONCE)):
                inside = _json(some, indent=2).removeprefix("[").removesuffix("\n]")
                file.write(("," if n_rows else "[") + inside.replace("\n", "\n  "))
                n_rows += len(some)
            file.write(("\n  ]" if n_rows else "[]") + f"{tail}\n")
            return n_rows
        alone = Answer(self.with_facts(), self.facts)
        if kind == "ndjson":
            for row in alone.rows():
                file.write(f"{_json(row)}\n")
                n_rows += 1
            return n_rows
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(alone.table.schema.names)
        for row in alone.rows():
            writer.writerow([_cell(value) for value in row.values()])
            n_rows += 1
        return n_rows

    def write(self, path: Path) -> int:
        """Write a file in the format of its suffix, whole or not at all; return how many rows it has.

        Raises:
            StorageFailed: the folder is missing, full or not writable.
            InvalidInput: values that Parquet has no place for.
        """
        suffix, temporary = require_suffix(path), half_written(path)
        try:
            if suffix == ".parquet":
                n_rows = self._write_parquet(temporary)
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    n_rows = self.write_text(file, suffix[1:])
            temporary.replace(path)
        except OSError as error:
            raise StorageFailed(
                f"cannot write {path}: {error.strerror or error}",
                hint="name a file in a folder you may write to",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return n_rows

    def _write_parquet(self, path: Path) -> int:
        import pyarrow as pa  # noqa: PLC0415 - only this format needs them
        import pyarrow.parquet as pq  # noqa: PLC0415

        reader, n_rows = self.with_facts(), 0
        try:
            with pq.ParquetWriter(path, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
                    n_rows += batch.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInput(
                f"Parquet cannot hold these values: {' '.join(str(error).split())}",
                hint="cast them in the statement, such as ::VARCHAR, or write another format",
            ) from error
        return n_rows


def half_written(path: Path) -> Path:
    """Return where a file stands until it is whole."""
    return path.with_name(f".{path.name}.{RUN}.tmp")


def require_suffix(path: Path) -> str:
    """Return a file's suffix.

    Raises:
        InvalidInput: not one that memdb writes.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"--output {path} has a suffix that is no format", hint=f"use one of {', '.join(SUFFIXES)}"
        )
    return suffix


def require_format(name: str) -> str:
    """Return a format's name.

    Raises:
        InvalidInput: not one that memdb prints.
    """
    if name not in FORMATS:
        raise InvalidInput(f"unknown format {name!r}", hint=f"use one of {', '.join(FORMATS)}")
    return name


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as JSON values."""
    names = batch.schema.names
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield {name: _plain(value) for name, value in zip(names, values, strict=True)}


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one return a kind of value
    match value:
        case float():
            return value if -float("inf") < value < float("inf") else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else value
