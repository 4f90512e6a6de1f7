"""The mixture of normals that true effects are modelled by: its fit to z statistics, and what it shrinks."""

from __future__ import annotations

import math
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
        """Fit the mixture to a histogram of |z|, and weigh it against no effect.

        A fit to chance alone finds effects, too, in the few largest z. The Bayesian information criterion
        (Schwarz 1978) charges the one parameter more, the share of effects, with a factor of sqrt(n).
        """
        weights = fitted_mixture(histogram)
        used = np.flatnonzero(histogram)
        density = _densities()[used]
        gain = histogram[used] @ np.log(density @ weights / density[:, 0]) + PRIOR_NULLS * np.log(weights[0])
        against = math.log(max(1.0, float(histogram.sum()))) / 2 - float(gain)
        return cls(weights, (1 - math.tanh(against / 2)) / 2)

    def factors(self, abs_z: Numbers) -> Numbers:
        """Return by what to multiply scores this many standard errors from 0."""
        return self.support * shrinkage(abs_z, self.weights)


def binned(abs_z: Numbers, times: Counts | None = None) -> Counts | Numbers:
    """Return a histogram of |z|, weighted by ``times``."""
    bins = np.minimum(abs_z / BIN, Z_MOST / BIN - 1).astype(np.int64)
    return np.bincount(bins, times, minlength=int(Z_MOST / BIN))


def fitted_mixture(histogram: Counts | Numbers) -> Numbers:
    """Return the maximum-likelihood weights of `SPREADS` given a histogram of |z|.

    Newton steps under a positive lower bound on the weights: with weights of 0, large z would have likelihood
    0. Expectation maximization converges to the same weights, but is still off by a tenth after 200 rounds.
    """
    fit = _Fit(histogram)
    for _ in range(MAX_ROUNDS):
        gradient = fit.gradient()
        if fit.is_done(gradient):
            break
        fit.move(_bounded_step(fit.weights - LEAST, gradient, fit.curvature()))
    kept: Numbers = np.where(fit.weights > LEAST, fit.weights, 0.0)
    kept /= kept.sum()
    return kept


class _Fit:
    """The state of the fit of the weights of `SPREADS`."""

    def __init__(self, histogram: Counts | Numbers) -> None:
        used = np.flatnonzero(histogram)
        self._density, self._counts = _densities()[used], histogram[used].astype(np.float64)
        self._roots = np.sqrt(self._counts)
        self._total = float(self._counts.sum() + PRIOR_NULLS)
        self._place(np.full(len(SPREADS), 1 / len(SPREADS)))

    def _place(self, weights: Numbers) -> None:
        self.weights, self._mixed = weights, self._density @ weights
        self._likelihood = self._likelihood_of(weights, self._mixed)

    def _likelihood_of(self, weights: Numbers, mixed: Numbers) -> float:
        # the Lagrange multiplier of the constraint that weights sum to 1 equals the total
        fit = self._counts @ np.log(mixed) + PRIOR_NULLS * math.log(weights[0])
        return float(fit - self._total * weights.sum())

    def gradient(self) -> Numbers:
        """Return the gradient of the likelihood."""
        gradient: Numbers = self._density.T @ (self._counts / self._mixed)
        gradient[0] += PRIOR_NULLS / self.weights[0]
        gradient -= self._total
        return gradient

    def is_done(self, gradient: Numbers) -> bool:
        """Whether the first-order conditions hold within the tolerance."""
        close, inner = CLOSE * self._total, self.weights > LEAST
        return bool(gradient.max() < close and np.abs(gradient[inner]).max(initial=0.0) < close)

    def curvature(self) -> Numbers:
        """Return the negated Hessian with a ridge on its diagonal."""
        scaled = self._density * (self._roots / self._mixed)[:, None]
        curvature: Numbers = scaled.T @ scaled
        diagonal = curvature.reshape(-1)[:: len(SPREADS) + 1]  # a view
        diagonal[0] += PRIOR_NULLS / self.weights[0] ** 2
        diagonal += 1e-9 * diagonal.sum() / len(SPREADS)
        return curvature

    def move(self, step: Numbers) -> None:
        """Take a step, halved until it does not decrease the likelihood."""
        length = 1.0
        while length > CLOSE:
            tried = self.weights + length * step
            if (
                tried[0] > self.weights[0] / 10
                and self._likelihood_of(tried, self._density @ tried) >= self._likelihood
            ):
                break
            length /= 2
        self._place(np.maximum(self.weights + length * step, LEAST))


def _bounded_step(weights: Numbers, gradient: Numbers, curvature: Numbers) -> Numbers:
    """Return the step to the maximum of a quadratic subject to weights >= 0, by an active-set method."""
    step = np.zeros(len(weights))
    free = (weights > 0) | (gradient > 0)
    for _ in range(2 * len(weights)):
        (inside,) = free.nonzero()
        slope = (gradient - curvature @ step)[inside]
        move = np.zeros(len(weights))
        move[inside] = np.linalg.solve(curvature.take(inside, 0).take(inside, 1), slope)
        at = weights + step
        (falling,) = (at + move < 0).nonzero()  # weights that are not free do not move
        if len(falling) == 0:
            return step + move
        room = at[falling] / -move[falling]
        nearest = room.argmin()
        step = step + max(0.0, float(room[nearest])) * move
        first = falling[nearest]
        free[first] = False
        step[first] = -weights[first]
    return step


def shrinkage(abs_z: Numbers, weights: Numbers) -> Numbers:
    """Return the factors that shrink scores to posterior means, given |score| in standard errors."""
    joint = _densities() * weights
    most = SPREADS**2 / (1 + SPREADS**2)
    evidence = joint.sum(axis=1)  # underflows to 0 where no spread with any weight reaches
    table = np.divide(joint @ most, evidence, out=np.full(len(evidence), most[-1]), where=evidence > 0)
    return np.asarray(np.interp(abs_z, _centers(), table), dtype=np.float64)


def _centers() -> Numbers:
    return np.asarray((np.arange(int(Z_MOST / BIN)) + 0.5) * BIN, dtype=np.float64)


@lru_cache(maxsize=1)
def _densities() -> Numbers:
    """Return the density of |z| at the centres of the bins for each spread, [bins, spreads]."""
    deviations = np.sqrt(1 + SPREADS**2)
    density: Numbers = np.exp(-((_centers()[:, None] / deviations) ** 2) / 2) / deviations
    return density
