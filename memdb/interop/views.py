"""Arrays seen as what a format needs: as bits, as models in rows, as a list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        odd = values[wrong][0]
        hint = "save what is true in it as bool, such as `array > 0`"
        if np.isnan(odd):
            hint = "omit, or mend, what did not finish; as bool, NaN would be true"
        elif 0 < odd < 1:
            hint = "save what is true in it as bool, such as `array > 0.5`; p of the label is ..._confidence"
        raise InvalidInputError(f"{place} holds {odd}, not only 0 and 1", hint=hint)
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
    """Return an array that is long along one axis alone, [n, 1] or [1, n], as one of a single axis."""
    n = math.prod(file.shape)
    if len(file.shape) < 2 or n != max(file.shape):
        return file
    if file.shape[0] == n:
        return replace(file, _shape=(n,), read=lambda start, stop: file.read(start, stop).reshape(-1))
    return replace(file, _shape=(n,), read=lambda start, stop: file.read(0, 1).reshape(-1)[start:stop])


def as_rows(file: ArrayFile) -> ArrayFile:
    """Return the array of one model, which has one axis, as an array of models."""
    if len(file.shape) != 1:
        return file
    n = file.shape[0]
    return replace(file, _shape=(1, n), read=lambda start, stop: file.read(0, n)[None][start:stop])


def appended(parts: Sequence[Mapping[str, ArrayFile]]) -> dict[str, ArrayFile]:
    """Return the columns of a table in parts, one part after the other."""
    return {name: _appended([part[name] for part in parts]) for name in parts[0]}


def _appended(files: Sequence[ArrayFile]) -> ArrayFile:
    """Return arrays as one; what is not readable in one part is not in all."""
    odd = next((file for file in files if file.problem is not None), None)
    if odd is not None or len({(file.dtype.kind, file.shape[1:]) for file in files}) > 1:
        return odd or ArrayFile.unreadable(
            files[0].place, InvalidInputError(f"{files[0].place} is of another type in other parts")
        )
    values = np.concatenate([file.rows(0, file.shape[0]) for file in files])
    return ArrayFile(files[0].place, values.shape, values.dtype, lambda start, stop: values[start:stop])
