"""Exact products of rows of int8 numbers, by numkong."""

from __future__ import annotations

from typing import TypeAlias

import numkong
import numpy as np
from numpy.typing import NDArray

Packed: TypeAlias = numkong.PackedMatrix


def packed(rows: NDArray[np.int8]) -> Packed:
    """Pack rows as the right operand of `product`."""
    return numkong.dots_pack(rows, dtype="int8")


def product(left: NDArray[np.int8], right: Packed) -> NDArray[np.int32]:
    """Return the dot product of each pair of rows, int32 [left, right]."""
    return np.asarray(numkong.dots_packed(left, right))
