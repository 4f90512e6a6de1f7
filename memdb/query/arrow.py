"""Arrow columns of NumPy arrays and of text.

Built from buffers: where pandas is installed, Arrow's own conversions import it just to check whether their
argument is a pandas object. That takes 0.3 seconds, a third of a query.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.store import Examples, Snapshot

KINDS = {
    str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), list: pa.list_(pa.string()),
    type(None): pa.null(),
}  # fmt: skip
FEW = 256  # rows for which slicing is cheaper than importing Arrow's compute functions


def table(columns: Mapping[str, NDArray[Any] | pa.Array]) -> pa.Table:
    """Return a table of NumPy arrays and Arrow columns."""
    arrays = [column(values) if isinstance(values, np.ndarray) else values for values in columns.values()]
    return pa.Table.from_arrays(arrays, list(columns))


def column(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers or booleans as a column, NULL where not valid."""
    validity = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    if values.dtype == np.bool_:
        packed = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [validity, packed])
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(np.ascontiguousarray(values))])


def text(values: Sequence[str | None], kind: pa.DataType | None = None) -> pa.Array:
    """Return text as a column, None as NULL: of type ``large_string``, or ``string`` if it is asked for."""
    encoded = [b"" if value is None else value.encode() for value in values]
    width = np.int32 if kind == pa.string() else np.int64
    offsets = np.fromiter(itertools.accumulate(map(len, encoded), initial=0), width, len(encoded) + 1)
    validity = pa.py_buffer(
        np.packbits(np.array([value is not None for value in values], dtype=np.bool_), bitorder="little")
    )
    buffers = [validity, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(kind or pa.large_string(), len(encoded), buffers)


def of_records(rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> pa.Table:
    """Return rows of texts, numbers and lists of texts as a table; what a row lacks is NULL.

    Without a schema, the first row has all columns, and says of what type they are.
    """
    kinds = {field.name: field.type for field in schema or ()} or {
        name: KINDS[type(value)] for name, value in rows[0].items()
    }
    columns = [_of_values([row.get(name) for row in rows], kind) for name, kind in kinds.items()]
    return pa.Table.from_arrays(columns, names=None if schema else list(kinds), schema=schema)


def _of_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_string(kind):
        return text(values, kind)
    if pa.types.is_list(kind):
        lengths = itertools.accumulate(map(len, values), initial=0)
        offsets = column(np.fromiter(lengths, np.int32, len(values) + 1))
        return pa.ListArray.from_arrays(offsets, text(list(itertools.chain(*values)), kind.value_type))
    valid = np.array([value is not None for value in values], dtype=np.bool_)
    filled = [0 if value is None else value for value in values]
    return column(np.array(filled, dtype=kind.to_pandas_dtype()), None if valid.all() else valid)


def values_of(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Return the numbers or booleans of a column as an array.

    NULLs are 0 or False, except among floating-point numbers, where they are undefined.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [_buffer_of(chunk) for chunk in chunks]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays or [np.empty(0, dtype=column.type.to_pandas_dtype())])


def _buffer_of(chunk: pa.Array) -> NDArray[Any]:
    if chunk.null_count and not pa.types.is_floating(chunk.type):
        chunk = chunk.fill_null(False if pa.types.is_boolean(chunk.type) else 0)
    rows = slice(chunk.offset, chunk.offset + len(chunk))
    if pa.types.is_boolean(chunk.type):
        packed = np.frombuffer(chunk.buffers()[1], np.uint8)
        return np.unpackbits(packed, count=rows.stop, bitorder="little")[rows].astype(np.bool_)
    return np.frombuffer(chunk.buffers()[1], np.dtype(chunk.type.to_pandas_dtype()))[rows]


def of_examples(examples: Examples) -> dict[str, NDArray[Any] | pa.Array]:
    """Return the id, key, label and class name of every example of a set."""
    keys = pa.Array.from_buffers(
        pa.large_string(),
        len(examples),
        [None, pa.py_buffer(examples.key_offsets), pa.py_buffer(examples.key_bytes)],
    )
    return {
        "id": np.arange(len(examples), dtype=np.int32),
        "key": keys,
        "label": of_labels(examples.labels, known=examples.are_labelled),
        "class_name": _names_of(examples.labels, examples.class_names),
    }


def of_labels(labels: NDArray[np.int32], *, known: bool) -> pa.Array:
    """Return labels as a column; NULL if they are not known, as no two of them are known to be the same."""
    return column(labels, None if known else np.zeros(len(labels), dtype=np.bool_))


def _names_of(labels: NDArray[np.int32], class_names: Sequence[str]) -> pa.Array:
    """Return the class name of each label, NULL for labels without one."""
    encoded = [*(name.encode() for name in class_names), b""]
    which = np.minimum(labels, len(class_names))
    offsets = np.zeros(len(labels) + 1, dtype=np.int64)
    np.cumsum(np.array([len(name) for name in encoded])[which], out=offsets[1:])
    data = b"".join(map(encoded.__getitem__, which.tolist()))
    validity = np.packbits(labels < len(class_names), bitorder="little")
    buffers = [pa.py_buffer(validity), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(labels), buffers)


def rows_of(values: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """Return the given rows of a table, in the given order."""
    if 0 < len(rows) <= FEW:
        return pa.concat_tables([values.slice(row, 1) for row in rows.tolist()]).combine_chunks()
    return values.take(column(rows))


def of_models(snapshot: Snapshot) -> pa.Table:
    """Return one row per model, in order of commit."""
    models = snapshot.models_by_commit
    infos = [model for _, model in models]

    def numbers(name: str, kind: type) -> pa.Array:
        values = [getattr(info, name) for info in infos]
        valid = np.array([value is not None for value in values], dtype=np.bool_)
        return column(np.array([0 if value is None else value for value in values], dtype=kind), valid)

    def words(name: str) -> pa.Array:
        return text([getattr(info, name) for info in infos])

    return table(
        {
            "model_id": words("model_id"),
            "segment": text([segment for segment, _ in models]),
            "seed": numbers("seed", np.uint64),
            "subset_size": numbers("subset_size", np.int32),
            "train_accuracy": numbers("train_accuracy", np.float64),
            "out_accuracy": numbers("out_accuracy", np.float64),
            "test_accuracy": numbers("test_accuracy", np.float64),
            "seconds": numbers("seconds", np.float64),
            "trained_at": words("trained_at"),
            "diverged": numbers("diverged", np.bool_),
            "device": words("device"),
            "host": words("host"),
            "versions": text([json.dumps(dict(info.versions), sort_keys=True) for info in infos]),
            "recipe_fingerprint": text([snapshot.manifest.recipe.fingerprint] * len(infos)),
        }
    )
