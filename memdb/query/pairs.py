"""The strongest of all (training, test) pairs, found a block of test examples at a time in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInput
from memdb.products import Words
from memdb.query.sieve import MARGIN, SIGNS, Z_BINS, CpuSieve, Sieve, Sifted, Tests, Trains

BLOCK = 512  # test examples whose pairs are found together
MAX_TOP = 16_384
MAX_KEPT = 1 << 25  # pairs of one block that pass: 33 million
MAX_WAITING = 1 << 23  # pairs of one block that may be among the strongest, before they are looked through
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class PairBits:
    """Everything that pairs are counted from."""

    n_models: int
    masks: Words  # [train, words]
    train_labels: NDArray[np.int32]
    memorization: NDArray[np.float64]  # [train]; NaN where there is none
    correct: Words  # [test, words]
    test_labels: NDArray[np.int32]
    n_in: NDArray[np.int32]  # [train]
    n_correct: NDArray[np.int32]  # [test]


@dataclass(frozen=True, slots=True)
class PairChoice:
    """Which pairs to find: the strongest ``top`` of every test example, those at or above a score, or both.

    Strength is the influence for ``helps``, minus it for ``hurts``, its absolute value for ``both``;
    ``min_influence`` is a bound on the strength. ``min_memorization`` and ``same_class`` say which pairs are
    ranked at all; pairs without a score never are.

    Raises:
        InvalidInput: neither ``top`` nor ``min_influence``, or a value that cannot be.
    """

    top: int | None = None
    min_influence: float | None = None
    min_memorization: float | None = None
    same_class: bool = False
    direction: str = "helps"

    def __post_init__(self) -> None:
        if self.top is None and self.min_influence is None:
            raise InvalidInput(
                "neither a smallest influence nor a number of pairs was given, and all pairs are too many",
                hint="use e.g. --min-influence 0.15, or --top 256 for each test example",
            )
        if self.top is not None and not 1 <= self.top <= MAX_TOP:
            raise InvalidInput(
                f"--top {self.top} is not a number from 1 to {MAX_TOP:,}", hint="use e.g. --top 256"
            )
        for option, value in (
            ("--min-influence", self.min_influence),
            ("--min-memorization", self.min_memorization),
        ):
            if value is not None and not -1 <= value <= 1:
                raise InvalidInput(f"{option} {value:g} is not between -1 and 1", hint="use e.g. 0.15")
        if self.direction not in SIGNS:
            raise InvalidInput(f"unknown direction {self.direction!r}", hint=f"use one of {', '.join(SIGNS)}")


@dataclass(frozen=True, slots=True)
class PairBlock:
    """The pairs found of some test examples: by test id, then from the strongest, equal ones by train id."""

    number: int
    train_id: NDArray[np.int32]
    test_id: NDArray[np.int32]
    k_in: NDArray[np.int32]
    z_histogram: NDArray[np.int64] | None  # [other class, same class][Z_BINS], over all pairs ranked

    def __len__(self) -> int:
        return len(self.train_id)


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
        observe: Callable[[int, int], None] = lambda _done, _total: None,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> Iterator[PairBlock]:
        """Yield the blocks in order, but for those already ``done``; ends early where a stop is requested.

        ``observe`` hears how many pairs of how many have been looked at.

        Raises:
            InvalidInput: so many pairs pass that a block of them does not fit in memory.
        """
        numbers = [number for number in range(self.n_blocks) if number not in done]
        n_threads = min(self.threads or _n_cores(), max(1, len(numbers)))
        progress = _Progress(self.n_ranked)
        progress.add(sum(self._n_ranked_in(number) for number in done))
        local = threading.local()
        _ = self._trains, self._lowest_ids  # made once, before threads ask for them

        def find(number: int) -> PairBlock | None:
            if not hasattr(local, "sieve"):
                local.sieve = self.sieve(self.bits.n_models, self.choice.direction)
            return _Block(self, number, local.sieve, progress).find()

        pool = ThreadPoolExecutor(n_threads)
        running: dict[int, Future[PairBlock | None]] = {}
        try:
            for place, number in enumerate(numbers):
                for ahead in numbers[place : place + n_threads + 1]:
                    if ahead not in running:
                        running[ahead] = pool.submit(find, ahead)
                while not running[number].done():
                    wait([running[number]], LOOK_SECONDS, FIRST_COMPLETED)
                    observe(progress.done, progress.total)
                    if stop_requested():
                        progress.stopped = True
                block = running.pop(number).result()
                observe(progress.done, progress.total)
                if block is None:
                    return
                yield block
                if stop_requested():
                    return
        finally:
            progress.stopped = True
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

    def __init__(self, search: PairSearch, number: int, sieve: Sieve, progress: _Progress) -> None:
        self._search, self._number, self._sieve, self._progress = search, number, sieve, progress
        bits = search.bits
        rows = slice(number * BLOCK, (number + 1) * BLOCK)
        self._tests = Tests(bits.correct[rows], bits.n_correct[rows].astype(np.int64), bits.test_labels[rows])
        self._found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]] = []
        self._histogram = np.zeros((2, Z_BINS), dtype=np.int64) if search.tally else None

    def find(self) -> PairBlock | None:
        """Return the block's pairs; None where the search was stopped."""
        if self._histogram is not None:
            self._sieve.tally(self._histogram)
        counts = self._tests.n_correct
        # where every model agrees all scores are 0, and all of them tie: nothing to count
        plain = (counts == 0) | (counts == self._search.bits.n_models)
        self._add_plain(np.flatnonzero(plain))
        for rows, columns in self._groups(np.flatnonzero(~plain)):
            if not self._search_group(rows, columns):
                return None
        parts = zip(*self._found, strict=True) if self._found else iter(())
        row, train, k_in = (np.concatenate(part) for part in parts) if self._found else _NOTHING
        order = np.argsort(row, kind="stable")
        test_id = (self._number * BLOCK + row[order]).astype(np.int32)
        return PairBlock(
            self._number,
            self._search._trains.ids[train[order]],  # noqa: SLF001 - one thing in two classes
            test_id,
            k_in[order],
            self._histogram,
        )

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
                k_in = trains.n_in[first] * (self._tests.n_correct[row] > 0)
                self._keep(np.full(len(first), row), first, k_in.astype(np.int32))

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
        row, train, k_in = strongest.exactly()
        self._keep(rows[row], train, k_in)
        return True

    def _keep(self, row: NDArray[np.int64], train: NDArray[np.int64], k_in: NDArray[np.int32]) -> None:
        self._found.append((row, train, k_in))
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
            tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
        ] = []
        self._n_waiting = 0

    def add(self, found: list[Sifted], offset: int) -> None:
        """Take in what a tile gave, and raise the floors."""
        if not found:
            return
        rows, columns, k_in, strength = (np.concatenate(part) for part in zip(*found, strict=True))
        self._waiting.append((rows, columns + offset, k_in, strength))
        self._n_waiting += len(rows)
        if self.k is not None:
            self._raise_floors(rows, strength, self.k)
        if self._n_waiting > max(MAX_WAITING, 2 * self._best.size):
            row, train, counts = self.exactly()
            _require_fit(len(row))
            best = np.full(len(row), np.inf, dtype=np.float32)  # they have passed: no floor removes them
            self._waiting, self._n_waiting = [(row, train, counts, best)], len(row)

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

    def exactly(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Return rows, places of training examples and counts of the strongest, decided in float64."""
        if not self._waiting:
            return _NOTHING
        row, train, k_in, rough = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        near = rough >= self.floors[row] - np.float32(MARGIN)
        row, train, k_in = row[near], train[near], k_in[near]
        strength = self._strength(row, train, k_in)
        least = self._search.choice.min_influence
        if least is not None:
            passes = strength >= least
            row, train, k_in, strength = row[passes], train[passes], k_in[passes], strength[passes]
        order = np.lexsort((self._search._trains.ids[train], -strength, row))  # noqa: SLF001
        if self.k is not None:
            counts = np.bincount(row, minlength=len(self.floors))
            rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            order = order[rank < self.k]
        return row[order], train[order], k_in[order]

    def _strength(
        self, row: NDArray[np.int64], train: NDArray[np.int64], k_in: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """Return strengths by the formula, and so the roundings, of `score` in ``statistics.sql``."""
        n_in = self._search._trains.n_in[train]  # noqa: SLF001
        n_out = self._search.bits.n_models - n_in
        score: NDArray[np.float64] = k_in / n_in - (self._tests.n_correct[row] - k_in) / n_out
        match self._search.choice.direction:
            case "helps":
                return score
            case "hurts":
                return -score
            case _:
                return np.abs(score)


_NOTHING = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32))


def _require_fit(n_pairs: int) -> None:
    if n_pairs > MAX_KEPT:
        raise InvalidInput(
            f"more than {MAX_KEPT:,} pairs of {BLOCK} test examples pass",
            hint="raise --min-influence or --min-memorization, or add --top",
        )


def _n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
