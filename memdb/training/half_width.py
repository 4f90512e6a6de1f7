"""The mean half-width of the memorization intervals while models are added, from counts alone."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np

from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations
from memdb.query.templates import template


class RunningPrecision:
    """Running counts per training example, int64 [train], to which batches of models are added.

    A thread asks DuckDB, which makes errors of its own of a Ctrl-C that comes meanwhile.
    """

    def __init__(self, relations: Relations, interval: IntervalSpec) -> None:
        self._counts = {
            name: values.astype(np.int64) for name, values in relations.totals(layout.TRAIN).items()
        }
        self._parameters = interval.for_named().parameters()
        self._connection = duckdb.connect()
        weakref.finalize(self, self._connection.close)
        self._thread = ThreadPoolExecutor(1, "memdb half-width")
        self._thread.submit(self._connection.execute, template("statistics.sql")).result()

    def add(self, mask: bits.Packed, correct: bits.Packed, n_models: int) -> None:
        """Add a batch: [train, ceil(models / 8)] each."""
        inside, right = bits.words(mask), bits.words(correct)
        n_in = bits.count(inside)
        self._counts["n_in"] += n_in
        self._counts["n_out"] += n_models - n_in
        self._counts["n_correct"] += bits.count(right)
        self._counts["k_in"] += bits.count_and(inside, right)

    def mean_half_width(self) -> float | None:
        """Return the mean half-width over the examples that have an interval; None if there are none."""
        return self._thread.submit(self._counted).result()

    def _counted(self) -> float | None:
        self._connection.register("train_examples", arrow.table(self._counts))
        sql = template("mean_half_width.sql")
        ((value,),) = self._connection.execute(sql, self._parameters).fetchall()
        return None if value is None else float(value)
