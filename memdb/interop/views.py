"""Arrays seen as what a format needs: as bits, as models in rows, as a list."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.interop.arrays import ArrayFile

BOOLEAN = "b"  # the kind of a dtype


def bools(values: NDArray[Any], place: str) -> NDArray[np.bool_]:
    """Return bits that may be stored as numbers 0 and 1.

    Raises:
        InvalidInputError: there is another number among them.
    """
    if values.dtype.kind == BOOLEAN:
        return values
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise InvalidInputError(f"{place} holds {values[wrong][0]}, not only 0 and 1", hint="save it as bool")
    return values.astype(np.bool_)


def flags(file: ArrayFile) -> ArrayFile:
    """Return an array of 0 and 1 as bools, whatever numbers they are: floats, as PyTorch makes them, too.

    Raises:
        InvalidInputError: no array of numbers; reading it refuses others than 0 and 1.
    """
    file.require((None,) * len(file.shape), "biuf")
    if file.dtype.kind == BOOLEAN:
        return file

    def read(start: int, stop: int) -> NDArray[Any]:
        return bools(file.rows(start, stop), file.place)

    return replace(file, _dtype=np.dtype(np.bool_), read=read)


def as_list(file: ArrayFile) -> ArrayFile:
    """Return the array of a table's only column, [n, 1], as one of a single axis."""
    if len(file.shape) < 2 or math.prod(file.shape[1:]) != 1:
        return file
    return replace(file, _shape=file.shape[:1], read=lambda start, stop: file.read(start, stop).reshape(-1))


def as_rows(file: ArrayFile) -> ArrayFile:
    """Return the array of one model, which has one axis, as an array of models."""
    if len(file.shape) != 1:
        return file
    n = file.shape[0]
    return replace(file, _shape=(1, n), read=lambda start, stop: file.read(0, n)[None][start:stop])
