"""What a list is chosen from, counted and scored by NumPy: no relations are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query import formulas
from memdb.query.arrow import column as arrow_column
from memdb.query.arrow import table
from memdb.query.examples import ExampleRef, keeps_own
from memdb.query.relations import Relations

Counts = NDArray[np.int32]


def can_count(relations: Relations) -> bool:
    """Whether lists can be counted here: of 0/1 outcomes, with nothing of what follows unknown."""
    return relations.outcome == "correct" and keeps_own(relations.snapshot) and relations.are_labelled


def memorizations(relations: Relations, label: int | None) -> pa.Table:
    """Return the memorization of every training example, or of a class, and what ranking needs of each."""
    labels = relations.labels(layout.TRAIN)
    rows = np.arange(len(labels), dtype=np.int32) if label is None else _ids(labels == label)
    own = relations.totals(layout.TRAIN)
    k_in = own["k_in"][rows]
    counts = _arms(relations, rows, k_in, own["n_correct"][rows] - k_in)
    rest = {"train_id": rows, "label": labels[rows]}
    return _computed("memorization", rest, {}, counts)


def influences(relations: Relations, fixed: ExampleRef, *, same_class: bool) -> pa.Table:
    """Return the influences on or of one example, and what ranking needs of each; none on itself."""
    return pairs_of(pair_counts(relations, fixed, same_class=same_class), fixed.column)


def pair_counts(relations: Relations, fixed: ExampleRef, *, same_class: bool) -> dict[str, Counts]:
    """Return ids, labels and counts of the pairs with one example, in ascending order of the others."""
    relations.prefetch(layout.TEST if fixed.column != "target_id" else layout.TRAIN)
    if fixed.column == "train_id":
        return _of_one(relations, fixed.row, same_class=same_class)
    labels, own, target = relations.labels(layout.TRAIN), relations.totals(layout.TRAIN), fixed.example_set
    label = relations.labels(target)[fixed.row]
    kept = labels == label if same_class else np.ones(len(labels), dtype=np.bool_)
    if target == layout.TRAIN:
        kept[fixed.row] = False
    rows = _ids(kept)
    inside = relations.mask if len(rows) == len(labels) else relations.mask[rows]
    k_in = bits.count_and(inside, relations.correct(target)[fixed.row])
    k_all = relations.totals(target)["n_correct"][fixed.row]
    own_k_in = own["k_in"][rows]
    columns = {
        "train_id": rows,
        "target_id": np.full(len(rows), fixed.row, dtype=np.int32),
        "train_label": labels[rows],
        "target_label": np.full(len(rows), label),
        "own_k_in": own_k_in,
        "own_k_out": own["n_correct"][rows] - own_k_in,
    }
    return columns | _arms(relations, rows, k_in, k_all - k_in)


def _of_one(relations: Relations, train_id: int, *, same_class: bool) -> dict[str, Counts]:
    """Return the counts of the pairs of one training example with test examples."""
    labels, label = relations.labels(layout.TEST), relations.labels(layout.TRAIN)[train_id]
    rows = _ids(labels == label if same_class else np.ones(len(labels), dtype=np.bool_))
    correct = relations.correct(layout.TEST)
    k_in = bits.count_and(correct if len(rows) == len(labels) else correct[rows], relations.mask[train_id])
    k_all = relations.totals(layout.TEST)["n_correct"][rows]
    own = {name: counts[train_id] for name, counts in relations.totals(layout.TRAIN).items()}
    same = {
        "train_id": np.int32(train_id),
        "train_label": label,
        "own_k_in": own["k_in"],
        "own_k_out": own["n_correct"] - own["k_in"],
    }
    columns = {
        "target_id": rows,
        "target_label": labels[rows],
        **{name: np.full(len(rows), value) for name, value in same.items()},
    }
    ids = np.full(len(rows), train_id)
    return columns | _arms(relations, ids, k_in, k_all - k_in)


def _ids(kept: NDArray[np.bool_]) -> Counts:
    return np.flatnonzero(kept).astype(np.int32)


def _arms(relations: Relations, rows: NDArray[np.integer], k_in: Counts, k_out: Counts) -> dict[str, Counts]:
    own = relations.totals(layout.TRAIN)
    return {"n_in": own["n_in"][rows], "n_out": own["n_out"][rows], "k_in": k_in, "k_out": k_out}


def pairs_of(columns: Mapping[str, Counts], column: str) -> pa.Table:
    """Return the influences of pairs with these counts, and what ranking needs of each."""
    target = "target" if column == "target_id" else "test"
    own = formulas.of_counts(*(columns[name] for name in ("own_k_in", "n_in", "own_k_out", "n_out")))
    first = {
        "train_id": columns["train_id"],
        f"{target}_id": columns["target_id"],
        "train_label": columns["train_label"],
        f"{target}_label": columns["target_label"],
        "same_class": columns["train_label"] == columns["target_label"],
    }
    last = {"memorization": arrow_column(formulas.score(own), own.are_filled)}
    return _computed("influence", first, last, columns)


def _computed(
    score: str,
    first: Mapping[str, NDArray[Any]],
    last: Mapping[str, pa.Array],
    counts: Mapping[str, Counts],
) -> pa.Table:
    """Return scores, and what ranking needs of each, between the columns that lists have besides."""
    sums = {name: counts[name] for name in ("n_in", "n_out", "k_in", "k_out")}
    columns = score_columns(score, **sums)
    return table({**first, score: columns.pop(score), **sums, **columns, **last})


def score_columns(
    score: str, n_in: Counts, n_out: Counts, k_in: Counts, k_out: Counts
) -> dict[str, pa.Array]:
    """Return scores under their name, and what ranking needs of each, NULL where an arm is empty."""
    arms = formulas.of_counts(k_in, n_in, k_out, n_out)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            score: formulas.score(arms), "p_in": k_in / n_in, "p_out": k_out / n_out,
            "effect_se": formulas.effect_se(arms), "ac_z": formulas.ac_z(arms),
            "null_se": formulas.null_se(arms),
        }  # fmt: skip
    valid = {"p_in": n_in > 0, "p_out": n_out > 0, "ac_z": None}
    return {name: arrow_column(values, valid.get(name, arms.are_filled)) for name, values in columns.items()}
