"""Exact products of rows of int8 numbers, by numkong: three times as fast as float32."""

from __future__ import annotations

from typing import Any, Protocol

import numkong
import numpy as np
from numpy.typing import NDArray


class Products(Protocol):
    """Multiplies rows of numbers with packed rows."""

    def packed(self, rows: NDArray[np.int8]) -> Any:
        """Pack rows as the right operand of `product`."""

    def product(self, left: NDArray[np.int8], right: Any) -> NDArray[np.number[Any]]:
        """Return the dot product of each pair of rows, [left, right]."""


class CpuProducts:
    """Products on the CPU, as whole numbers."""

    def packed(self, rows: NDArray[np.int8]) -> numkong.PackedMatrix:
        """Pack rows as the right operand of `product`."""
        return numkong.dots_pack(rows, dtype="int8")

    def product(self, left: NDArray[np.int8], right: numkong.PackedMatrix) -> NDArray[np.int32]:
        """Return the dot product of each pair of rows, int32 [left, right]."""
        return np.asarray(numkong.dots_packed(left, right))


CPU: Products = CpuProducts()
