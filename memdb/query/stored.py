"""Lists and counts that a published copy keeps, in the form they are kept in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb import layout
from memdb.query.columns import column as column_of
from memdb.query.columns import table, values_of
from memdb.query.connection import FORMS, Relations, schema
from memdb.query.intervals import IntervalChoice
from memdb.query.lists import Columns, strongest
from memdb.query.questions import SIDES

LISTED = 256  # pairs kept of each test example
COUNTED = {  # the arrays of ``stats/``, and what their rows are
    layout.TRAIN: ("label", "n_in", "n_correct", "k_in"),
    layout.TEST: ("label", "n_correct"),
}
PAIRS, SCORES = "pairs", "scores"  # the arrays of ``top_influence/``
PAIR_ROWS = (
    "train_id", "train_label", "n_in", "k_in", "own_correct", "own_k_in", "test_label", "n_correct",
)  # fmt: skip
SCORE_COLUMNS = ("shrunk", "q_value")
N_RANKED = "SELECT count(*) FROM train_examples WHERE n_in > 0 AND n_out > 0"
TABLE_COLUMNS = (
    "test_id", "rank", "train_id", "test_label", "train_label", "influence", "shrunk", "lo", "hi", "q_value",
    "n_in", "n_out", "k_in", "k_out", "memorization",
)  # fmt: skip
PAIR_COLUMNS = Columns(
    ("train_id", "test_id", "train_label", "test_label", "same_class"), "influence", ("memorization",)
)


def counts_of(relations: Relations, set_name: str) -> NDArray[np.int32]:
    """Return the counts of every example of a set, int32 [`COUNTED`, examples]."""
    names = ", ".join(COUNTED[set_name])
    found = relations.ask(f"SELECT {names} FROM {set_name}_examples ORDER BY id")  # noqa: S608 - our words
    return np.stack([values_of(column).astype(np.int32) for column in found.columns])


@dataclass(frozen=True)
class Listing:
    """The strongest pairs of a test example: int32 [`PAIR_ROWS`, pairs], float64 [pairs, `SCORE_COLUMNS`]."""

    pairs: NDArray[np.int32]
    scores: NDArray[np.float64]


def candidates_on(relations: Relations, test_id: int) -> pa.Table:
    """Return every pair of a test example, as a list of influences is chosen from."""
    side = SIDES["test_id"]
    names = {name: getattr(side, name) for name in ("relation", "fixed", "listed")}
    sql = schema("top_influence.sql", **names, arms=FORMS[relations.outcome]["arms"])
    return relations.ask(sql, {"id": test_id, "same_class": False, "other_only": False})


def listing_of(relations: Relations, own: NDArray[np.int32], found: pa.Table, listed: int) -> Listing:
    """Return the strongest pairs of a test example, in the order of a list's default options.

    ``own`` are the counts of all training examples, of `counts_of`; ``found`` is of `candidates_on`. Asks
    nothing of the connection.
    """
    shown, standing = strongest(relations, found, PAIR_COLUMNS, listed)
    column = {name: values_of(shown.column(name)) for name in ("train_id", "test_label", "k_in", "k_out")}
    train = column["train_id"]
    label, n_in, n_correct, k_in = own[:, train]
    right = column["k_in"] + column["k_out"]
    rows = (train, label, n_in, column["k_in"], n_correct, k_in, column["test_label"], right)
    scores = np.stack([standing.shrunk, standing.q_value], axis=1)
    return Listing(np.stack(rows).astype(np.int32), scores)


def found_pairs(pairs: NDArray[np.int32], n_models: int, first: int) -> pa.Table:
    """Return stored pairs, int32 [test, `PAIR_ROWS`, pairs], as the rows that ``pair_scores.sql`` scores."""
    column = {name: pairs[:, row].ravel() for row, name in enumerate(PAIR_ROWS)}
    n_out = n_models - column["n_in"]
    return table(
        {
            "train_id": column["train_id"],
            "test_id": np.repeat(np.arange(first, first + len(pairs), dtype=np.int32), pairs.shape[2]),
            "train_label": column["train_label"],
            "test_label": column["test_label"],
            "n_in": column["n_in"],
            "n_out": n_out,
            "n_correct": column["n_correct"],
            "k_in": column["k_in"],
            "own_k_in": column["own_k_in"],
            "own_k_out": column["own_correct"] - column["own_k_in"],
        }
    )


def scored(relations: Relations, found: pa.Table, z: float | None) -> pa.Table:
    """Return stored pairs with their scores, intervals of the multiplier z, and what ranking needs."""
    memorized = "(SELECT *, score(own_k_in, n_in, own_k_out, n_out) AS memorization FROM stored)"
    sql = f"WITH found AS {memorized} {schema('pair_scores.sql')}"
    return relations.ask(sql, {"z": z}, tables={"stored": found})


def pairs_table(
    relations: Relations, pairs: NDArray[np.int32], scores: NDArray[np.float64], first: int
) -> pa.Table:
    """Return stored pairs as people use them: by test id, then from the strongest."""
    n_models = relations.snapshot.n_models
    n_in = pairs[:, PAIR_ROWS.index("n_in")]
    n_ranked = int(relations.ask(N_RANKED).column(0)[0].as_py())
    settings = IntervalChoice("selected", 0.95).parameters()
    z = relations.interval_z(settings, min(pairs.shape[2], max(1, n_ranked)), max(1, n_ranked))
    rows = scored(relations, found_pairs(pairs, n_models, first), z)
    valid = ((n_in > 0) & (n_in < n_models)).ravel()
    for position, name in enumerate(SCORE_COLUMNS):
        rows = rows.append_column(name, column_of(scores[:, :, position].ravel(), valid))
    rank = np.tile(np.arange(1, pairs.shape[2] + 1, dtype=np.int32), len(pairs))
    return rows.append_column("rank", column_of(rank)).select(list(TABLE_COLUMNS))
