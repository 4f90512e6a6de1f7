"""The mixture of normals that true effects are modelled by: its fit to z statistics, and what it shrinks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]

BIN = 0.05  # width of the bins of |z|
Z_MOST = 40.0  # larger values are clipped
SPREADS = np.array([0.0] + [0.25 * 2 ** (k / 2) for k in range(14)])  # of true effects, in standard errors
PRIOR_NULLS = 10.0  # pseudo-observations without effect, which regularize the fit
MAX_ROUNDS = 100  # about ten are enough
CLOSE = 1e-6  # relative tolerance of the fit
LEAST = 1e-9  # weights up to this are 0
BINS_AT_ONCE = 128  # histograms are filled up to a multiple of this: fits with as many are made together
MANY = 4  # fits from which on their matrices are solved as one stack


@dataclass(frozen=True)
class Effects:
    """What true effects there are among candidates: a mixture of normals, and how sure it is that any exist.

    Attributes:
        weights: of each of `SPREADS`.
        support: chance that the mixture describes the candidates better than no effect at all does.
    """

    weights: Numbers
    support: float

    @classmethod
    def fitted(cls, histogram: Counts | Numbers) -> Effects:
        """Fit the mixture to a histogram of |z|, and weigh it against no effect."""
        return fitted_effects(histogram[None])[0]

    def factors(self, abs_z: Numbers) -> Numbers:
        """Return by what to multiply scores this many standard errors from 0."""
        return factors_of([self], np.zeros(len(abs_z), dtype=np.int64), abs_z)


def fitted_effects(histograms: Counts | Numbers) -> list[Effects]:
    """Fit a mixture to each of some histograms of |z|, [histograms, bins], and weigh it against no effect.

    A fit to chance alone finds effects, too, in the few largest z. The Bayesian information criterion
    (Schwarz 1978) charges the one parameter more, the share of effects, with a factor of sqrt(n).
    """
    centers, fitted = _centers(), []
    for histogram, weights in zip(histograms, fitted_mixtures(histograms), strict=True):
        used = np.flatnonzero(histogram)
        # without effects the density underflows far out; its logarithm is that of a normal distribution
        gains = np.log(_densities()[used] @ weights) + centers[used] ** 2 / 2
        gain = float(histogram[used] @ gains) + PRIOR_NULLS * math.log(weights[0])
        against = math.log(max(1.0, float(histogram.sum()))) / 2 - gain
        fitted.append(Effects(weights, (1 - math.tanh(against / 2)) / 2))
    return fitted


def binned(abs_z: Numbers, times: Counts | None = None) -> Counts | Numbers:
    """Return a histogram of |z|, weighted by ``times``."""
    histogram: Counts | Numbers = binned_by(np.zeros(len(abs_z), dtype=np.int64), 1, abs_z, times)[0]
    return histogram


def binned_by(groups: Counts, n_groups: int, abs_z: Numbers, times: Counts | None = None) -> Counts | Numbers:
    """Return a histogram of the |z| of each group, [groups, bins], weighted by ``times``."""
    n_bins = int(Z_MOST / BIN)
    bins = np.minimum(abs_z / BIN, n_bins - 1).astype(np.int64) + groups * n_bins
    return np.bincount(bins, times, minlength=n_groups * n_bins).reshape(n_groups, n_bins)


def fitted_mixture(histogram: Counts | Numbers) -> Numbers:
    """Return the maximum-likelihood weights of `SPREADS` given a histogram of |z|."""
    weights: Numbers = fitted_mixtures(histogram[None])[0]
    return weights


def fitted_mixtures(histograms: Counts | Numbers) -> Numbers:
    """Return the maximum-likelihood weights of `SPREADS` given each histogram of |z|, [histograms, spreads].

    Newton steps of all of them are taken together.
    """
    weights = np.empty((len(histograms), len(SPREADS)))
    used = (histograms > 0).sum(axis=1)
    n_bins = -(-np.maximum(used, 1) // BINS_AT_ONCE) * BINS_AT_ONCE
    bins = np.argsort(histograms <= 0, axis=1, kind="stable")  # those that are used come first
    for n in sorted(set(n_bins.tolist())):  # np.unique would import NumPy's masked arrays
        at = np.flatnonzero(n_bins == n)
        counts = np.take_along_axis(histograms[at], bins[at, :n], axis=1)
        weights[at] = _fitted(counts.astype(np.float64), _densities()[bins[at, :n]])
    kept: Numbers = np.where(weights > LEAST, weights, 0.0)
    kept /= kept.sum(axis=1, keepdims=True)
    return kept


def _fitted(counts: Numbers, density: Numbers) -> Numbers:
    """Return weights by Newton steps under a positive lower bound, for histograms with as many bins.

    With weights of 0, large z would have likelihood 0. Expectation maximization converges to the same
    weights, but is still off by a tenth after 200 rounds.
    """
    found = np.empty((len(counts), len(SPREADS)))
    fits, left = _Fits(counts, density), np.arange(len(counts))
    for _ in range(MAX_ROUNDS):
        gradient = fits.gradient()
        done = fits.are_done(gradient)
        if done.any():
            found[left[done]] = fits.weights[done]
            if done.all():
                return found
            fits, left, gradient = fits.part(~done), left[~done], gradient[~done]
        steps = _bounded_steps if len(left) >= MANY else _bounded_steps_one_by_one
        fits.move(steps(fits.weights - LEAST, gradient, fits.curvature()))
    found[left] = fits.weights
    return found


class _Fits:
    """The state of fits of the weights of `SPREADS` to histograms, [fits, bins]."""

    def __init__(self, counts: Numbers, density: Numbers, weights: Numbers | None = None) -> None:
        self._counts, self._roots = counts, np.sqrt(counts)
        self._density = density
        self._totals = counts.sum(axis=1) + PRIOR_NULLS
        self._place(np.full((len(counts), len(SPREADS)), 1 / len(SPREADS)) if weights is None else weights)

    def _place(self, weights: Numbers) -> None:
        self.weights, self._mixed = weights, self._mixture(weights)
        self._likelihood = self._likelihood_of(weights, self._mixed)

    def _mixture(self, weights: Numbers) -> Numbers:
        mixed: Numbers = np.matmul(self._density, weights[:, :, None])[:, :, 0]
        return mixed

    def _likelihood_of(self, weights: Numbers, mixed: Numbers) -> Numbers:
        # the Lagrange multiplier of the constraint that weights sum to 1 equals the total
        fit = np.matmul(self._counts[:, None, :], np.log(mixed)[:, :, None])[:, 0, 0]
        likelihood: Numbers = fit + PRIOR_NULLS * np.log(weights[:, 0]) - self._totals * weights.sum(axis=1)
        return likelihood

    def part(self, chosen: NDArray[np.bool_]) -> _Fits:
        """Return some of the fits."""
        return _Fits(self._counts[chosen], self._density[chosen], self.weights[chosen])

    def gradient(self) -> Numbers:
        """Return the gradient of each likelihood, [fits, spreads]."""
        shares = self._counts / self._mixed
        gradient: Numbers = np.matmul(shares[:, None, :], self._density)[:, 0, :]
        gradient[:, 0] += PRIOR_NULLS / self.weights[:, 0]
        gradient -= self._totals[:, None]
        return gradient

    def are_done(self, gradient: Numbers) -> NDArray[np.bool_]:
        """Tell for which the first-order conditions hold within the tolerance."""
        inner = np.where(self.weights > LEAST, np.abs(gradient), gradient)
        done: NDArray[np.bool_] = inner.max(axis=1) < CLOSE * self._totals
        return done

    def curvature(self) -> Numbers:
        """Return the negated Hessians with a ridge on their diagonals, [fits, spreads, spreads]."""
        scaled = self._density * (self._roots / self._mixed)[:, :, None]
        curvature: Numbers = np.matmul(scaled.transpose(0, 2, 1), scaled)
        diagonal = np.einsum("fss->fs", curvature)  # a view
        diagonal[:, 0] += PRIOR_NULLS / self.weights[:, 0] ** 2
        diagonal += 1e-9 * diagonal.sum(axis=1, keepdims=True) / len(SPREADS)
        return curvature

    def move(self, steps: Numbers) -> None:
        """Take a step in each fit, halved until it does not decrease the likelihood."""
        lengths = np.ones((len(steps), 1))
        while True:
            tried = self.weights + lengths * steps
            worse = self._likelihood_of(tried, self._mixture(tried)) < self._likelihood
            worse |= tried[:, 0] <= self.weights[:, 0] / 10
            worse &= lengths[:, 0] > CLOSE
            if not worse.any():
                break
            lengths[worse] /= 2
        self._place(np.maximum(tried, LEAST))


def _bounded_steps(weights: Numbers, gradient: Numbers, curvature: Numbers) -> Numbers:
    """Return the step to the maximum of each quadratic subject to weights >= 0, by an active-set method."""
    moved, left, steps = np.empty(weights.shape), np.arange(len(weights)), np.zeros(weights.shape)
    free = (weights > 0) | (gradient > 0)
    # where a weight is fixed, a row of the unit matrix says that it does not move
    matrix = np.where(free[:, :, None] & free[:, None, :], curvature, np.eye(len(SPREADS)))
    for _ in range(2 * len(SPREADS)):
        slope = gradient - np.matmul(curvature, steps[:, :, None])[:, :, 0]
        moves = np.linalg.solve(matrix, (slope * free)[:, :, None])[:, :, 0]
        at = weights + steps
        falling = at + moves < 0
        stopped = ~falling.any(axis=1)
        if stopped.any():
            moved[left[stopped]] = (steps + moves)[stopped]
            if stopped.all():
                return moved
            kept = ~stopped
            left, weights, gradient, curvature = left[kept], weights[kept], gradient[kept], curvature[kept]
            matrix, free, steps = matrix[kept], free[kept], steps[kept]
            moves, at, falling = moves[kept], at[kept], falling[kept]
        room = np.divide(at, -moves, out=np.full(at.shape, np.inf), where=falling)
        first, rows = room.argmin(axis=1), np.arange(len(left))
        steps = steps + np.maximum(0.0, room[rows, first])[:, None] * moves
        free[rows, first] = False
        steps[rows, first] = -weights[rows, first]
        matrix[rows, first] = matrix[rows, :, first] = 0.0
        matrix[rows, first, first] = 1.0
    moved[left] = steps
    return moved


def _bounded_steps_one_by_one(weights: Numbers, gradient: Numbers, curvature: Numbers) -> Numbers:
    """Return what `_bounded_steps` does, to the last bit, faster if they are few."""
    return np.stack([_bounded_step(*one) for one in zip(weights, gradient, curvature, strict=True)])


def _bounded_step(weights: Numbers, gradient: Numbers, curvature: Numbers) -> Numbers:
    matrix, step = curvature.copy(), np.zeros(len(weights))
    free = (weights > 0) | (gradient > 0)
    for fixed in (~free).nonzero()[0]:
        _fix(matrix, fixed)
    for _ in range(2 * len(weights)):
        move = np.linalg.solve(matrix, (gradient - curvature @ step) * free)
        at = weights + step
        (falling,) = (at + move < 0).nonzero()
        if len(falling) == 0:
            return step + move
        room = at[falling] / -move[falling]
        nearest = room.argmin()
        step = step + max(0.0, float(room[nearest])) * move
        first = falling[nearest]
        free[first], step[first] = False, -weights[first]
        _fix(matrix, first)
    return step


def _fix(matrix: Numbers, place: np.integer) -> None:
    matrix[place] = matrix[:, place] = 0.0
    matrix[place, place] = 1.0


def factors_of(effects: Sequence[Effects], which: Counts, abs_z: Numbers) -> Numbers:
    """Return by what to multiply scores this many standard errors from 0, given the effects among each."""
    supports = np.array([each.support for each in effects])
    tables = _shrinkage(np.stack([each.weights for each in effects]))
    factors: Numbers = supports[which] * _interpolated(tables, which, abs_z)
    return factors


def shrinkage(abs_z: Numbers, weights: Numbers) -> Numbers:
    """Return the factors that shrink scores to posterior means, given |score| in standard errors."""
    return _interpolated(_shrinkage(weights[None]), np.zeros(len(abs_z), dtype=np.int64), abs_z)


def _shrinkage(weights: Numbers) -> Numbers:
    """Return the factors at the centres of the bins, [mixtures, bins]."""
    most = SPREADS**2 / (1 + SPREADS**2)
    evidence = np.matmul(_densities(), weights[:, :, None])[:, :, 0]
    kept = np.matmul(_densities(), (weights * most)[:, :, None])[:, :, 0]
    # it underflows to 0 where no spread with any weight reaches
    shares: Numbers = np.divide(kept, evidence, out=np.full(evidence.shape, most[-1]), where=evidence > 0)
    return shares


def _interpolated(tables: Numbers, which: Counts, abs_z: Numbers) -> Numbers:
    """Return values between those that a table, one of several, has at the centres of the bins."""
    n_bins = tables.shape[1]
    bin_of = np.clip(abs_z / BIN - 0.5, 0.0, n_bins - 1)
    below = np.minimum(bin_of, n_bins - 2).astype(np.int64)
    part, at = bin_of - below, which * n_bins + below
    values = tables.reshape(-1)
    low = values[at]
    between: Numbers = low + part * (values[at + 1] - low)
    return between


def _centers() -> Numbers:
    return np.asarray((np.arange(int(Z_MOST / BIN)) + 0.5) * BIN, dtype=np.float64)


@lru_cache(maxsize=1)
def _densities() -> Numbers:
    """Return the density of |z| at the centres of the bins for each spread, [bins, spreads]."""
    deviations = np.sqrt(1 + SPREADS**2)
    density: Numbers = np.exp(-((_centers()[:, None] / deviations) ** 2) / 2) / deviations
    return density
