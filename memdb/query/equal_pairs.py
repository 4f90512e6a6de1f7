"""Scores of pairs that are equal in their counts, once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.query import formulas
from memdb.query.statistics import Candidates

Numbers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class EqualPairs:
    """Kinds of pairs, [kinds] each: those of one kind are equal in all that ranking looks at.

    ``hits`` and ``total`` count the models that are right, of those that had the training example and of all;
    ``times`` counts the pairs of each kind.
    """

    n_in: Numbers
    hits: Numbers
    total: Numbers
    same_class: NDArray[np.bool_]
    times: NDArray[np.int64]


def scored(pairs: EqualPairs, n_models: int) -> Candidates:
    """Return what these kinds of pairs are ranked by, by the code that answers questions."""
    n_in, hits, total = (counts.astype(np.int64) for counts in (pairs.n_in, pairs.hits, pairs.total))
    arms = formulas.of_counts(hits, n_in, total - hits, n_models - n_in)
    return Candidates(
        score=formulas.score(arms),
        effect_se=formulas.effect_se(arms),
        ac_z=formulas.ac_z(arms),
        null_se=formulas.null_se(arms),
        n_in=n_in,
        n_models=n_models,
        strata=pairs.same_class,
        hits=hits,
        total=total,
        times=pairs.times,
    )
