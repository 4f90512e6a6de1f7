"""Numbers as a page takes them: counts in the narrowest type, scores as the digits that are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING = 0xFFFF  # of a score that is NULL


def packed(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers from 0 in the narrowest type of the page that holds them, little-endian."""
    largest = int(values.max(initial=0))
    kind = next(kind for kind in ("<u1", "<u2", "<u4") if largest <= np.iinfo(kind).max)
    return np.ascontiguousarray(values, dtype=kind)


def planes(values: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Return numbers from 0 as bytes, uint8 [bytes * rows, columns]: the lowest of all, then the next ones.

    Without its many equal high bytes in between, what is left packs a quarter better.
    """
    kind = np.dtype("<u2" if int(values.max(initial=0)) <= 0xFFFF else "<u4")
    n_rows, n_columns = values.shape
    split = np.ascontiguousarray(values, dtype=kind)[:, :, None].view(np.uint8)
    return np.moveaxis(split, 2, 0).reshape(kind.itemsize * n_rows, n_columns)


def thousandths(values: NDArray[np.floating[Any]], flag: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return scores of at most 1 as three digits, rounded as commands round them, and a bit for each.

    Twice the thousandths, and one more where ``flag`` is set; `MISSING` for NaN. The digits are what readers
    compare with a command's, and compress to a tenth of what float64 does.
    """
    codes = np.full(values.shape, MISSING, dtype=np.uint16)
    known = ~np.isnan(values)
    digits = np.char.mod("%.3f", np.abs(values[known]))
    codes[known] = 2 * np.rint(digits.astype(np.float64) * 1000).astype(np.uint16) + flag[known]
    return codes


def q_codes(values: NDArray[np.floating[Any]], bound: float) -> NDArray[np.uint16]:
    """Return q-values likewise: their bit says whether they are above a bound, and below .001 all are 0."""
    return thousandths(np.where(values < 0.001, 0.0, values), values > bound)


def score_codes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """Return scores likewise: their bit is the sign."""
    return thousandths(values, np.signbit(values))
