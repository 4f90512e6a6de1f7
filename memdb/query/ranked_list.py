"""Ranked lists: the candidates of SQL, ordered by what `ranking` makes of all of them, the first k shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.query import statistics
from memdb.query.arrow import column, rows_of, values_of
from memdb.query.options import Order, RankedQuery
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates, Numbers
from memdb.query.templates import FORMS, SHOWN_SUMS, template

SETTLED = 0.05  # share of the rows shown that chance may still give


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a list besides those that every list has: which come first, the score, the last ones."""

    first: Sequence[str]
    score: str
    last: Sequence[str] = ()
    listed: str = "train_id"  # ids that ties go by


def ranked(relations: Relations, found: pa.Table, columns: Columns, query: RankedQuery) -> pa.Table:
    """Return the first k of all candidates found, NULLs last, ties by ascending id.

    Besides the columns of the relation: ``shrunk``, ``q_value``, ``rank_lo`` and ``rank_hi`` on request, and
    in every row ``n_ranked``, how many scores the list was chosen from; ``n_null``, how many of those would
    be as strong as the list's weakest if none had any effect; and ``n_models_needed`` for that to be few.
    """
    settings, order = query.interval.parameters(), query.order
    standing = _standing(relations, found, columns, query)
    shown = rows_of(found, standing.rows)
    ranks = _ranks(relations, found, standing, order, settings) if order.ranks else {}
    return presented(relations, shown, standing, columns, order, settings, ranks)


@dataclass(frozen=True)
class Standing:
    """What a list says of the rows it shows because of all that they were chosen from."""

    candidates: Candidates  # all of them
    shrunk: Numbers  # of the rows shown; NaN where there is no score
    q_value: Numbers
    rows: NDArray[np.int64]  # that are shown, as places among everything found

    def parts(self) -> tuple[int, int]:
        """Return how many of how many the interval kind ``selected`` has to reckon with."""
        n_ranked = max(1, len(self.candidates))
        return min(max(1, len(self.rows)), n_ranked), n_ranked


def _standing(
    relations: Relations,
    found: pa.Table,
    columns: Columns,
    query: RankedQuery,
) -> Standing:
    k, order, settings = query.k, query.order, query.interval.parameters()
    at = np.flatnonzero(_has_score(found))
    candidates = _candidates(relations, found, columns.score, at)
    shrunk, q_value, score = (np.full(found.num_rows, np.nan) for _ in range(3))
    shrunk[at] = statistics.shrunk(candidates)
    q_value[at] = (
        statistics.q_values(statistics.p_values(candidates))
        if order.fdr == "once"
        else statistics.anytime_q_values(candidates.null_z, candidates.n_models)
    )
    score[at] = candidates.score
    strength = _strength(score, order.direction)
    if order.by == "lo":
        lo, hi = _bounds(relations, found, settings, (min(k, max(1, len(at))), max(1, len(at))))
        key = {"helps": lo, "hurts": -hi, "both": np.maximum(lo, -hi)}[order.direction]
    elif order.by == "q_value":  # those that go the asked way come first
        key = np.where(strength > 0, -q_value, -1 - q_value)
    else:
        key = strength if order.by == columns.score else _strength(shrunk, order.direction)
    rows = first(key, strength, values_of(found.column(columns.listed)), k)
    return Standing(candidates, shrunk[rows], q_value[rows], rows)


def presented(  # noqa: PLR0913, PLR0917 - the rows, what is known of them, and how they are wanted
    relations: Relations,
    shown: pa.Table,
    standing: Standing,
    columns: Columns,
    order: Order,
    settings: Mapping[str, Any],
    ranks: Mapping[str, pa.Array],
) -> pa.Table:
    """Return a list's rows with their intervals and what chance alone would give; see `ranked`."""
    lo, hi = _bounds(relations, shown, settings, standing.parts())
    added = {"shrunk": standing.shrunk, "q_value": standing.q_value, "lo": lo, "hi": hi}
    result = {name: column(values, _has_score(shown)) for name, values in added.items()} | dict(ranks)
    result |= _chance(standing.candidates, shown, columns.score, order.direction)
    names = [
        *columns.first, columns.score, "shrunk", "lo", "hi", "q_value", *ranks,
        "n_in", "n_out", *SHOWN_SUMS[relations.outcome],
        "p_in", "p_out", *columns.last, "n_ranked", "n_null", "n_models_needed",
    ]  # fmt: skip
    return pa.Table.from_arrays(
        [result[name] if name in result else shown.column(name) for name in names], names
    )


def _has_score(rows: pa.Table) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (values_of(rows.column("n_in")) > 0) & (values_of(rows.column("n_out")) > 0)
    return found


def _candidates(relations: Relations, found: pa.Table, score: str, at: NDArray[np.int64]) -> Candidates:
    def numbers(name: str) -> NDArray[Any]:
        return values_of(found.column(name))[at]

    counted = relations.outcome == "correct"
    hits = numbers("k_in").astype(np.int64) if counted else None
    same = "same_class" in found.column_names
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


def _strength(score: Numbers, direction: str) -> Numbers:
    return {"helps": score, "hurts": -score, "both": np.abs(score)}[direction]


def first(key: Numbers, strength: Numbers, ids: NDArray[np.integer[Any]], k: int) -> NDArray[np.int64]:
    """Return the rows of the k largest keys, NaN last; ties by strength, then by ascending id."""
    known = np.nan_to_num(key, nan=-np.inf)
    rows = np.arange(len(known))
    if k < len(rows):
        least = np.partition(known, len(rows) - k)[len(rows) - k]
        rows = np.flatnonzero(known >= least)
    order = np.lexsort((ids[rows], -np.nan_to_num(strength[rows], nan=-np.inf), -known[rows]))
    return rows[order[:k]]


def _bounds(
    relations: Relations, rows: pa.Table, settings: Mapping[str, Any], parts: tuple[int, int]
) -> tuple[Numbers, Numbers]:
    positions = column(np.arange(rows.num_rows, dtype=np.int32))
    z = relations.interval_z(settings, *parts)
    sql = template("bounds.sql", **FORMS[relations.outcome])
    found = relations.ask(
        sql, {"z": z}, tables={"ranked": rows.append_column("position", positions)}, alone=True
    )
    return values_of(found.column("lo")), values_of(found.column("hi"))


def _ranks(
    relations: Relations,
    found: pa.Table,
    standing: Standing,
    order: Order,
    settings: Mapping[str, Any],
) -> dict[str, pa.Array]:
    at, rows = np.flatnonzero(_has_score(found)), standing.rows
    bounds = np.zeros((2, len(rows)), dtype=np.int32)
    valid = np.isin(rows, at)
    if valid.any():
        lo, hi = _bounds(relations, found, {**settings, "interval": "simultaneous"}, (1, len(at)))
        positions = np.searchsorted(at, rows[valid])
        bounds[:, valid] = statistics.rank_bounds(lo[at], hi[at], positions, order.direction)
    return {name: column(values, valid) for name, values in zip(("rank_lo", "rank_hi"), bounds, strict=True)}


def _chance(candidates: Candidates, shown: pa.Table, score: str, direction: str) -> dict[str, pa.Array]:
    """Return what chance alone would give at the weakest row shown, the same in every row."""
    n_rows, n_ranked, none = shown.num_rows, len(candidates), np.zeros(shown.num_rows, dtype=np.bool_)
    valid = _has_score(shown)
    counted = {"n_ranked": column(np.full(n_rows, n_ranked, dtype=np.int32))}
    if not valid.any():
        return counted | {
            "n_null": column(np.zeros(n_rows), none),
            "n_models_needed": column(np.zeros(n_rows, dtype=np.int64), none),
        }
    strengths = _strength(values_of(shown.column(score))[valid], direction)
    weakest = int(np.argmin(strengths))
    value = float(strengths[weakest])
    n_null = statistics.expected_by_chance(candidates, value, direction)
    share = SETTLED * int(valid.sum()) / n_ranked / (2 if direction == "both" else 1)
    error = float(np.nan_to_num(values_of(shown.column("null_se")))[valid][weakest])
    needed = statistics.models_to_settle(value, error, candidates.n_models, share)
    return counted | {
        "n_null": column(np.full(n_rows, n_null)),
        "n_models_needed": column(
            np.full(n_rows, needed or 0, dtype=np.int64), none if needed is None else ~none
        ),
    }
