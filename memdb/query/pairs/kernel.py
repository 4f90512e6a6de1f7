"""Score a tile of training examples against a block of test examples and keep only the strongest pairs.

The pairs kept are a superset of the answer: kernels work in float32 where its counts are exact, with a margin
for its two roundings. The caller then decides in float64 among the few survivors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.query.pairs.popcount import Products, Words, packed

MARGIN = 2.0**-20  # bounds the error of a float32 score, |score| <= 1
EXACT_MODELS = 4096  # products of counts up to here are whole numbers below 2**24
Z_STEP = 0.05
Z_BINS = 2001  # centred on multiples of Z_STEP from -50 to 50; the outermost hold all beyond
SIGNS = {"helps": 1, "hurts": -1, "both": 1}
ROWS, COLUMNS = 64, 2048  # a tile of counts, 512 KiB, and its temporaries stay in the caches

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class TrainTile:
    """Training examples with models both in and out, ordered by label, then by id."""

    ids: NDArray[np.int32]
    masks: Words  # [train, words]
    n_in: NDArray[np.int64]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> TrainTile:
        return TrainTile(self.ids[rows], self.masks[rows], self.n_in[rows], self.labels[rows])


@dataclass(frozen=True, slots=True)
class TestBlock:
    """Test examples and the outcomes of all models on them.

    Attributes:
        outcomes: bits of which models are correct, uint64 [test, words]; for confidences, p and p squared,
            float64 [test, models, 2].
        totals: over all models, the number that are correct or the sum of p, [test].
        labels: [test].
        ids: [test].
    """

    outcomes: NDArray[Any]
    totals: NDArray[Any]
    labels: NDArray[np.int32]
    ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.integer[Any]]) -> TestBlock:
        return TestBlock(self.outcomes[rows], self.totals[rows], self.labels[rows], self.ids[rows])


class Survivors(NamedTuple):
    """Pairs that may be among the strongest: positions in the block and in the tile, in that order.

    ``sums`` are over the models trained on the training example: k_in, int32 [pairs], or the sums of p and of
    its square, float64 [pairs, 2].
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    sums: NDArray[Any]
    strength: NDArray[np.float32]  # the score in the requested direction, within MARGIN / 4


class PairKernel(Protocol):
    """Filters tiles of at most ``columns`` training examples; not thread-safe, so each thread has its own."""

    columns: int

    def prepare(self, trains: TrainTile) -> Any:
        """Convert a tile to the form that `filter` takes."""

    def filter(
        self, tile: Any, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs whose strength is not clearly below the floor of their test example.

        Floors of minus infinity are raised, in place, to the k-th strongest of the tile.
        """


class TallyingKernel(PairKernel, Protocol):
    """A kernel of scores that have a z statistic."""

    def tally(self, into: NDArray[np.int64]) -> None:
        """Start adding `Candidates.null_z` of all pairs: int64 [other class, same class][Z_BINS].

        It is not defined for test examples on which all models agree; omit them from the blocks.
        """


@dataclass(frozen=True, slots=True)
class _Prepared:
    trains: TrainTile
    packed: Any
    n_in: Floats
    weight: Floats  # sign / (n_in n_out)
    root: Floats  # 1 / sqrt(n_in n_out)


class CpuKernel:
    """Popcount products of packed bits, then NumPy on tiles that fit in the caches."""

    columns = COLUMNS

    def __init__(self, n_models: int, direction: str) -> None:
        self._n_models = n_models
        self._direction = direction
        self._real = np.dtype(np.float32 if n_models <= EXACT_MODELS else np.float64)
        self._products = Products()
        self._buffers = [np.empty(ROWS * COLUMNS, dtype=self._real) for _ in range(2)]
        self._histogram: NDArray[np.int64] | None = None

    def tally(self, into: NDArray[np.int64]) -> None:
        """Start adding the z statistics of all pairs to a histogram."""
        self._histogram = into

    def prepare(self, trains: TrainTile) -> _Prepared:
        """Pack the masks and compute the constants of a tile."""
        n_in, n_out = trains.n_in.astype(np.float64), (self._n_models - trains.n_in).astype(np.float64)
        constants = n_in, SIGNS[self._direction] / (n_in * n_out), 1 / np.sqrt(n_in * n_out)
        return _Prepared(trains, packed(trains.masks), *(values.astype(self._real) for values in constants))

    def filter(
        self, tile: _Prepared, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs whose strength is not clearly below the floor of their test example."""
        for start in range(0, len(tests), ROWS):
            rows = slice(start, start + ROWS)
            counts = self._products.counts(tests.outcomes[rows], tile.packed)
            n_correct = tests.totals[rows, None].astype(self._real)
            difference, scratch = self._shaped(counts.shape)
            np.copyto(difference, counts)
            np.multiply(difference, self._n_models, out=difference)  # n k_in - n_correct n_in: a whole number
            np.multiply(n_correct, tile.n_in, out=scratch)
            np.subtract(difference, scratch, out=difference)
            if self._histogram is not None:
                np.multiply(difference, tile.root, out=scratch)
                np.multiply(scratch, self._per_chance(tests.totals[rows, None]), out=scratch)
                add_z(self._histogram, tile.trains.labels, tests.labels[rows], scratch)
            strength = np.multiply(difference, tile.weight, out=difference)
            if self._direction == "both":
                np.abs(strength, out=strength)
            raise_floors(strength, floors[rows], k)
            hits = strength >= (floors[rows] - np.float32(MARGIN))[:, None]
            at = divmod(np.flatnonzero(hits), counts.shape[1])
            if len(at[0]):
                yield Survivors(at[0] + start, at[1], counts[at], strength[at].astype(np.float32))

    def _shaped(self, shape: tuple[int, ...]) -> list[Floats]:
        return [buffer[: shape[0] * shape[1]].reshape(shape) for buffer in self._buffers]

    def _per_chance(self, n_correct: NDArray[Any]) -> Floats:
        """Return what makes z of difference / sqrt(n_in n_out)."""
        varying = n_correct.astype(np.float64) * (self._n_models - n_correct)
        per_chance: Floats = np.sqrt((self._n_models - 1) / varying).astype(self._real)
        return per_chance


def add_z(
    histogram: NDArray[np.int64], train_labels: NDArray[np.int32], labels: NDArray[np.int32], z: Floats
) -> None:
    """Add z statistics [test, train] to a histogram; overwrites them.

    Training examples must be ordered by label.
    """
    np.multiply(z, 1 / Z_STEP, out=z)
    np.add(z, Z_BINS // 2 + 0.5, out=z)  # truncation then rounds to the nearest
    np.clip(z, 0.5, Z_BINS - 0.5, out=z)
    bins = z.astype(np.int64)

    def add(some: NDArray[np.int64], same_class: int, sign: int) -> None:
        histogram[same_class] += sign * np.bincount(some, minlength=Z_BINS)

    add(bins.reshape(-1), 0, 1)
    starts = np.searchsorted(train_labels, labels)
    stops = np.searchsorted(train_labels, labels, side="right")
    same = [
        bins[row, start:stop]
        for row, (start, stop) in enumerate(zip(starts, stops, strict=True))
        if stop > start
    ]
    if same:
        alike = np.concatenate(same)
        add(alike, 1, 1)
        add(alike, 0, -1)


def raise_floors(strength: Floats, floors: NDArray[np.float32], k: int | None) -> None:
    """Raise unset floors to the k-th strongest of each row that has at least k pairs."""
    n_columns = strength.shape[1]
    if k is not None and n_columns >= k and np.isneginf(floors).any():
        kth = np.partition(strength, n_columns - k, axis=1)[:, n_columns - k]
        np.maximum(floors, kth.astype(np.float32), out=floors)
