"""The number of models that a goal takes: the intervals, solved for the number of models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.analysis.drawn import PILOT, Drawn
from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits, layout, subsets
from memdb.query import arrow, formulas
from memdb.query.examples import ExampleRef, require_examples, require_own
from memdb.query.formulas import Arms
from memdb.query.intervals import IntervalSpec
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.results import Results
from memdb.wording import count

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

MOST_RANKED = 10**15  # pairs of a million training and a thousand million test examples
KINDS = ("memorization", "influence")
MOST = 2**30  # models; goals that take more are out of reach
SHARES = {"median": 0.5, "percentile_95": 0.95}
SAMPLE = 1 << 16  # sampled examples or pairs
SAMPLED_TESTS = 128
SEED = 0  # of the sample
Numbers = NDArray[np.float64]
Reached = Callable[[Numbers, Numbers], NDArray[np.bool_]]  # of the ends of intervals


@dataclass(frozen=True, slots=True)
class Goal:
    """The goals of a plan: a half-width of intervals, and a fraction of settled examples.

    An example above the threshold is settled once its interval lies above it; ``settle`` is the fraction that
    should be. For ``selected`` intervals, ``n_shown`` rows are selected from ``n_ranked``.
    """

    half_width: float = 0.05
    kind: str = "memorization"
    settle: float = 0.9
    threshold: float = 0.25
    n_shown: int = 20
    n_ranked: int | None = None

    def require(self) -> None:
        """Check all values.

        Raises:
            InvalidInputError: an unknown kind, or a value out of range.
        """
        if self.kind not in KINDS:
            raise InvalidInputError(f"unknown kind {self.kind!r}", hint=f"use one of {', '.join(KINDS)}")
        for name, value in (("half_width", self.half_width), ("settle", self.settle)):
            if not 0 < value < 1:
                raise InvalidInputError(
                    f"{name} {value:g} is not between 0 and 1", hint=f"use e.g. {name}=0.1", parameter=name
                )
        if not -1 < self.threshold < 1:
            raise InvalidInputError(
                f"threshold {self.threshold:g} is not between -1 and 1",
                hint="use e.g. threshold=0.25",
                parameter="threshold",
            )
        n_ranked = self.n_shown if self.n_ranked is None else self.n_ranked
        if n_ranked > MOST_RANKED:
            raise InvalidInputError(
                f"n_ranked {n_ranked:,} is more than any data set has scores",
                hint=f"use at most {MOST_RANKED:,}",
                parameter="n_ranked",
            )
        if not 1 <= self.n_shown <= n_ranked:
            raise InvalidInputError(
                f"k {self.n_shown} does not fit {n_ranked:,} ranked scores",
                hint="show at least one row, and no more than are ranked",
                parameter="k",
            )


@dataclass(frozen=True, slots=True)
class Rates:
    """Means of an outcome (p) and of its square (m) in both arms, [cases] each, assumed constant in n.

    ``fraction`` is the share of the models that are in.
    """

    p_in: Numbers
    m_in: Numbers
    p_out: Numbers
    m_out: Numbers
    fraction: Numbers

    @classmethod
    def of(cls, arms: Arms, fractions: Numbers) -> Rates:
        """Return the rates of sums in which no arm is empty, with the fraction of each."""
        n_in, n_out = arms.n_in, arms.n_out
        return cls(arms.s_in / n_in, arms.q_in / n_in, arms.s_out / n_out, arms.q_out / n_out, fractions)

    def __len__(self) -> int:
        return len(self.p_in)

    def arms(self, n_models: Numbers) -> Arms:
        """Return the expected sums with ``n_models``."""
        n_in, n_out = n_models * self.fraction, n_models * (1 - self.fraction)
        return Arms(self.p_in * n_in, self.m_in * n_in, n_in, self.p_out * n_out, self.m_out * n_out, n_out)


def worst_rates(fraction: float) -> Rates:
    """Return the rates whose intervals are widest."""
    return Rates(*(np.array([value]) for value in (0.5, 0.5, 0.5, 0.5, fraction)))


@dataclass(frozen=True, slots=True)
class Solver:
    """Finds the fewest models whose intervals reach a goal."""

    interval: IntervalSpec

    def bounds(self, arms: Arms) -> tuple[Numbers, Numbers]:
        """Return the ends of the intervals, lo and hi, each with the multiplier of its number of models."""
        z = formulas.interval_z(self.interval, arms.n_in + arms.n_out)
        return formulas.bounds(arms, math.nan if z is None else z)

    def fewest(self, rates: Rates, reached: Reached) -> NDArray[np.int64]:
        """Return the fewest models for each case, `MOST` + 1 where `MOST` models do not suffice."""
        below, above = np.zeros(len(rates), np.int64), np.full(len(rates), MOST + 1, np.int64)
        while (above - below > 1).any():
            tried = np.maximum((below + above) // 2, 1)
            there = reached(*self.bounds(rates.arms(tried.astype(np.float64))))
            below, above = np.where(there, below, tried), np.where(there, tried, above)
        return above


def worst_case(goal: Goal, fraction: float, interval: IntervalSpec) -> pa.Table:
    """Return the row that needs no store: the models for the half-width if both rates are one half.

    Raises:
        InvalidInputError: a value out of range, or an interval that depends on a missing ``n_ranked``.
    """
    goal.require()
    subsets.subset_size(MOST, fraction)
    if interval.kind in {"selected", "simultaneous"} and goal.n_ranked is None:
        raise InvalidInputError(
            f"a {interval.kind} interval depends on how many scores are ranked",
            hint="say so with n_ranked, e.g. the number of training examples",
            parameter="n_ranked",
        )
    of_list = interval.of_list(goal.n_shown, goal.n_ranked or 1)
    return _table([_worst(Solver(of_list), goal, fraction)], 0, None)


def plan_without_store(
    subset_fraction: float,
    half_width: float = 0.05,
    *,
    k: int = 20,
    n_ranked: int | None = None,
    level: float = 0.95,
    interval: str = "anytime",
) -> DuckDBPyRelation:
    """Return the worst case of `Database.plan` for a store that does not exist yet.

    Raises:
        InvalidInputError: a value out of range, or an interval that depends on a missing ``n_ranked``.
    """
    goal = Goal(half_width, n_shown=k, n_ranked=n_ranked)
    return Results().present(worst_case(goal, subset_fraction, IntervalSpec(interval, level)), {})


def plan(
    relations: Relations,
    goal: Goal,
    interval: IntervalSpec,
    named: tuple[int, ExampleRef | None] | None = None,
) -> pa.Table:
    """Return one row per goal: in the worst case, at the store's own rates, and for one named score.

    Raises:
        InvalidInputError: a value out of range.
        NotEnoughModelsError: a score is named, and there are too few models to know its rates.
    """
    goal.require()
    snapshot = relations.snapshot
    n_ranked = goal.n_ranked or snapshot.manifest.train.n_examples
    of_list = interval.of_list(min(goal.n_shown, n_ranked), n_ranked)
    solver, drawn = Solver(of_list), Drawn.of(snapshot)
    rows = [_worst(solver, goal, drawn.usual)]
    if snapshot.n_models >= PILOT:
        if goal.kind == "memorization":
            require_own(snapshot)
        arms = _memorization(relations) if goal.kind == "memorization" else _pairs(relations)
        rows += _of_all(solver, goal, arms, drawn)
    if named is not None:
        rows += _of_one(solver, goal, _named(relations, *named), drawn)
    seconds = [model.seconds for _, model in snapshot.models]
    return _table(rows, snapshot.n_models, fmean(seconds) if seconds else None)


def _narrow(goal: Goal) -> Reached:
    return lambda lo, hi: (hi - lo) / 2 <= goal.half_width


def _worst(solver: Solver, goal: Goal, fraction: float) -> dict[str, Any]:
    needed = int(solver.fewest(worst_rates(fraction), _narrow(goal))[0])
    return {"goal": "worst_case", "half_width": goal.half_width, "p_in": 0.5, "p_out": 0.5, "needed": needed}


def _of_all(solver: Solver, goal: Goal, arms: Arms, drawn: Drawn) -> list[dict[str, Any]]:
    """Return the rows of goals for fractions of all examples, and of those above the threshold."""
    rates, (lo, hi) = Rates.of(arms, drawn.fractions(arms)), solver.bounds(arms)
    narrow = _narrow(goal)
    needed, now = solver.fewest(rates, narrow), float(narrow(lo, hi).mean())
    rows = []
    for name, share in SHARES.items():
        n, at = _quantile(needed, share)
        row = {"goal": name, "half_width": goal.half_width, "share": share, "share_now": now, "needed": n}
        rows.append(row | {"p_in": float(rates.p_in[at]), "p_out": float(rates.p_out[at])})
    high = np.flatnonzero(rates.p_in - rates.p_out >= goal.threshold)
    if goal.kind == "influence" or not len(high):
        return rows
    above = Rates(*(getattr(rates, name)[high] for name in Rates.__slots__))
    n, _ = _quantile(solver.fewest(above, lambda lo, _: lo > goal.threshold), goal.settle)
    settled = float((lo[high] > goal.threshold).mean())
    row = {"goal": "settled", "threshold": goal.threshold, "share": goal.settle, "share_now": settled}
    return [*rows, row | {"n_examples": len(high), "needed": n}]


def _of_one(solver: Solver, goal: Goal, arms: Arms, drawn: Drawn) -> list[dict[str, Any]]:
    rates, (lo, hi) = Rates.of(arms, drawn.fractions(arms)), solver.bounds(arms)
    both = {"p_in": float(rates.p_in[0]), "p_out": float(rates.p_out[0])}
    aims: tuple[tuple[dict[str, Any], Reached], ...] = (
        ({"goal": "named_half_width", "half_width": goal.half_width}, _narrow(goal)),
        ({"goal": "named_from_zero", "threshold": 0.0}, _told_from_zero),
    )
    return [
        aim | both | {"needed": int(solver.fewest(rates, reached)[0]), "reached": bool(reached(lo, hi)[0])}
        for aim, reached in aims
    ]


def _told_from_zero(lo: Numbers, hi: Numbers) -> NDArray[np.bool_]:
    return (lo > 0) | (hi < 0)


def _quantile(needed: NDArray[np.int64], share: float) -> tuple[int, int]:
    """Return the models that suffice for this fraction of examples, and an example that needs as many."""
    at = int(np.argsort(needed, kind="stable")[math.ceil(share * len(needed)) - 1])
    return int(needed[at]), at


def _table(rows: list[dict[str, Any]], n_models: int, seconds: float | None) -> pa.Table:
    filled = []
    for row in rows:
        needed = row.pop("needed")
        enough = row["share_now"] >= row["share"] if "share" in row else needed <= n_models
        reached = row.pop("reached", enough)
        needed = min(needed, n_models) if reached else max(needed, n_models + 1)
        more = needed - n_models if needed > n_models else 0
        known = needed <= MOST
        cost = more * seconds if known and seconds is not None else None
        filled.append(
            row
            | {
                "n_models_needed": needed if known else None,
                "n_models_more": more if known else None,
                "seconds_more": cost,
            }
        )
    return arrow.of_records(filled, SCHEMA)


SCHEMA = pa.schema(
    [
        ("goal", pa.string()), ("half_width", pa.float64()), ("threshold", pa.float64()),
        ("share", pa.float64()), ("share_now", pa.float64()), ("n_examples", pa.int64()),
        ("p_in", pa.float64()), ("p_out", pa.float64()),
        ("n_models_needed", pa.int64()), ("n_models_more", pa.int64()), ("seconds_more", pa.float64()),
    ]
)  # fmt: skip


def _memorization(relations: Relations) -> Arms:
    """Return the sums of all training examples with models in both arms, or of a random sample of them."""
    of, form = relations.totals(layout.TRAIN), OUTCOMES[relations.outcome].sql
    ids = np.flatnonzero((of["n_in"] > 0) & (of["n_out"] > 0))
    rows = ids if len(ids) <= SAMPLE else _draw(ids, SAMPLE)
    n_in, n_out, s_in, q_in, s_all, q_all = (
        of[name][rows].astype(np.float64)
        for name in ("n_in", "n_out", *(form[sum_] for sum_ in ("own_s", "own_q", "s_all", "q_all")))
    )
    return Arms(s_in, q_in, n_in, s_all - s_in, q_all - q_in, n_out)


def _pairs(relations: Relations) -> Arms:
    """Return the sums of a random sample of (training, test) pairs."""
    mask, n_models = relations.mask, relations.snapshot.n_models
    n_in = bits.count(mask)
    trains = np.flatnonzero((n_in > 0) & (n_in < n_models))
    n_test = require_examples(relations.snapshot, layout.TEST)
    tests = _draw(np.arange(n_test), SAMPLED_TESTS)
    trains = _draw(trains, SAMPLE // len(tests))
    parts = [_sums_on(relations, layout.TEST, int(test), trains) for test in tests]
    return Arms(*(np.concatenate([getattr(part, name) for part in parts]) for name in Arms.__slots__))


def _draw(ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return a fixed pseudo-random sample of the ids, in order."""
    order = np.argsort(np.random.Philox(key=SEED).random_raw(len(ids)), kind="stable")
    return np.sort(ids[order[:n]])


def _sums_on(relations: Relations, set_name: str, row: int, trains: NDArray[np.int64]) -> Arms:
    """Return the sums of some training examples on one target."""
    chosen = relations.mask[trains]
    n_in = bits.count(chosen).astype(np.float64)
    if relations.outcome == "confidence":
        weights = relations.confidences[set_name].weights(row)
        s_in, q_in = weights.sums(chosen)
        everyone = np.full((1, chosen.shape[1]), np.iinfo(np.uint64).max, np.uint64)
        s_all, q_all = (values[0] for values in weights.sums(everyone))
    else:
        right = relations.correct(set_name)[row]
        s_in = q_in = bits.count_and(chosen, right).astype(np.float64)
        s_all = q_all = float(bits.count(right))
    return Arms(s_in, q_in, n_in, s_all - s_in, q_all - q_in, relations.snapshot.n_models - n_in)


def _named(relations: Relations, train_id: int, target: ExampleRef | None) -> Arms:
    """Return the sums of one score.

    Raises:
        NotEnoughModelsError: too few models to know its rates.
    """
    on = target or ExampleRef("target_id", train_id)
    if on.example_set == layout.TRAIN:
        require_own(relations.snapshot)
    n_models = relations.snapshot.n_models
    if n_models < PILOT:
        raise NotEnoughModelsError(
            f"{relations.snapshot.url} has {count(n_models, 'model')}: the rates of one score are not known",
            hint=f"train {PILOT - n_models} more, or plan for the worst case without naming a score",
        )
    arms = _sums_on(relations, on.example_set, on.row, np.array([train_id]))
    if not arms.are_filled.all():
        raise NotEnoughModelsError(
            f"training example {train_id} was in every subset or in none so far",
            hint="train more models, or name another example",
        )
    return arms
