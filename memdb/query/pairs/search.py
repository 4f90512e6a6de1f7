"""The strongest of all (training, test) pairs, found a block of test examples at a time in bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.environment import n_cores
from memdb.errors import InvalidInputError
from memdb.query.pairs.kernel import MARGIN, Z_BINS, CpuSieve, Sieve, Sifted, Tests, Trains
from memdb.query.pairs.types import PairBits, PairBlock, PairChoice

BLOCK = 512  # test examples whose pairs are found together
MAX_KEPT = 1 << 25  # pairs of one block that pass: 33 million
MAX_WAITING = 1 << 23  # pairs of one block that may be among the strongest, before they are looked through
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class PairSearch:
    """A search through all pairs, block by block; blocks are numbered from 0 and depend on nothing else.

    Attributes:
        tally: count the z statistics of all pairs that are ranked, which takes about as long again.
        sieve: makes what counts, once a thread.
        threads: at once; as many as the machine lets this process use where not given.
    """

    bits: PairBits
    choice: PairChoice
    tally: bool = False
    sieve: Callable[[int, str], Sieve] = CpuSieve
    threads: int | None = None

    @property
    def n_blocks(self) -> int:
        """How many blocks of test examples there are."""
        return -(-len(self.bits.test_labels) // BLOCK)

    @cached_property
    def n_ranked(self) -> int:
        """How many pairs have a score and pass the filters that do not look at it."""
        if not self.choice.same_class:
            return len(self._trains) * len(self.bits.test_labels)
        starts, stops = self._class_ranges(self.bits.test_labels)
        return int((stops - starts).sum())

    @cached_property
    def _trains(self) -> Trains:
        """The training examples whose pairs are ranked."""
        bits, least = self.bits, self.choice.min_memorization
        chosen = (bits.n_in > 0) & (bits.n_in < bits.n_models)
        if least is not None:
            chosen &= bits.memorization >= least  # NaN is not
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(bits.train_labels[rows], kind="stable")]
        return Trains(
            rows.astype(np.int32), bits.masks[rows], bits.n_in[rows].astype(np.int64), bits.train_labels[rows]
        )

    @cached_property
    def _lowest_ids(self) -> NDArray[np.int64]:
        """Places in `_trains`, by id."""
        return np.argsort(self._trains.ids, kind="stable")

    def _class_ranges(self, labels: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each label where its training examples begin and end."""
        known = self._trains.labels
        return np.searchsorted(known, labels), np.searchsorted(known, labels, side="right")

    def blocks(
        self,
        done: frozenset[int] = frozenset(),
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> Iterator[PairBlock]:
        """Yield the blocks in order, but for those already ``done``; ends early where a stop is requested.

        ``progress`` hears how many pairs of how many have been looked at.

        Raises:
            InvalidInputError: so many pairs pass that a block of them does not fit in memory.
        """
        numbers = [number for number in range(self.n_blocks) if number not in done]
        n_threads = min(self.threads or n_cores(), max(1, len(numbers)))
        searched = _Progress(self.n_ranked)
        searched.add(sum(self._n_ranked_in(number) for number in done))
        local = threading.local()
        _ = self._trains, self._lowest_ids  # made once, before threads ask for them

        def find(number: int) -> PairBlock | None:
            if not hasattr(local, "sieve"):
                local.sieve = self.sieve(self.bits.n_models, self.choice.direction)
            return _Block(self, number, local.sieve, searched).find()

        pool = ThreadPoolExecutor(n_threads)
        running: dict[int, Future[PairBlock | None]] = {}
        try:
            for place, number in enumerate(numbers):
                for ahead in numbers[place : place + n_threads + 1]:
                    if ahead not in running:
                        running[ahead] = pool.submit(find, ahead)
                while not running[number].done():
                    wait([running[number]], LOOK_SECONDS, FIRST_COMPLETED)
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

    def _n_ranked_in(self, number: int) -> int:
        labels = self.bits.test_labels[number * BLOCK : (number + 1) * BLOCK]
        if not self.choice.same_class:
            return len(labels) * len(self._trains)
        starts, stops = self._class_ranges(labels)
        return int((stops - starts).sum())


class _Progress:
    """How many pairs have been looked at, by all threads, and whether to stop."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.stopped = total, 0, False
        self._lock = threading.Lock()

    def add(self, n_pairs: int) -> None:
        with self._lock:
            self.done += n_pairs


class _Block:
    """One block of test examples, searched by one thread."""

    def __init__(self, search: PairSearch, number: int, sieve: Sieve, searched: _Progress) -> None:
        self._search, self._number, self._sieve, self._progress = search, number, sieve, searched
        bits = search.bits
        self._tests = bits.tests(slice(number * BLOCK, (number + 1) * BLOCK))
        self._found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]] = []
        self._histogram = np.zeros((2, Z_BINS), dtype=np.int64) if search.tally else None

    def find(self) -> PairBlock | None:
        """Return the block's pairs; None where the search was stopped."""
        if self._histogram is not None:
            self._sieve.tally(self._histogram)
        # where every model agrees all scores are 0, and all of them tie: nothing to count
        plain = (self._tests.totals == 0) | (self._tests.totals == self._search.bits.n_models)
        self._add_plain(np.flatnonzero(plain))
        for rows, columns in self._groups(np.flatnonzero(~plain)):
            if not self._search_group(rows, columns):
                return None
        parts = zip(*self._found, strict=True) if self._found else iter(())
        row, train, sums = (np.concatenate(part) for part in parts) if self._found else self._nothing()
        order = np.argsort(row, kind="stable")
        test_id = (self._number * BLOCK + row[order]).astype(np.int32)
        return PairBlock(
            self._number,
            self._search._trains.ids[train[order]],  # noqa: SLF001 - one thing in two classes
            test_id,
            sums[order],
            self._histogram,
        )

    def _nothing(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), self._search.bits.no_sums()

    def _groups(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], range]]:
        """Yield tests with the range of training examples they are paired with."""
        if not len(rows):
            return
        if not self._search.choice.same_class:
            yield rows, range(len(self._search._trains))  # noqa: SLF001
            return
        labels = self._tests.labels[rows]
        for label in np.unique(labels):
            mine = rows[labels == label]
            starts, stops = self._search._class_ranges(self._tests.labels[mine[:1]])  # noqa: SLF001
            yield mine, range(int(starts[0]), int(stops[0]))

    def _add_plain(self, rows: NDArray[np.int64]) -> None:
        """Add the pairs of tests on which all models agree: by train id, as all of them tie."""
        choice, trains = self._search.choice, self._search._trains  # noqa: SLF001
        passes = choice.min_influence is None or choice.min_influence <= 0
        starts, stops = self._search._class_ranges(self._tests.labels[rows])  # noqa: SLF001
        for row, start, stop in zip(rows, starts, stops, strict=True):
            places = np.arange(start, stop) if choice.same_class else self._search._lowest_ids  # noqa: SLF001
            self._progress.add(len(places))
            if passes:
                first = places[: choice.top]
                sums = self._search.bits.no_sums(len(first))
                sums.T[...] = trains.n_in[first] * (self._tests.totals[row] > 0)  # a p of 1 is its square
                self._keep(np.full(len(first), row), first, sums)

    def _search_group(self, rows: NDArray[np.int64], columns: range) -> bool:
        """Search some tests against a range of training examples; tell whether it came to its end."""
        search, sieve, tests = self._search, self._sieve, self._tests.part(rows)
        strongest = _Strongest(search, tests, rows)
        for start in range(columns.start, columns.stop, sieve.columns):
            if self._progress.stopped:
                return False
            part = slice(start, min(start + sieve.columns, columns.stop))
            tile = sieve.hold(search._trains.part(part))  # noqa: SLF001
            found = list(sieve.sift(tile, tests, strongest.floors, strongest.k))
            strongest.add(found, start)
            self._progress.add(len(rows) * (part.stop - part.start))
        row, train, sums = strongest.exactly()
        self._keep(rows[row], train, sums)
        return True

    def _keep(self, row: NDArray[np.int64], train: NDArray[np.int64], sums: NDArray[Any]) -> None:
        self._found.append((row, train, sums))
        _require_fit(sum(len(part[0]) for part in self._found))


class _Strongest:
    """The pairs of some tests that may be among the strongest, and below which strength no pair can be."""

    def __init__(self, search: PairSearch, tests: Tests, rows: NDArray[np.int64]) -> None:
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

    def add(self, found: list[Sifted], offset: int) -> None:
        """Take in what a tile gave, and raise the floors."""
        if not found:
            return
        rows, columns, sums, strength = (np.concatenate(part) for part in zip(*found, strict=True))
        self._waiting.append((rows, columns + offset, sums, strength))
        self._n_waiting += len(rows)
        if self.k is not None:
            self._raise_floors(rows, strength, self.k)
        if self._n_waiting > max(MAX_WAITING, 2 * self._best.size):
            row, train, sums = self.exactly()
            _require_fit(len(row))
            best = np.full(len(row), np.inf, dtype=np.float32)  # they have passed: no floor removes them
            self._waiting, self._n_waiting = [(row, train, sums, best)], len(row)

    def _raise_floors(self, rows: NDArray[np.int64], strength: NDArray[np.float32], k: int) -> None:
        """Merge a tile's strengths into the k best of each row."""
        counts = np.bincount(rows, minlength=len(self.floors))
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        widest = int(counts.max())
        merged = np.full((len(touched), k + widest), -np.inf, dtype=np.float32)
        merged[:, :k] = self._best[touched]
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        merged[np.repeat(np.arange(len(touched)), counts), k + place] = strength
        merged.partition(widest, axis=1)
        self._best[touched] = merged[:, widest:]
        self.floors[touched] = np.maximum(self.floors[touched], merged[:, widest])

    def exactly(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
        """Return rows, places of training examples and sums of the strongest, decided in float64."""
        if not self._waiting:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), self._search.bits.no_sums()
        row, train, sums, rough = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        near = rough >= self.floors[row] - np.float32(MARGIN)
        row, train, sums = row[near], train[near], sums[near]
        strength = self._strength(row, train, sums)
        least = self._search.choice.min_influence
        if least is not None:
            passes = strength >= least
            row, train, sums, strength = row[passes], train[passes], sums[passes], strength[passes]
        order = np.lexsort((self._search._trains.ids[train], -strength, row))  # noqa: SLF001
        if self.k is not None:
            counts = np.bincount(row, minlength=len(self.floors))
            rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            order = order[rank < self.k]
        return row[order], train[order], sums[order]

    def _strength(
        self, row: NDArray[np.int64], train: NDArray[np.int64], sums: NDArray[Any]
    ) -> NDArray[np.float64]:
        """Return strengths by the formula, and so the roundings, of `score` in ``statistics.sql``."""
        n_in = self._search._trains.n_in[train]  # noqa: SLF001
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
