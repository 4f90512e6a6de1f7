"""An answer: rows, and what every format has to say about them."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from memdb.errors import InvalidInputError
from memdb.files import writing
from memdb.wording import is_number

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "markdown", "line", "json", "ndjson", "csv", "spreadsheet")
SUFFIXES = (".json", ".ndjson", ".csv", ".parquet")
LIST_FACTS = ("n_ranked", "n_null", "n_models_needed")  # the same in every row of a ranked list
ROW_FACTS = ("interval", "level", "outcome", "n_models", *LIST_FACTS)  # what a row needs to be read alone
LEFT_OUT = "n_excluded"  # likewise, if models were excluded
CONTROLS = re.compile(  # what moves a cursor, ends a line or turns the reading direction
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
MARKUP = re.compile(r"[\\`*\[\]<>|]")  # what Markdown takes for more than a character
NUMERIC = ("int", "uint", "double", "float", "decimal")
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # spreadsheets take the wide forms, too
ROWS_AT_ONCE = 4096  # that are Python objects


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
        values = [_scalar(self.facts[name]) for name in given]
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
        """Return the answer as any of `FORMATS` but ``table``.

        Names are untrusted. JSON is ASCII: other characters are escaped, and come back when it is parsed.
        CSV has no escapes: control characters are dropped, and a line break or tab becomes a space.
        ``spreadsheet`` is CSV with an apostrophe before text that a spreadsheet would take for a formula.
        ``markdown`` is a table and a line on what it is of; ``line`` gives each value a line of its own.
        """
        whole = io.StringIO(newline="")
        self.write_text(whole, kind)
        return whole.getvalue()

    def write_text(self, file: TextIO, kind: str) -> int:
        """Write the answer in such a format, row by row; return how many rows it has."""
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
        if kind == "markdown":
            return self._write_markdown(file)
        alone = Answer(self.with_facts(), self.facts)
        if kind == "line":
            return alone._write_lines(file)
        if kind == "ndjson":
            for row in alone.rows():
                file.write(f"{_json(row)}\n")
                n_rows += 1
            return n_rows
        writer = csv.writer(file, lineterminator="\n")
        cell = _guarded_cell if kind == "spreadsheet" else _cell
        writer.writerow([cell(name) for name in alone.table.schema.names])
        for row in alone.rows():
            writer.writerow([cell(value) for value in row.values()])
            n_rows += 1
        return n_rows

    def _write_markdown(self, file: TextIO) -> int:
        fields, n_rows = list(self.table.schema), 0
        numeric = [str(field.type).startswith(NUMERIC) for field in fields]
        file.write(_markdown_row(field.name for field in fields))
        file.write(f"|{'|'.join('---:' if right else '---' for right in numeric)}|\n")
        for batch in self.batches():
            for values in values_of(batch):
                file.write(_markdown_row(f"{v:.6g}" if isinstance(v, float) else v for v in values))
                n_rows += 1
        stated = [
            f"{name} {_cell(self.facts[name])}" for name in ROW_FACTS if self.facts.get(name) is not None
        ]
        file.write("\n" + " \u00b7 ".join(stated) + "\n" if stated else "")
        return n_rows

    def _write_lines(self, file: TextIO) -> int:
        names, n_rows = [_cell(name) for name in self.table.schema.names], 0
        width = max(map(len, names), default=0)
        for batch in self.batches():
            for values in values_of(batch):
                file.write("\n" if n_rows else "")
                file.writelines(
                    f"{name:>{width}} = {'' if value is None else _cell(value)}\n"
                    for name, value in zip(names, values, strict=True)
                )
                n_rows += 1
        return n_rows

    def write(self, path: Path, kind: str | None = None) -> int:
        """Write a file in a format, or that of its suffix, whole or not at all; return how many rows it has.

        Raises:
            StorageError: the folder is missing, full or not writable.
            InvalidInputError: values that Parquet has no place for.
        """
        suffix = require_suffix(path)
        with writing(path) as temporary:
            if suffix == ".parquet":
                n_rows = self._write_parquet(temporary)
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    n_rows = self.write_text(file, kind or suffix[1:])
        return n_rows

    def _write_parquet(self, path: Path) -> int:
        import pyarrow as pa  # noqa: PLC0415 - only this format needs them
        import pyarrow.parquet as pq  # noqa: PLC0415

        reader, n_rows = self.with_facts(), 0
        fields = (
            field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field
            for field in reader.schema
        )
        schema = pa.schema(list(fields))  # the same whether DuckDB made the rows or not
        try:
            with pq.ParquetWriter(path, schema) as writer:
                for batch in reader:
                    writer.write_batch(batch.cast(schema))
                    n_rows += batch.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidInputError(
                f"Parquet cannot hold these values: {' '.join(str(error).split())}",
                hint="cast them in the statement, such as ::VARCHAR, or write another format",
            ) from error
        return n_rows


def _scalar(value: Any) -> pa.Scalar:
    """Return what `pa.scalar` does, which would import pandas where it is installed: half a second."""
    import pyarrow as pa  # noqa: PLC0415 - only tables for programs need it here

    if value is None:
        return pa.nulls(1)[0]
    if isinstance(value, str):
        data = value.encode()
        kind, parts = pa.string(), [struct.pack("=2i", 0, len(data)), data]
    elif isinstance(value, float):
        kind, parts = pa.float64(), [struct.pack("=d", value)]
    else:
        kind, parts = pa.int64(), [struct.pack("=q", value)]
    return pa.Array.from_buffers(kind, 1, [None, *map(pa.py_buffer, parts)])[0]


def require_suffix(path: Path) -> str:
    """Return a file's suffix.

    Raises:
        InvalidInputError: not one that memdb writes.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInputError(
            f"output {path} has a suffix that names no format",
            hint=f"use one of {', '.join(SUFFIXES)}",
            parameter="output",
        )
    return suffix


def require_format(name: str) -> str:
    """Return a format's name.

    Raises:
        InvalidInputError: not one that memdb prints.
    """
    if name not in FORMATS:
        raise InvalidInputError(f"unknown format {name!r}", hint=f"use one of {', '.join(FORMATS)}")
    return name


def rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as JSON values."""
    names = batch.schema.names
    for values in values_of(batch):
        yield dict(zip(names, values, strict=True))


def values_of(batch: pa.RecordBatch) -> Iterator[list[Any]]:
    """Yield the same without the names, of which two may be equal."""
    for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
        yield [_plain(value) for value in values]


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False)


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
    if isinstance(value, bool | list | dict):
        return json.dumps(value)
    return CONTROLS.sub(_harmless, value) if isinstance(value, str) else value


def _markdown_row(values: Iterable[Any]) -> str:
    cells = [MARKUP.sub(r"\\\g<0>", "" if value is None else str(_cell(value))) for value in values]
    return f"| {' | '.join(cells)} |\n"


def _harmless(control: re.Match[str]) -> str:
    return " " if control[0].isspace() else ""


def _guarded_cell(value: Any) -> Any:
    cell = _cell(value)
    begins = isinstance(value, str) and cell.lstrip().startswith(FORMULA)
    return f"'{cell}" if begins and not is_number(cell) else cell
