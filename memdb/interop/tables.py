"""Tables in other people's files: CSV, Parquet and JSON, an array a column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from csv import reader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute, csv

from memdb.errors import InvalidInputError, MemdbError
from memdb.interop.arrays import MAX_SWELLING, MAX_WHOLE_BYTES, READ_BYTES, SWELLING_MATTERS, ArrayFile
from memdb.interop.by_name import spelled
from memdb.interop.described import KEYS, PAIR_KEYS
from memdb.interop.foreign import foreign
from memdb.interop.table_names import COMPRESSED, CSV, PARQUET, ending_of, is_json
from memdb.wording import count, is_number

BETWEEN = (";", "\t", "|")  # columns, where it is not what the ending says
HEAD_BYTES = 1 << 20
MAX_JSON_BYTES = 256 << 20  # Python objects take ten times as much
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
MORE_MISSING = ["None", "<NA>"]  # as Python and pandas write it, beyond what Arrow knows
COMMENT = ("#", "sep=")  # which is Excel's own
AROUND_NAMES = " \t'\"#"  # np.savetxt writes a header behind a #
KEY_COLUMNS = {name for names in (KEYS, PAIR_KEYS) for those in names.values() for name in those}
END_OF_LINE = re.compile(r"\r\n?|\n")  # as Arrow has it; str.splitlines knows more of them
WITH_COMMA = r"^-?\d*,?\d+([eE][-+]?\d+)?$"
THOUSANDS = r"^-?[1-9]\d{0,2},\d{3}$"  # or a number with three decimals
UNREADABLE = (pa.ArrowException, OSError, ValueError, RecursionError, OverflowError)


def open_table(path: Path) -> dict[str, ArrayFile]:
    """Return the columns of a table by name; NaN stands for missing numbers.

    Lists of one length are rows of an array. Other columns than of numbers, text and booleans are there and
    cannot be read.

    Raises:
        InvalidInputError: no table, or one too big to be read at once.
    """
    read: Callable[[Path], pa.Table]
    read = _read_parquet if path.suffix.lower() in PARQUET else _read_json if is_json(path) else _read_csv
    try:
        _require_bounded(path)
        table = read(path)
    except MemdbError:
        raise
    except UNREADABLE as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise (
            foreign(path)
            or InvalidInputError(
                f"{path} cannot be read: {said[:200]}",
                hint="give a table with a header line and one kind a column",
            )
        ) from error
    if table.column_names and all(is_number(name) for name in table.column_names):
        raise InvalidInputError(
            f"the first line of {path} holds numbers, and no names of columns",
            hint="name the columns, such as train_id,test_id,influence, or save the array with `numpy.save`",
        )
    found: dict[str, ArrayFile] = {}
    for number, name in enumerate(name.strip(AROUND_NAMES) for name in table.column_names):
        place = f"{path}: {name}"
        twice = InvalidInputError(f"{place} is there twice", hint="give each column a name of its own")
        is_new = name not in found
        found[name] = _opened(place, table.column(number)) if is_new else ArrayFile.unreadable(place, twice)
    return found


def _require_bounded(path: Path) -> None:
    """Refuse a table that is too big to be read at once, packed or unpacked.

    Raises:
        InvalidInputError: it is, or it swells as no table does.
    """
    size = n_bytes = path.stat().st_size
    if path.suffix.lower() in COMPRESSED:
        n_bytes = 0
        with pa.input_stream(str(path), compression="detect") as stream:
            while n_bytes <= MAX_WHOLE_BYTES and (data := stream.read(READ_BYTES)):
                n_bytes += len(data)
                if n_bytes > max(SWELLING_MATTERS, MAX_SWELLING * size):
                    raise _too_big(path, f"swells from {size:,} to more than {n_bytes:,} bytes")
    if n_bytes > (MAX_JSON_BYTES if is_json(path) else MAX_WHOLE_BYTES):
        raise _too_big(path, f"takes {n_bytes:,} bytes, and is needed at once")


def _too_big(path: Path, what: str) -> InvalidInputError:
    return InvalidInputError(f"{path} {what}", hint="import it in parts")


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet  # noqa: PLC0415 - other files do not need it

    with parquet.ParquetFile(path, pre_buffer=False) as file:
        described = file.metadata
        n_values = sum(
            described.row_group(group).column(column).num_values
            for group in range(described.num_row_groups)
            for column in range(described.num_columns)
        )
        if 8 * n_values > MAX_WHOLE_BYTES:  # whatever few bytes they were packed into
            raise _too_big(path, f"holds {n_values:,} values, and is needed at once")
        n_bytes = sum(described.row_group(group).total_byte_size for group in range(described.num_row_groups))
        if n_bytes > MAX_WHOLE_BYTES:  # of long texts
            raise _too_big(path, f"takes {n_bytes:,} bytes, and is needed at once")
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    return parquet.read_table(path, read_dictionary=texts)


def _read_csv(path: Path) -> pa.Table:
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(HEAD_BYTES)
    encoding = "utf-16" if head[:2] in UTF_16 else "utf-8"
    if b"\0" in head and encoding == "utf-8":
        raise ValueError("it holds bytes that are 0, and is not text in UTF-8")
    lines = END_OF_LINE.split(head.decode(encoding, errors="replace").lstrip("\ufeff"))
    usual = CSV[ending_of(path)]
    n_comments = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith(COMMENT)), 0)
    between = next((sign for sign in (usual, *BETWEEN) if sign in lines[n_comments]), usual)
    if n_comments and all(is_number(part) for part in lines[n_comments].split(between)):
        n_comments -= 1  # the last comment has the names, as np.savetxt writes them
    names = next(reader([lines[n_comments]], delimiter=between), [])
    keys = [name for name in names if KEY_COLUMNS & spelled([name.strip(AROUND_NAMES)]).keys()]
    missing = csv.ConvertOptions().null_values + MORE_MISSING
    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(skip_rows=n_comments, encoding=encoding),
        parse_options=csv.ParseOptions(delimiter=between),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(keys, pa.string()), null_values=missing
        ),
    )
    return table if between == "," else _with_decimal_commas(table, keys, missing)


def _with_decimal_commas(table: pa.Table, keys: Sequence[str], missing: Sequence[str]) -> pa.Table:
    """Return a table in which text such as 0,5 is numbers, if all of a column is.

    A column in which every comma may stand for thousands, as in 1,000, stays text: it may be of ids.
    """
    for place, name in enumerate(table.column_names):
        if name in keys or not pa.types.is_string(table.column(place).type):
            continue
        texts = compute.utf8_ltrim(compute.utf8_trim_whitespace(table.column(place)), "+")
        is_missing = compute.is_in(texts, pa.array(missing))
        is_number = compute.match_substring_regex(texts, WITH_COMMA)
        n_commas = compute.sum(compute.match_substring(texts, ",")).as_py()
        n_thousands = compute.sum(compute.match_substring_regex(texts, THOUSANDS)).as_py()
        if compute.all(compute.or_(is_missing, is_number)).as_py() and not 0 < n_commas == n_thousands:
            known = compute.if_else(is_missing, None, texts)
            numbers = compute.replace_substring(known, ",", ".").cast(pa.float64())
            table = table.set_column(place, name, numbers)
    return table


def _read_json(path: Path) -> pa.Table:
    """Read an object a line, or a document: a list of objects, also as the ``rows`` of one, or lists.

    pandas writes objects a line whatever the name, and columns as objects whose names are its index.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        data = stream.read()
    text = data.decode(json.detect_encoding(data))
    try:
        document = json.loads(text) if ending_of(path) == ".json" else None
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
        document = None
    if document is None:
        return _of_objects(path, [json.loads(line) for line in text.split("\n") if line.strip()])
    rows = document.get("rows", document) if isinstance(document, dict) else document
    if isinstance(rows, dict) and rows and all(isinstance(values, dict) for values in rows.values()):
        return _of_columns(path, rows)
    if isinstance(rows, dict):
        return pa.table({name: values for name, values in rows.items() if isinstance(values, list)})
    return _of_objects(path, rows)


def _of_objects(path: Path, rows: Any) -> pa.Table:
    """Return objects as rows, with the columns of all of them."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("no list of objects")
    names = dict.fromkeys(name for row in rows for name in row)
    if 8 * len(names) * len(rows) > MAX_WHOLE_BYTES:  # if each has a name of its own
        raise _too_big(path, f"holds {count(len(rows), 'object')} with {count(len(names), 'name')}")
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def _of_columns(path: Path, columns: dict[str, dict[str, Any]]) -> pa.Table:
    """Return objects as columns, beside an index of the names in them."""
    index = list(dict.fromkeys(name for values in columns.values() for name in values))
    if 8 * len(index) * len(columns) > MAX_WHOLE_BYTES:
        raise _too_big(path, f"holds {count(len(columns), 'object')} with {count(len(index), 'name')}")
    is_counted = all(row.isdecimal() and str(int(row)) == row for row in index)  # and not 007
    held = {name: pa.array([values.get(row) for row in index]) for name, values in columns.items()}
    return pa.table({"": [int(row) for row in index] if is_counted else index, **held})


def _opened(place: str, column: pa.ChunkedArray) -> ArrayFile:
    try:
        values = _values(column)
    except pa.ArrowException:  # bytes that are not text, numbers beyond floats
        values = None
    if values is None:
        problem = InvalidInputError(f"{place} is {column.type}", hint="give numbers or text")
        return ArrayFile.unreadable(place, problem)
    return ArrayFile(place, values.shape, values.dtype, lambda start, stop: values[start:stop])


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(kind) or _is_view(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(column: pa.ChunkedArray) -> NDArray[Any] | None:
    """Return a column as an array; None for what is neither numbers, text nor lists of numbers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        if not _is_text(kind):
            column = column.cast(kind)
    if _is_text(kind):
        return _texts(column)
    if _is_list(kind):
        return _rows(column)
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column, kind = column.cast(pa.float64()), pa.float64()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    values = np.array(column.to_numpy())
    return None if values.dtype.hasobject else values


def _texts(column: pa.ChunkedArray) -> NDArray[Any] | None:
    """Return texts, "" for missing ones; None if the longest makes them too big, as NumPy keeps them."""
    values = ["" if value is None else value for value in column.to_pylist()]
    try:
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
    except UnicodeDecodeError:
        return None
    longest = max(map(len, values), default=0)
    return None if 4 * longest * len(values) > MAX_WHOLE_BYTES else np.array(values, dtype=np.str_)


def _rows(column: pa.ChunkedArray) -> NDArray[Any] | None:
    """Return lists of numbers as rows of an array; None if they are not all of one length."""
    lists = column.combine_chunks()
    if column.null_count or not len(column):
        return None
    lengths = set(lists.value_lengths().to_pylist())
    values = _values(pa.chunked_array([lists.flatten()]))
    if values is None or len(lengths) != 1:
        return None
    return values.reshape(len(column), lengths.pop(), *values.shape[1:])
