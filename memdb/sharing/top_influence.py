"""The strongest pairs of every test example, as questions list them by default, for published copies."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query import statistics
from memdb.query.arrow import table, values_of
from memdb.query.lazy import Lazy
from memdb.query.mixture import Effects, Numbers, fitted_effects
from memdb.query.outcomes import OUTCOMES
from memdb.query.pairs.kernel import COLUMNS, ROWS
from memdb.query.pairs.popcount import Products, packed
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.query.templates import template
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

Codes = NDArray[np.integer[Any]]

PAIRS_AT_ONCE = 1 << 23  # whose counts are in memory
TESTS_AT_ONCE = 8  # whose kinds of pairs are scored at once: they fit in the caches
MARGIN = 1e-9  # bounds the relative error of a rough posterior mean


@dataclass(frozen=True)
class Listing:
    """The strongest pairs of a test example: int32 [`PAIR_ROWS`, pairs], float64 [pairs, `SCORE_COLUMNS`]."""

    pairs: NDArray[np.int32]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class _Kinds:
    """The kinds of the pairs of some test examples: those of one kind are equal in all that ranking looks at.

    They are in order of their test example, then of their code.
    """

    arms: Codes  # twice the place of n_in, 1 more if of one class
    hits: Codes
    total: NDArray[np.int64]
    times: NDArray[np.int64]  # how many pairs are of each kind
    groups: NDArray[np.int64]  # twice the place of the test example, 1 more if of one class
    starts: NDArray[np.int64]  # of each test example, and the end

    @classmethod
    def joined(cls, parts: Sequence[_Kinds]) -> _Kinds:
        """Return the kinds of all these test examples, one after the other."""
        names = ("arms", "hits", "total", "times")
        values = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        sizes = np.concatenate([np.diff(part.starts) for part in parts])
        groups = [part.groups + 2 * TESTS_AT_ONCE * number for number, part in enumerate(parts)]
        return cls(*values, np.concatenate(groups), np.concatenate([[0], np.cumsum(sizes)]))

    def parts(self) -> Iterator[slice]:
        """Yield the kinds of each test example."""
        for start, stop in pairwise(self.starts.tolist()):
            yield slice(start, stop)

    def __getitem__(self, rows: NDArray[np.int64]) -> _Kinds:
        """Return some kinds, named in ascending order."""
        values = (getattr(self, name)[rows] for name in ("arms", "hits", "total", "times", "groups"))
        return _Kinds(*values, np.searchsorted(rows, self.starts))


@dataclass(frozen=True)
class _Rough:
    """Kinds of pairs as ranking takes them, exact but for what only posterior means depend on."""

    kinds: _Kinds
    candidates: Candidates

    @property
    def histograms(self) -> NDArray[Any]:
        """Histograms of |z| that effects are fitted to, for each test example and stratum."""
        n_groups = 2 * (len(self.kinds.starts) - 1)
        return statistics.chance_histograms(self.candidates, self.kinds.groups, n_groups)

    def near(self, effects: Sequence[Effects], listed: int) -> tuple[_Kinds, Numbers]:
        """Return the kinds that may be listed, and their q-values."""
        rough = statistics.shrunk_by(effects, self.candidates, self.kinds.groups)
        rows, q_values = [], []
        for part in self.kinds.parts():
            times = self.kinds.times[part]
            some = _near(rough[part], self.candidates.score[part], times, listed)
            rows.append(part.start + some)
            q_values.append(statistics.q_values(self.candidates.p_value[part], times)[some])
        return self.kinds[np.concatenate(rows)], np.concatenate(q_values)


class Lists:
    """Finds the strongest pairs of test examples, in the order of a list's default options.

    Many of a test example's pairs are equal in n_in, in k_in and in whether they are of one class. Each such
    kind is scored once, first roughly; those that may be listed once more, by what answers questions.
    Several threads may ask.
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
        self._arms = 2 * place.astype(np.int32 if most < 2**31 else np.int64)
        order = np.argsort(self._labels, kind="stable")
        labels, starts = np.unique(self._labels[order], return_index=True)
        bounds = pairwise([*starts.tolist(), len(order)])
        self._of_class = {
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
        null_se = self._null_se(tests)
        groups = [slice(start, start + TESTS_AT_ONCE) for start in range(0, len(tests), TESTS_AT_ONCE)]
        every = [self._roughly(self._kinds(tests[some], k_in[some]), null_se[some]) for some in groups]
        effects = fitted_effects(np.concatenate([rough.histograms for rough in every]))
        near = [
            rough.near(effects[2 * some.start : 2 * some.stop], self._listed)
            for rough, some in zip(every, groups, strict=True)
        ]
        kinds, q_values = _Kinds.joined([those for those, _ in near]), np.concatenate([q for _, q in near])
        exact = self._exactly(kinds)
        shrunk = statistics.shrunk_by(effects, exact, kinds.groups)
        listings = []
        for test_id, row, found in zip(tests, k_in, kinds.parts(), strict=True):
            chosen = found.start + self._strongest(shrunk[found], exact.score[found], kinds.times[found])
            codes = self._codes(kinds.arms[chosen], kinds.hits[chosen])
            ranked = np.stack([shrunk[chosen], q_values[chosen], exact.score[chosen]], axis=1)
            listings.append(self._listing(test_id, row, codes, ranked))
        return listings

    def _kinds(self, tests: Sequence[int], k_in: NDArray[np.int32]) -> _Kinds:
        """Return the kinds of pairs of some test examples."""
        found = [
            np.unique(self._codes(self._arms_with(test_id), row), return_counts=True)
            for test_id, row in zip(tests, k_in, strict=True)
        ]
        sizes = np.array([len(codes) for codes, _ in found])
        arms, hits = self._decoded(np.concatenate([codes for codes, _ in found]))
        place = np.repeat(np.arange(len(tests)), sizes)
        return _Kinds(
            arms=arms,
            hits=hits,
            total=self._counts[layout.TEST][1, list(tests)].astype(np.int64)[place],
            times=np.concatenate([times for _, times in found]),
            groups=2 * place + (arms & 1),
            starts=np.concatenate([[0], np.cumsum(sizes)]),
        )

    def _arms_with(self, test_id: int) -> Codes:
        """Return a number for each training example: twice the place of its n_in, 1 more if of one class."""
        arms: Codes = self._arms.copy()
        arms[self._of_class.get(int(self._counts[layout.TEST][0, test_id]), [])] += 1
        return arms

    def _codes(self, arms: Codes, k_in: Codes) -> Codes:
        return (arms << self._shift) + k_in

    def _decoded(self, codes: Codes) -> tuple[Codes, Codes]:
        return codes >> self._shift, codes & ((1 << self._shift) - 1)

    def _null_se(self, tests: Sequence[int]) -> Numbers:
        """Return null_se, [tests, arms], which depends on n_in and on how many models are right."""
        n_in, n_correct = self._n_in, self._counts[layout.TEST][1, list(tests)]
        every = np.tile(n_in, len(tests))
        scored = self._scored(every, np.zeros_like(every), np.repeat(n_correct, len(n_in)))
        return values_of(scored.column("null_se")).reshape(len(tests), len(n_in))

    def _roughly(self, kinds: _Kinds, null_se: Numbers) -> _Rough:
        """Score kinds of pairs; what only posterior means need is off by a few roundings."""
        place = kinds.arms >> 1
        n_in = self._n_in[place].astype(np.float64)
        n_out, k_out = self._n_models - n_in, kinds.total - kinds.hits
        p_in, p_out = kinds.hits / n_in, k_out / n_out
        m_in, m_out = (kinds.hits + 1) / (n_in + 2), (k_out + 1) / (n_out + 2)
        error = np.sqrt(m_in * (1 - m_in) / (n_in + 2) + m_out * (1 - m_out) / (n_out + 2))
        effect_se = np.sqrt(p_in * (1 - p_in) / n_in + p_out * (1 - p_out) / n_out)
        candidates = self._candidates(
            kinds, p_in - p_out, effect_se, (m_in - m_out) / error, null_se[kinds.groups >> 1, place]
        )
        return _Rough(kinds, candidates)

    def _exactly(self, kinds: _Kinds) -> Candidates:
        """Return kinds of pairs as ranking takes them."""
        scored = self._scored(self._n_in[kinds.arms >> 1], kinds.hits, kinds.total)
        names = ("influence", "effect_se", "ac_z", "null_se")
        return self._candidates(kinds, *(values_of(scored.column(name)) for name in names))

    def _candidates(
        self, kinds: _Kinds, score: Numbers, effect_se: Numbers, ac_z: Numbers, null_se: Numbers
    ) -> Candidates:
        return Candidates(
            score, effect_se, ac_z, null_se,
            n_in=self._n_in[kinds.arms >> 1].astype(np.int64),
            n_models=self._n_models,
            strata=kinds.arms & 1 == 1,
            hits=kinds.hits.astype(np.int64),
            total=kinds.total,
            times=kinds.times,
        )  # fmt: skip

    def _scored(self, n_in: Codes, k_in: Codes, k_all: Codes) -> pa.Table:
        """Compute the columns of ``equal_pairs.sql``."""
        columns = {"n_in": n_in, "n_out": self._n_models - n_in, "k_in": k_in, "k_all": k_all}
        sums = table({name: values.astype(np.int32) for name, values in columns.items()})
        sql = template("equal_pairs.sql", arms=OUTCOMES[self._relations.outcome].sql["arms"])
        return self._relations.compute(sql, {"found": sums})

    def _strongest(self, shrunk: Numbers, score: Numbers, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the kinds that make up the list of a test example, ascending."""
        order = np.lexsort((-score, -shrunk))
        last = np.searchsorted(np.cumsum(times[order]), self._listed)
        if last >= len(order):
            return np.arange(len(order))
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


def _near(rough: Numbers, score: Numbers, times: NDArray[np.int64], listed: int) -> NDArray[np.int64]:
    """Return the kinds of a test example that may be listed, ascending, judging by rough values."""
    n_kinds = len(rough)
    if n_kinds <= listed:
        return np.arange(n_kinds)
    top = np.argpartition(rough, n_kinds - listed)[-listed:]  # a pair of each is enough
    order = top[np.argsort(-rough[top])]
    least = rough[order[np.searchsorted(np.cumsum(times[order]), listed)]]
    if least:
        return np.flatnonzero(rough >= least - MARGIN * abs(least))
    above, tied = rough > 0, rough == 0  # which no rounding changes
    (rows,) = tied.nonzero()
    rows = rows[np.argsort(-score[rows])]
    wanted = listed - times[above].sum()
    weakest = score[rows[np.searchsorted(np.cumsum(times[rows]), wanted)]]
    return np.flatnonzero(above | (tied & (score >= weakest)))
