"""Compare the scores of two stores of one data set. Their counts are never added."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from memdb.analysis.reliability import THRESHOLDS
from memdb.errors import InvalidInputError, MismatchError, NotEnoughModelsError
from memdb.query import arrow
from memdb.query.examples import require_models, require_own
from memdb.query.imported_scores import TableRelations
from memdb.query.intervals import IntervalSpec, fixed_z
from memdb.query.options import require_k
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.templates import template

# measures of the stores as a whole, equal in every row
AGREEMENT = (
    "n_compared", "n_above_a", "n_above_b", "jaccard", "top_overlap", "spearman", "mean_difference",
    "threshold", "n_models_a", "n_models_b", "n_models_shared", "same_recipe", "subset_fraction_a",
    "subset_fraction_b",
)  # fmt: skip


def compare(
    first: Relations,
    second: Relations,
    test_id: int | None,
    k: int,
    threshold: float | None,
    interval: IntervalSpec,
) -> pa.Table:
    """Return the k training examples whose memorization, or influence on a test example, differs most.

    Raises:
        MismatchError: their data sets differ.
        NotEnoughModelsError: one of them has no models, or no example has a score in both.
        InvalidInputError: an argument out of range.
    """
    threshold = _require_threshold(threshold, test_id)
    parameters = interval.parameters()
    parameters["fixed_z"] = fixed_z(1 - (1 - interval.level) / 2)  # each store has half the error
    require_k(k)
    require_same_data(first, second)
    for relations in (first, second):
        if not isinstance(relations, TableRelations):
            require_models(relations.snapshot)
            if test_id is None:
                require_own(relations.snapshot)
    score = "memorization" if test_id is None else "influence"
    table = first.ask(
        template("comparison.sql", score=score),
        parameters | {"k": k, "threshold": threshold},
        tables={"first": _sums(first, test_id), "second": _sums(second, test_id)},
    )
    if table.num_rows == 0:
        raise NotEnoughModelsError(
            f"no training example has a score in {first.snapshot.url} and in {second.snapshot.url}",
            hint="train more models: each example must be in some subsets and out of others",
        )
    facts = _facts(first, second) | {"threshold": threshold}
    for name in AGREEMENT:
        if name in facts:
            table = table.append_column(name, arrow.column(np.full(table.num_rows, facts[name])))
    return table


def require_same_data(first: Relations, second: Relations) -> None:
    """Check that two stores have the same data set.

    Raises:
        MismatchError: a set has different fingerprints.
    """
    ours, theirs = ({item.name: item for item in side.snapshot.manifest.sets} for side in (first, second))
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        if a.fingerprint != b.fingerprint:
            raise MismatchError(
                f"the {name} sets differ: {first.snapshot.url} has {a.n_examples:,} examples with "
                f"fingerprint {a.fingerprint}, {second.snapshot.url} has {b.n_examples:,} with "
                f"{b.fingerprint}",
                hint="scores can be compared example by example only on the same data set",
            )


def _require_threshold(threshold: float | None, test_id: int | None) -> float:
    if threshold is None:
        return THRESHOLDS["memorization" if test_id is None else "influence"]
    if not -1 < threshold < 1:
        raise InvalidInputError(
            f"threshold {threshold:g} is not between -1 and 1",
            hint="use e.g. threshold=0.25",
            parameter="threshold",
        )
    return threshold


def _sums(relations: Relations, test_id: int | None) -> pa.Table:
    """Return the sums of both arms of every training example; ``given`` is the score in a score table."""
    if isinstance(relations, TableRelations):
        return relations.arms(test_id)
    counted = _counted(relations, test_id)
    none = arrow.column(np.zeros(counted.num_rows), np.zeros(counted.num_rows, dtype=np.bool_))
    return counted.append_column("given", none)


def _counted(relations: Relations, test_id: int | None) -> pa.Table:
    form = OUTCOMES[relations.outcome].sql
    if test_id is None:
        return relations.ask(template("arms.sql", **form))
    arms = relations.ask(template("arms_on_test.sql"), {"test_id": test_id})
    if relations.outcome == "confidence":
        return arms
    names = dict(zip(OUTCOMES["correct"].shown, ("in", "out"), strict=True))
    sums = {f"{kind}_{arm}": arms.column(name) for name, arm in names.items() for kind in ("s", "q")}
    kept = {name: arms.column(name) for name in ("train_id", "label", "n_in", "n_out")}
    return pa.table(kept | sums)


def _facts(first: Relations, second: Relations) -> dict[str, int | float | bool]:
    a, b = first.snapshot, second.snapshot
    ids = [set(snapshot.model_ids) for snapshot in (a, b)]
    return {
        "n_models_a": a.n_models,
        "n_models_b": b.n_models,
        "n_models_shared": len(ids[0] & ids[1]),
        "same_recipe": a.manifest.recipe.fingerprint == b.manifest.recipe.fingerprint,
        "subset_fraction_a": a.manifest.subset_fraction,
        "subset_fraction_b": b.manifest.subset_fraction,
    }
