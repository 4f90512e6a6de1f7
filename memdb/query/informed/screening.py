"""Exact tests of the pairs that a prior ranks first, in models that the prior has not seen.

The prior comes from one part of the models, and the tests from the others. Given the first part, the pairs to
test are fixed, and which of the other models had a training example in their subset is a matter of chance,
independent of what they get right unless there is an influence. So every p-value is valid whatever the prior
is worth, and over K pairs instead of all of them, the correction for multiplicity is smaller by as much.

The part of the prior is small: the sketched models, and a few more where those are few. Folds that take
turns, each tested with the prior of the others, keep all models on both sides, but a pair that is chosen in
one turn is chosen by the models that test it in another: q-values must then be multiplied by the number of
turns (the cross-screening of Zhao, Small and Rosenbaum 2018). Measured, that found half as many pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.prior import Prior
from memdb.query.statistics import hypergeometric_tail

LEAST_PRIOR = 10  # models of the prior
SHARE_OF_PRIOR = 0.05  # of the models, at least
PRIOR = frozenset({0})  # the fold of `parted`
ROWS, COLUMNS = 256, 4096  # test and training examples of a tile

Numbers = NDArray[np.float64]
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Tested:
    """Pairs with counts over the models that test them, [pairs] each, and the p-value of no influence."""

    train: Positions
    test: Positions
    n_in: Positions
    k_in: Positions
    n_correct: Positions
    n_models: int
    p: Numbers


def parted(n_models: int, sketched: NDArray[np.integer]) -> NDArray[np.int8]:
    """Return which models the prior comes from (0) and which ones test it (1), [models]."""
    fold_of = np.ones(n_models, dtype=np.int8)
    fold_of[sketched] = 0
    missing = max(LEAST_PRIOR, round(SHARE_OF_PRIOR * n_models)) - len(sketched)
    others = np.random.default_rng(0).permutation(np.flatnonzero(fold_of))
    fold_of[others[: max(0, missing)]] = 0
    return fold_of


def strongest(
    prior: Prior, k: int, trains: Positions, tests: Positions, direction: str
) -> tuple[Positions, Positions, NDArray[np.float32]]:
    """Return the k pairs of some examples that the prior ranks first, found in tiles, and how it rates them.

    Ties go by train id, then by test id.
    """
    best: tuple[NDArray[Any], ...] = np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64)
    for start in range(0, len(trains), COLUMNS):
        columns = trains[start : start + COLUMNS]
        tile = prior.tile(columns, PRIOR)
        for first in range(0, len(tests), ROWS):
            rows = tests[first : first + ROWS]
            strength = _strength(tile(rows), direction)
            least = best[0].min() if len(best[0]) >= k else -np.inf
            at, column = np.nonzero(strength >= least)
            candidates = strength[at, column], columns[column], rows[at]
            best = _first(k, *(np.concatenate((best[at], candidates[at])) for at in range(3)))
    return best[1], best[2], best[0]


def _first(
    k: int, strength: NDArray[np.float32], train: Positions, test: Positions
) -> tuple[NDArray[np.float32], Positions, Positions]:
    order = np.lexsort((test, train, -strength))[:k]
    return strength[order], train[order], test[order]


def _strength(scores: NDArray[np.float32], direction: str) -> NDArray[np.float32]:
    return np.abs(scores) if direction == "both" else scores if direction == "helps" else -scores


def tested(outcomes: Outcomes, train: Positions, test: Positions, direction: str) -> Tested:
    """Test pairs with the models that test: how likely as strong an influence is by chance, exactly.

    The test is one-sided for `helps` and `hurts`, since the prior says which way, and two-sided for `both`.
    """
    words, n_models = outcomes.testing, outcomes.n_testing
    mask, right = outcomes.mask[train] & words, outcomes.correct[test] & words
    n_in, k_in, total = (counts.astype(np.int64) for counts in (
        bits.count(mask), bits.count(mask & right), bits.count(right)
    ))  # fmt: skip
    n_out = n_models - n_in
    has_test = (n_in > 0) & (n_out > 0)
    above = hypergeometric_tail(k_in, total, n_in, n_models)
    below = hypergeometric_tail(total - k_in, total, n_out, n_models)
    p = {"helps": above, "hurts": below, "both": np.minimum(1.0, 2 * np.minimum(above, below))}[direction]
    return Tested(train, test, n_in, k_in, total, n_models, np.where(has_test, p, 1.0))
