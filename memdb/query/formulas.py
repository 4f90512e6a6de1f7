"""The estimator and its intervals as `schemas/statistics.sql` has them, for lists that NumPy counts.

Names and formulas are those of the macros, and a test compares them: a list is there before DuckDB has
planned a statement. Where an arm is empty the macros give NULL, and these NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from memdb.query.intervals import IntervalSpec

Numbers = NDArray[np.float64]
Models = TypeVar("Models", float, Numbers)


@dataclass(frozen=True, slots=True)
class Arms:
    """The two arms of some scores: models, and sums of the outcome and of its square."""

    s_in: NDArray[Any]
    q_in: NDArray[Any]
    n_in: NDArray[Any]
    s_out: NDArray[Any]
    q_out: NDArray[Any]
    n_out: NDArray[Any]

    @property
    def are_filled(self) -> NDArray[np.bool_]:
        """Whether there is a score: no arm is empty."""
        filled: NDArray[np.bool_] = (self.n_in > 0) & (self.n_out > 0)
        return filled


def of_counts(k_in: NDArray[Any], n_in: NDArray[Any], k_out: NDArray[Any], n_out: NDArray[Any]) -> Arms:
    """Return the arms of a 0/1 outcome, which is its own square, from the models that are right."""
    right_in, right_out = k_in.astype(np.float64), k_out.astype(np.float64)
    return Arms(right_in, right_in, n_in.astype(np.float64), right_out, right_out, n_out.astype(np.float64))


def _filled(n: NDArray[Any]) -> Numbers:
    """Return numbers of models, NaN for an empty arm."""
    return n if n.dtype == np.float64 and n.all() else np.where(n > 0, n, np.nan)


def score(arms: Arms) -> Numbers:
    """Return differences in means."""
    found: Numbers = arms.s_in / _filled(arms.n_in) - arms.s_out / _filled(arms.n_out)
    return found


def ac_mean(s: NDArray[Any], n: NDArray[Any], z: float | Numbers) -> Numbers:
    """Return means after adding z^2/4 successes and as many failures."""
    mean: Numbers = (s + z * z / 4) / (n + z * z / 2)
    return mean


def ac_variance(s: NDArray[Any], q: NDArray[Any], n: NDArray[Any], z: float | Numbers) -> Numbers:
    """Return the variances of `ac_mean`."""
    mean, added = ac_mean(s, n, z), n + z * z / 2
    square = mean if q is s else (q + z * z / 4) / added  # of 0/1 outcomes both sums are the same
    variance: Numbers = np.maximum(0.0, square - mean * mean) / added
    return variance


def bounds(arms: Arms, z: float | Numbers) -> tuple[Numbers, Numbers]:
    """Return both ends of the intervals, clipped and always holding the score."""
    middle, found = ac_mean(arms.s_in, arms.n_in, z) - ac_mean(arms.s_out, arms.n_out, z), score(arms)
    variance = ac_variance(arms.s_in, arms.q_in, arms.n_in, z)
    half = z * np.sqrt(variance + ac_variance(arms.s_out, arms.q_out, arms.n_out, z))
    return np.maximum(-1.0, np.minimum(found, middle - half)), np.minimum(
        1.0, np.maximum(found, middle + half)
    )


def effect_se(arms: Arms) -> Numbers:
    """Return standard errors with each arm's own variance."""
    n_in, n_out = _filled(arms.n_in), _filled(arms.n_out)
    p_in, p_out = arms.s_in / n_in, arms.s_out / n_out
    q_in, q_out = p_in, p_out
    if arms.q_in is not arms.s_in:
        q_in, q_out = arms.q_in / n_in, arms.q_out / n_out
    inside = np.maximum(0.0, q_in - p_in * p_in) / n_in
    error: Numbers = np.sqrt(inside + np.maximum(0.0, q_out - p_out * p_out) / n_out)
    return error


def ac_z(arms: Arms) -> Numbers:
    """Return scores of AC(2) in their standard errors."""
    variance = ac_variance(arms.s_in, arms.q_in, arms.n_in, 2.0)
    error = np.sqrt(variance + ac_variance(arms.s_out, arms.q_out, arms.n_out, 2.0))
    z: Numbers = (ac_mean(arms.s_in, arms.n_in, 2.0) - ac_mean(arms.s_out, arms.n_out, 2.0)) / error
    return z


def null_se(arms: Arms) -> Numbers:
    """Return standard deviations of the scores over all ways to deal the same outcomes out to both arms."""
    s_all, n_all = arms.s_in.astype(np.float64) + arms.s_out, _filled(arms.n_in) + _filled(arms.n_out)
    spread = np.maximum(0.0, (arms.q_in.astype(np.float64) + arms.q_out) - s_all * s_all / n_all)
    error: Numbers = np.sqrt(spread / (n_all - 1) * (1 / _filled(arms.n_in) + 1 / _filled(arms.n_out)))
    return error


def interval_z(interval: IntervalSpec, n_models: Models) -> Models | float | None:
    """Return the multiplier of a list's intervals, or one for each number of models; None without models."""
    given = interval.parameters()
    if interval.kind == "fixed":
        return float(given["fixed_z"])
    if not np.any(n_models):
        return None
    if interval.kind == "anytime":
        return anytime_z(n_models, given["alpha"])
    if not interval.n_ranked or not interval.n_shown:
        return None
    n_shown = interval.n_shown if interval.kind == "selected" else 1  # simultaneous: as for each alone
    return anytime_z(n_models, given["alpha"] * (n_shown / interval.n_ranked))


def anytime_z(n_models: Models, alpha: float) -> Models:
    """Return the multiplier that stays valid when one looks after every model."""
    tau = anytime_tau(n_models, alpha)
    of: Any = np if isinstance(tau, np.ndarray) else math  # math agrees with the macro to the last bit
    z: Models = of.sqrt((1 + 1 / tau) * (of.log(1 + tau) - 2 * math.log(alpha)))
    return z


def anytime_tau(n_models: Models, alpha: float) -> Models:
    """Return the variance of the mixture behind `anytime_z`, which is tightest near 400 models."""
    scale = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha) - alpha**2) - alpha**2
    return n_models / 400 * scale
