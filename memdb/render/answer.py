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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.errors import InvalidInputError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("table", "json", "ndjson", "csv")
SUFFIXES = (".json", ".ndjson", ".csv", ".parquet")
LIST_FACTS = ("n_ranked", "n_null", "n_models_needed")  # the same in every row of a ranked list
ROW_FACTS = ("interval", "level", "outcome", "n_models", *LIST_FACTS)  # what a row needs to be read alone
LEFT_OUT = "n_excluded"  # likewise, where models were left out


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
        """Return the answer as ``json``, ``ndjson`` or ``csv``."""
        if kind == "json":
            document = {**self.facts, "rows": list(self.rows())}
            return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        alone = Answer(self.with_facts(), self.facts)
        if kind == "ndjson":
            return "".join(
                json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in alone.rows()
            )
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(alone.table.column_names)
        writer.writerows([_cell(value) for value in row.values()] for row in alone.rows())
        return buffer.getvalue()

    def write(self, path: Path) -> None:
        """Write a file in the format of its suffix, whole or not at all.

        Raises:
            StorageError: the folder is missing, full or not writable.
        """
        suffix = require_suffix(path)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            if suffix == ".parquet":
                import pyarrow.parquet as pq  # noqa: PLC0415 - only this format needs it

                pq.write_table(self.with_facts(), temporary)
            else:
                temporary.write_text(self.text(suffix[1:]), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise StorageError(
                f"cannot write {path}: {error.strerror or error}",
                hint="name a file in a folder you may write to",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def require_suffix(path: Path) -> str:
    """Return a file's suffix.

    Raises:
        InvalidInputError: not one that memdb writes.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInputError(
            f"--output {path} has a suffix that is no format", hint=f"use one of {', '.join(SUFFIXES)}"
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
