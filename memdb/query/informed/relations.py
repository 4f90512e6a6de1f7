"""The relations of a snapshot with calibrated predictions beside raw influences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType
from duckdb.sqltypes import DOUBLE, INTEGER, DuckDBPyType

from memdb.query.arrow import column, values_of
from memdb.query.informed.predictor import Predictor
from memdb.query.intervals import IntervalSpec, fixed_z
from memdb.query.relations import Relations
from memdb.query.templates import template

UNINFORMED = (
    "SELECT * EXCLUDE (lo, hi, n_in, n_out, k_in, k_out, p_in, p_out, memorization), influence AS informed, "
    "lo, hi, n_in, n_out, k_in, k_out, p_in, p_out, memorization FROM ({pairs})"
)


class InformedRelations(Relations):
    """Relations of which `influence` and `influence_of` have a column ``informed`` and its interval.

    Where there is no calibration, ``informed`` is the raw influence, with the interval of that.
    """

    def __init__(self, raw: Relations, predictor: Predictor) -> None:
        super().__init__(raw.snapshot, raw.outcome)
        self.raw, self.predictor = raw, predictor
        self.__dict__["bits"] = predictor.bits  # read once for both

    def _pairs_sql(self, relation: str, **names: str) -> str:
        pairs = super()._pairs_sql(relation, **names)
        if relation != "influence":
            return pairs
        if self.predictor.why_raw is not None:
            return UNINFORMED.format(pairs=pairs)
        return template("informed_pairs.sql", pairs=pairs)

    def _register_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        super()._register_functions(connection)
        if self.predictor.why_raw is None:
            returned = DuckDBPyType({"prediction": DOUBLE, "spread": DOUBLE})
            connection.create_function(
                "predicted",
                predicting(self.predictor),
                [INTEGER, INTEGER],
                returned,
                type=PythonUDFType.ARROW,
            )

    def _set_z(self, connection: duckdb.DuckDBPyConnection, interval: IntervalSpec) -> None:
        super()._set_z(connection, interval)
        connection.execute("SET VARIABLE z_informed = $z", {"z": fixed_z(interval.level)})


def predicting(predictor: Predictor) -> Callable[[Any, Any], pa.Array]:
    """Return an Arrow function that predicts pairs."""

    def predict(train_ids: Any, test_ids: Any) -> pa.Array:
        predicted = predictor.of_pairs(values_of(train_ids), values_of(test_ids))
        values = (predicted.prediction.astype(np.float64), predicted.spread.astype(np.float64))
        return pa.StructArray.from_arrays([column(v) for v in values], ["prediction", "spread"])

    return predict
