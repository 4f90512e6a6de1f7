"""The slow, obvious answers: nested loops over models, formulas as they are written down."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean

import numpy as np


def counts(masks, correct, i, z):
    """n_in, n_out, k_in, k_out of training example i and example z; lists of lists [model][example]."""
    n_in = n_out = k_in = k_out = 0
    for mask, right in zip(masks, correct, strict=True):
        if mask[i]:
            n_in += 1
            k_in += bool(right[z])
        else:
            n_out += 1
            k_out += bool(right[z])
    return n_in, n_out, k_in, k_out


def score(n_in, n_out, k_in, k_out):
    return None if n_in == 0 or n_out == 0 else k_in / n_in - k_out / n_out


def anytime_z(n_models, alpha):
    g = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha) - alpha**2) - alpha**2
    tau = n_models * g / 400
    return math.sqrt((1 + 1 / tau) * (math.log(1 + tau) - 2 * math.log(alpha)))


def fixed_z(alpha):
    return NormalDist().inv_cdf(1 - alpha / 2)


def interval(n_in, n_out, k_in, k_out, z):
    if n_in == 0 or n_out == 0:
        return None, None

    def arm(k, n):
        successes, trials = k + z * z / 4, n + z * z / 2
        mean = successes / trials
        return mean, mean * (1 - mean) / trials

    (m1, v1), (m0, v0) = arm(k_in, n_in), arm(k_out, n_out)
    estimate, half = score(n_in, n_out, k_in, k_out), z * math.sqrt(v1 + v0)
    lo, hi = max(-1.0, m1 - m0 - half), min(1.0, m1 - m0 + half)
    return min(lo, estimate), max(hi, estimate)


def z_of(kind, n_models, level, n_shown=1, n_ranked=1):
    alpha = 1 - level
    if kind == "fixed":
        return fixed_z(alpha)
    shares = {"anytime": 1.0, "selected": n_shown / n_ranked, "simultaneous": 1 / n_ranked}
    return anytime_z(n_models, alpha * shares[kind])


def fitted_by_expectation_maximization(abs_z, spreads, n_prior, rounds):
    """Return the weight of each spread of effects, given |z| and n_prior more pairs without an effect."""
    values, times = np.unique(abs_z, return_counts=True)
    deviations = np.sqrt(1 + spreads**2)
    density = np.exp(-((values[:, None] / deviations) ** 2) / 2) / deviations
    weights = np.full(len(spreads), 1 / len(spreads))
    for _ in range(rounds):
        shares = density * weights
        weights = times @ (shares / shares.sum(axis=1, keepdims=True))
        weights[spreads == 0] += n_prior
        weights = weights / weights.sum()
    return weights


def correlation(pairs):
    a, b = zip(*pairs, strict=True)
    mean_a, mean_b = fmean(a), fmean(b)
    products = sum((x - mean_a) * (y - mean_b) for x, y in pairs)
    return products / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
