"""An answer: rows, and what every format has to say about them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.errors import InvalidInput
from memdb.files import writing

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "json", "ndjson", "csv", "spreadsheet")
SUFFIXES = (".json", ".ndjson", ".csv", ".parquet")
LIST_FACTS = ("n_ranked", "n_null", "n_models_needed")  # the same in every row of a ranked list
ROW_FACTS = ("interval", "level", "outcome", "n_models", *LIST_FACTS)  # what a row needs to be read alone
LEFT_OUT = "n_excluded"  # likewise, where models were left out
CONTROLS = re.compile(  # what moves a cursor, ends a line or turns the reading direction
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # spreadsheets take the wide forms, too


@dataclass(frozen=True)
class Answer:
    """Rows with their provenance. ``facts`` are the fields of the JSON document beside ``rows``."""

    table: pa.Table
    facts: Mapping[str, Any]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield rows as JSON values: numbers as numbers, NULL and NaN as None."""
        names = self.table.column_names
        for batch in self.table.to_batches():
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield {name: _plain(value) for name, value in zip(names, values, strict=True)}

    def with_facts(self) -> pa.Table:
        """Return the rows with what they need to be read alone as columns."""
        import pyarrow as pa  # noqa: PLC0415 - only tables for programs need it here

        table = self.table
        for name in (*ROW_FACTS, LEFT_OUT):
            if name in self.facts and name not in table.column_names:
                table = table.append_column(name, pa.array([self.facts[name]] * table.num_rows))
        return table

    def text(self, kind: str) -> str:
        """Return the answer as ``json``, ``ndjson``, ``csv`` or ``spreadsheet``.

        Names come from strangers. JSON is ASCII: what is not stands escaped, and is the same once it is read.
        CSV has no escapes: control characters are left out, a line break or tab is a space. ``spreadsheet``
        is CSV whose text no spreadsheet takes for a formula: an apostrophe stands before it.
        """
        if kind == "json":
            document = {**self.facts, "rows": list(self.rows())}
            return json.dumps(document, indent=2, allow_nan=False) + "\n"
        alone = Answer(self.with_facts(), self.facts)
        if kind == "ndjson":
            return "".join(json.dumps(row, allow_nan=False) + "\n" for row in alone.rows())
        cell = _guarded_cell if kind == "spreadsheet" else _cell
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([cell(name) for name in alone.table.column_names])
        writer.writerows([cell(value) for value in row.values()] for row in alone.rows())
        return buffer.getvalue()

    def write(self, path: Path, kind: str | None = None) -> None:
        """Write a file in a format, or in that of its suffix: whole or not at all.

        Raises:
            StorageFailed: the folder is missing, full or not writable.
        """
        suffix = require_suffix(path)
        with writing(path) as temporary:
            if suffix == ".parquet":
                import pyarrow.parquet as pq  # noqa: PLC0415 - only this format needs it

                pq.write_table(self.with_facts(), temporary)
            else:
                temporary.write_text(self.text(kind or suffix[1:]), encoding="utf-8")


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


def _harmless(control: re.Match[str]) -> str:
    return " " if control[0].isspace() else ""


def _guarded_cell(value: Any) -> Any:
    cell = _cell(value)
    begins = isinstance(value, str) and cell.lstrip().startswith(FORMULA)
    return f"'{cell}" if begins and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
