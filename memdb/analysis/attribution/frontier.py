"""How good each way to score pairs is with how many models: the frontier of quality against cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from memdb.analysis.attribution.estimates import Attribution, Estimate, Given
from memdb.analysis.attribution.estimators import ESTIMATORS, require_estimators
from memdb.analysis.attribution.lds import Progress, require_orientation
from memdb.analysis.attribution.pilots import Ids, order_of_models, pilots_of, require_count, some_tests
from memdb.analysis.attribution.plain_models import EXACT, RAW, plain_models
from memdb.analysis.attribution.truth import Measure, Truth
from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import layout
from memdb.query.examples import require_examples
from memdb.query.intervals import require_level
from memdb.query.relations import Relations
from memdb.wording import count

FIRST_LOOK = 25
LEAST_TRUTH, LEAST_PILOTS = 40, 10  # models
MOST_PAIRS = 8_000_000  # judged at once: about a gigabyte
MOST_TESTS = 1000
DIGITS = 6  # of a measure; its error is far larger, and the rest is how sums were rounded
MOST_GROUPS = 4  # of models that the same number is looked at with
SCHEMA = pa.schema(
    [
        ("estimator", pa.string()), ("n_models", pa.int64()), ("seconds", pa.float64()),
        ("measure", pa.string()), ("at", pa.int64()), ("value", pa.float64()), ("plain_models", pa.int64()),
        ("plain_bound", pa.string()), ("plain_extrapolated", pa.int64()), ("n_pilots", pa.int64()),
        ("n_truth", pa.int64()), ("n_tests", pa.int64()), ("n_strong_tests", pa.int64()),
        ("n_pairs", pa.int64()), ("truth_reliability", pa.float64()),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is compared, with how many models, and against what.

    Attributes:
        estimators: of `ESTIMATORS`; None for all that the store allows.
        scores: somebody's scores, by the name that they are listed under.
        looks: numbers of models; None for 25, 50, 100, ... and all pilots.
        n_truth: models of which the truth is made; None for two thirds of all.
        firsts: lengths of the lists of strongest pairs.
        n_tests: test examples, drawn at random; None for as many as memory is planned for.
    """

    estimators: Sequence[str] | None = None
    scores: Mapping[str, Attribution] | None = None
    looks: Sequence[int] | None = None
    n_truth: int | None = None
    firsts: Sequence[int] = (100, 500)
    n_tests: int | None = None
    level: float = 0.95


def frontier(
    relations: Relations, wanted: Wanted, progress: Progress = lambda _done, _total: None
) -> pa.Table:
    """Return one row per estimator, number of models and measure of quality.

    ``plain_models`` says how many models the raw scores need for as much, between those that were tried, and
    ``plain_extrapolated`` beyond them.

    Raises:
        InvalidInputError: numbers out of range, unknown estimators, or scores that cannot be judged.
        NotEnoughModelsError: too few models for a truth and pilots.
    """
    truth_models, pilots = _parts(relations, wanted)
    tests = _tests(relations, wanted)
    looks = _looks(wanted.looks, len(pilots))
    names = require_estimators(relations, wanted.estimators, scoring=False)
    if wanted.estimators is None:
        names = [name for name in names if ESTIMATORS[name].learns]
    given = _given(relations, wanted.scores or {})
    todo = [(name, n) for name in dict.fromkeys([RAW, *names]) for n in looks]
    n_steps = 1 + len(given) + len(todo)
    progress(0, n_steps)
    truth = Truth.of(relations, truth_models, tests, _firsts(wanted.firsts), require_level(wanted.level))
    if not truth.n_pairs:
        raise NotEnoughModelsError(
            f"no training example was in some and not in others of {count(len(truth_models), 'model')}",
            hint="train more models, or set more apart for the truth",
        )
    rows = [_row(EXACT, None, None, measure) for measure in truth.judge_exact()]
    for done, (title, scores) in enumerate(given.items(), start=1):
        progress(done, n_steps)
        estimate = _ranking(title, scores, tests)
        rows += [_row(title, None, None, measure) for measure in truth.judge(estimate)]
    for done, (name, n_models) in enumerate(todo, start=1 + len(given)):
        progress(done, n_steps)
        rows += _judged(relations, truth, name, pilots, n_models)
    progress(n_steps, n_steps)
    facts = _facts(truth, len(truth_models), len(pilots))
    shown = [row for name in (EXACT, *names, *given) for row in rows if row["estimator"] == name]
    compared = [{**row, **plain_models(row, rows, truth.reliability), **facts} for row in shown]
    return pa.Table.from_pylist(compared, SCHEMA)


def _facts(truth: Truth, n_truth: int, n_pilots: int) -> dict[str, Any]:
    return {
        "n_pilots": n_pilots,
        "n_truth": n_truth,
        "n_tests": len(truth.tests),
        "n_strong_tests": int(truth.strong_tests.sum()),
        "n_pairs": truth.n_pairs,
        "truth_reliability": truth.reliability,
    }


def _parts(relations: Relations, wanted: Wanted) -> tuple[Ids, Ids]:
    """Return the models of the truth, and the pilots in order."""
    n_models = relations.snapshot.n_models
    if n_models < LEAST_TRUTH + LEAST_PILOTS:
        raise NotEnoughModelsError(
            f"{relations.snapshot.url} has {count(n_models, 'model')}, too few for a truth from some and "
            f"estimates "
            "from others",
            hint=f"train {LEAST_TRUTH + LEAST_PILOTS} at least; a truth worth the name takes a thousand",
        )
    n_truth = max(LEAST_TRUTH, n_models * 2 // 3) if wanted.n_truth is None else wanted.n_truth
    require_count("truth", n_truth, LEAST_TRUTH, n_models - LEAST_PILOTS)
    order = order_of_models(relations.snapshot)
    return order[n_models - n_truth :], order[: n_models - n_truth]


def _tests(relations: Relations, wanted: Wanted) -> Ids:
    n_test = require_examples(relations.snapshot, layout.TEST)
    most = max(1, min(MOST_TESTS, MOST_PAIRS // relations.snapshot.manifest.train.n_examples))
    n_tests = most if wanted.n_tests is None else require_count("tests", wanted.n_tests, 1, most)
    return some_tests(n_test, n_tests)


def _looks(wanted: Sequence[int] | None, n_pilots: int) -> list[int]:
    """Return the numbers of models, ascending."""
    if wanted is not None:
        return sorted({require_count("models", n, LEAST_PILOTS, n_pilots) for n in wanted})
    doubled = (FIRST_LOOK << power for power in range(64))
    usual = [n for n, _ in zip(doubled, range(30), strict=False) if n < n_pilots]
    return [*usual, n_pilots]


def _firsts(wanted: Sequence[int]) -> list[int]:
    return sorted({require_count("k", first, 1, MOST_PAIRS) for first in wanted})


def _given(relations: Relations, scores: Mapping[str, Attribution]) -> dict[str, Given]:
    manifest = relations.snapshot.manifest
    shape = (manifest.set_named(layout.TEST).n_examples, manifest.train.n_examples)
    for title, one in scores.items():
        if title in {EXACT, *ESTIMATORS}:
            raise InvalidInputError(f"scores cannot be called {title!r}", hint="give them another name")
        require_orientation(one, *shape)
    return {title: Given(one) for title, one in scores.items()}


def _ranking(title: str, scores: Given, tests: Ids) -> Estimate:
    """Return somebody's scores on some test examples.

    Raises:
        InvalidInputError: NaN or infinity, or scores that are all equal.
    """
    estimate = scores.on(tests)
    values = estimate.values
    if values is not None and values.size and values.min() == values.max():
        raise InvalidInputError(
            f"{title} gives {values.flat[0]:g} to every pair, which ranks none before another",
            hint="give scores that differ",
        )
    return estimate


def _judged(
    relations: Relations, truth: Truth, name: str, pilots: Ids, n_models: int
) -> Iterator[dict[str, Any]]:
    """Yield the measures of an estimator from n_models models, means over several groups of them."""
    kind = ESTIMATORS[name]
    n_groups = 1 if kind.needs_sketches else min(MOST_GROUPS, len(pilots) // n_models)
    groups = [np.sort(pilots[at * n_models : (at + 1) * n_models]) for at in range(n_groups)]
    seconds = [model.seconds for _, model in relations.snapshot.models]
    cost = fmean(math.fsum(seconds[position] for position in group) for group in groups)
    judged: dict[tuple[str, int | None], list[float | None]] = {}
    for group in groups:
        estimates = kind.make(pilots_of(relations, group), relations.outcome)
        for measure, at, value in truth.judge(estimates.on(truth.tests)):
            judged.setdefault((measure, at), []).append(value)
    for (measure, at), values in judged.items():
        known = [value for value in values if value is not None]
        yield _row(name, n_models, cost, Measure(measure, at, fmean(known) if known else None))


def _row(title: str, n_models: int | None, seconds: float | None, measure: Measure) -> dict[str, Any]:
    return {
        "estimator": title,
        "n_models": n_models,
        "seconds": seconds,
        "measure": measure.name,
        "at": measure.at,
        "value": None if measure.value is None else round(measure.value, DIGITS),
    }
