"""The strongest pairs of every test example, as questions list them by default, for published copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query import statistics
from memdb.query.arrow import table, values_of
from memdb.query.lazy import Lazy
from memdb.query.mixture import Numbers
from memdb.query.outcomes import OUTCOMES
from memdb.query.pairs.kernel import COLUMNS, ROWS
from memdb.query.pairs.popcount import Products, packed
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.query.templates import template
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

Codes = NDArray[np.integer[Any]]

PAIRS_AT_ONCE = 1 << 22  # whose counts are in memory


@dataclass(frozen=True)
class Listing:
    """The strongest pairs of a test example: int32 [`PAIR_ROWS`, pairs], float64 [pairs, `SCORE_COLUMNS`]."""

    pairs: NDArray[np.int32]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class _Kinds:
    """The kinds of a test example's pairs: those of one kind are equal in all that ranking looks at."""

    test_id: int
    codes: Codes  # ascending
    times: NDArray[np.int64]  # how many pairs are of each kind
    candidates: Candidates


class Lists:
    """Finds the strongest pairs of test examples, in the order of a list's default options.

    Many of a test example's pairs are equal in n_in, in k_in and in whether they are of one class. Each such
    kind of pair is scored and ranked once, by the code that answers questions. Several threads may ask.
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
        most = 2 * len(self._n_in) * (self._n_models + 1)
        self._arms = 2 * place.astype(np.int32 if most < 2**31 else np.int64)
        self._tiles = Lazy(self._packed)

    def _packed(self, path: str) -> list[Any]:
        words = self._relations.bits[path]
        starts = range(0, len(self._trains), COLUMNS)
        return [packed(words[self._trains[start : start + COLUMNS]]) for start in starts]

    def of(self, tests: Sequence[int]) -> Iterator[Listing]:
        """Yield the strongest pairs of each of some test examples."""
        at_once = max(1, PAIRS_AT_ONCE // max(1, len(self._trains)))
        for start in range(0, len(tests), at_once):
            some = tests[start : start + at_once]
            k_in = self._counted(some)
            for row, kinds in zip(k_in, self._kinds(some, k_in), strict=True):
                yield self._listing(kinds, row)

    def _counted(self, tests: Sequence[int]) -> NDArray[np.int32]:
        """Count the models that had each training example and are right on each test example."""
        products, right = Products(), self._relations.correct(layout.TEST)[list(tests)]
        k_in = np.empty((len(tests), len(self._trains)), dtype=np.int32)
        for number, tile in enumerate(self._tiles[layout.MASK]):
            columns = slice(number * COLUMNS, (number + 1) * COLUMNS)
            for start in range(0, len(tests), ROWS):
                rows = slice(start, start + ROWS)
                k_in[rows, columns] = products.counts(right[rows], tile)
        return k_in

    def _arms_with(self, test_id: int) -> Codes:
        """Return a number for each training example: twice the place of its n_in, 1 more if of one class."""
        arms: Codes = self._arms + (self._labels == self._counts[layout.TEST][0, test_id])
        return arms

    def _codes(self, arms: Codes, k_in: NDArray[np.int32]) -> Codes:
        return arms * (self._n_models + 1) + k_in

    def _kinds(self, tests: Sequence[int], k_in: NDArray[np.int32]) -> list[_Kinds]:
        """Return the kinds of pairs of some test examples, scored together."""
        found = [
            np.unique(self._codes(self._arms_with(test_id), row), return_counts=True)
            for test_id, row in zip(tests, k_in, strict=True)
        ]
        sizes = [len(codes) for codes, _ in found]
        arms, hits = np.divmod(np.concatenate([codes for codes, _ in found]), self._n_models + 1)
        n_in, total = self._n_in[arms // 2], np.repeat(self._counts[layout.TEST][1, list(tests)], sizes)
        columns = {"n_in": n_in, "n_out": self._n_models - n_in, "k_in": hits, "k_all": total}
        sums = table({name: values.astype(np.int32) for name, values in columns.items()})
        sql = template("equal_pairs.sql", arms=OUTCOMES[self._relations.outcome].sql["arms"])
        scored = self._relations.compute(sql, {"found": sums})
        times = np.concatenate([times for _, times in found])
        every = Candidates(
            score=values_of(scored.column("influence")),
            effect_se=values_of(scored.column("effect_se")),
            ac_z=values_of(scored.column("ac_z")),
            null_se=values_of(scored.column("null_se")),
            n_in=n_in.astype(np.int64),
            n_models=self._n_models,
            strata=arms % 2 == 1,
            hits=hits.astype(np.int64),
            total=total.astype(np.int64),
            times=times,
        )
        stops = np.cumsum(sizes)
        parts = [slice(stop - size, stop) for stop, size in zip(stops.tolist(), sizes, strict=True)]
        return [
            _Kinds(test_id, codes, times, every.part(part))
            for test_id, (codes, times), part in zip(tests, found, parts, strict=True)
        ]

    def _listing(self, kinds: _Kinds, k_in: NDArray[np.int32]) -> Listing:
        shrunk = statistics.shrunk(kinds.candidates)
        q_value = statistics.q_values(statistics.p_values(kinds.candidates), kinds.times)
        rows, kind = self._strongest(kinds, shrunk, k_in)
        without = self._scoreless[: self._listed - len(rows)]  # come last
        train = np.concatenate([self._trains[rows], without])
        label, n_in, own_correct, own_k_in = self._counts[layout.TRAIN][:, train]
        test_label, n_correct = self._counts[layout.TEST][:, kinds.test_id]
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
        scores[: len(rows)] = np.stack([shrunk[kind], q_value[kind]], axis=1)
        return Listing(pairs, scores)

    def _strongest(
        self, kinds: _Kinds, shrunk: Numbers, k_in: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of the pairs to list, from the strongest, and their kinds."""
        score = kinds.candidates.score
        rows, kind = self._candidates(kinds, shrunk >= self._least(kinds, shrunk), k_in)
        if len(rows) > self._listed and np.ptp(shrunk[kind]) == np.ptp(score[kind]) == 0:
            rows, kind = rows[: self._listed], kind[: self._listed]  # they tie in all but their ids
        places = first(shrunk[kind], score[kind], self._trains[rows], self._listed)
        return rows[places], kind[places]

    def _least(self, kinds: _Kinds, shrunk: Numbers) -> float:
        """Return what the last pair to list has: its kind, and all stronger ones, make up the list."""
        order = np.argsort(-shrunk)
        enough = np.searchsorted(np.cumsum(kinds.times[order]), min(self._listed, len(self._trains)))
        return float(shrunk[order[enough]]) if len(order) else 0.0

    def _candidates(
        self, kinds: _Kinds, is_chosen: NDArray[np.bool_], k_in: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of all pairs of some kinds, ascending, and their kinds."""
        base = self._n_models + 1
        # the fewest right models of these kinds by arm: few pairs of others have as many
        floors = np.full(2 * len(self._n_in), base, dtype=np.int32)
        arms, hits = np.divmod(kinds.codes[is_chosen], base)
        np.minimum.at(floors, arms, hits.astype(np.int32))
        arms = self._arms_with(kinds.test_id)
        rows = np.flatnonzero(k_in >= floors[arms])
        kind = np.searchsorted(kinds.codes, self._codes(arms[rows], k_in[rows]))
        found = is_chosen[kind]
        return rows[found], kind[found]
