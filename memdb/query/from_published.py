"""Answers from the influences stored in a published copy: the same rows, without reading its bits."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query import formulas
from memdb.query.arrow import column as column_of
from memdb.query.arrow import of_labels, table, values_of
from memdb.query.counted import score_columns
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Order, RankedQuery
from memdb.query.ranked_list import Columns, Standing, presented
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates
from memdb.store.published_arrays import PAIR_ROWS, derived_of, read_pairs

INFLUENCES = Columns(
    ("train_id", "test_id", "train_label", "test_label", "same_class"), "influence", ("memorization",)
)
PAIR = (
    *INFLUENCES.first, "influence", "lo", "hi", "n_in", "n_out", "k_in", "k_out", "p_in", "p_out",
    "memorization",
)  # fmt: skip


def stored_influence(relations: Relations, test_id: int, k: int, interval: IntervalSpec) -> pa.Table | None:
    """Return the k strongest influences on a test example in default order; None if they are not stored."""
    derived = derived_of(relations.snapshot)
    n_train = relations.snapshot.manifest.train.n_examples
    if derived is None or relations.outcome != "correct" or min(k, n_train) > derived[1].listed:
        return None
    pairs, scores = read_pairs(relations.snapshot, test_id)
    first_pairs = found_pairs(
        pairs[None, :, :k], relations.snapshot.n_models, test_id, are_labelled=relations.are_labelled
    )
    shown = scored(first_pairs, 1.0)
    candidates = _candidates(derived[1].n_in, int(pairs[PAIR_ROWS.index("n_correct"), 0]), relations)
    shrunk, q_value = scores[:k].T
    standing = Standing(candidates, shrunk, q_value, np.arange(len(shrunk)))
    return presented(relations, shown, standing, INFLUENCES, RankedQuery(k, Order(), interval))


def stored_pair(relations: Relations, train_id: int, test_id: int, interval: IntervalSpec) -> pa.Table | None:
    """Return one row of the relation ``influence``; None if the pair is not among those stored."""
    derived = derived_of(relations.snapshot)
    if derived is None or relations.outcome != "correct" or not derived[1].listed:
        return None
    pairs, _ = read_pairs(relations.snapshot, test_id)
    at = np.flatnonzero(pairs[0] == train_id)
    if len(at) != 1:
        return None
    n_test = relations.snapshot.manifest.set_named(layout.TEST).n_examples
    n_ranked = n_test * sum(times for _, times in derived[1].n_in)
    z = formulas.interval_z(interval.of_list(1, n_ranked), relations.snapshot.n_models)
    known = relations.are_labelled
    found = found_pairs(pairs[None, :, at], relations.snapshot.n_models, test_id, are_labelled=known)
    return scored(found, z).select(list(PAIR))


def _candidates(n_in: tuple[tuple[int, int], ...], n_correct: int, relations: Relations) -> Candidates:
    """Return the candidates that the list was selected from, by their counts alone: scores are NaN."""
    values = np.array(n_in, dtype=np.int64).reshape(-1, 2)
    n_in_each = np.repeat(values[:, 0], values[:, 1])
    unknown = np.full(len(n_in_each), np.nan)
    return Candidates(
        score=unknown, effect_se=unknown, ac_z=unknown, null_se=unknown,
        n_in=n_in_each, n_models=relations.snapshot.n_models, strata=np.ones(len(n_in_each), dtype=np.bool_),
        hits=np.zeros_like(n_in_each), total=np.full_like(n_in_each, n_correct),
    )  # fmt: skip


def found_pairs(
    pairs: NDArray[np.int32], n_models: int, first: int, *, are_labelled: bool = True
) -> pa.Table:
    """Return stored pairs, int32 [test, `PAIR_ROWS`, pairs], as the table that ``pair_scores.sql`` reads."""
    column = {name: pairs[:, row].ravel() for row, name in enumerate(PAIR_ROWS)}
    n_out = n_models - column["n_in"]
    return table(
        {
            "train_id": column["train_id"],
            "test_id": np.repeat(np.arange(first, first + len(pairs), dtype=np.int32), pairs.shape[2]),
            "train_label": of_labels(column["train_label"], known=are_labelled),
            "test_label": of_labels(column["test_label"], known=are_labelled),
            "n_in": column["n_in"],
            "n_out": n_out,
            **dict.fromkeys(("s_in", "q_in"), column["k_in"]),
            **dict.fromkeys(("s_all", "q_all"), column["n_correct"]),
            "own_k_in": column["own_k_in"],
            "own_k_out": column["own_correct"] - column["own_k_in"],
        }
    )


def scored(found: pa.Table, z: float | None) -> pa.Table:
    """Return stored pairs with their scores, intervals with multiplier z, and the columns for ranking."""
    of = {name: values_of(found.column(name)) for name in found.column_names}
    n_in, n_out, k_in = (of[name] for name in ("n_in", "n_out", "s_in"))
    k_out = of["s_all"] - k_in
    arms = formulas.of_counts(k_in, n_in, k_out, n_out)
    own = formulas.of_counts(of["own_k_in"], n_in, of["own_k_out"], n_out)
    lo, hi = formulas.bounds(arms, math.nan if z is None else z)
    are_known = not found.column("train_label").null_count
    columns = score_columns("influence", n_in, n_out, k_in, k_out)
    others = {"lo": lo, "hi": hi, "memorization": formulas.score(own)}
    columns |= {name: column_of(values, arms.are_filled) for name, values in others.items()}
    same = of["train_label"] == of["test_label"]
    columns["same_class"] = column_of(same, None if are_known else np.zeros(len(same), dtype=np.bool_))
    columns |= {"k_in": column_of(k_in), "k_out": column_of(k_out)}
    names = (*INFLUENCES.first, *PAIR[5:8], "effect_se", "ac_z", "null_se", *PAIR[8:])
    return pa.Table.from_arrays(
        [columns[name] if name in columns else found.column(name) for name in names], list(names)
    )
