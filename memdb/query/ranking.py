"""What a ranked list needs to know about all that was ranked: shrunk estimates, q-values, ranks, chance.

Algorithms over whole columns, which SQL cannot say; the estimates and intervals themselves are SQL macros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

BIN = 0.05  # width of the bins of |z|
Z_MOST = 40.0  # what is larger counts as this
SPREADS = np.array([0.0] + [0.25 * 2 ** (k / 2) for k in range(14)])  # of true effects, in standard errors
PRIOR_NULLS = 10.0  # pairs without effect that the fit starts with
MAX_ROUNDS = 100  # it takes some ten
CLOSE = 1e-6
FALL = 0.01  # to what part of itself one step of the fit may lower the likelihood of any bin
EXACT_FROM = 3.0  # z above which p-values come from the exact test
FDR = 0.1  # that the e-values of a list looked at again and again are tuned to; valid for any
NEGLIGIBLE = 1e-16


@dataclass(frozen=True)
class Candidates:
    """Everything that a list is chosen from, [candidates] each; no score is NULL here.

    ``hits`` are the models of the first arm that are right, ``total`` those of both: integers, or None for
    an outcome that has none. ``strata`` tells same-class pairs from others.
    """

    score: Numbers
    effect_se: Numbers  # standard error with each arm's own variance; 0 where no arm varies
    ac_z: Numbers  # the score in standard errors after adding one right and one wrong model to each arm
    null_se: Numbers  # standard deviation of the score over all ways to deal out the same outcomes
    n_in: Counts
    n_models: int
    strata: Flags
    hits: Counts | None = None
    total: Counts | None = None

    def __len__(self) -> int:
        return len(self.score)

    @property
    def null_z(self) -> Numbers:
        """The score in standard deviations of chance; 0 where every model did the same."""
        return _ratio(self.score, self.null_se)


def shrunk(candidates: Candidates) -> Numbers:
    """Return posterior means of the scores, [candidates]: empirical Bayes, STATISTICS in docs/statistics.md.

    True effects, in standard errors, are modelled as a scale mixture of normals around 0 (Stephens 2017,
    "False discovery rates: a new deal"), fitted to all candidates, same-class pairs and others apart.
    """
    z = np.abs(_ratio(candidates.score, candidates.effect_se))
    varies = candidates.effect_se > 0
    agreeing = np.maximum(candidates.ac_z * np.sign(candidates.score), 0.0)
    # a small arm without variance makes z huge: the other z, which is calmer there, has a say
    evidence = np.where(varies, np.minimum(z, agreeing), agreeing)
    factors = np.empty(len(candidates))
    for stratum in (True, False):
        inside = candidates.strata == stratum
        weights = fitted_mixture(z[inside & varies])
        factors[inside] = shrinkage(evidence[inside], weights)
    result: Numbers = candidates.score * factors
    return result


def fitted_mixture(abs_z: Numbers) -> Numbers:
    """Return the weight of each of `SPREADS`: the most likely ones given a histogram of |z|.

    Newton steps that keep all weights at 0 or above. Expectation maximization, which finds the same, is still
    a tenth of a factor off after 200 rounds of it.
    """
    bins = np.minimum(abs_z / BIN, Z_MOST / BIN - 1).astype(np.int64)
    binned = np.bincount(bins, minlength=int(Z_MOST / BIN))
    used = np.flatnonzero(binned)
    density, counts = _densities()[used], binned[used].astype(np.float64)
    prior = np.zeros(len(SPREADS))
    prior[0] = PRIOR_NULLS
    total = counts.sum() + PRIOR_NULLS
    weights: Numbers = np.full(len(SPREADS), 1 / len(SPREADS))

    def likelihood(tried: Numbers) -> float:
        # the multiplier of the constraint that weights sum to 1 is known to be the total
        fit = counts @ np.log(density @ tried) + PRIOR_NULLS * math.log(tried[0])
        return float(fit - total * tried.sum())

    for _ in range(MAX_ROUNDS):
        mixed = density @ weights
        gradient = density.T @ (counts / mixed) + prior / weights[0] - total
        if gradient.max() < CLOSE * total and np.abs(gradient[weights > 0]).max() < CLOSE * total:
            break
        scaled = density * (np.sqrt(counts) / mixed)[:, None]
        curvature = scaled.T @ scaled + np.diag(prior / weights[0] ** 2)
        curvature += np.eye(len(SPREADS)) * (1e-9 * np.trace(curvature) / len(SPREADS))
        step = _bounded_step(weights, gradient, curvature)
        before, share = likelihood(weights), 1.0
        while share > CLOSE:
            tried = weights + share * step
            # a step that makes one far pair all but impossible may pay at once; the fit would end there
            possible = tried[0] > 0 and (density @ tried > FALL * mixed).all()
            if possible and likelihood(tried) >= before:
                break
            share /= 2
        weights = np.maximum(weights + share * step, 0.0)
    result: Numbers = weights / weights.sum()
    return result


def _bounded_step(weights: Numbers, gradient: Numbers, curvature: Numbers) -> Numbers:
    """Return the step to the top of a quadratic along which no weight falls below 0 (an active set)."""
    step = np.zeros(len(weights))
    free = (weights > 0) | (gradient > 0)
    for _ in range(2 * len(weights)):
        inside = np.flatnonzero(free)
        slope = (gradient - curvature @ step)[inside]
        move = np.zeros(len(weights))
        move[inside] = np.linalg.solve(curvature[np.ix_(inside, inside)], slope)
        falling = np.flatnonzero(free & (weights + step + move < 0))
        if len(falling) == 0:
            return step + move
        room = (weights + step)[falling] / -move[falling]
        first = falling[np.argmin(room)]
        step = step + max(0.0, float(room.min())) * move
        free[first] = False
        step[first] = -weights[first]
    return step


def shrinkage(abs_z: Numbers, weights: Numbers) -> Numbers:
    """Return by what to multiply a score that is so many standard errors from 0."""
    joint = _densities() * weights
    most = SPREADS**2 / (1 + SPREADS**2)
    evidence = joint.sum(axis=1)  # 0 so far out that no spread with any weight reaches there
    table = np.divide(joint @ most, evidence, out=np.full(len(evidence), most[-1]), where=evidence > 0)
    return np.asarray(np.interp(abs_z, _centers(), table), dtype=np.float64)


def _centers() -> Numbers:
    return np.asarray((np.arange(int(Z_MOST / BIN)) + 0.5) * BIN, dtype=np.float64)


@lru_cache(maxsize=1)
def _densities() -> Numbers:
    """Return the density of |z| at the centres of the bins under each spread, [bins, spreads]."""
    deviations = np.sqrt(1 + SPREADS**2)
    density: Numbers = np.exp(-((_centers()[:, None] / deviations) ** 2) / 2) / deviations
    return density


def p_values(candidates: Candidates) -> Numbers:
    """Return two-sided p-values of no effect, [candidates].

    Under no effect the masks are independent of the outcomes: how many of the models that were right had the
    example is hypergeometric, which is exact for 0/1 outcomes. It decides where the normal approximation of
    the same randomization test finds anything at all.
    """
    z = np.abs(candidates.null_z)
    p = 2 * normal_tail(z)
    if candidates.hits is not None and candidates.total is not None:
        at = np.flatnonzero(z > EXACT_FROM)
        hits, total, n_in = candidates.hits[at], candidates.total[at], candidates.n_in[at]
        above = hits * candidates.n_models >= total * n_in
        n_out = candidates.n_models - n_in
        # too few right models in one arm are too many in the other
        arm, right = np.where(above, n_in, n_out), np.where(above, hits, total - hits)
        p[at] = 2 * hypergeometric_tail(right, total, arm, candidates.n_models)
    result: Numbers = np.minimum(p, 1.0)
    return result


def normal_tail(z: Numbers) -> Numbers:
    """Return P[Z >= z] for z >= 0, within 0.3 % (Borjesson and Sundberg 1979)."""
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    tail: Numbers = density / (0.661 * z + 0.339 * np.sqrt(z**2 + 5.510))
    return tail


def hypergeometric_tail(right: Counts, total: Counts, arm: Counts, n_models: int) -> Numbers:
    """Return the chance that at least ``right`` of ``total`` right models fall into an arm of ``arm`` models.

    Exact, by summing terms from ``right`` away from the mean, where they fall; below the mean the other tail
    is taken from 1.
    """
    below = right * n_models < total * arm
    tail = np.empty(len(right))
    tail[~below] = _falling_sum(right[~below], total[~below], arm[~below], n_models)
    # at least r on one side of all is the opposite of at least total - r + 1 on the other
    other = _falling_sum(total[below] - right[below] + 1, total[below], n_models - arm[below], n_models)
    tail[below] = 1 - other
    return tail


def _falling_sum(right: Counts, total: Counts, arm: Counts, n_models: int) -> Numbers:
    logs = _log_factorials(n_models)
    rest = n_models - arm
    possible = (right <= np.minimum(arm, total)) & (total - right <= rest)
    x = np.where(possible, right, np.maximum(0, total - rest))

    def log_choose(n: Counts, k: Counts) -> Numbers:
        chosen: Numbers = logs[n] - logs[k] - logs[n - k]
        return chosen

    log_term = log_choose(arm, x) + log_choose(rest, total - x) - log_choose(np.full_like(x, n_models), total)
    term = np.where(possible, np.exp(log_term), 0.0)
    # where even the first term is impossible because right is too small, everything is at least that
    result = np.where(total - right > rest, 1.0, term)
    active = np.flatnonzero(term > 0)
    while len(active):
        at = x[active].astype(np.float64)
        n, k = arm[active], total[active]
        term[active] *= (n - at) * (k - at) / ((at + 1) * (rest[active] - k + at + 1))
        x[active] += 1
        result[active] += term[active]
        active = active[term[active] > NEGLIGIBLE * result[active]]
    bounded: Numbers = np.minimum(result, 1.0)
    return bounded


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> Numbers:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def q_values(p: Numbers) -> Numbers:
    """Return the smallest false discovery rate at which each is found (Benjamini and Hochberg 1995)."""
    order = np.argsort(p)
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return found


def anytime_q_values(null_z: Numbers, n_models: int) -> Numbers:
    """Return the same where one looks after every added model: e-BH (Wang and Ramdas 2022).

    The e-value is that of a normal mixture, (1 + tau) ** -1/2 * exp(z**2 tau / (2 (1 + tau))).
    """
    alpha = min(0.5, 5 * FDR / max(1, len(null_z)))
    tau = n_models / 400 * (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha) - alpha**2) - alpha**2)
    log_e = null_z**2 * tau / (2 * (1 + tau)) - math.log1p(tau) / 2
    return q_values(np.exp(-np.maximum(log_e, 0.0)))


def rank_bounds(lo: Numbers, hi: Numbers, rows: Counts, direction: str) -> tuple[Counts, Counts]:
    """Return the first and last rank that each of some rows may truly have, from simultaneous intervals."""
    if direction == "hurts":
        lo, hi = -hi, -lo
    elif direction == "both":
        lo, hi = np.maximum(0.0, np.maximum(lo, -hi)), np.maximum(np.abs(lo), np.abs(hi))
    surely_above = len(lo) - np.searchsorted(np.sort(lo), hi[rows], side="right")
    surely_below = np.searchsorted(np.sort(hi), lo[rows], side="left")
    return 1 + surely_above, len(lo) - surely_below


def expected_by_chance(candidates: Candidates, value: float, direction: str) -> float:
    """Return how many candidates would reach a value if none had any effect: the sum of their tails."""
    if value <= 0:
        return float(len(candidates))
    if candidates.total is None:
        z = np.divide(
            value, candidates.null_se, out=np.full(len(candidates), Z_MOST), where=candidates.null_se > 0
        )
        tails = float(normal_tail(np.minimum(z, Z_MOST)).sum())
        return 2 * tails if direction == "both" else tails
    codes, times = np.unique(
        candidates.n_in * (candidates.n_models + 1) + candidates.total, return_counts=True
    )
    n_in, total = np.divmod(codes, candidates.n_models + 1)
    n_out = candidates.n_models - n_in
    ways = {"helps": [(n_in, n_out)], "hurts": [(n_out, n_in)], "both": [(n_in, n_out), (n_out, n_in)]}
    expected = 0.0
    for arm, other in ways[direction]:
        # the least x with x / arm - (total - x) / other >= value, less what rounding may add
        least = np.ceil((value + total / other) / (1 / arm + 1 / other) - 1e-9).astype(np.int64)
        expected += float((hypergeometric_tail(least, total, arm, candidates.n_models) * times).sum())
    return expected


def models_to_settle(value: float, null_se: float, n_models: int, share: float) -> int | None:
    """Return how many models make chance reach a value for a share of the candidates only; None if never."""
    if value <= 0 or null_se <= 0:
        return None
    z = NormalDist().inv_cdf(1 - min(0.5, share))
    return max(n_models, math.ceil(n_models * (z * null_se / value) ** 2))


def _ratio(score: Numbers, error: Numbers) -> Numbers:
    return np.divide(score, error, out=np.zeros(len(score)), where=error > 0)
