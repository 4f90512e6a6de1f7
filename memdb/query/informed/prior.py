"""The prior: what gradient sketches of a few models and the errors of all models say of every pair.

    prior_iz = mean over sketched models of w_i . w_z  x  (1 - p_i held out)  x  phi(mu_z / sigma_z) / sigma_z

w is a whitened sketch, p_i the mean probability of i's label over the models that held i out, mu_z and
sigma_z mean and standard deviation of z's logit confidence. The kernel of few models times the error of all
is what gains: TRAK's form (Park and others 2023) takes both from the sketched models.

Models are spread over folds, and every part is a sum over folds: a prior that a fold is judged by takes the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.query.informed.products import CPU, Products

FOLDS = 5
RIDGE = 0.05  # of the mean variance of a sketch's entries, added before whitening
MOST_LOGIT = 8.0  # confidences are clipped here: a few certain models would make sigma large
LEAST_VARIANCE = 0.1  # of logit confidences
ROWS = 1024  # of sketches that are float32 at once
LEVELS = 127  # of a whitened sketch's entries, to either side of 0

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]
Ids = NDArray[np.integer] | slice
Folds = Collection[int]
Map = Callable[[Floats], Floats]  # of rows
EVERY: Folds = frozenset(range(FOLDS))
Scores = Callable[[Ids], Floats]
At = tuple[NDArray[np.integer], NDArray[np.integer]]  # rows and columns


class FoldScores(Protocol):
    """Priors of the pairs of some training and test examples, for each fold from the other folds."""

    @property
    def folds(self) -> Sequence[int]:
        """The folds that can be judged: others have sketched models, too."""

    def every(self) -> Floats:
        """Return the priors from the models of all folds, [test, train]."""

    def without(self, fold: int, /, at: At | None = None) -> Floats:
        """Return the priors from the other folds: of all pairs, [test, train], or of some, [pairs]."""


class Prior(Protocol):
    """Scores of pairs that rank influences, in any unit; ``folds`` are those whose models it may use."""

    @property
    def n_sketched(self) -> int:
        """The number of sketched models behind it."""

    @property
    def most_looked_at(self) -> int:
        """Of how many pairs it may be computed to find strong ones."""

    def tile(self, trains: Ids, folds: Folds = EVERY, products: Products = CPU) -> Scores:
        """Return a function from test examples to their priors with some training examples, [test, train]."""

    def of_test(self, test: int) -> Floats:
        """Return the prior of all training examples with one test example, [train]."""

    def of_folds(self, trains: Ids, tests: Ids) -> FoldScores:
        """Return the priors of all pairs of some examples, fold by fold."""

    def favoured(self) -> tuple[Floats | None, Floats | None]:
        """Return how strong an example's pairs may be, [train] and [test]; None where nothing says so."""


def scores(prior: Prior, trains: Ids, tests: Ids, folds: Folds = EVERY) -> Floats:
    """Return the prior of all pairs of some examples, [train, test]."""
    return prior.tile(trains, folds)(tests).T


def dealt(n_models: int, sketched: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int8]:
    """Return the fold of every model, [models], with the sketched ones spread evenly, and then the others."""
    fold_of = np.full(n_models, -1, dtype=np.int8)
    fold_of[sketched] = np.arange(len(sketched)) % FOLDS
    others = np.flatnonzero(fold_of < 0)
    sizes = np.bincount(fold_of[fold_of >= 0], minlength=FOLDS)
    room = np.repeat(np.arange(FOLDS), np.maximum(0, -(-n_models // FOLDS) - sizes))
    fold_of[others] = np.random.default_rng(0).permutation(room)[: len(others)]
    return fold_of


def second_moment(sketches: NDArray[np.floating], inside: NDArray[np.bool_]) -> Numbers:
    """Return the second moment C of one model's sketches with a ridge, [k, k]; 0 where these are.

    It is that of the training examples in the model's subset. ``sketches`` are of the training set,
    [train, k], and ``inside`` says which of it the subset has, [train].
    """
    k = sketches.shape[1]
    moment = np.zeros((k, k))
    rows = np.flatnonzero(inside)
    for start in range(0, len(rows), ROWS):
        some = sketches[rows[start : start + ROWS]].astype(np.float32)
        moment += some.T @ some
    moment /= max(1, len(rows))
    mean = np.trace(moment) / k
    if not mean > 0 or not np.isfinite(mean):
        return np.zeros((k, k))
    moment[np.diag_indices(k)] += RIDGE * mean
    return moment


def whitening(moment: Numbers) -> Floats:
    """Return the matrix that whitens one model's sketches, [k, k]: g times it is w = g C^(-1/2)."""
    if not moment.any():
        return np.zeros_like(moment, dtype=np.float32)
    root = np.linalg.cholesky(np.linalg.inv(moment))  # any root will do: products see C^(-1) alone
    return root.astype(np.float32)


def times(matrix: Floats) -> Map:
    """Return the map that multiplies rows with a matrix."""
    return lambda rows: rows @ matrix


@dataclass(frozen=True)
class Errors:
    """What all models say of single examples, as sums over the models of each fold.

    Attributes:
        held_out: of the probability of the label over the models that held a training example out,
            and the number of those models, [folds, train] each.
        logits: of clipped logit confidences and of their squares, [folds, test] each.
        sizes: the number of models, [folds].
    """

    held_out: tuple[Numbers, Numbers]
    logits: tuple[Numbers, Numbers]
    sizes: NDArray[np.int64]

    @property
    def sums(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """The sums as arrays."""
        return (*self.held_out, *self.logits)

    def error(self, trains: Ids, folds: Folds) -> Floats:
        """Return 1 - p_i: how wrong the models that held an example out are about it, [train]."""
        p, n = (sums[sorted(folds)][:, trains].sum(axis=0) for sums in self.held_out)
        error: Floats = (1 - (p + 0.5) / (n + 1)).astype(np.float32)
        return error

    def sway(self, tests: Ids, folds: Folds) -> Floats:
        """Return phi(mu / sigma) / sigma: the chance that a small push turns a test example, [test]."""
        s, q = (sums[sorted(folds)][:, tests].sum(axis=0) for sums in self.logits)
        n = int(self.sizes[sorted(folds)].sum())
        mean = s / n
        sigma = np.sqrt(np.maximum(q / n - mean**2, LEAST_VARIANCE))
        sway: Floats = (np.exp(-((mean / sigma) ** 2) / 2) / np.sqrt(2 * np.pi) / sigma).astype(np.float32)
        return sway


@dataclass(frozen=True)
class Kernel:
    """Whitened sketches of examples as whole numbers times a scale each, the models of a fold side by side.

    A quarter of float32's bytes, and products that are exact. Rounding moves priors by less than 1 % of their
    spread, which is little beside the noise of the random projection.
    """

    numbers: NDArray[np.int8]  # [examples, models x k]
    scale: Floats  # [examples]

    @classmethod
    def of(cls, sketches: Sequence[NDArray[np.floating]], maps: Sequence[Map]) -> Kernel:
        """Round sketches [models, examples, k], each model's times its own matrix."""
        n_examples, k = sketches[0].shape
        numbers = np.empty((n_examples, len(sketches) * k), dtype=np.int8)
        scale = np.ones(n_examples, dtype=np.float32)
        for start in range(0, n_examples, ROWS):
            rows = slice(start, start + ROWS)
            parts = [
                mapped(values[rows].astype(np.float32)) for mapped, values in zip(maps, sketches, strict=True)
            ]
            gradients = np.concatenate(parts, axis=1)
            largest = np.maximum(gradients.max(axis=1, initial=0.0), -gradients.min(axis=1, initial=0.0))
            scale[rows] = np.where(largest > 0, largest / LEVELS, 1)
            gradients /= scale[rows, None]
            numbers[rows] = np.rint(gradients, out=gradients)
        return cls(numbers, scale)

    def part(self, rows: Ids, columns: slice) -> Kernel:
        """Return some examples, and the entries of some models."""
        return Kernel(np.ascontiguousarray(self.numbers[rows, columns]), self.scale[rows])


@dataclass(frozen=True)
class SketchPrior:
    """The prior from sketches (see the module).

    Attributes:
        train, test: sketches, whose products are whitened; models are ordered by fold.
        n_of_fold: how many of the sketched models each fold has.
        width: entries of one sketch.
    """

    train: Kernel
    test: Kernel
    n_of_fold: Sequence[int]
    width: int
    errors: Errors
    most_looked_at: int = 1 << 24

    @property
    def n_sketched(self) -> int:
        """The number of sketched models."""
        return sum(self.n_of_fold)

    def tile(self, trains: Ids, folds: Folds = EVERY, products: Products = CPU) -> Scores:
        """Return a function from test examples to their priors with some training examples, [test, train]."""
        parts = [
            (columns, products.packed(part.numbers), part.scale)
            for columns in self._columns(folds)
            for part in (self.train.part(trains, columns),)
        ]
        n_models = sum(self.n_of_fold[fold] for fold in folds)
        error = self.errors.error(trains, folds) / np.float32(max(1, n_models))

        def of_tests(tests: Ids) -> Floats:
            sway = self.errors.sway(tests, folds)
            priors = np.zeros((len(sway), len(error)), dtype=np.float32)
            for columns, packed, scale in parts:
                left = self.test.part(tests, columns)
                counts = products.product(left.numbers, packed).astype(np.float32, copy=False)
                priors += counts * (left.scale[:, None] * scale)
            priors *= sway[:, None] * error
            return priors

        return of_tests

    def of_test(self, test: int) -> Floats:
        """Return the prior of all training examples with one test example, [train]; packs one row only."""
        one, every = np.array([test]), slice(None)
        right = self.test.part(one, every)
        counts = CPU.product(self.train.numbers, CPU.packed(right.numbers))[:, 0]
        error, sway = self.errors.error(every, EVERY), self.errors.sway(one, EVERY)
        factors = self.train.scale * error * (right.scale * sway / np.float32(self.n_sketched))
        priors: Floats = (counts * factors).astype(np.float32)
        return priors

    def _columns(self, folds: Folds) -> list[slice]:
        """Return the entries of the models of some folds: in one piece if these are all that there are."""
        if all(n == 0 for fold, n in enumerate(self.n_of_fold) if fold not in folds):
            return [slice(0, self.n_sketched * self.width)]
        stops = np.cumsum(self.n_of_fold) * self.width
        return [
            slice(int(stops[fold]) - self.n_of_fold[fold] * self.width, int(stops[fold]))
            for fold in sorted(folds)
            if self.n_of_fold[fold]
        ]

    def of_folds(self, trains: Ids, tests: Ids) -> SketchScores:
        """Return the priors of all pairs of some examples, fold by fold."""
        stops = np.cumsum(self.n_of_fold) * self.width
        products = {}
        for fold, n_models in enumerate(self.n_of_fold):
            if n_models:
                columns = slice(int(stops[fold]) - n_models * self.width, int(stops[fold]))
                left, right = self.test.part(tests, columns), self.train.part(trains, columns)
                products[fold] = np.asarray(CPU.product(left.numbers, CPU.packed(right.numbers)))
        return SketchScores(self, trains, tests, products)

    def favoured(self) -> tuple[Floats, Floats]:
        """Return how strong an example's pairs may be: its error or sway times the size of its sketches."""
        every = slice(None)
        error, sway = self.errors.error(every, EVERY), self.errors.sway(every, EVERY)
        return self.train.scale * error, self.test.scale * sway


@dataclass(frozen=True)
class SketchScores:
    """Priors from sketches of some pairs: products of each fold, from which those of the others follow."""

    prior: SketchPrior
    trains: Ids
    tests: Ids
    products: Mapping[int, NDArray[np.number[Any]]]  # by fold, [test, train]

    @property
    def folds(self) -> Sequence[int]:
        """The folds that can be judged."""
        return [fold for fold in range(FOLDS) if set(self.products) - {fold}]

    def every(self) -> Floats:
        """Return the priors from the models of all folds, [test, train]."""
        return self._of(EVERY, None)

    def without(self, fold: int, at: At | None = None) -> Floats:
        """Return the priors from the other folds: of all pairs, [test, train], or of some, [pairs]."""
        return self._of(set(EVERY) - {fold}, at)

    def _of(self, folds: Folds, at: At | None) -> Floats:
        prior, chosen = self.prior, [values for fold, values in self.products.items() if fold in folds]
        total: Any = chosen[0] if at is None else chosen[0][at]
        for values in chosen[1:]:
            total = total + (values if at is None else values[at])
        n_models = np.float32(sum(prior.n_of_fold[fold] for fold in folds))
        left = prior.test.scale[self.tests] * prior.errors.sway(self.tests, folds) / n_models
        right = prior.train.scale[self.trains] * prior.errors.error(self.trains, folds)
        factors = left[:, None] * right if at is None else left[at[0]] * right[at[1]]
        found: Floats = total.astype(np.float32) * factors
        return found


@dataclass(frozen=True)
class GivenPrior:
    """A user's own scores [train, test]: none of the store's models is behind them."""

    given: NDArray[np.floating]
    n_sketched: int = 0
    most_looked_at: int = 1 << 40  # all of them: there is nothing to compute

    def tile(self, trains: Ids, folds: Folds = EVERY, products: Products = CPU) -> Scores:  # noqa: ARG002
        """Return a function from test examples to their scores with some training examples, [test, train]."""
        return lambda tests: np.asarray(self.given[:, tests][trains].T, dtype=np.float32)

    def of_test(self, test: int) -> Floats:
        """Return the scores of all training examples with one test example, [train]."""
        return np.asarray(self.given[:, test], dtype=np.float32)

    def of_folds(self, trains: Ids, tests: Ids) -> GivenScores:
        """Return the same scores for every fold."""
        return GivenScores(self.tile(trains)(tests))

    def favoured(self) -> tuple[None, None]:
        """Say nothing of single examples."""
        return None, None


@dataclass(frozen=True)
class GivenScores:
    """A user's own scores of some pairs, [test, train]."""

    given: Floats
    folds: Sequence[int] = range(FOLDS)

    def every(self) -> Floats:
        """Return them."""
        return self.given

    def without(self, _fold: int, /, at: At | None = None) -> Floats:
        """Return all or some of them."""
        return self.given if at is None else self.given[at]
