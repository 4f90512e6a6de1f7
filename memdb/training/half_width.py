"""How tight the memorization intervals are while models are added: counts alone, no relations."""

from __future__ import annotations

import weakref

import duckdb
import numpy as np
from numpy.typing import NDArray

from memdb.format import layout
from memdb.query import arrow
from memdb.query.intervals import NAMED_INTERVALS, IntervalSpec
from memdb.query.relations import Relations
from memdb.query.templates import template


class RunningPrecision:
    """Counts a training example that grow batch by batch, int64 [train]: counts add."""

    def __init__(self, relations: Relations, choice: IntervalSpec) -> None:
        self._counts = {
            name: values.astype(np.int64) for name, values in relations.totals(layout.TRAIN).items()
        }
        self._parameters = choice.parameters(NAMED_INTERVALS)
        self._connection = duckdb.connect()
        weakref.finalize(self, self._connection.close)
        self._connection.execute(template("statistics.sql"))

    def add(self, masks: NDArray[np.bool_], correct: NDArray[np.bool_]) -> None:
        """Add a batch: bool [models, train] each."""
        self._counts["n_in"] += masks.sum(axis=0)
        self._counts["n_out"] += (~masks).sum(axis=0)
        self._counts["n_correct"] += correct.sum(axis=0)
        self._counts["k_in"] += (masks & correct).sum(axis=0)

    def mean_half_width(self) -> float | None:
        """Return the mean half-width over the examples that have an interval; None where none has."""
        self._connection.register("train_examples", arrow.table(self._counts))
        (value,) = self._connection.sql(template("mean_half_width.sql"), params=self._parameters).fetchall()[
            0
        ]
        return None if value is None else float(value)
