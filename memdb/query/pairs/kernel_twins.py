"""The pair kernel of near-duplicates: how far training examples stand in for one that is held out.

Of a target t and another training example j, over the models that hold t out, the influence of j on t is

    P[correct on t | j in, t out] - P[correct on t | j out, t out]

It is the ordinary influence but for the models trained on t itself, which are right on t whatever else they
saw. Two near-duplicates have it both ways. Three products of bits count it in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits
from memdb.query.pairs.kernel import MARGIN, Floats, Survivors, TestBlock, TrainTile
from memdb.query.pairs.popcount import Products, Words, packed

ROWS, COLUMNS = 64, 2048


class Targets(NamedTuple):
    """Training examples as what is influenced.

    Attributes:
        masks: the models trained on each, uint64 [examples, words].
        alone: the models that are right on it without being trained on it, likewise.
        n_in, p_in: how many models were trained on it, and which share of them is right.
        k_out: how many of the others are right.
    """

    masks: Words
    alone: Words
    n_in: Floats
    p_in: Floats
    k_out: Floats

    @classmethod
    def of(cls, masks: Words, correct: Words) -> Targets:
        """Count what each example's own models and the others do."""
        alone = correct & ~masks
        n_in, k_in = bits.count(masks), bits.count_and(masks, correct)
        p_in = np.divide(k_in, n_in, out=np.zeros(len(n_in)), where=n_in > 0)
        of_all = (n_in, p_in, bits.count(alone))
        return cls(masks, alone, *(values.astype(np.float32) for values in of_all))

    def rows(self, ids: NDArray[np.integer[Any]]) -> Targets:
        """Return some of them."""
        return Targets(*(values[ids] for values in self))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a pair must reach in both directions: an influence, a `share`, and standard errors of chance."""

    share: float
    null_z: float


@dataclass(frozen=True, slots=True)
class _Prepared:
    targets: Targets
    packed_masks: Any
    packed_alone: Any
    ids: NDArray[np.int32]


class TwinKernel:
    """Keeps the pairs of which each stands in for the other; of each pair the one of the smaller target id.

    The strength is the smaller influence of the two.
    """

    columns = COLUMNS

    def __init__(self, n_models: int, direction: str, targets: Targets, bounds: Bounds) -> None:
        self._n_models, self._targets, self._bounds = np.float32(n_models), targets, bounds
        self._products = [Products() for _ in range(3)]
        del direction  # only "helps" is asked for: examples that hurt each other are not twins

    def prepare(self, trains: TrainTile) -> _Prepared:
        """Pack the masks of a tile, and the models that are right without it."""
        targets = self._targets.rows(trains.ids)
        return _Prepared(targets, packed(targets.masks), packed(targets.alone), trains.ids)

    def filter(
        self, tile: _Prepared, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs whose weaker direction reaches the floor (see `PairKernel.filter`)."""
        del k  # all that pass
        for start in range(0, len(tests), ROWS):
            ids = tests.ids[start : start + ROWS]
            strength = self._mutual(self._targets.rows(ids), tile)
            strength[ids[:, None] >= tile.ids] = -np.inf
            at = np.nonzero(strength >= floors[start : start + ROWS, None] - np.float32(MARGIN))
            if len(at[0]):
                yield Survivors(at[0] + start, at[1], np.zeros(len(at[0]), np.int32), strength[at])

    def _mutual(self, rows: Targets, tile: _Prepared) -> NDArray[np.float32]:
        columns = tile.targets
        both = self._products[0].counts(rows.masks, tile.packed_masks).astype(np.float32)
        without = self._n_models - rows.n_in[:, None] - columns.n_in + both  # models that hold both out
        rows_alone = self._products[1].counts(rows.alone, tile.packed_masks).astype(np.float32)
        columns_alone = self._products[2].counts(rows.masks, tile.packed_alone).astype(np.float32)
        on_rows = self._influence(
            rows_alone, columns.n_in - both, rows.k_out[:, None], without, rows.p_in[:, None]
        )
        on_columns = self._influence(
            columns_alone, rows.n_in[:, None] - both, columns.k_out, without, columns.p_in
        )
        return np.minimum(on_rows, on_columns)

    def _influence(self, k_in: Floats, n_in: Floats, k_out: Floats, n_out: Floats, own: Floats) -> Floats:
        """Return the influences on targets that are held out; minus infinity where a bound is not reached."""
        with np.errstate(divide="ignore", invalid="ignore"):
            p_out = (k_out - k_in) / n_out
            influence: Floats = k_in / n_in - p_out
            n = n_in + n_out
            null = k_out * (n - k_out) / (n * (n - 1)) * (1 / n_in + 1 / n_out)
            kept = influence >= self._bounds.null_z * np.sqrt(null)
            kept &= influence >= self._bounds.share * (own - p_out) - np.float32(MARGIN)
        return np.where(kept, influence, np.float32(-np.inf))
