"""The outcome ``confidence``: the probability p that a model gives to the label, and sums of it.

p is computed from the stored logit confidence and rounded to a multiple of 2**-36. Sums of such numbers are
exact in float64 for up to 2**17 models, so they do not depend on the order of the models or on how they are
split into segments and blocks: they add like counts. The rounding error is below 1e-11.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from memdb.errors import NotFoundError
from memdb.format import bits
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.store import Snapshot

UNIT = 2.0**36
KEPT_BYTES = 512 << 20  # of cached bands per set
ROWS_AT_ONCE = 512
N_WEIGHTS = 4
Numbers = NDArray[np.float64]


@cache
def _tables() -> tuple[Numbers, Numbers]:
    """Return p and its square for each of the 65,536 float16 bit patterns; 0 for NaN."""
    logits = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # many patterns are NaN or overflow
        p = np.nan_to_num(1 / (1 + np.exp(-logits)), nan=0.0)
    return np.rint(p * UNIT) / UNIT, np.rint(p * p * UNIT) / UNIT


def probabilities(logits: NDArray[np.float16]) -> tuple[Numbers, Numbers]:
    """Return p and its square for stored logit confidences of any shape."""
    p, squares = _tables()
    index = logits.view(np.uint16)
    return p[index], squares[index]


def rough_probabilities(logits: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return p in single precision, for sums that need not be exact."""
    return _rough_table()[logits.view(np.uint16)]


@cache
def _rough_table() -> NDArray[np.float32]:
    return _tables()[0].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Weights:
    """A number and its square per model, to be summed over the models in rows of packed bits.

    Eight models share a byte, and a byte has 256 values, so their sums are looked up in a table.
    """

    table: NDArray[np.complex128]  # [bytes of a row, 256]: sums of p, and of its square as the imaginary part

    @classmethod
    def of(cls, p: Numbers, squares: Numbers, n_words: int) -> Weights:
        """Build the table from numbers [models], for rows of ``n_words`` words."""
        both = np.zeros(n_words * 64, dtype=np.complex128)
        both[: len(p)] = p + 1j * squares
        patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        return cls(both.reshape(-1, 8) @ patterns.T.astype(np.complex128))

    def sums(self, rows: NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
        """Return the sums over the models of each row: p, and its square."""
        flat, n_bytes = self.table.ravel(), len(self.table)
        starts = np.arange(n_bytes, dtype=np.intp) * 256
        sums = np.empty(len(rows), dtype=np.complex128)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            packed = np.ascontiguousarray(rows[start : start + ROWS_AT_ONCE]).view(np.uint8)
            sums[start : start + len(packed)] = flat.take(packed + starts).sum(axis=1)
        return sums.real, sums.imag


class Confidences:
    """p of every model on the examples of one set, read in bands; recently used bands stay in memory."""

    def __init__(self, snapshot: Snapshot, set_name: str) -> None:
        self._snapshot = snapshot
        self._path = f"{set_name}/{LOGIT_CONFIDENCE.name}"
        self.n_examples = snapshot.manifest.set_named(set_name).n_examples
        if self._path not in snapshot.manifest.arrays() and self.n_examples:
            raise NotFoundError(
                f"{snapshot.url} keeps no confidences: it was made with `memdb init --outcomes correct`",
                hint='ask with outcome="correct"',
                parameter="outcome",
            )
        self._height = snapshot.band_height(self._path)
        self._n_words = -(-snapshot.n_models // 64)
        self._bands: OrderedDict[int, NDArray[np.float16]] = OrderedDict()  # by first row
        self._weights: OrderedDict[int, Weights] = OrderedDict()
        self._lock = threading.Lock()  # DuckDB calls from several threads

    def weights(self, row: int) -> Weights:
        """Return the table of one example; the most recent ones are cached."""
        with self._lock:
            if row not in self._weights:
                self._weights[row] = Weights.of(*probabilities(self._one(row)), self._n_words)
                while len(self._weights) > N_WEIGHTS:
                    self._weights.popitem(last=False)
            return self._weights[row]

    def of_one(self, row: int) -> Numbers:
        """Return p of every model on one example, [models]."""
        with self._lock:
            return probabilities(self._one(row))[0]

    def rows(self, ids: NDArray[np.int32]) -> tuple[Numbers, Numbers]:
        """Return p and its square, [ids, models]."""
        with self._lock:
            logits = np.stack([self._band(row)[row % self._height] for row in ids.tolist()])
        return probabilities(logits)

    def totals(self, mask: NDArray[np.uint64] | None = None) -> dict[str, Numbers]:
        """Sum p and its square over all models: ``s_all`` and ``q_all``, [examples].

        With masks, also over the models trained on the example itself: ``s_in`` and ``q_in``.
        """
        names = ("s_all", "q_all") if mask is None else ("s_all", "q_all", "s_in", "q_in")
        sums = {name: np.empty(self.n_examples) for name in names}
        for first in range(0, self.n_examples, ROWS_AT_ONCE):
            rows = slice(first, min(first + ROWS_AT_ONCE, self.n_examples))
            p, squares = self.rows(np.arange(rows.start, rows.stop, dtype=np.int32))
            sums["s_all"][rows], sums["q_all"][rows] = p.sum(axis=1), squares.sum(axis=1)
            if mask is not None:
                inside = bits.unpack(mask[rows].view(np.uint8), p.shape[1]).T
                sums["s_in"][rows] = (p * inside).sum(axis=1)
                sums["q_in"][rows] = (squares * inside).sum(axis=1)
        return sums

    def _one(self, row: int) -> NDArray[np.float16]:
        """Return the row of one example: from its band if that is in memory, otherwise read alone."""
        if row // self._height * self._height in self._bands:
            held: NDArray[np.float16] = self._band(row)[row % self._height]
            return held
        values: NDArray[np.float16] = self._snapshot.outcome_values(self._path, (row, row + 1))[0]
        return values

    def _band(self, row: int) -> NDArray[np.float16]:
        """Return the band that holds a row, read if need be; the oldest ones go."""
        start = row // self._height * self._height
        if start not in self._bands:
            stop = min(self.n_examples, start + self._height)
            self._bands[start] = self._snapshot.outcome_values(self._path, (start, stop))
            while len(self._bands) > 1 and sum(item.nbytes for item in self._bands.values()) > KEPT_BYTES:
                self._bands.popitem(last=False)
        return self._bands[start]
