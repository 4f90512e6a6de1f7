"""Lists of calibrated predictions with one example fixed, counted by NumPy: no relations are built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.query import arrow, counted
from memdb.query.examples import ExampleRef
from memdb.query.informed.posterior import Posterior, noise, posterior, smoothed
from memdb.query.intervals import fixed_z
from memdb.query.options import RankedQuery
from memdb.query.ranked_list import first, strength_of, surest

if TYPE_CHECKING:
    from memdb.query.informed.predictor import Predicted
    from memdb.query.informed.relations import InformedRelations

INFORMED_COLUMNS = [
    "train_id", "test_id", "train_label", "test_label", "same_class", "influence", "informed", "lo", "hi",
    "n_in", "n_out", "k_in", "k_out", "p_in", "p_out", "memorization",
]  # fmt: skip

Counts = Mapping[str, NDArray[np.integer]]
Numbers = NDArray[np.float64]


def top_influence(
    relations: InformedRelations, fixed: ExampleRef, query: RankedQuery, order: str, *, same_class: bool
) -> pa.Table:
    """Return the influences of or on one example that rank first, those without a score last."""
    listed = "test_id" if fixed.column == "train_id" else "train_id"
    counts = counted.pair_counts(relations.raw, fixed, same_class=same_class)
    ids = counts["target_id" if listed == "test_id" else listed]
    given = relations.predictor.of_one(fixed.column, fixed.row)
    given = given if len(ids) == len(given.spread) else given.of(ids)
    raw, posteriors = predictions(counts, given, relations.snapshot.n_models)
    if order == "lo":
        key = surest(*bounds(posteriors, query.interval.level), query.order.direction)
    else:
        score = np.asarray(posteriors.informed if order == "informed" else raw, dtype=np.float64)
        key = strength_of(score, query.order.direction)
    rows = first(key, key, ids, query.k)
    shown = counted.pairs_of({name: values[rows] for name, values in counts.items()}, "test_id")
    of_shown = Posterior(posteriors.informed[rows], posteriors.deviation[rows])
    table = with_predictions(shown, of_shown, query.interval.level)
    n_ranked = np.full(len(rows), np.count_nonzero(~np.isnan(raw)))
    return table.append_column("n_ranked", arrow.column(n_ranked))


def predictions(counts: Counts, given: Predicted, n_models: int) -> tuple[Numbers, Posterior]:
    """Return raw influences, and what they make of predictions; NaN for pairs without a raw influence."""
    n_in, n_out, k_in, k_out = (
        counts[name].astype(np.float64) for name in ("n_in", "n_out", "k_in", "k_out")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        raw = k_in / n_in - k_out / n_out
        variance = noise(smoothed(k_in + k_out, n_models), n_in, n_out)
        posteriors = posterior(
            raw, given.prediction.astype(np.float64), given.spread.astype(np.float64), variance
        )
    return raw, posteriors


def bounds(found: Posterior, level: float) -> tuple[Numbers, Numbers]:
    """Return both ends of the intervals of predictions."""
    half_width = fixed_z(level) * found.deviation
    return np.maximum(-1.0, found.informed - half_width), np.minimum(1.0, found.informed + half_width)


def with_predictions(table: pa.Table, found: Posterior, level: float) -> pa.Table:
    """Return pairs with their predictions and the intervals of these, NULL where there are none."""
    lo, hi = bounds(found, level)
    known = ~np.isnan(found.informed)
    informed, low, high = (arrow.column(values, known) for values in (found.informed, lo, hi))
    added = {"informed": informed, "lo": low, "hi": high}
    columns = [added[name] if name in added else table.column(name) for name in INFORMED_COLUMNS]
    return pa.Table.from_arrays(columns, INFORMED_COLUMNS)
