"""How many plain models raw scores need to be as good as an estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memdb.analysis.truth import CERTIFIED_STRENGTH, COVERAGE, COVERAGE_OF_FIRST, ERROR

RAW, EXACT = "raw", "exact"
UNCOMPARED = {COVERAGE, COVERAGE_OF_FIRST, CERTIFIED_STRENGTH}  # measures in which more is not better


def plain_models(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many models raw scores need for this value: between looks, on a logarithmic scale.

    Errors count as their negatives, and a curve that falls for a while, by chance, as one that stays.
    """
    curve = sorted(
        (other["n_models"], other["value"])
        for other in rows
        if other["estimator"] == RAW
        and (other["measure"], other["at"]) == (row["measure"], row["at"])
        and other["value"] is not None
    )
    if row["value"] is None or row["estimator"] in {RAW, EXACT} or row["measure"] in UNCOMPARED or not curve:
        return {"plain_models": None, "plain_bound": None}
    sign = -1.0 if row["measure"] == ERROR else 1.0
    models = np.log([n for n, _ in curve])
    values = np.maximum.accumulate([sign * value for _, value in curve])
    value = sign * row["value"]
    bound = "at least" if value >= values[-1] else "at most" if value <= values[0] else None
    found = np.interp(value, values, models) if bound != "at least" else models[-1]
    return {"plain_models": round(math.exp(found)), "plain_bound": bound}
