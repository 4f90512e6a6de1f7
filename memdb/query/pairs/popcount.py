"""Exact counts of all pairs of rows at once: popcount(a AND b) as a matrix product over packed bits.

numkong computes the product: it selects AVX2, AVX-512 or NEON at run time, needs no compiler and releases the
GIL. ``scripts/bench_pairs.py`` compares it with the alternatives.
"""

from __future__ import annotations

import numkong
import numpy as np
from numpy.typing import NDArray

AT_ONCE = 2048  # rows packed at a time, few enough to stay in the caches
Words = NDArray[np.uint64]  # [examples, ceil(models / 64)], as `bits.words` gives them


def packed(words: Words) -> numkong.PackedMatrix:
    """Pack rows as the right operand of `Products.counts`."""
    return numkong.dots_pack(words.view(np.uint8), dtype="uint1")


class Products:
    """Counts tiles of pairs into one reused buffer; not thread-safe, so each thread has its own."""

    def __init__(self) -> None:
        self._out = numkong.zeros((1, 1), dtype="uint32")

    def counts(self, left: Words, right: numkong.PackedMatrix) -> NDArray[np.int32]:
        """Count the common ones of each pair of rows, int32 [left, right]; valid until the next call."""
        shape = (len(left), right.width)
        if self._out.shape != shape:
            self._out = numkong.zeros(shape, dtype="uint32")
        numkong.dots_packed(left.view(np.uint8), right, out=self._out)
        return np.asarray(self._out).view(np.int32)


def counts(left: Words, right: Words) -> NDArray[np.int32]:
    """Count the bits that each of a few rows shares with each of many, int32 [left, right]."""
    products, found = Products(), np.empty((len(left), len(right)), dtype=np.int32)
    for start in range(0, len(right), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        found[:, part] = products.counts(left, packed(right[part]))
    return found
