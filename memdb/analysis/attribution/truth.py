"""What influences truly are, from models that no estimator has seen, and how far estimates are from it.

The truth is itself an estimate. Its two halves, of different models, are two looks at the same influences
with independent noise. That is taken out of correlations by how alike the halves are (Spearman 1904), of
errors and coverage by its variance; pairs that are chosen for being strong in one half are judged by the
other. Means of the truth over pairs that an estimate chose need no correction. No correction is known for
the shares of strongest pairs that come first, so what exact influences would score is simulated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist, fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.attribution.estimates import Arms, Estimate, Floats, Ids
from memdb.analysis.attribution.pilots import pilots_of
from memdb.format import bits, layout
from memdb.query.mixture import LEAST, SPREADS, Effects, binned
from memdb.query.relations import Relations

TOP = 10  # training examples of a test example
STRONG = 0.05  # mean influence of those: test examples below have no influences to be found
FAINT = 0.01  # reliability that says nothing
CORRELATION, PRECISION, TOP_OF_TEST, STRENGTH = "correlation", "precision", "top_10", "strength"
ERROR, COVERAGE, COVERAGE_OF_FIRST = "error", "coverage", "coverage_of_first"
CERTIFIED, CERTIFIED_STRENGTH = "certified", "certified_strength"
FELDMAN_ZHANG = "feldman_zhang"
INFLUENTIAL, MEMORIZED = 0.15, 0.25  # from which on Feldman and Zhang (2020) select pairs of one class
FEWEST_SELECTED = 10  # of which a share says something
SEED, DRAWS = 0, 3  # of exact influences
GROUP_QUANTILES = (0.5, 0.8, 0.93, 0.98, 0.995)
FEWEST = 500  # pairs of a group
TINY = 1e-9
Numbers = NDArray[np.float64]
Some = NDArray[np.floating]


class Measure(NamedTuple):
    """A measure of quality: its name, of how many first pairs it is, if it is of those, and its value."""

    name: str
    at: int | None
    value: float | None


@dataclass(frozen=True)
class Truth:
    """Influences on some test examples from two halves of the models set apart for it.

    Attributes:
        tests: the ids of the test examples, ascending.
        columns: the training examples that some models of each half had and others had not.
        test_labels, train_labels: of these.
        values: the influence in each half, [2, tests, columns].
        noise: its variance, likewise.
        memorized: which of the columns are memorized.
        firsts: how many of the strongest pairs are looked at, ascending.
        level: of the intervals whose coverage is measured.
    """

    tests: Ids
    columns: Ids
    test_labels: NDArray[np.int32]
    train_labels: NDArray[np.int32]
    values: tuple[Floats, Floats]
    noise: tuple[Floats, Floats]
    memorized: NDArray[np.bool_]
    firsts: Sequence[int]
    level: float

    @classmethod
    def of(cls, relations: Relations, models: Ids, tests: Ids, firsts: Sequence[int], level: float) -> Truth:
        """Compute the influences from these models, of which every other one is in the same half."""
        arms = [
            Arms.of(pilots_of(relations, half), relations.outcome, tests)
            for half in (models[::2], models[1::2])
        ]
        columns = np.flatnonzero(arms[0].has_score & arms[1].has_score)
        values, noise = [], []
        for half in arms:
            rows = range(len(tests))
            values.append(_stacked([half.influence(row)[columns] for row in rows], len(columns)))
            noise.append(_stacked([half.sampling_variance(row)[columns] for row in rows], len(columns)))
        n_pairs = len(tests) * len(columns)
        within = [first for first in firsts if first < n_pairs]
        of_tests, of_trains = (relations.examples[name].labels for name in (layout.TEST, layout.TRAIN))
        return cls(
            tests,
            columns,
            of_tests[tests],
            of_trains[columns],
            (values[0], values[1]),
            (noise[0], noise[1]),
            _memorization(pilots_of(relations, models))[columns] >= MEMORIZED,
            within,
            level,
        )

    @property
    def n_pairs(self) -> int:
        """How many pairs are judged."""
        return len(self.tests) * len(self.columns)

    @cached_property
    def strong_tests(self) -> NDArray[np.bool_]:
        """Test examples whose strongest training examples by one half are strong by the other, too."""
        gains = [
            np.take_along_axis(other, _top_of_rows(one), axis=1).mean(axis=1)
            for one, other in (self.values, self.values[::-1])
        ]
        strong: NDArray[np.bool_] = (gains[0] + gains[1]) / 2 > STRONG
        return strong

    @cached_property
    def whole(self) -> Floats:
        """The influences in all models of the truth, [tests, columns]."""
        mean: Floats = (self.values[0] + self.values[1]) / np.float32(2)
        return mean

    @cached_property
    def reliability(self) -> float:
        """The share of the variance of the truth that is not noise (Spearman 1910, Brown 1910)."""
        alike = _correlation(*self.values)
        return max(0.0, 2 * alike / (1 + alike))

    def judge(self, estimate: Estimate) -> list[Measure]:
        """Return how good an estimate for these test examples is; None if nothing can be said."""
        if estimate.values is None:
            return self._certified(estimate)
        values = estimate.values[:, self.columns]
        ranked = values if estimate.ranked is None else estimate.ranked[:, self.columns]
        measures = [
            Measure(CORRELATION, None, self._correlation(ranked)),
            *self._ranking(ranked, self._first),
        ]
        for first in self.firsts:
            strength = self.whole.ravel()[_first(ranked, first)].mean(dtype=np.float64)
            measures.append(Measure(STRENGTH, first, float(strength)))
        if estimate.is_influence:
            measures += [Measure(ERROR, first, self._error(values, first)) for first in self.firsts]
        if estimate.lo is not None and estimate.hi is not None:
            measures += self._coverage(ranked, estimate.lo[:, self.columns], estimate.hi[:, self.columns])
        return measures + self._certified(estimate)

    def judge_exact(self) -> list[Measure]:
        """Return what the true influences themselves would score against a truth with as much noise.

        Influences are drawn from their posteriors given this truth, and another truth is drawn about them.
        """
        rng = np.random.Generator(np.random.Philox(key=SEED))
        centre, error = self._means_of_classes(), np.sqrt((self.noise[0] + self.noise[1]) / 4)
        z = np.divide(self.whole - centre, error, out=np.zeros_like(error), where=error > 0)
        groups = self._groups(centre, error)
        effects = [
            Effects.fitted(binned(np.abs(z[groups == group]).astype(np.float64)))
            for group in range(int(groups.max(initial=-1)) + 1)
        ]
        draws = []
        for _ in range(DRAWS):
            exact = centre.copy()
            for row, group in itertools.product(range(len(z)), range(len(effects))):
                pairs = np.flatnonzero(groups[row] == group)
                steps = _posterior_draw(effects[group], z[row, pairs].astype(np.float64), rng)
                exact[row, pairs] += (error[row, pairs] * steps).astype(np.float32)
            again = exact + error * rng.standard_normal(error.shape, dtype=np.float32)
            strongest = {first: _first(again, first) for first in self.firsts}
            draws.append(list(self._ranking(exact, strongest, again)))
        return [
            Measure(same[0].name, same[0].at, fmean(m.value for m in same if m.value is not None))
            for same in zip(*draws, strict=True)
        ]

    def _groups(self, centre: Floats, error: Floats) -> NDArray[np.int8]:
        """Return groups of pairs with influences of alike size, [tests, columns]; -1 where none can show.

        Some test examples are swayed more than others, and some training examples sway more. How much shows
        in products of both halves, whose noise has mean 0.
        """
        product = (self.values[0] - centre) * (self.values[1] - centre)
        of_tests, of_trains = (np.maximum(product.mean(axis=axis), 0) for axis in (1, 0))
        size = of_tests[:, None] * of_trains / np.maximum(error, np.float32(TINY)) ** 2
        groups = np.full(size.shape, -1, dtype=np.int8)
        for stratum in (~self.same_class & (error > 0), self.same_class & (error > 0)):
            if stratum.any():
                enough = [share for share in GROUP_QUANTILES if (1 - share) * stratum.sum() >= FEWEST]
                edges = np.quantile(size[stratum], enough)
                groups[stratum] = groups.max() + 1 + np.searchsorted(edges, size[stratum])
        return groups

    def _means_of_classes(self) -> Floats:
        """Return the mean influence of a pair's training class on its test example, [tests, columns].

        Means of few examples are drawn towards 0 as far as noise explains them.
        """
        variance = (self.noise[0] + self.noise[1]) / 4
        centre = np.empty_like(self.whole)
        classes, of_column = np.unique(self.train_labels, return_inverse=True)
        for label in range(len(classes)):
            inside = of_column == label
            means, noise = self.whole[:, inside].mean(axis=1), variance[:, inside].mean(axis=1) / inside.sum()
            square = float(np.square(means).mean())
            kept = max(0.0, 1 - float(noise.mean()) / square) if square > 0 else 0.0
            centre[:, inside] = kept * means[:, None]
        return centre

    @property
    def same_class(self) -> NDArray[np.bool_]:
        """Whether the examples of a pair share their label, [tests, columns]."""
        shared: NDArray[np.bool_] = self.test_labels[:, None] == self.train_labels
        return shared

    def _ranking(
        self, ranked: Some, strongest: Mapping[int, Ids], truth: Some | None = None
    ) -> Iterator[Measure]:
        """Yield which shares of the strongest pairs of a truth come first."""
        for first in self.firsts:
            hits = np.intersect1d(_first(ranked, first), strongest[first])
            yield Measure(PRECISION, first, len(hits) / first)
        strong = self.strong_tests
        if strong.any() and len(self.columns) > TOP:
            one = _top_of_rows(ranked[strong])
            other = _top_of_rows((self.whole if truth is None else truth)[strong])
            yield Measure(TOP_OF_TEST, TOP, float((one[:, :, None] == other[:, None, :]).any(axis=2).mean()))
        n_selected = int(self._selected(self.whole).sum())
        if n_selected >= FEWEST_SELECTED:
            selected = self._selected(self.whole if truth is None else truth)
            chosen = _first(np.where(self.same_class, ranked, -np.inf), max(1, int(selected.sum())))
            yield Measure(FELDMAN_ZHANG, n_selected, float(selected.ravel()[chosen].mean()))

    def _selected(self, truth: Some) -> NDArray[np.bool_]:
        """Return the pairs that Feldman and Zhang (2020) would select by a truth, [tests, columns]."""
        selected: NDArray[np.bool_] = self.same_class & self.memorized & (truth >= INFLUENTIAL)
        return selected

    def _certified(self, estimate: Estimate) -> list[Measure]:
        """Return how many pairs were certified, and their mean true influence."""
        if estimate.certified is None:
            return []
        rows, trains = estimate.certified
        column_of = np.full(int(max(trains.max(initial=0), self.columns.max(initial=0))) + 1, -1)
        column_of[self.columns] = np.arange(len(self.columns))
        judged = column_of[trains] >= 0
        true = self.whole[rows[judged], column_of[trains[judged]]]
        strength = float(true.mean(dtype=np.float64)) if len(true) else None
        return [
            Measure(CERTIFIED, None, float(len(true))),
            Measure(CERTIFIED_STRENGTH, None, strength),
        ]

    def _correlation(self, ranked: Some) -> float | None:
        if self.reliability <= FAINT:
            return None
        return min(1.0, _correlation(ranked, self.whole) / math.sqrt(self.reliability))

    @cached_property
    def _first(self) -> dict[int, Ids]:
        return {first: _first(self.whole, first) for first in self.firsts}

    @cached_property
    def _first_of_halves(self) -> list[dict[int, Ids]]:
        return [{first: _first(values, first) for first in self.firsts} for values in self.values]

    def _error(self, values: Some, first: int) -> float:
        """Return the root mean squared error on the strongest pairs, without the noise of the truth."""
        squares = []
        for chooser, judge in ((0, 1), (1, 0)):
            pairs = self._first_of_halves[chooser][first]
            off = values.ravel()[pairs].astype(np.float64) - self.values[judge].ravel()[pairs]
            squares.append(float((off**2).mean() - self.noise[judge].ravel()[pairs].mean(dtype=np.float64)))
        return math.sqrt(max(0.0, sum(squares) / 2))

    def _coverage(self, ranked: Some, lo: Floats, hi: Floats) -> Iterator[Measure]:
        """Yield how many intervals, widened by the noise of the truth, hold it: of all, and of the first.

        Pairs are not chosen by the truth, so that all its models judge them: the noise of half as many is
        larger, and less like a normal. Test examples that all models of the truth get right, or all get
        wrong, say nothing of intervals: any that holds 0 holds their influences. They are excluded.
        """
        z = NormalDist().inv_cdf((1 + self.level) / 2)
        held = np.zeros(lo.shape, dtype=np.float32)
        for row, (low, high, true) in enumerate(zip(lo, hi, self.whole, strict=True)):
            noise = (self.noise[0][row] + self.noise[1][row]) / 4
            widening = np.sqrt(np.square(high - low) / 4 + z * z * noise) - (high - low) / 2
            held[row] = (low - widening <= true) & (true <= high + widening)
        varies = np.flatnonzero((self.noise[0] + self.noise[1]).max(axis=1, initial=0.0))
        of_all = float(held[varies].mean(dtype=np.float64)) if len(varies) else None
        yield Measure(COVERAGE, None, of_all)
        for first in self.firsts:
            pairs = _first(ranked, first)
            pairs = pairs[np.isin(pairs // len(self.columns), varies)]
            of_first = float(held.ravel()[pairs].mean()) if len(pairs) else None
            yield Measure(COVERAGE_OF_FIRST, first, of_first)


def _memorization(relations: Relations) -> Numbers:
    """Return the memorization of every training example, 0 where it is not known, [train]."""
    mask, correct = relations.mask, relations.correct(layout.TRAIN)
    n_in, k_in = bits.count(mask).astype(np.float64), bits.count(mask & correct)
    n_out, k_out = relations.snapshot.n_models - n_in, bits.count(correct) - k_in
    score: Numbers = k_in / np.maximum(n_in, 1) - k_out / np.maximum(n_out, 1)
    return np.where((n_in > 0) & (n_out > 0), score, 0.0)


def _stacked(rows: list[NDArray[np.float64]], width: int) -> Floats:
    return np.stack(rows).astype(np.float32) if rows else np.empty((0, width), dtype=np.float32)


def _first(values: Some, first: int) -> Ids:
    """Return the flat positions of the largest values."""
    return np.argpartition(-values.ravel(), first - 1)[:first]


def _top_of_rows(values: Some) -> Ids:
    """Return the positions of the largest values of each row, [rows, `TOP`]."""
    top = min(TOP, values.shape[1])
    if top in {0, values.shape[1]}:
        return np.tile(np.arange(top), (len(values), 1))
    return np.argpartition(-values, top - 1, axis=1)[:, :top]


def _correlation(one: Some, other: Some) -> float:
    """Return Pearson's correlation; 0 where one of them does not vary."""
    deviations = [values.astype(np.float64) - values.mean(dtype=np.float64) for values in (one, other)]
    scale = math.sqrt(np.vdot(deviations[0], deviations[0]) * np.vdot(deviations[1], deviations[1]))
    return float(np.vdot(*deviations)) / scale if scale > 0 else 0.0


def _posterior_draw(effects: Effects, z: Numbers, random: np.random.Generator) -> Numbers:
    """Draw true effects, in standard errors, from their posteriors given z."""
    deviations = np.sqrt(1 + SPREADS**2)
    weights = effects.weights * effects.support + (1 - effects.support) * (SPREADS == 0)
    logs = np.log(np.maximum(weights, LEAST)) - np.log(deviations) - (z[:, None] / deviations) ** 2 / 2
    chances = np.exp(logs - logs.max(axis=1, keepdims=True)).cumsum(axis=1)
    spread = SPREADS[(random.random((len(z), 1)) * chances[:, -1:] > chances).sum(axis=1)]
    most = spread**2 / (1 + spread**2)
    drawn: Numbers = most * z + np.sqrt(most) * random.standard_normal(len(z))
    return drawn
