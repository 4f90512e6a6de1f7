"""The pair kernel of calibrated predictions: counts, priors and their posterior, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.query.informed.calibration import Calibration
from memdb.query.informed.posterior import noise, posterior, smoothed
from memdb.query.informed.prior import Prior, Scores
from memdb.query.informed.products import Products as PriorProducts
from memdb.query.pairs.kernel import MARGIN, SIGNS, Floats, Survivors, TestBlock, TrainTile, raise_floors
from memdb.query.pairs.popcount import Products, packed

ROWS, COLUMNS = 128, 2048


@dataclass(frozen=True, slots=True)
class _Prepared:
    packed: Any
    scores: Scores
    n_in: Floats
    n_out: Floats


class InformedKernel:
    """Strengths are predictions in float32, and final: there is nothing to decide in float64."""

    columns = COLUMNS

    def __init__(
        self, n_models: int, direction: str, prior: Prior, calibration: Calibration, products: PriorProducts
    ) -> None:
        self._n_models, self._direction = n_models, direction
        self._prior, self._calibration, self._products = prior, calibration, products
        self._counts = Products()

    def prepare(self, trains: TrainTile) -> _Prepared:
        """Pack the masks and the sketches of a tile."""
        n_in = trains.n_in.astype(np.float32)
        scores = self._prior.tile(trains.ids, products=self._products)
        return _Prepared(packed(trains.masks), scores, n_in, np.float32(self._n_models) - n_in)

    def filter(
        self, tile: _Prepared, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs whose prediction reaches the floor of their test example."""
        for start in range(0, len(tests), ROWS):
            rows = slice(start, start + ROWS)
            counts = self._counts.counts(tests.outcomes[rows], tile.packed)
            strength = self._informed(tile, tests.ids[rows], tests.totals[rows, None], counts)
            if self._direction == "both":
                np.abs(strength, out=strength)
            elif SIGNS[self._direction] < 0:
                np.negative(strength, out=strength)
            raise_floors(strength, floors[rows], k)
            at = np.nonzero(strength >= (floors[rows] - np.float32(MARGIN))[:, None])
            if len(at[0]):
                yield Survivors(at[0] + start, at[1], counts[at], strength[at])

    def _informed(
        self, tile: _Prepared, ids: NDArray[np.int32], n_correct: NDArray[Any], k_in: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        raw = k_in / tile.n_in - (n_correct - k_in) / tile.n_out
        variance = noise(smoothed(n_correct, self._n_models), tile.n_in, tile.n_out)
        prediction = self._calibration.curve(tile.scores(ids))
        posteriors = posterior(raw, prediction, self._calibration.spread(prediction), variance)
        return posteriors.informed.astype(np.float32)
