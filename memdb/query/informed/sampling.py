"""Which pairs are calibrated on: all, or some that stand for all of them.

Few pairs of hundreds of millions may have any influence, and a sample that goes by chance alone holds hardly
one of them. So pairs are divided by the strength of their prior. A grid of some training examples times some
test examples stands for the weak ones. The strong ones come from a larger grid, of which nothing but the
prior is computed, which is cheap.

A pair that is drawn counts as the inverse of its chance, so that sums over the sample are unbiased for sums
over all pairs. Chances depend on the prior, never on the raw influences that are fitted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from memdb.query.informed.calibration import Fold, Sample
from memdb.query.informed.evidence import Outcomes
from memdb.query.informed.prior import Prior

UNIFORM = 0.5  # share of the sampled examples that are drawn with equal chances
TILE = 512  # training examples whose priors are in memory at once

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """How many pairs are calibrated on.

    Attributes:
        pairs: of a grid; if there are no more, all.
        strong: of those that the prior finds strongest, about.
    """

    pairs: int = 1 << 22
    strong: int = 1 << 17


BUDGET = Budget()


@dataclass(frozen=True)
class Grid:
    """Some training examples times some test examples, and how many each of them stands for."""

    trains: Ids
    tests: Ids
    of_train: Numbers
    of_test: Numbers

    @classmethod
    def drawn(cls, outcomes: Outcomes, prior: Prior, n_pairs: int) -> Grid:
        """Draw a grid of about ``n_pairs`` pairs; examples whose pairs may be strong are drawn more often.

        Half of the examples are drawn with chances that grow with what the prior `favoured`, half with equal
        ones, which bounds what an example stands for to twice the mean.
        """
        n_train, n_test = len(outcomes.mask), len(outcomes.correct)
        n_rows, n_columns = _sides(n_train, n_test, n_pairs)
        of_train, of_test = prior.favoured()
        trains, tests = drawn(n_train, n_rows, of_train), drawn(n_test, n_columns, of_test)
        return cls(trains[0], tests[0], trains[1], tests[1])

    def __len__(self) -> int:
        return len(self.trains) * len(self.tests)


def sampled(outcomes: Outcomes, prior: Prior, budget: Budget = BUDGET) -> Sample:
    """Return the pairs to calibrate on (see the module); the same snapshot gives the same ones."""
    grid = Grid.drawn(outcomes, prior, budget.pairs)
    predicted = prior.of_folds(grid.trains, grid.tests)
    every = predicted.every()
    folds = []
    for fold in predicted.folds:
        raw, weight = outcomes.of_fold(fold, grid.trains, grid.tests)
        folds.append(Fold(predicted.without(fold).ravel(), raw.ravel(), weight.ravel()))
    stands_for = (grid.of_test[:, None] * grid.of_train).astype(np.float32)
    variance = np.broadcast_to(_variance(outcomes)[grid.tests, None], every.shape)
    weak = Sample(folds, every.ravel(), variance.ravel(), stands_for.ravel())
    if len(grid) == len(outcomes.mask) * len(outcomes.correct):
        return weak
    wide = Grid.drawn(outcomes, prior, prior.most_looked_at)
    centre = float(np.median(every[::7, ::7]))
    strength = np.abs(weak.prior - centre)
    least = float(np.quantile(strength, max(0.0, 1 - budget.strong / len(wide))))
    weak.stands_for[strength > least] = 0  # the strong ones of the larger grid stand for these
    return _joined(weak, _strong(outcomes, prior, wide, centre, least))


def _strong(outcomes: Outcomes, prior: Prior, grid: Grid, centre: float, least: float) -> Sample:
    """Return the pairs of a grid whose prior is further than ``least`` from the centre."""
    priors, tests, trains, stands_for = [], [], [], []
    for start in range(0, len(grid.trains), TILE):
        some = slice(start, start + TILE)
        predicted = prior.of_folds(grid.trains[some], grid.tests)
        every = predicted.every()
        row, column = np.nonzero(np.abs(every - np.float32(centre)) > least)
        at = row, column
        priors.append([every[at], *(predicted.without(fold, at) for fold in predicted.folds)])
        tests.append(grid.tests[row])
        trains.append(grid.trains[some][column])
        stands_for.append(grid.of_test[row] * grid.of_train[some][column])
    test, train = np.concatenate(tests), np.concatenate(trains)
    whole, *others = (np.concatenate(parts) for parts in zip(*priors, strict=True))
    folds = [
        Fold(given, *outcomes.of_pairs(fold, train, test))
        for fold, given in zip(predicted.folds, others, strict=True)
    ]
    return Sample(folds, whole, _variance(outcomes)[test], np.concatenate(stands_for).astype(np.float32))


def _joined(*samples: Sample) -> Sample:
    """Return the pairs of some samples as one."""

    def joined(parts: Sequence[Fold | Sample], *names: str) -> Iterator[Floats]:
        return (np.concatenate([getattr(part, name) for part in parts]) for name in names)

    folds = [
        Fold(*joined(parts, "prior", "raw", "weight"))
        for parts in zip(*(sample.folds for sample in samples), strict=True)
    ]
    return Sample(folds, *joined(samples, "prior", "variance", "stands_for"))


def _variance(outcomes: Outcomes) -> Floats:
    """Return a (1 - a) of every test example."""
    accuracy = outcomes.accuracy(slice(None))
    variance: Floats = (accuracy * (1 - accuracy)).astype(np.float32)
    return variance


def _sides(n_train: int, n_test: int, n_pairs: int) -> tuple[int, int]:
    """Return how many training and test examples a grid of about ``n_pairs`` pairs has."""
    if n_train * n_test <= n_pairs:
        return n_train, n_test
    n_columns = min(n_test, max(isqrt(n_pairs), n_pairs // n_train))
    return min(n_train, n_pairs // n_columns), n_columns


def drawn(n: int, n_drawn: int, favour: NDArray[np.floating] | None) -> tuple[Ids, Numbers]:
    """Draw rows without replacement, some more likely than others; return them with their inverse chances."""
    if n_drawn >= n:
        return np.arange(n), np.ones(n)
    chance = np.full(n, n_drawn / n)
    total = 0.0 if favour is None else float(favour.sum(dtype=np.float64))
    if favour is not None and total > 0:
        chance = UNIFORM * chance + (1 - UNIFORM) * n_drawn * favour / total
        chance = np.minimum(chance, 1.0)
    order = np.random.default_rng(0).permutation(n)
    reached = np.cumsum(chance[order])
    rows = np.sort(order[np.flatnonzero(np.floor(reached) > np.floor(reached - chance[order]))])
    return rows, 1 / chance[rows]
