"""The strongest influences of and on single examples, and random ones of the same class to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query import statistics
from memdb.query.arrow import table, values_of
from memdb.query.outcomes import OUTCOMES
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.query.templates import template
from memdb.sharing.tables import counts_of
from memdb.sharing.top_influence import Lists
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

SHOWN = 10  # partners of an example, and as many random ones
PAIRS = 100_000_000  # that may be counted for the lists of test examples: seconds
TRAIN_LISTS = 2000  # training examples that have a list
PAIRS_AT_ONCE = 1 << 18  # whose counts are in memory
NOBODY = -1  # pads a list that has fewer partners

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Partners:
    """Lists of some examples of one set, each of examples of the other.

    Attributes:
        owners: the examples that have a list, [lists].
        ids: their partners from the strongest, then as many random ones of the owner's class,
            [lists, 2 * `SHOWN`]; `NOBODY` pads the rest.
        k_in: how many models that had the pair's training example are right on its test example, likewise.
        q_values: of the strongest, [lists, `SHOWN`].
    """

    owners: NDArray[np.int32]
    ids: NDArray[np.int32]
    k_in: NDArray[np.int32]
    q_values: NDArray[np.float32]


def partners_of(relations: Relations, ranks: NDArray[np.int32], progress: Progress) -> Mapping[str, Partners]:
    """Return the lists of each set: whom training examples help, and who helps test examples.

    The lists are those of `top-influence` with its default options. Of many training examples the first in
    ``ranks`` have one, of many test examples those that these help most, then the first by id.
    """
    counts = {name: counts_of(relations, name) for name in COUNTED}
    n_train, n_test = counts[layout.TRAIN].shape[1], counts[layout.TEST].shape[1]
    if not (n_train and n_test and relations.snapshot.n_models):
        return {name: _empty(0) for name in COUNTED}
    trains = ranks[:TRAIN_LISTS]
    n_tests = min(n_test, max(SHOWN, PAIRS // n_train))
    n_all = len(trains) + n_tests
    helped = _of_trains(relations, trains, counts, lambda done: progress(done, n_all))
    tests = _most_helped(helped, n_test)[:n_tests]
    helping = _of_tests(relations, tests, counts, lambda done: progress(len(trains) + done, n_all))
    return {layout.TRAIN: helped, layout.TEST: helping}


def _of_trains(
    relations: Relations,
    trains: NDArray[np.int32],
    counts: Mapping[str, NDArray[np.int32]],
    advance: Callable[[int], None],
) -> Partners:
    found, right = _empty(len(trains)), relations.correct(layout.TEST)
    labels, n_correct = counts[layout.TEST]
    own = counts[layout.TRAIN][0, trains]
    at_once = max(1, PAIRS_AT_ONCE // len(labels))
    for start in range(0, len(trains), at_once):
        some = trains[start : start + at_once]
        k_in = np.stack([bits.count_and(right, relations.mask[train]) for train in some])
        same_class = own[start : start + at_once, None] == labels
        every = _candidates(relations, counts[layout.TRAIN][1, some], k_in, n_correct, same_class)
        for place, (train, row, of_class) in enumerate(
            zip(some.tolist(), k_in, same_class, strict=True), start
        ):
            ids, q_values = _strongest(
                every.part(slice((place - start) * len(row), (place - start + 1) * len(row)))
            )
            _fill(found, place, ids, q_values)
            drawn = _drawn(of_class, ids, train)
            found.ids[place, SHOWN : SHOWN + len(drawn)] = drawn
            found.k_in[place] = np.where(found.ids[place] == NOBODY, 0, row[found.ids[place]])
            advance(place + 1)
    return Partners(trains, found.ids, found.k_in, found.q_values)


def _candidates(
    relations: Relations,
    n_in: NDArray[np.int32],
    k_in: NDArray[np.int32],
    n_correct: NDArray[np.int32],
    same_class: NDArray[np.bool_],
) -> Candidates:
    """Return what ranking needs of every pair of some training examples, [trains * tests]."""
    shape, n_models = k_in.shape, relations.snapshot.n_models
    all_in = np.broadcast_to(n_in[:, None], shape).ravel()
    total = np.broadcast_to(n_correct, shape).ravel()
    sums = table({"n_in": all_in, "n_out": n_models - all_in, "k_in": k_in.ravel(), "k_all": total})
    sql = template("equal_pairs.sql", arms=OUTCOMES[relations.outcome].sql["arms"])
    scored = relations.compute(sql, {"found": sums})
    return Candidates(
        score=values_of(scored.column("influence")),
        effect_se=values_of(scored.column("effect_se")),
        ac_z=values_of(scored.column("ac_z")),
        null_se=values_of(scored.column("null_se")),
        n_in=all_in.astype(np.int64),
        n_models=n_models,
        strata=same_class.ravel(),
        hits=k_in.ravel().astype(np.int64),
        total=total.astype(np.int64),
    )


def _strongest(pairs: Candidates) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the first of one training example's pairs and their q-values, as `top-influence` orders them."""
    if not 0 < pairs.n_in[0] < pairs.n_models:  # none of them has a score
        return np.arange(0), np.zeros(0)
    q_values = statistics.q_values(statistics.p_values(pairs))
    ids = first(statistics.shrunk(pairs), pairs.score, np.arange(len(pairs)), SHOWN)
    return ids, q_values[ids]


def _of_tests(
    relations: Relations,
    tests: NDArray[np.int32],
    counts: Mapping[str, NDArray[np.int32]],
    advance: Callable[[int], None],
) -> Partners:
    lists, found = Lists(relations, counts, min(SHOWN, counts[layout.TRAIN].shape[1])), _empty(len(tests))
    right, labels = relations.correct(layout.TEST), counts[layout.TRAIN][0]
    q_value = SCORE_COLUMNS.index("q_value")
    for place, (test, listing) in enumerate(zip(tests.tolist(), lists.of(tests.tolist()), strict=True)):
        strongest = listing.pairs[PAIR_ROWS.index("train_id")]
        _fill(found, place, strongest, listing.scores[:, q_value])
        drawn = _drawn(labels == counts[layout.TEST][0, test], strongest, test)
        found.ids[place, SHOWN : SHOWN + len(drawn)] = drawn
        trains = found.ids[place]
        k_in = bits.count_and(relations.mask[trains], right[test])
        found.k_in[place] = np.where(trains == NOBODY, 0, k_in)
        advance(place + 1)
    return Partners(tests, found.ids, found.k_in, found.q_values)


def _most_helped(helped: Partners, n_test: int) -> NDArray[np.int32]:
    """Return all test examples: in the order in which lists of training examples name them, then by id."""
    named = helped.ids[:, :SHOWN].ravel()
    named, first = np.unique(named[named != NOBODY], return_index=True)
    rest = np.setdiff1d(np.arange(n_test, dtype=np.int32), named)
    return np.concatenate([named[np.argsort(first)], rest]).astype(np.int32)


def _empty(n_lists: int) -> Partners:
    ids = np.full((n_lists, 2 * SHOWN), NOBODY, dtype=np.int32)
    q_values = np.full((n_lists, SHOWN), np.nan, dtype=np.float32)
    return Partners(np.zeros(n_lists, dtype=np.int32), ids, np.zeros_like(ids), q_values)


def _fill(found: Partners, place: int, ids: NDArray[np.integer[Any]], q_values: NDArray[np.float64]) -> None:
    found.ids[place, : len(ids)] = ids
    found.q_values[place, : len(ids)] = q_values


def _drawn(of_class: NDArray[np.bool_], listed: NDArray[np.integer[Any]], seed: int) -> NDArray[np.int32]:
    """Return random examples of a class that are not listed; the same for the same owner."""
    of_class[listed] = False
    others = np.flatnonzero(of_class)
    drawn = np.random.default_rng(seed).choice(others, min(SHOWN, len(others)), replace=False)
    return np.asarray(drawn, dtype=np.int32)
