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
from memdb.query.mixture import Effects, Numbers, fitted_effects
from memdb.query.pairs.kernel import COLUMNS, ROWS
from memdb.query.pairs.popcount import Products, packed
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

Codes = NDArray[np.integer[Any]]

PAIRS_AT_ONCE = 1 << 23  # whose counts are in memory
TESTS_AT_ONCE = 4  # whose kinds of pairs are scored at once: they fit in the caches


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
    eligible: list[NDArray[np.int64]]  # kinds of each test example that its list may have

    @property
    def histograms(self) -> NDArray[Any]:
        """Histograms of |z| that effects are fitted to, for each test example and stratum."""
        return statistics.chance_histograms(self.candidates, self.groups, 2 * len(self.parts))

    def shrunk(self, effects: Sequence[Effects]) -> list[Numbers]:
        """Return posterior means of those that are eligible, for each test example."""
        at = np.concatenate(self.eligible)
        found = statistics.shrunk_by(effects, self.candidates.part(at), self.groups[at])
        return np.split(found, list(accumulate(map(len, self.eligible)))[:-1])


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
        self._n_in, self._place = np.unique(n_in[self._trains], return_inverse=True)
        self._shift = self._n_models.bit_length()
        most = 2 * len(self._n_in) << self._shift
        code: type[np.integer[Any]] = np.int32 if most < 2**31 else np.int64
        self._arms: Codes = 2 * self._place.astype(code) << self._shift
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
            varied = [test_id for test_id in some if not self._is_unanimous(test_id)]
            found = iter(self._listings(varied, self._counted(varied)) if varied else ())
            for test_id in some:
                yield self._of_ties(test_id) if self._is_unanimous(test_id) else next(found)

    def _is_unanimous(self, test_id: int) -> bool:
        """Tell whether all models agree on a test example: then every score is 0, and no pair is counted."""
        return self._counts[layout.TEST][1, test_id] in {0, self._n_models}

    def _of_ties(self, test_id: int) -> Listing:
        """Return the list of a test example on which all models agree: the first ids."""
        rows = np.arange(min(self._listed, len(self._trains)))
        n_in = self._counts[layout.TRAIN][1, self._trains[rows]]
        k_in = n_in * (self._counts[layout.TEST][1, test_id] > 0)
        return self._listing(test_id, rows, k_in, np.tile([0.0, 1.0], (len(rows), 1)))

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
            shrunk = kinds.shrunk(effects[2 * some.start : 2 * some.stop])
            for number, (test_id, row) in enumerate(zip(tests[some], k_in[some], strict=True)):
                codes, ranked = self._strongest(kinds, number, shrunk[number])
                listings.append(self._ranked(test_id, row, codes, ranked))
        return listings

    def _kinds(self, tests: Sequence[int], k_in: NDArray[np.int32]) -> _Kinds:
        """Return the kinds of pairs of some test examples."""
        found = [self._kinds_of(test_id, row) for test_id, row in zip(tests, k_in, strict=True)]
        sizes = [len(codes) for codes, _ in found]
        codes = np.concatenate([codes for codes, _ in found])
        arms, hits = (values.astype(np.int64) for values in self._decoded(codes))
        is_same = arms & 1
        total = np.repeat(self._counts[layout.TEST][1, list(tests)].astype(np.int64), sizes)
        times = np.concatenate([times for _, times in found])
        pairs = EqualPairs(self._n_in[arms >> 1], hits, total, is_same == 1, times)
        parts = [slice(*bound) for bound in pairwise(accumulate(sizes, initial=0))]
        helps = np.flatnonzero(hits * self._n_models > total * pairs.n_in)
        eligible = [self._eligible(part, helps, times) for part in parts]
        candidates = scored(pairs, self._n_models, np.concatenate(eligible))
        groups = np.repeat(2 * np.arange(len(tests)), sizes) + is_same
        return _Kinds(codes, candidates, groups, parts, eligible)

    def _eligible(self, part: slice, helps: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which kinds of a test example its list may have: those that help, if they are enough."""
        first_of, end = np.searchsorted(helps, (part.start, part.stop))
        found = helps[first_of:end]
        return found if times[found].sum() >= self._listed else np.arange(part.start, part.stop)

    def _kinds_of(self, test_id: int, k_in: NDArray[np.int32]) -> tuple[Codes, NDArray[np.int64]]:
        """Return the codes of a test example's kinds of pairs, ascending, and how many pairs each has.

        A code is twice the place of its n_in, 1 more if of one class, and then k_in.
        """
        codes = self._arms + k_in
        codes[self._same(test_id)] += 1 << self._shift
        codes.sort()
        is_first = np.ones(len(codes), dtype=np.bool_)
        np.not_equal(codes[1:], codes[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        return codes[starts], np.diff(starts, append=len(codes))

    def _same(self, test_id: int) -> NDArray[np.int64]:
        """Return the places of the training examples of a test example's class, ascending."""
        label = int(self._counts[layout.TEST][0, test_id])
        return self._of_class.get(label, np.zeros(0, dtype=np.int64))

    def _decoded(self, codes: Codes) -> tuple[Codes, Codes]:
        return codes >> self._shift, codes & ((1 << self._shift) - 1)

    def _strongest(self, kinds: _Kinds, number: int, shrunk: Numbers) -> tuple[Codes, Numbers]:
        """Return the kinds that make up the list of a test example, ascending: enough, and all that tie.

        The second array has their posterior mean, q-value and score.
        """
        part, at, every = kinds.parts[number], kinds.eligible[number], kinds.candidates
        score, times = every.score[at], every.times
        assert times is not None  # noqa: S101 - for mypy: kinds are counted
        order = first(shrunk, score, at, self._listed)  # enough if each were one pair
        last = np.searchsorted(np.cumsum(times[at[order]]), self._listed)
        chosen = np.arange(len(at))
        if last < len(order):
            least, weakest = shrunk[order[last]], score[order[last]]
            chosen = np.flatnonzero((shrunk > least) | ((shrunk == least) & (score >= weakest)))
        at = at[chosen]
        q_value = statistics.q_values(every.p_value[part], times[part])[at - part.start]
        return kinds.codes[at], np.stack([shrunk[chosen], q_value, score[chosen]], axis=1)

    def _ranked(self, test_id: int, k_in: NDArray[np.int32], codes: Codes, ranked: Numbers) -> Listing:
        """Return the list from its kinds, with the posterior mean, q-value and score of each."""
        rows, kind = self._pairs_of(test_id, k_in, codes)
        shrunk, _, score = ranked[kind].T
        places = first(shrunk, score, self._trains[rows], self._listed)
        rows, kind = rows[places], kind[places]
        return self._listing(test_id, rows, k_in[rows], ranked[kind, : len(SCORE_COLUMNS)])

    def _pairs_of(
        self, test_id: int, k_in: NDArray[np.int32], codes: Codes
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of all pairs of some kinds, ascending, and their kinds."""
        # the fewest right models of these kinds, by n_in and class: few pairs of others have as many
        floors = np.full((2, len(self._n_in)), self._n_models + 1, dtype=np.int32)
        arms, hits = self._decoded(codes)
        np.minimum.at(floors, (arms & 1, arms >> 1), hits.astype(np.int32))
        passes, same = k_in >= floors[0][self._place], self._same(test_id)
        passes[same] = k_in[same] >= floors[1][self._place[same]]
        rows = np.flatnonzero(passes)
        is_same = (self._labels[rows] == self._counts[layout.TEST][0, test_id]).astype(codes.dtype)
        asked = self._arms[rows] + (is_same << self._shift) + k_in[rows]
        kind = np.minimum(np.searchsorted(codes, asked), len(codes) - 1)
        found = codes[kind] == asked if len(codes) else np.zeros(0, dtype=np.bool_)
        return rows[found], kind[found]

    def _listing(
        self, test_id: int, rows: NDArray[np.int64], k_in: NDArray[np.int32], ranked: Numbers
    ) -> Listing:
        """Return the list of these places, with `SCORE_COLUMNS` of each; pairs without a score come last."""
        without = self._scoreless[: self._listed - len(rows)]
        train = np.concatenate([self._trains[rows], without])
        label, n_in, own_correct, own_k_in = self._counts[layout.TRAIN][:, train]
        test_label, n_correct = self._counts[layout.TEST][:, test_id]
        in_all = np.where(n_in[len(rows) :] > 0, n_correct, 0)
        values = {
            "train_id": train, "train_label": label, "n_in": n_in, "k_in": np.append(k_in, in_all),
            "own_correct": own_correct, "own_k_in": own_k_in, "test_label": test_label,
            "n_correct": n_correct,
        }  # fmt: skip
        pairs = np.empty((len(PAIR_ROWS), len(train)), dtype=np.int32)
        for row, name in enumerate(PAIR_ROWS):
            pairs[row] = values[name]
        scores = np.full((len(train), len(SCORE_COLUMNS)), np.nan)
        scores[: len(rows)] = ranked
        return Listing(pairs, scores)
