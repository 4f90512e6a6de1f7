"""Search all (training, test) pairs for the strongest, a block of tests at a time, in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from memdb.environment import n_cores
from memdb.errors import InvalidInputError
from memdb.query.pairs.kernel import (
    MARGIN,
    Z_BINS,
    CpuKernel,
    PairKernel,
    Survivors,
    TallyingKernel,
    TestBlock,
    TrainTile,
)
from memdb.query.pairs.types import PairBits, PairBlock, PairChoice

BLOCK = 512  # test examples searched together
MAX_KEPT = 1 << 25  # pairs of one block that pass: 33 million
MAX_WAITING = 1 << 23  # undecided pairs of one block, before they are decided in float64
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class PairSearch:
    """A search through all pairs, block by block; blocks are numbered from 0 and independent of each other.

    Attributes:
        tally: also count the z statistics of all ranked pairs, which doubles the time; the kernel is a
            `TallyingKernel`.
        kernel: called with the number of models and the direction, once per thread.
        threads: the number of threads; by default one per core that this process may use.
        is_final: the kernel's strengths are final: no formula decides again in float64.
    """

    bits: PairBits
    choice: PairChoice
    tally: bool = False
    kernel: Callable[[int, str], PairKernel] = CpuKernel
    threads: int | None = None
    is_final: bool = False

    @property
    def n_blocks(self) -> int:
        """The number of blocks of test examples."""
        return -(-len(self.bits.test_labels) // BLOCK)

    @cached_property
    def n_ranked(self) -> int:
        """The number of pairs that have a score and pass the filters other than the score itself."""
        return self._n_ranked_of(self.bits.test_labels)

    @cached_property
    def trains(self) -> TrainTile:
        """The training examples whose pairs are ranked."""
        bits, least = self.bits, self.choice.min_memorization
        chosen = (bits.n_in > 0) & (bits.n_in < bits.n_models)
        if least is not None:
            chosen &= bits.memorization >= least  # NaN is not
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(bits.train_labels[rows], kind="stable")]
        return TrainTile(
            rows.astype(np.int32), bits.masks[rows], bits.n_in[rows].astype(np.int64), bits.train_labels[rows]
        )

    @cached_property
    def by_id(self) -> NDArray[np.int64]:
        """The positions in `trains` in order of id."""
        return np.argsort(self.trains.ids, kind="stable")

    def class_ranges(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the start and stop position in `trains` of each label, [labels] each."""
        known = self.trains.labels
        return np.searchsorted(known, labels), np.searchsorted(known, labels, side="right")

    def blocks(
        self,
        done: frozenset[int] = frozenset(),
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> Iterator[PairBlock]:
        """Yield the blocks in order, except those already ``done``, until a stop is requested.

        ``progress`` is called with the number of pairs searched so far and in all.

        Raises:
            InvalidInputError: the pairs of one block do not fit in memory.
        """
        numbers = [number for number in range(self.n_blocks) if number not in done]
        n_threads = min(self.threads or n_cores(), max(1, len(numbers)))
        searched = _Progress(self.n_ranked)
        searched.add(sum(self._n_ranked_of(self._labels_of(number)) for number in done))
        find = self._finder(searched)
        pool = ThreadPoolExecutor(n_threads)
        running: dict[int, Future[PairBlock | None]] = {}
        try:
            for position, number in enumerate(numbers):
                for ahead in numbers[position : position + n_threads + 1]:
                    if ahead not in running:
                        running[ahead] = pool.submit(find, ahead)
                while not running[number].done():
                    wait([running[number]], POLL_SECONDS, FIRST_COMPLETED)
                    progress(searched.done, searched.total)
                    if stop_requested():
                        searched.stopped = True
                block = running.pop(number).result()
                progress(searched.done, searched.total)
                if block is None:
                    return
                yield block
                if stop_requested():
                    return
        finally:
            searched.stopped = True
            pool.shutdown(cancel_futures=True)

    def _finder(self, searched: _Progress) -> Callable[[int], PairBlock | None]:
        """Return a function that searches a block by its number, with one kernel per thread."""
        local = threading.local()
        _ = self.trains, self.by_id  # computed once, before threads need them

        def find(number: int) -> PairBlock | None:
            if not hasattr(local, "kernel"):
                local.kernel = self.kernel(self.bits.n_models, self.choice.direction)
            return _Block(self, number, local.kernel, searched).find()

        return find

    def _labels_of(self, number: int) -> NDArray[np.int32]:
        return self.bits.test_labels[number * BLOCK : (number + 1) * BLOCK]

    def _n_ranked_of(self, labels: NDArray[np.int32]) -> int:
        """Return the number of ranked pairs of test examples with these labels."""
        if not self.choice.same_class:
            return len(labels) * len(self.trains)
        starts, stops = self.class_ranges(labels)
        return int((stops - starts).sum())


class _Progress:
    """The number of pairs searched by all threads, and whether to stop."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.stopped = total, 0, False
        self._lock = threading.Lock()

    def add(self, n_pairs: int) -> None:
        with self._lock:
            self.done += n_pairs


class _Block:
    """One block of test examples, searched by one thread."""

    def __init__(self, search: PairSearch, number: int, kernel: PairKernel, searched: _Progress) -> None:
        self._search, self._number, self._kernel, self._progress = search, number, kernel, searched
        bits = search.bits
        self._tests = bits.tests(slice(number * BLOCK, (number + 1) * BLOCK))
        self._found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]] = []
        self._histogram = np.zeros((2, Z_BINS), dtype=np.int64) if search.tally else None

    def find(self) -> PairBlock | None:
        """Return the pairs of the block; None if the search was stopped."""
        if self._histogram is not None:
            cast("TallyingKernel", self._kernel).tally(self._histogram)
        # where all models agree, every score is 0 and all pairs tie: there is nothing to count
        unanimous = (self._tests.totals == 0) | (self._tests.totals == self._search.bits.n_models)
        unanimous &= not self._search.is_final  # which says that these are not the strengths
        self._add_unanimous(np.flatnonzero(unanimous))
        for rows, columns in self._groups(np.flatnonzero(~unanimous)):
            if not self._search_group(rows, columns):
                return None
        found = self._found or [(np.zeros(0, np.int64), np.zeros(0, np.int64), self._search.bits.no_sums())]
        row, train, sums = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        order = np.argsort(row, kind="stable")
        test_id = (self._number * BLOCK + row[order]).astype(np.int32)
        return PairBlock(
            self._number,
            self._search.trains.ids[train[order]],
            test_id,
            sums[order],
            self._histogram,
        )

    def _groups(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], range]]:
        """Yield test rows with the range of training examples that they are paired with."""
        if not len(rows):
            return
        if not self._search.choice.same_class:
            yield rows, range(len(self._search.trains))
            return
        labels = self._tests.labels[rows]
        for label in np.unique(labels):
            starts, stops = self._search.class_ranges(np.array([label]))
            yield rows[labels == label], range(int(starts[0]), int(stops[0]))

    def _add_unanimous(self, rows: NDArray[np.int64]) -> None:
        """Add the pairs of tests on which all models agree, in order of train id, since all of them tie."""
        choice, trains = self._search.choice, self._search.trains
        passes = choice.min_influence is None or choice.min_influence <= 0
        starts, stops = self._search.class_ranges(self._tests.labels[rows])
        for row, start, stop in zip(rows, starts, stops, strict=True):
            positions = np.arange(start, stop) if choice.same_class else self._search.by_id
            self._progress.add(len(positions))
            if passes:
                first = positions[: choice.top]
                sums = self._search.bits.no_sums(len(first))
                sums.T[...] = trains.n_in[first] * (self._tests.totals[row] > 0)  # a p of 1 is its square
                self._keep(np.full(len(first), row), first, sums)

    def _search_group(self, rows: NDArray[np.int64], columns: range) -> bool:
        """Search test rows against a range of training examples; return False if the search was stopped."""
        search, kernel, tests = self._search, self._kernel, self._tests[rows]
        strongest = _Strongest(search, tests, rows)
        for start in range(columns.start, columns.stop, kernel.columns):
            if self._progress.stopped:
                return False
            tile = search.trains[start : min(start + kernel.columns, columns.stop)]
            survivors = kernel.filter(kernel.prepare(tile), tests, strongest.floors, strongest.k)
            strongest.add(list(survivors), start)
            self._progress.add(len(rows) * len(tile))
        row, train, sums = strongest.exactly()
        self._keep(rows[row], train, sums)
        return True

    def _keep(self, row: NDArray[np.int64], train: NDArray[np.int64], sums: NDArray[Any]) -> None:
        self._found.append((row, train, sums))
        _require_fit(sum(len(rows) for rows, _, _ in self._found))


class _Strongest:
    """The pairs of some tests that may be among the strongest, and the floors that rule out weaker ones."""

    def __init__(self, search: PairSearch, tests: TestBlock, rows: NDArray[np.int64]) -> None:
        choice = search.choice
        self._search, self._tests = search, tests
        self.k = choice.top
        least = -np.inf if choice.min_influence is None else choice.min_influence
        self.floors = np.full(len(rows), least, dtype=np.float32)
        self._best = np.full((len(rows), self.k or 0), -np.inf, dtype=np.float32)
        self._waiting: list[
            tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any], NDArray[np.float32]]
        ] = []
        self._n_waiting = 0

    def add(self, survivors: list[Survivors], offset: int) -> None:
        """Add the survivors of the tile at ``offset`` and raise the floors."""
        if not survivors:
            return
        rows, columns, sums, strength = (np.concatenate(arrays) for arrays in zip(*survivors, strict=True))
        self._waiting.append((rows, columns + offset, sums, strength))
        self._n_waiting += len(rows)
        if self.k is not None:
            self._raise_floors(rows, strength, self.k)
        if self._n_waiting > max(MAX_WAITING, 2 * self._best.size):
            row, train, sums, best = self._decided()
            _require_fit(len(row))
            if not self._search.is_final:
                best = np.full(len(row), np.inf, dtype=np.float32)  # decided: no floor removes them
            self._waiting, self._n_waiting = [(row, train, sums, best)], len(row)

    def _raise_floors(self, rows: NDArray[np.int64], strength: NDArray[np.float32], k: int) -> None:
        """Merge the strengths of a tile into the k best of each row."""
        counts = np.bincount(rows, minlength=len(self.floors))
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        widest = int(counts.max())
        merged = np.full((len(touched), k + widest), -np.inf, dtype=np.float32)
        merged[:, :k] = self._best[touched]
        column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        merged[np.repeat(np.arange(len(touched)), counts), k + column] = strength
        merged.partition(widest, axis=1)
        self._best[touched] = merged[:, widest:]
        self.floors[touched] = np.maximum(self.floors[touched], merged[:, widest])

    def exactly(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        """Return rows, positions in `trains` and sums of the strongest pairs, decided in float64."""
        row, train, sums, _ = self._decided()
        return row, train, sums

    def _decided(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any], NDArray[np.float32]]:
        """Return the same with their strengths."""
        if not self._waiting:
            nothing = np.zeros(0, np.int64)
            return nothing, nothing, self._search.bits.no_sums(), np.zeros(0, np.float32)
        row, train, sums, rough = (np.concatenate(arrays) for arrays in zip(*self._waiting, strict=True))
        near = rough >= self.floors[row] - np.float32(MARGIN)
        row, train, sums, rough = row[near], train[near], sums[near], rough[near]
        strength = rough.astype(np.float64) if self._search.is_final else self._strength(row, train, sums)
        least = self._search.choice.min_influence
        if least is not None:
            passes = strength >= least
            row, train, sums, strength = row[passes], train[passes], sums[passes], strength[passes]
        order = np.lexsort((self._search.trains.ids[train], -strength, row))
        if self.k is not None:
            counts = np.bincount(row, minlength=len(self.floors))
            rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            order = order[rank < self.k]
        return row[order], train[order], sums[order], strength[order].astype(np.float32)

    def _strength(
        self, row: NDArray[np.int64], train: NDArray[np.int64], sums: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Return strengths by the formula, and hence with the rounding, of `score` in ``statistics.sql``."""
        n_in = self._search.trains.n_in[train]
        n_out = self._search.bits.n_models - n_in
        inside = sums if sums.ndim == 1 else sums[:, 0]
        score: NDArray[np.float64] = inside / n_in - (self._tests.totals[row] - inside) / n_out
        match self._search.choice.direction:
            case "helps":
                return score
            case "hurts":
                return -score
            case _:
                return np.abs(score)


def _require_fit(n_pairs: int) -> None:
    if n_pairs > MAX_KEPT:
        raise InvalidInputError(
            f"more than {MAX_KEPT:,} pairs of {BLOCK} test examples pass",
            hint="raise min_influence or min_memorization, or add top",
            parameter=("min_influence", "min_memorization", "top"),
        )
