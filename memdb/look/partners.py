"""The strongest influences of and on single examples, and random ones of the same class to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.look.codes import MISSING, q_codes
from memdb.query import statistics
from memdb.query.equal_pairs import EqualPairs, scored
from memdb.query.mixture import Numbers
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.render.tables import CONVINCING
from memdb.sharing.tables import counts_of
from memdb.store.published_arrays import COUNTED

SHOWN = 8  # partners of an example of each kind
HELPS, HURTS, PEERS, RANDOM = "helps", "hurts", "peers", "random"
GROUPS = {  # the lists of an example, in their order
    layout.TRAIN: (HELPS, HURTS, PEERS, RANDOM),
    layout.TEST: (HELPS, HURTS, RANDOM),
}
AT_ONCE = 64  # examples whose pairs are in memory

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class _Pairs:
    """All pairs of one example, [others] each: their counts, and what ranks them."""

    others: Ids
    n_in: NDArray[np.int32]
    total: NDArray[np.int32]
    hits: NDArray[np.int32]
    same_class: NDArray[np.bool_]


@dataclass(frozen=True)
class _Ranking:
    """What the pairs of one example are ranked by, [others] each."""

    score: Numbers
    shrunk: Numbers
    q_value: Numbers


class Finder:
    """Finds the partners of single examples, as `top-influence` lists them by default and by ``hurts``.

    Pairs of an example that are equal in their counts, and in whether they are of one class, are scored once.
    """

    def __init__(self, relations: Relations) -> None:
        """Prepare to find partners among all examples of a store."""
        self._relations = relations
        self._n_models = relations.snapshot.n_models
        counts = {
            name: dict(zip(rows, counts_of(relations, name), strict=True)) for name, rows in COUNTED.items()
        }
        self._labels = {name: counts[name]["label"] for name in COUNTED}
        self._n_correct = {name: counts[name]["n_correct"] for name in COUNTED}
        self._n_in = counts[layout.TRAIN]["n_in"]
        self._scored = np.flatnonzero((self._n_in > 0) & (self._n_in < self._n_models))

    def lists(
        self, set_name: str, rows: Sequence[int], n_peers: int | None = None
    ) -> Iterator[NDArray[np.uint32]]:
        """Yield the lists of each of some examples, uint32 [groups, `SHOWN`, 3].

        The columns are one more than the id of the partner (0 is padding), how many models that had the
        training example are right on the other, and the q-value as `q_codes`. Only the first ``n_peers``
        training examples have partners among training examples.
        """
        groups = GROUPS[set_name]
        for start in range(0, len(rows), AT_ONCE):
            some = list(rows[start : start + AT_ONCE])
            lists = np.zeros((len(some), len(groups), SHOWN, 3), dtype=np.uint32)
            lists[..., 2] = MISSING
            self._fill(lists, set_name, some)
            if PEERS in groups:
                with_peers = some if n_peers is None else some[: max(0, n_peers - start)]
                self._fill_peers(lists[:, groups.index(PEERS)], with_peers)
            yield from lists

    def _fill(self, found: NDArray[np.uint32], set_name: str, rows: Sequence[int]) -> None:
        pairs_of = self._of_train if set_name == layout.TRAIN else self._of_test
        groups = GROUPS[set_name]
        every = [pairs_of(row) for row in rows]
        for place, (row, pairs, ranking) in enumerate(zip(rows, every, self._ranked(every), strict=True)):
            ways = {HELPS: 1.0, HURTS: -1.0}
            listed = {name: _strongest(pairs, ranking, way) for name, way in ways.items()}
            for name, at in listed.items():
                _put(found[place, groups.index(name)], pairs, at, ranking.q_value[at])
            drawn = _drawn(pairs, np.concatenate(list(listed.values())), row)
            _put(found[place, groups.index(RANDOM)], pairs, drawn, np.full(len(drawn), np.nan))

    def _fill_peers(self, found: NDArray[np.uint32], rows: Sequence[int]) -> None:
        every = [self._on_train(row) for row in rows]
        for place, (pairs, ranking) in enumerate(zip(every, self._ranked(every), strict=True)):
            at = _strongest(pairs, ranking, 1.0)
            _put(found[place], pairs, at, ranking.q_value[at])

    def _of_train(self, row: int) -> _Pairs:
        """Return the pairs of a training example with all test examples; none where it has no scores."""
        n_in, labels = self._n_in[row], self._labels[layout.TEST]
        others = np.arange(len(labels) if 0 < n_in < self._n_models else 0)
        right = self._relations.correct(layout.TEST)[: len(others)]
        hits = bits.count_and(right, self._relations.mask[row])
        same = labels[: len(others)] == self._labels[layout.TRAIN][row]
        total = self._n_correct[layout.TEST][: len(others)]
        return _Pairs(others, np.full(len(others), n_in), total, hits, same)

    def _of_test(self, row: int) -> _Pairs:
        return self._with_trains(layout.TEST, row, self._scored)

    def _on_train(self, row: int) -> _Pairs:
        """Return the pairs of all other training examples with one whose outcome they may influence."""
        return self._with_trains(layout.TRAIN, row, self._scored[self._scored != row])

    def _with_trains(self, target: str, row: int, trains: Ids) -> _Pairs:
        right = self._relations.correct(target)[row]
        hits = bits.count_and(self._relations.mask, right)[trains]
        same = self._labels[layout.TRAIN][trains] == self._labels[target][row]
        total = np.full(len(trains), self._n_correct[target][row])
        return _Pairs(trains, self._n_in[trains], total, hits, same)

    def _ranked(self, every: Sequence[_Pairs]) -> Iterator[_Ranking]:
        """Yield what ranks the pairs of each of some examples; one statement scores all kinds of pairs."""
        kinds = [self._kinds(pairs) for pairs in every]
        if not kinds:
            return
        at = [first for first, _, _ in kinds]
        columns = {
            name: np.concatenate([getattr(pairs, name)[one] for pairs, one in zip(every, at, strict=True)])
            for name in ("n_in", "total", "hits", "same_class")
        }
        times = np.concatenate([times for _, _, times in kinds])
        candidates = scored(EqualPairs(**columns, times=times), self._n_models)
        start = 0
        for one, inverse, n_pairs in kinds:
            part = candidates.part(slice(start, start + len(one)))
            start += len(one)
            shrunk = statistics.shrunk(part)
            q_value = statistics.q_values(part.p_value, n_pairs)
            yield _Ranking(part.score[inverse], shrunk[inverse], q_value[inverse])

    def _kinds(self, pairs: _Pairs) -> tuple[Ids, Ids, Ids]:
        """Return the first pair of each kind, the kind of each pair, and how many pairs are of each kind."""
        base = self._n_models + 1
        code = ((pairs.n_in.astype(np.int64) * base + pairs.total) * 2 + pairs.same_class) * base + pairs.hits
        inverse = pa.array(code).dictionary_encode().indices.to_numpy()  # hashes, where NumPy sorts
        times = np.bincount(inverse)
        one = np.empty(len(times), dtype=np.int64)
        one[inverse[::-1]] = np.arange(len(inverse))[::-1]  # the first of a kind is written last
        return one, inverse, times


def _strongest(pairs: _Pairs, ranking: _Ranking, way: float) -> Ids:
    """Return the places of the pairs that help most (``way`` 1) or hurt most (-1)."""
    return first(way * ranking.shrunk, way * ranking.score, pairs.others, SHOWN)


def _drawn(pairs: _Pairs, listed: Ids, seed: int) -> Ids:
    """Return the places of random pairs of one class that are not listed; the same for the same example."""
    others = np.setdiff1d(np.flatnonzero(pairs.same_class), listed)
    return np.random.default_rng(seed).choice(others, min(SHOWN, len(others)), replace=False)


def _put(found: NDArray[np.uint32], pairs: _Pairs, at: Ids, q_values: Numbers) -> None:
    found[: len(at), 0] = pairs.others[at] + 1
    found[: len(at), 1] = pairs.hits[at]
    found[: len(at), 2] = q_codes(q_values, CONVINCING)
