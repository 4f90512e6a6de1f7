"""Statistics over all candidates of a ranked list: posterior means, p- and q-values, rank intervals, chance.

These are algorithms over whole columns, which SQL cannot express; scores and intervals are SQL macros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.query import formulas
from memdb.query.mixture import (
    BIN,
    Z_MOST,
    Counts,
    Effects,
    Numbers,
    binned_by,
    factors_of,
    fitted_effects,
)

Flags = NDArray[np.bool_]

FARTHEST = 37.0  # z whose tail is still a normal number
EXACT_FROM = 3.0  # z above which p-values come from the exact test
FDR = 0.1  # the rate that the e-values are tuned for; they are valid at any
NEGLIGIBLE = 1e-16  # relative size of the terms at which a tail is cut off
TERMS = 16  # of a tail, summed at once


@dataclass(frozen=True)
class Candidates:
    """All scores that a list is selected from, [candidates] each, without NULLs.

    Attributes:
        hits: the number of correct models among those in, k_in; None for outcomes that are not 0 or 1.
        total: the number of correct models among all; None likewise.
        strata: True for same-class pairs.
        times: the multiplicity of each candidate; None if each counts once.
    """

    score: Numbers
    effect_se: Numbers  # standard error from the variances of both arms; 0 where neither varies
    ac_z: Numbers  # the score in standard errors after adding one correct and one wrong model to each arm
    null_se: Numbers  # standard deviation of the score under random reassignment of models to arms
    n_in: Counts
    n_models: int
    strata: Flags
    hits: Counts | None = None
    total: Counts | None = None
    times: Counts | None = None

    def __len__(self) -> int:
        return len(self.score)

    def part(self, rows: slice | NDArray[np.int64]) -> Candidates:
        """Return the candidates of these rows."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        values: dict[str, Any] = {
            name: v[rows] if isinstance(v, np.ndarray) else v for name, v in every.items()
        }
        return Candidates(**values)

    @cached_property
    def p_value(self) -> Numbers:
        """The p-values of `p_values`."""
        return p_values(self)

    @cached_property
    def null_z(self) -> Numbers:
        """The score in standard deviations of its null distribution; 0 where all outcomes are equal."""
        return _ratio(self.score, self.null_se)


def shrunk(candidates: Candidates, effects: Mapping[bool, Effects] | None = None) -> Numbers:
    """Return posterior means of the scores, [candidates], by empirical Bayes.

    True effects, in standard errors, are modelled as a scale mixture of normals around 0 (Stephens 2017,
    "False discovery rates: a new deal"), fitted to all candidates, same-class pairs and others apart, or
    given as ``effects`` of these two. The fit is to z statistics whose variance is 1 if there is no effect,
    however few models there are; with each arm's own variance, noise in small arms would pass for effects.
    """
    strata = candidates.strata.astype(np.int64)
    if effects:
        of_strata = [effects[False], effects[True]]
    else:
        of_strata = fitted_effects(chance_histograms(candidates, strata, 2))
    return shrunk_by(of_strata, candidates, strata)


def chance_histograms(candidates: Candidates, groups: Counts, n_groups: int) -> Counts | Numbers:
    """Return histograms of the |z| that `fitted_effects` takes, of each group of the candidates."""
    at, times = candidates.null_se > 0, candidates.times
    z = _chance_z(candidates)[at]
    return binned_by(groups[at], n_groups, z, None if times is None else times[at])


def shrunk_by(effects: Sequence[Effects], candidates: Candidates, groups: Counts) -> Numbers:
    """Return posterior means of the scores, given the effects among each group of the candidates."""
    result: Numbers = candidates.score * factors_of(effects, groups, _evidence(candidates))
    return result + 0.0  # which makes -0.0 a plain 0


def _chance_z(candidates: Candidates) -> Numbers:
    """Return `Candidates.null_z` without signs; far out, where small arms matter, that of the p-value."""
    z = np.abs(candidates.null_z)
    far = z > EXACT_FROM
    steps = np.arange(0.0, FARTHEST, BIN)
    surprise = -np.log(np.maximum(candidates.p_value[far] / 2, np.finfo(np.float64).tiny))
    z[far] = np.interp(surprise, -np.log(normal_tail(steps)), steps)
    return z


def _evidence(candidates: Candidates) -> Numbers:
    """Return how many standard errors the scores are from 0, with each arm's own variance.

    A small arm without variance makes that huge: the other z, which is calmer there, has a say.
    """
    z = np.abs(_ratio(candidates.score, candidates.effect_se))
    agreeing = np.maximum(candidates.ac_z * np.sign(candidates.score), 0.0)
    return np.where(candidates.effect_se > 0, np.minimum(z, agreeing), agreeing)


def p_values(candidates: Candidates) -> Numbers:
    """Return two-sided p-values under the null hypothesis of no effect, [candidates].

    Under it, masks are independent of outcomes, so for 0/1 outcomes the number of correct models that are in
    is hypergeometric (Fisher's exact test). The normal approximation of this randomization test serves all
    other outcomes, and candidates below `EXACT_FROM`.
    """
    z = np.abs(candidates.null_z)
    p = 2 * normal_tail(z)
    if candidates.hits is not None and candidates.total is not None:
        at = np.flatnonzero(z > EXACT_FROM)
        hits, total, n_in = candidates.hits[at], candidates.total[at], candidates.n_in[at]
        above = hits * candidates.n_models >= total * n_in
        n_out = candidates.n_models - n_in
        # too few correct models in one arm are too many in the other
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
    """Return the probability that ``arm`` models include at least ``right`` of ``total`` correct ones.

    Exact: terms are summed from ``right`` away from the mean, where they decrease; below the mean, the other
    tail is subtracted from 1.
    """
    below = right * n_models < total * arm
    tail = np.empty(len(right))
    tail[~below] = _falling_sum(right[~below], total[~below], arm[~below], n_models)
    # at least r in one arm is the complement of at least total - r + 1 in the other
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
    # where the first term is impossible because right is too small, the tail is everything
    result = np.where(total - right > rest, 1.0, term)
    active = np.flatnonzero(term > 0)
    while len(active):
        at = x[active, None] + np.arange(TERMS, dtype=np.float64)
        n, k = arm[active, None], total[active, None]
        terms = (n - at) * (k - at) / ((at + 1) * (rest[active, None] - k + at + 1))
        terms[:, 0] *= term[active]
        np.cumprod(terms, axis=1, out=terms)
        sums = terms.copy()
        sums[:, 0] += result[active]
        np.cumsum(sums, axis=1, out=sums)
        matters = terms > NEGLIGIBLE * sums
        is_unfinished, rows = matters.all(axis=1), np.arange(len(active))
        last = np.where(is_unfinished, TERMS - 1, matters.argmin(axis=1))
        term[active], result[active] = terms[rows, last], sums[rows, last]
        x[active] += TERMS
        active = active[is_unfinished]
    bounded: Numbers = np.minimum(result, 1.0)
    return bounded


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> Numbers:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def q_values(p: Numbers, times: Counts | None = None) -> Numbers:
    """Return q-values: the smallest false discovery rate to find each at (Benjamini and Hochberg 1995).

    ``times`` is the multiplicity of each p-value.
    """
    order = np.argsort(p)
    n_up_to = np.arange(1, len(p) + 1) if times is None else np.cumsum(times[order])
    n_all = len(p) if times is None else int(times.sum())
    stepped = p[order] * n_all / n_up_to
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return q


def anytime_q_values(null_z: Numbers, n_models: int) -> Numbers:
    """Return q-values that are valid at every number of models at once: e-BH (Wang and Ramdas 2022).

    The e-value is that of a normal mixture, (1 + tau) ** -1/2 * exp(z**2 tau / (2 (1 + tau))).
    """
    alpha = min(0.5, 5 * FDR / max(1, len(null_z)))
    tau = formulas.anytime_tau(n_models, alpha)
    log_e = null_z**2 * tau / (2 * (1 + tau)) - math.log1p(tau) / 2
    return q_values(np.exp(-np.maximum(log_e, 0.0)))


def rank_bounds(lo: Numbers, hi: Numbers, rows: Counts, direction: str) -> tuple[Counts, Counts]:
    """Return the lowest and highest possible true rank of some rows, from simultaneous intervals."""
    if direction == "hurts":
        lo, hi = -hi, -lo
    elif direction == "both":
        lo, hi = np.maximum(0.0, np.maximum(lo, -hi)), np.maximum(np.abs(lo), np.abs(hi))
    surely_above = len(lo) - np.searchsorted(np.sort(lo), hi[rows], side="right")
    surely_below = np.searchsorted(np.sort(hi), lo[rows], side="left")
    return 1 + surely_above, len(lo) - surely_below


def expected_by_chance(candidates: Candidates, value: float, direction: str) -> float:
    """Return the expected number of candidates at or above a value if none had any effect."""
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
        # the least x with x / arm - (total - x) / other >= value, robust to rounding
        least = np.ceil((value + total / other) / (1 / arm + 1 / other) - 1e-9).astype(np.int64)
        expected += float((hypergeometric_tail(least, total, arm, candidates.n_models) * times).sum())
    return expected


def models_to_settle(value: float, null_se: float, n_models: int, fraction: float) -> int | None:
    """Return the models with which chance reaches a value in this fraction of candidates; None if never."""
    if value <= 0 or null_se <= 0:
        return None
    z = NormalDist().inv_cdf(1 - min(0.5, fraction))
    return max(n_models, math.ceil(n_models * (z * null_se / value) ** 2))


def _ratio(score: Numbers, error: Numbers) -> Numbers:
    return np.divide(score, error, out=np.zeros(len(score)), where=error > 0)
