"""The pair kernel of the outcome ``confidence``: sums in float64, where they are exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits
from memdb.query.pairs.kernel import MARGIN, SIGNS, Survivors, TestBlock, TrainTile, add_z, raise_floors

ROWS, COLUMNS = 128, 1024  # the masks of a tile take 8 bytes a model, kept for a whole block of tests
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Prepared:
    trains: TrainTile
    masks: Numbers  # [models, train]
    n_in: Numbers
    n_out: Numbers


class ConfidenceKernel:
    """Matrix products of p, and of its square, with masks as numbers: exact in any order of summation."""

    columns = COLUMNS

    def __init__(self, n_models: int, direction: str) -> None:
        self._n_models = n_models
        self._direction = direction
        self._histogram: NDArray[np.int64] | None = None

    def tally(self, into: NDArray[np.int64]) -> None:
        """Start adding the z statistics of all pairs to a histogram."""
        self._histogram = into

    def prepare(self, trains: TrainTile) -> _Prepared:
        """Unpack the masks of a tile."""
        n_in = trains.n_in.astype(np.float64)
        masks = bits.unpack(trains.masks.view(np.uint8), self._n_models).astype(np.float64)
        return _Prepared(trains, masks, n_in, self._n_models - n_in)

    def filter(
        self, tile: _Prepared, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs that reach the floors (see `PairKernel.filter`)."""
        for start in range(0, len(tests), ROWS):
            rows = slice(start, start + ROWS)
            p, squares = tests.outcomes[rows, :, 0], tests.outcomes[rows, :, 1]
            s_in, q_in = p @ tile.masks, squares @ tile.masks
            p_in, p_out = s_in / tile.n_in, (tests.totals[rows, None] - s_in) / tile.n_out
            score = p_in - p_out
            if self._histogram is not None:
                q_out = squares.sum(axis=1)[:, None] - q_in
                variance = np.maximum(q_in / tile.n_in - p_in**2, 0) / tile.n_in
                variance += np.maximum(q_out / tile.n_out - p_out**2, 0) / tile.n_out
                add_z(self._histogram, tile.trains.labels, tests.labels[rows], score, np.sqrt(variance))
            strength = np.abs(score) if self._direction == "both" else SIGNS[self._direction] * score
            raise_floors(strength, floors[rows], k)
            at = np.nonzero(strength >= (floors[rows] - np.float32(MARGIN))[:, None])
            if len(at[0]):
                sums = np.stack([s_in[at], q_in[at]], axis=-1)
                yield Survivors(at[0] + start, at[1], sums, strength[at].astype(np.float32))
