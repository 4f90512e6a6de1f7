"""Exact counts of all pairs of rows at once: popcount(a AND b) as a matrix product over packed bits.

numkong does the product: it picks AVX2, AVX-512 or NEON by itself, needs no compiler, and lets other threads
run meanwhile. ``scripts/bench_pairs.py`` compares it with what else there is.
"""

from __future__ import annotations

import numkong
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]  # [examples, ceil(models / 64)], as `bits.words` gives them


def packed(words: Words) -> numkong.PackedMatrix:
    """Lay rows out as the right side of products."""
    return numkong.dots_pack(words.view(np.uint8), dtype="uint1")


class Products:
    """Counts tiles of pairs, each into the same memory: one of these for each thread."""

    def __init__(self) -> None:
        self._out = numkong.zeros((1, 1), dtype="uint32")

    def counts(self, left: Words, right: numkong.PackedMatrix) -> NDArray[np.int32]:
        """Count the models that have a one in both, int32 [left, right]; valid until the next call."""
        shape = (len(left), right.width)
        if self._out.shape != shape:
            self._out = numkong.zeros(shape, dtype="uint32")
        numkong.dots_packed(left.view(np.uint8), right, out=self._out)
        return np.asarray(self._out).view(np.int32)
