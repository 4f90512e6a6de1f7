"""What a published copy keeps: counts of every example, and stored pairs as people use them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.query import formulas
from memdb.query.arrow import column as column_of
from memdb.query.arrow import rows_of, values_of
from memdb.query.from_published import found_pairs, scored
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, SCORE_COLUMNS

LISTED = 256  # pairs kept of each test example
TABLED, TABLED_Q = 20, 0.1  # pairs of each test example in the table, and of more if they are real
N_RANKED = "SELECT count(*) FROM train_examples WHERE n_in > 0 AND n_out > 0"
TABLE_COLUMNS = (
    "test_id", "rank", "train_id", "test_label", "train_label", "influence", "shrunk", "lo", "hi", "q_value",
    "n_in", "n_out", "k_in", "k_out", "memorization",
)  # fmt: skip


def counts_of(relations: Relations, set_name: str) -> NDArray[np.int32]:
    """Return the counts of every example of a set, int32 [`COUNTED`, examples]."""
    names = ", ".join(COUNTED[set_name])
    found = relations.ask(f"SELECT {names} FROM {set_name}_examples ORDER BY id")  # noqa: S608 - our words
    return np.stack([values_of(column).astype(np.int32) for column in found.columns])


def kept_pairs(pairs: NDArray[np.int32], scores: NDArray[np.float64], first: int, n_models: int) -> pa.Table:
    """Return stored pairs as `pairs_table` takes them: by test id, then from the strongest.

    Pairs that may be noise, by their q-value, are dropped, except the first of each test example.
    """
    rank = np.tile(np.arange(1, pairs.shape[2] + 1, dtype=np.int32), len(pairs))
    of = {name: scores[:, :, position].ravel() for position, name in enumerate(SCORE_COLUMNS)}
    kept = np.flatnonzero((rank <= TABLED) | (of["q_value"] <= TABLED_Q))
    found = rows_of(found_pairs(pairs, n_models, first), kept)
    n_in = pairs[:, PAIR_ROWS.index("n_in")].ravel()[kept]
    for name, values in of.items():
        found = found.append_column(name, column_of(values[kept], (n_in > 0) & (n_in < n_models)))
    return found.append_column("rank", column_of(rank[kept]))


def z_of_lists(relations: Relations, listed: int) -> float | None:
    """Return the multiplier z of the intervals in lists of this length."""
    n_ranked = max(1, int(relations.ask(N_RANKED).column(0)[0].as_py()))
    interval = IntervalSpec("selected", 0.95).of_list(min(listed, n_ranked), n_ranked)
    return formulas.interval_z(interval, relations.snapshot.n_models)


def pairs_table(kept: pa.Table, z: float | None) -> pa.Table:
    """Return pairs as people use them, with intervals of this multiplier."""
    rows = scored(kept, z)
    for name in (*SCORE_COLUMNS, "rank"):
        rows = rows.append_column(name, kept.column(name))
    return rows.select(list(TABLE_COLUMNS))
