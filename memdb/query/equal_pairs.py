"""Scores of pairs that are equal in their counts, once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.query.arrow import table, values_of
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.query.templates import template

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


def scored(relations: Relations, pairs: EqualPairs) -> Candidates:
    """Return what these kinds of pairs are ranked by, by the code that answers questions."""
    n_models = relations.snapshot.n_models
    columns = {"n_in": pairs.n_in, "n_out": n_models - pairs.n_in, "k_in": pairs.hits, "k_all": pairs.total}
    counts = table({name: values.astype(np.int32) for name, values in columns.items()})
    sql = template("equal_pairs.sql", arms=OUTCOMES[relations.outcome].sql["arms"])
    rows = relations.compute(sql, {"found": counts})
    return Candidates(
        score=values_of(rows.column("influence")),
        effect_se=values_of(rows.column("effect_se")),
        ac_z=values_of(rows.column("ac_z")),
        null_se=values_of(rows.column("null_se")),
        n_in=pairs.n_in.astype(np.int64),
        n_models=n_models,
        strata=pairs.same_class,
        hits=pairs.hits.astype(np.int64),
        total=pairs.total.astype(np.int64),
        times=pairs.times,
    )
