"""One named score, counted from its two examples alone: no relations are built, no other rows are decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query import formulas
from memdb.query.arrow import column, table
from memdb.query.counted import can_count, score_columns
from memdb.query.examples import set_of
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations

IDS = {
    "memorization": ("train_id",),
    "influence": ("train_id", "test_id"),
    "train_influence": ("train_id", "target_id"),
}
FEW = 8  # rows that are read alone; for any after these, all are read once


def point(
    relations: Relations, relation: str, given: Mapping[str, int], interval: IntervalSpec
) -> pa.Table | None:
    """Return the one row of a relation that has these ids; None where more have, or SQL has to tell."""
    if set(given) != set(IDS[relation]) or not can_count(relations):
        return None
    train_id, own = given["train_id"], relations.totals(layout.TRAIN)
    n_in, n_out, own_k_in, own_all = (
        own[name][[train_id]] for name in ("n_in", "n_out", "k_in", "n_correct")
    )
    label = relations.labels(layout.TRAIN)[[train_id]]
    n_ranked = int(np.count_nonzero((own["n_in"] > 0) & (own["n_out"] > 0)))
    if relation == "memorization":
        first = {"train_id": np.array([train_id], dtype=np.int32), "label": label}
        return _scored(
            "memorization", first, (n_in, n_out, own_k_in, own_all), _z(relations, interval, n_ranked)
        )
    (name,) = IDS[relation][1:]
    target, row = set_of(name), given[name]
    inside = _words(relations, layout.MASK, train_id) & _words(relations, f"{target}/correct", row)
    labels = relations.labels(target)
    first = {
        "train_id": np.array([train_id], dtype=np.int32),
        name: np.array([row], dtype=np.int32),
        "train_label": label,
        name.replace("_id", "_label"): labels[[row]],
        "same_class": label == labels[[row]],
    }
    counts = n_in, n_out, bits.count(inside[None]), relations.totals(target)["n_correct"][[row]]
    memorization = formulas.of_counts(own_k_in, n_in, own_all - own_k_in, n_out)
    last = {"memorization": column(formulas.score(memorization), memorization.are_filled)}
    return _scored("influence", first, counts, _z(relations, interval, n_ranked * len(labels)), last)


def _z(relations: Relations, interval: IntervalSpec, n_ranked: int) -> float:
    z = formulas.interval_z(interval.of_list(1, max(1, n_ranked)), relations.snapshot.n_models)
    return math.nan if z is None else z


def _scored(
    score: str,
    first: Mapping[str, NDArray[np.generic]],
    counts: tuple[NDArray[np.int32], ...],
    z: float,
    last: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """Return a row as the relation has it; ``counts`` are n_in, n_out, k_in, and how many are correct."""
    n_in, n_out, k_in, n_correct = counts
    k_out = n_correct - k_in
    arms = formulas.of_counts(k_in, n_in, k_out, n_out)
    with np.errstate(invalid="ignore", divide="ignore"):
        lo, hi = (column(bound, arms.are_filled) for bound in formulas.bounds(arms, z))
    computed = score_columns(score, n_in, n_out, k_in, k_out)
    return table(
        {
            **first, score: computed[score], "lo": lo, "hi": hi, "n_in": n_in, "n_out": n_out, "k_in": k_in,
            "k_out": k_out, "p_in": computed["p_in"], "p_out": computed["p_out"], **(last or {}),
        }
    )  # fmt: skip


def _words(relations: Relations, path: str, row: int) -> NDArray[np.uint64]:
    """Return which models were trained on, or are correct on, one example."""
    alone = relations.read_alone
    if (path, row) in alone:
        return alone[path, row]
    if path in relations.bits or len(alone) >= FEW or not all(relations.snapshot.counted):
        words: NDArray[np.uint64] = relations.bits[path][row]
        return words
    return alone.setdefault((path, row), relations.snapshot.words(path, (row, row + 1))[0])
