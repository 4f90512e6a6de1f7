"""The linear datamodeling score: do attribution scores predict the outcomes of models on other subsets?

For a test example z and a model trained on the subset S, attribution scores predict the outcome as the sum of
tau[z, i] over i in S. The score (Park and others, 2023) is Spearman's correlation of predicted and actual
outcomes over models. Its intervals are percentiles of a bootstrap over models, with the same resamples for
all test examples, since they share the models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.analysis.attribution.estimates import Attribution, Estimate, Estimates, Given
from memdb.analysis.attribution.linear_share import LinearShare, linear_share
from memdb.analysis.attribution.model_outcomes import outcomes_on_tests, positions_of, require_test_outcome
from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.examples import require_examples
from memdb.query.relations import Relations

TESTS_AT_ONCE = 64
TRAINS_AT_ONCE = 2048
MAX_RESAMPLES = 10_000
FACT_DIGITS = 9  # of a share; its error is far larger, and the rest is how sums were rounded
RESOLUTION = 2.0**-40  # relative to the sum of magnitudes: far above rounding errors, far below what matters
Ids = NDArray[np.int64]
Numbers = NDArray[np.float64]
Progress = Callable[[int, int], None]
Row = tuple[float | None, float | None, float | None]  # lds, lo, hi


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """The options of the bootstrap over models."""

    n_resamples: int = 200
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if not 1 <= self.n_resamples <= MAX_RESAMPLES:
            raise InvalidInputError(
                f"resamples {self.n_resamples} is not a number from 1 to {MAX_RESAMPLES:,}",
                hint="use e.g. resamples=200",
                parameter="resamples",
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidInputError(
                f"seed {self.seed} is out of range", hint="use one from 0 to 2**64 - 1", parameter="seed"
            )

    def counts(self, n_models: int) -> NDArray[np.int64]:
        """Return the multiplicity of each model in each resample, [resamples, models]."""
        rng = np.random.Generator(np.random.Philox(key=self.seed))
        drawn = rng.integers(0, n_models, size=(self.n_resamples, n_models))
        return np.stack([np.bincount(row, minlength=n_models) for row in drawn])

    def interval(self, values: Numbers) -> tuple[float | None, float | None]:
        """Return the percentiles of values over resamples, without NaN; None if all are NaN."""
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return None, None
        lo, hi = np.quantile(known, [(1 - self.level) / 2, (1 + self.level) / 2])
        return float(lo), float(hi)


@dataclass(frozen=True, slots=True)
class Exam:
    """What scores are graded on: an outcome of models that they know nothing of, on some test examples.

    Attributes:
        chosen: the positions of the models.
        tests: the ids of the test examples, ascending.
    """

    relations: Relations
    outcome: str
    chosen: Ids
    tests: Ids
    bootstrap: Bootstrap

    def grade(self, scores: Estimates, progress: Progress = lambda _done, _total: None) -> Grades:
        """Grade scores.

        Raises:
            InvalidInputError: scores that are NaN or infinite.
        """
        counts = self.bootstrap.counts(len(self.chosen))
        rows: list[Row] = []
        total = np.zeros((2, self.bootstrap.n_resamples))
        for start in range(0, len(self.tests), TESTS_AT_ONCE):
            progress(start, len(self.tests))
            tests = self.tests[start : start + TESTS_AT_ONCE]
            predicted = self._predictions(scores.on(tests))
            actual = outcomes_on_tests(self.relations, self.outcome, tests)[:, self.chosen]
            for one, other in zip(predicted, actual, strict=True):
                value = spearman(one, other, np.ones((1, len(self.chosen)), dtype=np.int64))[0]
                again = spearman(one, other, counts)
                rows.append((None if np.isnan(value) else float(value), *self.bootstrap.interval(again)))
                known = ~np.isnan(again)
                total += [np.where(known, again, 0), known]
        progress(len(self.tests), len(self.tests))
        return Grades(rows, total, self.bootstrap)

    def _predictions(self, scores: Estimate) -> Numbers:
        """Return the sum of the scores over each model's subset, [tests, models]."""
        assert scores.values is not None  # noqa: S101 - only estimators with scores are graded
        given = _scaled(scores.values.astype(np.float64))
        predicted = np.zeros((len(given), len(self.chosen)))
        mask, n_models = self.relations.mask, self.relations.snapshot.n_models
        for first in range(0, len(mask), TRAINS_AT_ONCE):
            part = slice(first, min(len(mask), first + TRAINS_AT_ONCE))
            inside = bits.unpack(mask[part].view(np.uint8), n_models)[self.chosen]
            predicted += given[:, part] @ inside.T.astype(np.float64)
        return _without_rounding(predicted, given)


@dataclass(frozen=True, slots=True)
class Grades:
    """Grades on each test example, with intervals, and the sums of each resample over test examples."""

    rows: Sequence[Row]
    total: Numbers
    bootstrap: Bootstrap

    def means(self) -> dict[str, float | None]:
        """Return the mean over test examples with a grade, its interval, and how many these are."""
        scores = np.array([value for value, _, _ in self.rows if value is not None])
        sums, known = self.total
        means = np.divide(sums, known, out=np.full(len(sums), np.nan), where=known > 0)
        lo, hi = self.bootstrap.interval(means)
        return {
            "mean_lds": float(scores.mean()) if len(scores) else None,
            "mean_lo": lo if len(scores) else None,
            "mean_hi": hi if len(scores) else None,
            "n_scored": len(scores),
        }


def lds(
    relations: Relations,
    scores: Attribution,
    outcome: str | None,
    model_ids: Sequence[str] | None,
    bootstrap: Bootstrap,
    progress: Progress = lambda _done, _total: None,
) -> pa.Table:
    """Return one row per test example, with the mean over test examples and its ceiling in every row.

    ``lds`` is NULL where all predictions or all outcomes are equal; ``mean_lds`` is the mean of the others.
    The ceiling is that of all models of the store (see `linear_share`); NULL where they are too few.

    Raises:
        InvalidInputError: scores of another shape, NaN or infinity, or unknown models.
        NotEnoughModelsError: fewer than five models.
    """
    snapshot = relations.snapshot
    require_examples(relations.snapshot, layout.TEST)
    n_train, n_test = (snapshot.manifest.set_named(name).n_examples for name in (layout.TRAIN, layout.TEST))
    require_orientation(scores, n_test, n_train)
    name = require_test_outcome(snapshot, outcome)
    chosen = positions_of(snapshot, model_ids)
    grades = Exam(relations, name, chosen, np.arange(n_test), bootstrap).grade(Given(scores), progress)
    share = linear_share(relations, name, bootstrap.level)
    means = grades.means()
    facts = {**means, "n_held_out": len(chosen), "outcome": name, **ceiling_facts(share)}
    facts["of_ceiling"] = of_ceiling(means["mean_lds"], share)
    return _table(relations, grades.rows, facts)


def ceiling_facts(share: LinearShare | None) -> dict[str, float | None]:
    """Return the linear share of a store, a check of it, and its ceiling, by name; None if unknown."""
    names = ("h2", "h2_lo", "h2_hi", "h2_permuted", "h2_permuted_se", "ceiling", "ceiling_lo", "ceiling_hi")
    if share is None:
        return dict.fromkeys(names)
    values = [share.h2, share.lo, share.hi, share.permuted, share.permuted_se, share.ceiling]
    known = [*values, *share.ceiling_interval]
    return {name: round(value, FACT_DIGITS) for name, value in zip(names, known, strict=True)}


def of_ceiling(mean: float | None, share: LinearShare | None) -> float | None:
    """Return the share of the ceiling that a mean score reaches; None where no ceiling is told from 0."""
    if mean is None or share is None or share.ranked_lo <= 0:
        return None
    return mean / share.ceiling


def _table(relations: Relations, rows: Sequence[Row], facts: Mapping[str, float | str | None]) -> pa.Table:
    test = relations.examples[layout.TEST]
    columns: dict[str, Any] = {"test_id": np.arange(len(rows), dtype=np.int32), "label": test.labels}
    for name, values in zip(("lds", "lo", "hi"), zip(*rows, strict=True), strict=True):
        columns[name] = _numbers(values)
    for name, value in facts.items():
        if isinstance(value, str):
            columns[name] = arrow.text([value] * len(rows))
        elif name.startswith("n_"):
            columns[name] = np.full(len(rows), value, dtype=np.int32)
        else:
            columns[name] = _numbers([value] * len(rows))
    return arrow.table(columns)


def _numbers(values: Sequence[float | None]) -> pa.Array:
    known = np.array([value is not None for value in values], dtype=np.bool_)
    return arrow.column(np.array([value or 0.0 for value in values], dtype=np.float64), known)


def require_orientation(scores: Attribution, n_test: int, n_train: int) -> None:
    """Check that scores have the shape [test, train].

    Raises:
        InvalidInputError: they do not; the hint says so if they are transposed.
    """
    if scores.shape == (n_test, n_train):
        return
    shape = ", ".join(f"{n:,}" for n in scores.shape)
    turned = scores.shape == (n_train, n_test)
    raise InvalidInputError(
        f"{scores.place} has shape ({shape}); expected ({n_test:,}, {n_train:,}): a row a test "
        "example, a column a training example",
        hint="it is the other way round: save `scores.T`" if turned else "give one score for every pair",
    )


def _scaled(given: Numbers) -> Numbers:
    """Scale the scores of each test example by a power of two, so that their sums cannot overflow."""
    _, exponent = np.frexp(np.abs(given).max(axis=1, keepdims=True))
    scaled: Numbers = np.ldexp(given, -exponent)
    return scaled


def _without_rounding(predicted: Numbers, given: Numbers) -> Numbers:
    """Quantize sums of scores, so that those that differ only by the order of summation become ties."""
    step = np.abs(given).sum(axis=1, keepdims=True) * RESOLUTION
    steps: Numbers = np.divide(predicted, step, out=np.zeros_like(predicted), where=step > 0)
    return np.rint(steps)


def spearman(one: Numbers, other: Numbers, counts: NDArray[np.int64]) -> Numbers:
    """Return Spearman's correlation of two rows in each resample, given by multiplicities; NaN if undefined.

    Ties get the mean of their ranks. Values are sorted only once, since resamples differ in multiplicities.
    """
    n = counts.sum(axis=1, keepdims=True)
    a, b = (_ranks(values, counts) - (n + 1) / 2 for values in (one, other))
    covariance = (counts * a * b).sum(axis=1)
    scale = np.sqrt((counts * a * a).sum(axis=1) * (counts * b * b).sum(axis=1))
    correlation: Numbers = np.divide(covariance, scale, out=np.full(len(counts), np.nan), where=scale > 0)
    return correlation


def _ranks(values: Numbers, counts: NDArray[np.int64]) -> Numbers:
    """Return the mean ranks of values with these multiplicities, [resamples, models]."""
    unique, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(unique)))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)  # of each group of ties
    last = np.cumsum(sizes, axis=1)
    mean: Numbers = last - (sizes - 1) / 2
    return mean[:, group]
