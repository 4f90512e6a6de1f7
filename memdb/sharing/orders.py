"""The orders in which lists, and sheets of pictures, show the examples of a set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query.arrow import values_of
from memdb.query.intervals import IntervalSpec
from memdb.query.options import Order, RankedQuery
from memdb.query.questions import ModelAnswers
from memdb.query.relations import Relations
from memdb.sharing.tables import counts_of
from memdb.store.published_arrays import COUNTED


def orders_of(relations: Relations) -> Mapping[str, NDArray[np.int32]]:
    """Return training examples from the most memorized and test examples from the hardest, by set."""
    rows = most_memorized(relations)
    n_train = relations.snapshot.manifest.train.n_examples
    ranks = np.arange(n_train, dtype=np.int32) if rows is None else ids_of(rows)
    return {layout.TRAIN: ranks, layout.TEST: hardest_first(relations)}


def most_memorized(relations: Relations) -> pa.Table | None:
    """Return all training examples as `top-memorized` ranks them; None without models or examples."""
    n_train = relations.snapshot.manifest.train.n_examples
    if not (relations.snapshot.n_models and n_train):
        return None
    query = RankedQuery(n_train, Order(), IntervalSpec("selected", 0.95))
    return ModelAnswers(relations).top_memorized(None, query)


def ids_of(rows: pa.Table) -> NDArray[Any]:
    """Return the training examples of a list."""
    return values_of(rows.column("train_id")).astype(np.int32)


def hardest_first(relations: Relations) -> NDArray[np.int32]:
    """Return test examples by how many models are right on them, ascending."""
    counts = dict(zip(COUNTED[layout.TEST], counts_of(relations, layout.TEST), strict=True))
    return np.argsort(counts["n_correct"], kind="stable").astype(np.int32)
