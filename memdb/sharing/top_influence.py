"""The strongest pairs of every test example, as questions list them by default, for published copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query import statistics
from memdb.query.equal_pairs import EqualPairs, scored
from memdb.query.lazy import Lazy
from memdb.query.mixture import Numbers, fitted_effects
from memdb.query.pairs.kernel import COLUMNS, ROWS
from memdb.query.pairs.popcount import Products, packed
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

Codes = NDArray[np.integer[Any]]

PAIRS_AT_ONCE = 1 << 23  # whose counts are in memory
TESTS_AT_ONCE = 8  # whose kinds of pairs are scored at once: they fit in the caches


@dataclass(frozen=True)
class Listing:
    """The strongest pairs of a test example: int32 [`PAIR_ROWS`, pairs], float64 [pairs, `SCORE_COLUMNS`]."""

    pairs: NDArray[np.int32]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class _Kinds:
    """The kinds of a few test examples' pairs: those of one kind are equal in all that ranking looks at.

    They are in order of their test example, then of their code.
    """

    codes: Codes
    candidates: Candidates
    groups: NDArray[np.int64]  # twice the place of the test example, 1 more if of one class
    parts: list[slice]  # of each test example

    @property
    def histograms(self) -> NDArray[Any]:
        """Histograms of |z| that effects are fitted to, for each test example and stratum."""
        return statistics.chance_histograms(self.candidates, self.groups, 2 * len(self.parts))


class Lists:
    """Finds the strongest pairs of test examples, in the order of a list's default options.

    Many of a test example's pairs are equal in n_in, in k_in and in whether they are of one class. Each such
    kind is scored and ranked once, by what answers questions. Several threads may ask.
    """

    def __init__(self, relations: Relations, counts: Mapping[str, NDArray[np.int32]], listed: int) -> None:
        """Prepare to find ``listed`` pairs; ``counts`` are those of `counts_of` by set."""
        self._relations, self._counts, self._listed = relations, counts, listed
        self._n_models = relations.snapshot.n_models
        n_in = counts[layout.TRAIN][COUNTED[layout.TRAIN].index("n_in")]
        has_score = (n_in > 0) & (n_in < self._n_models)
        self._trains, self._scoreless = np.flatnonzero(has_score), np.flatnonzero(~has_score)
        self._labels = counts[layout.TRAIN][0, self._trains]
        self._n_in, place = np.unique(n_in[self._trains], return_inverse=True)
        self._shift = self._n_models.bit_length()
        most = 2 * len(self._n_in) << self._shift
        kind: type[np.integer[Any]] = np.int32 if most < 2**31 else np.int64
        self._arms: Codes = 2 * place.astype(kind)
        order = np.argsort(self._labels, kind="stable")
        labels, starts = np.unique(self._labels[order], return_index=True)
        bounds = pairwise([*starts.tolist(), len(order)])
        self._of_class: dict[int, NDArray[np.int64]] = {
            label: order[slice(*bound)] for label, bound in zip(labels.tolist(), bounds, strict=True)
        }
        self._tiles, self._own = Lazy(self._packed), threading.local()

    def _packed(self, path: str) -> list[Any]:
        words = self._relations.bits[path]
        starts = range(0, len(self._trains), COLUMNS)
        return [packed(words[self._trains[start : start + COLUMNS]]) for start in starts]

    def of(self, tests: Sequence[int]) -> Iterator[Listing]:
        """Yield the strongest pairs of each of some test examples."""
        at_once = max(1, PAIRS_AT_ONCE // max(1, len(self._trains)))
        for start in range(0, len(tests), at_once):
            some = tests[start : start + at_once]
            yield from self._listings(some, self._counted(some))

    def _counted(self, tests: Sequence[int]) -> NDArray[np.int32]:
        """Count the models that had each training example and are right on each test example."""
        right = self._relations.correct(layout.TEST)[list(tests)]
        k_in, products = self._buffer(len(tests)), self._own.products
        for number, tile in enumerate(self._tiles[layout.MASK]):
            columns = slice(number * COLUMNS, (number + 1) * COLUMNS)
            for start in range(0, len(tests), ROWS):
                rows = slice(start, start + ROWS)
                k_in[rows, columns] = products.counts(right[rows], tile)
        return k_in

    def _buffer(self, n_tests: int) -> NDArray[np.int32]:
        """Return room for the counts of some test examples, the same for each call of a thread."""
        own = self._own
        if not hasattr(own, "products"):
            own.products, own.k_in = Products(), np.empty((0, 0), dtype=np.int32)
        if len(own.k_in) < n_tests:
            own.k_in = np.empty((n_tests, len(self._trains)), dtype=np.int32)
        found: NDArray[np.int32] = own.k_in[:n_tests]
        return found

    def _listings(self, tests: Sequence[int], k_in: NDArray[np.int32]) -> list[Listing]:
        groups = [slice(start, start + TESTS_AT_ONCE) for start in range(0, len(tests), TESTS_AT_ONCE)]
        every = [self._kinds(tests[some], k_in[some]) for some in groups]
        effects = fitted_effects(np.concatenate([kinds.histograms for kinds in every]))
        listings = []
        for some, kinds in zip(groups, every, strict=True):
            shrunk = statistics.shrunk_by(
                effects[2 * some.start : 2 * some.stop], kinds.candidates, kinds.groups
            )
            for test_id, row, part in zip(tests[some], k_in[some], kinds.parts, strict=True):
                candidates = kinds.candidates.part(part)
                chosen = self._strongest(shrunk[part], candidates)
                q_value = statistics.q_values(kinds.candidates.p_value[part], candidates.times)[chosen]
                ranked = np.stack([shrunk[part][chosen], q_value, candidates.score[chosen]], axis=1)
                listings.append(self._listing(test_id, row, kinds.codes[part][chosen], ranked))
        return listings

    def _kinds(self, tests: Sequence[int], k_in: NDArray[np.int32]) -> _Kinds:
        """Return the kinds of pairs of some test examples."""
        found = [
            np.unique(self._codes(self._arms_with(test_id), row), return_counts=True)
            for test_id, row in zip(tests, k_in, strict=True)
        ]
        sizes = [len(codes) for codes, _ in found]
        codes = np.concatenate([codes for codes, _ in found])
        arms, hits = self._decoded(codes)
        is_same = arms & 1
        total = np.repeat(self._counts[layout.TEST][1, list(tests)], sizes)
        times = np.concatenate([times for _, times in found])
        candidates = scored(
            EqualPairs(self._n_in[arms >> 1], hits, total, is_same == 1, times), self._n_models
        )
        groups = np.repeat(2 * np.arange(len(tests)), sizes) + is_same
        parts = [slice(*bound) for bound in pairwise(accumulate(sizes, initial=0))]
        return _Kinds(codes, candidates, groups, parts)

    def _arms_with(self, test_id: int) -> Codes:
        """Return a number for each training example: twice the place of its n_in, 1 more if of one class."""
        same = self._of_class.get(int(self._counts[layout.TEST][0, test_id]))
        if same is None:
            return self._arms
        arms = self._arms.copy()
        arms[same] += 1
        return arms

    def _codes(self, arms: Codes, k_in: Codes) -> Codes:
        return (arms << self._shift) + k_in

    def _decoded(self, codes: Codes) -> tuple[Codes, Codes]:
        return codes >> self._shift, codes & ((1 << self._shift) - 1)

    def _strongest(self, shrunk: Numbers, candidates: Candidates) -> NDArray[np.int64]:
        """Return the kinds that make up the list of a test example, ascending: enough, and all that tie."""
        score, times, most = candidates.score, candidates.times, self._listed
        assert times is not None  # noqa: S101 - for mypy: kinds are counted
        rows = np.arange(len(shrunk))
        if most < len(rows):  # a pair of each of the first would be enough
            rows = np.flatnonzero(shrunk >= np.partition(shrunk, len(rows) - most)[len(rows) - most])
        order = rows[np.lexsort((-score[rows], -shrunk[rows]))]
        last = np.searchsorted(np.cumsum(times[order]), most)
        if last >= len(order):
            return np.arange(len(shrunk))
        least, weakest = shrunk[order[last]], score[order[last]]
        return np.flatnonzero((shrunk > least) | ((shrunk == least) & (score >= weakest)))

    def _listing(self, test_id: int, k_in: NDArray[np.int32], codes: Codes, ranked: Numbers) -> Listing:
        """Return the list from its kinds, with the posterior mean, q-value and score of each."""
        rows, kind = self._pairs_of(test_id, k_in, codes)
        shrunk, _, score = ranked[kind].T
        if len(rows) > self._listed and np.ptp(shrunk) == np.ptp(score) == 0:
            places = np.arange(self._listed)  # they tie in all but their ids
        else:
            places = first(shrunk, score, self._trains[rows], self._listed)
        rows, kind = rows[places], kind[places]
        without = self._scoreless[: self._listed - len(rows)]  # come last
        train = np.concatenate([self._trains[rows], without])
        label, n_in, own_correct, own_k_in = self._counts[layout.TRAIN][:, train]
        test_label, n_correct = self._counts[layout.TEST][:, test_id]
        in_all = np.where(n_in[len(rows) :] > 0, n_correct, 0)
        values = {
            "train_id": train, "train_label": label, "n_in": n_in, "k_in": np.append(k_in[rows], in_all),
            "own_correct": own_correct, "own_k_in": own_k_in, "test_label": test_label,
            "n_correct": n_correct,
        }  # fmt: skip
        pairs = np.empty((len(PAIR_ROWS), len(train)), dtype=np.int32)
        for row, name in enumerate(PAIR_ROWS):
            pairs[row] = values[name]
        scores = np.full((len(train), len(SCORE_COLUMNS)), np.nan)
        scores[: len(rows)] = ranked[kind, : len(SCORE_COLUMNS)]
        return Listing(pairs, scores)

    def _pairs_of(
        self, test_id: int, k_in: NDArray[np.int32], codes: Codes
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of all pairs of some kinds, ascending, and their kinds."""
        # the fewest right models of these kinds by arm: few pairs of others have as many
        floors = np.full(2 * len(self._n_in), self._n_models + 1, dtype=np.int32)
        arms, hits = self._decoded(codes)
        np.minimum.at(floors, arms, hits.astype(np.int32))
        arms = self._arms_with(test_id)
        rows = np.flatnonzero(k_in >= floors[arms])
        asked = self._codes(arms[rows], k_in[rows])
        kind = np.minimum(np.searchsorted(codes, asked), len(codes) - 1)
        found = codes[kind] == asked if len(codes) else np.zeros(0, dtype=np.bool_)
        return rows[found], kind[found]
