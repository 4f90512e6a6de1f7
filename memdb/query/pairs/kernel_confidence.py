"""Tiles of pairs summed in float64: for the outcome ``confidence``, whose sums are exact there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits
from memdb.query.pairs.kernel import MARGIN, SIGNS, Sifted, Tests, Trains, add_z, raise_floors

ROWS, COLUMNS = 128, 1024  # a tile's masks, 8 bytes for each model, stay in memory while tests go by
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Tile:
    trains: Trains
    masks: Numbers  # [models, train]
    n_in: Numbers
    n_out: Numbers
    root: Numbers  # sqrt(n_in n_out / (n_in + n_out))


class SumSieve:
    """Matrix products of p, and of its square, with masks as numbers: whatever their order, exact."""

    columns = COLUMNS

    def __init__(self, n_models: int, direction: str) -> None:
        self._n_models = n_models
        self._direction = direction
        self._histogram: NDArray[np.int64] | None = None

    def tally(self, into: NDArray[np.int64]) -> None:
        """From now on count z statistics of all pairs into an array."""
        self._histogram = into

    def hold(self, trains: Trains) -> _Tile:
        """Prepare a tile."""
        n_in = trains.n_in.astype(np.float64)
        masks = bits.unpack(trains.masks.view(np.uint8), self._n_models).astype(np.float64)
        n_out = self._n_models - n_in
        return _Tile(trains, masks, n_in, n_out, np.sqrt(n_in * n_out / self._n_models))

    def sift(self, tile: _Tile, tests: Tests, floors: NDArray[np.float32], k: int | None) -> Iterator[Sifted]:
        """Yield the pairs whose strength is not clearly below their test example's floor."""
        for start in range(0, len(tests), ROWS):
            rows = slice(start, start + ROWS)
            p, squares = tests.outcomes[rows, :, 0], tests.outcomes[rows, :, 1]
            s_in, q_in = p @ tile.masks, squares @ tile.masks
            p_in, p_out = s_in / tile.n_in, (tests.totals[rows, None] - s_in) / tile.n_out
            score = p_in - p_out
            if self._histogram is not None:
                spread = p.std(axis=1, ddof=1)
                varies = spread > 0
                z = score[varies] * tile.root / spread[varies, None]
                add_z(self._histogram, tile.trains.labels, tests.labels[rows][varies], z)
            strength = np.abs(score) if self._direction == "both" else SIGNS[self._direction] * score
            raise_floors(strength, floors[rows], k)
            found = np.nonzero(strength >= (floors[rows] - np.float32(MARGIN))[:, None])
            if len(found[0]):
                sums = np.stack([s_in[found], q_in[found]], axis=-1)
                yield Sifted(found[0] + start, found[1], sums, strength[found].astype(np.float32))
