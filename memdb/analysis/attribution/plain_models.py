"""How many plain models raw scores need to be as good as an estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memdb.analysis.attribution.truth import (
    CERTIFIED_STRENGTH,
    CORRELATION,
    COVERAGE,
    COVERAGE_OF_FIRST,
    ERROR,
)

RAW, EXACT = "raw", "exact"
UNCOMPARED = {COVERAGE, COVERAGE_OF_FIRST, CERTIFIED_STRENGTH}  # measures in which more is not better

CLEAR = 0.05  # reliability from which on errors of it leave numbers of models right within a third or so
Row = Mapping[str, Any]


def plain_models(row: Row, rows: Sequence[Row], reliability: float) -> dict[str, Any]:
    """Return how many models raw scores need for this value: between looks, on a logarithmic scale.

    Errors count as their negatives, and a curve that falls for a while, by chance, as one that stays. Beyond
    the looks, a law tells, if the truth is not mostly noise (``reliability``).
    """
    columns: dict[str, Any] = dict.fromkeys(("plain_models", "plain_bound", "plain_extrapolated"))
    curve = sorted(
        (other["n_models"], other["value"])
        for other in rows
        if other["estimator"] == RAW
        and (other["measure"], other["at"]) == (row["measure"], row["at"])
        and other["value"] is not None
    )
    if row["value"] is None or row["estimator"] in {RAW, EXACT} or row["measure"] in UNCOMPARED or not curve:
        return columns
    sign = -1.0 if row["measure"] == ERROR else 1.0
    models = np.log([n for n, _ in curve])
    values = np.maximum.accumulate([sign * value for _, value in curve])
    value = sign * row["value"]
    if values[0] == value == values[-1]:  # none of any, with whatever models
        return columns
    bound = "at least" if value >= values[-1] else "at most" if value <= values[0] else None
    plain = np.interp(value, values, models) if bound != "at least" else models[-1]
    columns |= {"plain_models": round(math.exp(plain)), "plain_bound": bound}
    if bound == "at least" and reliability >= CLEAR:
        columns["plain_extrapolated"] = extrapolated(row["measure"], row["value"], *curve[-1])
    return columns


def extrapolated(measure: str, value: float, n_models: int, at_these: float) -> int | None:
    """Return how many models raw scores need for a value that few models reach; None where no law tells.

    With n times the models, the noise of raw scores has 1/n of its variance, so that their squared
    correlation with the truth is 1 / (1 + m / n), with an m that one number of models tells.

    Args:
        measure: what is measured.
        value: above that of raw scores from ``n_models``.
        n_models: the largest number of models that was looked at.
        at_these: the value of raw scores from these.
    """
    if measure != CORRELATION or not 0 < at_these <= value < 1:
        return None
    return round(n_models * (value**2 / (1 - value**2)) / (at_these**2 / (1 - at_these**2)))
