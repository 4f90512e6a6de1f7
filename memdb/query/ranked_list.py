"""Ranked lists: candidates from SQL, ordered by the statistics of all of them, and the first k shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.query import formulas, statistics
from memdb.query.arrow import column, rows_of, values_of
from memdb.query.intervals import IntervalSpec
from memdb.query.mixture import Numbers
from memdb.query.options import RankedQuery
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates

SETTLED = 0.05  # fraction of the rows shown that chance alone may still produce


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list besides those that all lists have: the first, the score and the last."""

    first: Sequence[str]
    score: str
    last: Sequence[str] = ()
    listed: str = "train_id"  # the id that breaks ties


def ranked(relations: Relations, found: pa.Table, columns: Columns, query: RankedQuery) -> pa.Table:
    """Return the first k of the candidate rows ``found``, NULLs last, ties by ascending id.

    Besides the columns of the relation: ``shrunk`` (posterior mean), ``q_value``, on request ``rank_lo`` and
    ``rank_hi``, and in every row ``n_ranked``, the number of scores that the list was selected from;
    ``n_null``, the number of them expected to be as strong as the weakest row shown if none had any effect;
    and ``n_models_needed``, the number of models that would make ``n_null`` small.
    """
    standing = _standing(relations, found, columns, query)
    shown = rows_of(found, standing.rows)
    ranks = _ranks(relations, found, standing, query) if query.order.ranks else {}
    return presented(relations, shown, standing, columns, query, ranks)


@dataclass(frozen=True)
class Standing:
    """The statistics of the rows shown that depend on all candidates."""

    candidates: Candidates  # all those with a score
    shrunk: Numbers  # of the rows shown; NaN for rows without a score
    q_value: Numbers
    rows: NDArray[np.int64]  # of the rows shown, their positions among all found

    def interval_of(self, query: RankedQuery) -> IntervalSpec:
        """Return the interval of the rows shown, which may depend on how many were ranked."""
        n_ranked = max(1, len(self.candidates))
        return query.interval.of_list(min(max(1, len(self.rows)), n_ranked), n_ranked)


def _standing(
    relations: Relations,
    found: pa.Table,
    columns: Columns,
    query: RankedQuery,
) -> Standing:
    k, order = query.k, query.order
    at = np.flatnonzero(_has_score(found))
    candidates = _candidates(relations, found, columns.score, at)
    shrunk, q_value, score = (np.full(found.num_rows, np.nan) for _ in range(3))
    shrunk[at] = statistics.shrunk(candidates)
    q_value[at] = (
        statistics.q_values(candidates.p_value)
        if order.fdr == "once"
        else statistics.anytime_q_values(candidates.null_z, candidates.n_models)
    )
    score[at] = candidates.score
    strength = strength_of(score, order.direction)
    if order.by == "lo":
        n_ranked = max(1, len(at))
        lo, hi = _bounds(relations, found, query.interval.of_list(min(k, n_ranked), n_ranked))
        key = surest(lo, hi, order.direction)
    elif order.by == "q_value":  # rows of the requested direction come first
        key = np.where(strength > 0, -q_value, -1 - q_value)
    else:
        key = strength if order.by == columns.score else strength_of(shrunk, order.direction)
    rows = first(key, strength, values_of(found.column(columns.listed)), k)
    return Standing(candidates, shrunk[rows], q_value[rows], rows)


def presented(
    relations: Relations,
    shown: pa.Table,
    standing: Standing,
    columns: Columns,
    query: RankedQuery,
    ranks: dict[str, pa.Array] | None = None,
) -> pa.Table:
    """Return the rows of a list with their intervals and what chance alone would give; see `ranked`."""
    ranks = ranks or {}
    lo, hi = _bounds(relations, shown, standing.interval_of(query))
    added = {"shrunk": standing.shrunk, "q_value": standing.q_value, "lo": lo, "hi": hi}
    result = {name: column(values, _has_score(shown)) for name, values in added.items()} | ranks
    result |= _chance(standing.candidates, shown, columns.score, query.order.direction)
    names = [
        *columns.first, columns.score, "shrunk", "lo", "hi", "q_value", *ranks,
        "n_in", "n_out", *OUTCOMES[relations.outcome].shown,
        "p_in", "p_out", *columns.last, "n_ranked", "n_null", "n_models_needed",
    ]  # fmt: skip
    return pa.Table.from_arrays(
        [result[name] if name in result else shown.column(name) for name in names], names
    )


def _has_score(rows: pa.Table) -> NDArray[np.bool_]:
    scored: NDArray[np.bool_] = (values_of(rows.column("n_in")) > 0) & (values_of(rows.column("n_out")) > 0)
    return scored


def _candidates(relations: Relations, found: pa.Table, score: str, at: NDArray[np.int64]) -> Candidates:
    def numbers(name: str) -> NDArray[Any]:
        return values_of(found.column(name))[at]

    counted = relations.outcome == "correct"
    hits = numbers("k_in").astype(np.int64) if counted else None
    same = "same_class" in found.column_names and not found.column("same_class").null_count
    return Candidates(
        score=numbers(score),
        effect_se=numbers("effect_se"),
        ac_z=numbers("ac_z"),
        null_se=np.nan_to_num(numbers("null_se")),
        n_in=numbers("n_in").astype(np.int64),
        n_models=relations.snapshot.n_models,
        strata=numbers("same_class") if same else np.ones(len(at), dtype=np.bool_),
        hits=hits,
        total=None if hits is None else hits + numbers("k_out").astype(np.int64),
    )


def strength_of(score: Numbers, direction: str) -> Numbers:
    """Return how strong scores are in a direction."""
    return {"helps": score, "hurts": -score, "both": np.abs(score)}[direction]


def surest(lo: Numbers, hi: Numbers, direction: str) -> Numbers:
    """Return how strong scores are in a direction at least, by their intervals."""
    return {"helps": lo, "hurts": -hi, "both": np.maximum(lo, -hi)}[direction]


def first(key: Numbers, strength: Numbers, ids: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """Return the positions of the k largest keys, NaN last; ties by strength, then by ascending id."""
    known, strength = (
        np.nan_to_num(values, nan=-np.inf) if np.isnan(values).any() else values for values in (key, strength)
    )
    rows = np.arange(len(known))
    if k < len(rows):
        least = _kth_largest(known, k)
        above, ties = known > least, np.flatnonzero(known == least)
        wanted = k - int(np.count_nonzero(above))
        if wanted < len(ties):
            ties = ties[strength[ties] >= _kth_largest(strength[ties], wanted)]
        rows = np.concatenate([above.nonzero()[0], ties])
    order = np.lexsort((ids[rows], -strength[rows], -known[rows]))
    return rows[order[:k]]


def _kth_largest(values: Numbers, k: int) -> float:
    return float(np.partition(values, len(values) - k)[len(values) - k])


def _bounds(relations: Relations, rows: pa.Table, interval: IntervalSpec) -> tuple[Numbers, Numbers]:
    z = formulas.interval_z(interval, relations.snapshot.n_models)
    names = OUTCOMES[relations.outcome].sql["arms"].split(", ")
    arms = formulas.Arms(*(values_of(rows.column(name)) for name in names))
    return formulas.bounds(arms, math.nan if z is None else z)


def _ranks(
    relations: Relations,
    found: pa.Table,
    standing: Standing,
    query: RankedQuery,
) -> dict[str, pa.Array]:
    at, rows = np.flatnonzero(_has_score(found)), standing.rows
    bounds = np.zeros((2, len(rows)), dtype=np.int32)
    valid = np.isin(rows, at)
    if valid.any():
        simultaneous = IntervalSpec("simultaneous", query.interval.level).of_list(1, len(at))
        lo, hi = _bounds(relations, found, simultaneous)
        positions = np.searchsorted(at, rows[valid])
        bounds[:, valid] = statistics.rank_bounds(lo[at], hi[at], positions, query.order.direction)
    return {name: column(values, valid) for name, values in zip(("rank_lo", "rank_hi"), bounds, strict=True)}


def _chance(candidates: Candidates, shown: pa.Table, score: str, direction: str) -> dict[str, pa.Array]:
    """Return columns, equal in every row, of what chance alone would give at the weakest row shown."""
    n_rows, n_ranked, none = shown.num_rows, len(candidates), np.zeros(shown.num_rows, dtype=np.bool_)
    valid = _has_score(shown)
    counted = {"n_ranked": column(np.full(n_rows, n_ranked, dtype=np.int32))}
    if not valid.any():
        return counted | {
            "n_null": column(np.zeros(n_rows), none),
            "n_models_needed": column(np.zeros(n_rows, dtype=np.int64), none),
        }
    strengths = strength_of(values_of(shown.column(score))[valid], direction)
    weakest = int(np.argmin(strengths))
    value = float(strengths[weakest])
    n_null = statistics.expected_by_chance(candidates, value, direction)
    fraction = SETTLED * int(valid.sum()) / n_ranked / (2 if direction == "both" else 1)
    error = float(np.nan_to_num(values_of(shown.column("null_se")))[valid][weakest])
    needed = statistics.models_to_settle(value, error, candidates.n_models, fraction)
    return counted | {
        "n_null": column(np.full(n_rows, n_null)),
        "n_models_needed": column(
            np.full(n_rows, needed or 0, dtype=np.int64), none if needed is None else ~none
        ),
    }
