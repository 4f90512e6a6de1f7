"""Tables in other people's files: CSV and Parquet, an array a column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.interop.arrays import MAX_WHOLE_BYTES, ArrayFile
from memdb.interop.described import KEYS, PAIR_KEYS
from memdb.wording import is_number

CSV = {".csv": ",", ".tsv": "\t"}
PARQUET = (".parquet", ".pq")
LONGEST_LINE = 1 << 20
KEY_COLUMNS = [name for names in (KEYS, PAIR_KEYS) for those in names.values() for name in those]


def is_table(path: Path) -> bool:
    """Tell by its name whether a file is a table; CSV may be compressed."""
    return path.suffix.lower() in PARQUET or _delimiter(path) is not None


def _delimiter(path: Path) -> str | None:
    name = path.name.lower().removesuffix(".gz")
    return next((sign for ending, sign in CSV.items() if name.endswith(ending)), None)


def _sign_between(path: Path) -> str | None:
    """Return what stands between columns: what the ending says, or a semicolon or tab in the first line."""
    usual = _delimiter(path)
    if path.suffix.lower() == ".gz":
        return usual
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(LONGEST_LINE)
    return next((sign for sign in (usual, ";", "\t") if sign is not None and sign in first), usual)


def open_table(path: Path) -> dict[str, ArrayFile]:
    """Return the columns of a table by name; NaN stands for missing numbers.

    Columns of anything but numbers, text and booleans are there and cannot be read.

    Raises:
        InvalidInputError: no table, or one too big to be read at once.
    """
    from pyarrow import csv, parquet  # noqa: PLC0415 - other files do not need them

    if path.stat().st_size > MAX_WHOLE_BYTES:
        raise InvalidInputError(
            f"{path} takes {path.stat().st_size:,} bytes, and is needed at once", hint="import it in parts"
        )
    try:
        if path.suffix.lower() in PARQUET:
            table = parquet.read_table(path)
        else:
            parsing = csv.ParseOptions(delimiter=_sign_between(path))
            keys = csv.ConvertOptions(column_types=dict.fromkeys(KEY_COLUMNS, pa.string()))
            table = csv.read_csv(path, parse_options=parsing, convert_options=keys)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InvalidInputError(
            f"{path} cannot be read: {said[:200]}",
            hint="give a table with a header line and one kind a column",
        ) from error
    if table.column_names and all(is_number(name) for name in table.column_names):
        raise InvalidInputError(
            f"the first line of {path} holds numbers, and no names of columns",
            hint="name the columns, such as train_id,test_id,influence, or save the array with `numpy.save`",
        )
    found: dict[str, ArrayFile] = {}
    for number, name in enumerate(name.strip() for name in table.column_names):
        place = f"{path}: {name}"
        twice = InvalidInputError(f"{place} is there twice", hint="give each column a name of its own")
        is_new = name not in found
        found[name] = _opened(place, table.column(number)) if is_new else ArrayFile.unreadable(place, twice)
    return found


def _opened(place: str, column: pa.ChunkedArray) -> ArrayFile:
    values = _values(column)
    if values is None:
        problem = InvalidInputError(f"{place} is {column.type}", hint="give numbers or text")
        return ArrayFile.unreadable(place, problem)
    return ArrayFile(place, values.shape, values.dtype, lambda start, stop: values[start:stop])


def _values(column: pa.ChunkedArray) -> NDArray[Any] | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(["" if value is None else value for value in column.to_pylist()], dtype=np.str_)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    values = np.array(column.to_numpy())
    return None if values.dtype.hasobject else values
