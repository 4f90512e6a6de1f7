"""Scores of pairs that are equal in their counts, once for all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
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

    def part(self, rows: NDArray[np.int64]) -> EqualPairs:
        """Return some of the kinds."""
        return EqualPairs(*(getattr(self, field.name)[rows] for field in fields(self)))

    def arms(self, n_models: int) -> formulas.Arms:
        """Return both arms of each kind."""
        return formulas.of_counts(self.hits, self.n_in, self.total - self.hits, n_models - self.n_in)


def scored(pairs: EqualPairs, n_models: int, at: NDArray[np.int64] | None = None) -> Candidates:
    """Return what these kinds of pairs are ranked by, by the code that answers questions.

    What posterior means alone need is NaN but for the kinds ``at``, if they are given.
    """
    arms, rows = pairs.arms(n_models), slice(None) if at is None else at
    evident = arms if at is None else pairs.part(at).arms(n_models)
    effect_se, ac_z = np.full((2, len(pairs.hits)), np.nan)
    effect_se[rows], ac_z[rows] = formulas.effect_se(evident), formulas.ac_z(evident)
    return Candidates(
        score=formulas.score(arms),
        effect_se=effect_se,
        ac_z=ac_z,
        null_se=formulas.null_se(arms),
        n_in=pairs.n_in.astype(np.int64, copy=False),
        n_models=n_models,
        strata=pairs.same_class,
        hits=pairs.hits.astype(np.int64, copy=False),
        total=pairs.total.astype(np.int64, copy=False),
        times=pairs.times,
    )
