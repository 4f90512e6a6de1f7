"""Pairs made of counts, as ranking gets them."""

from __future__ import annotations

import math

import numpy as np

from memdb.query.statistics import Candidates


def of_counts(n_in, n_out, k_in, k_out):
    """Return what lists are ranked from, given the models in and out of each subset and those that are right."""
    rows = list(zip(n_in, n_out, k_in, k_out, strict=True))
    total, t = k_in + k_out, int(n_in[0] + n_out[0])
    p_in, p_out = k_in / n_in, k_out / n_out
    smooth = [((a + 1) / (b + 2), (c + 1) / (d + 2), b + 2, d + 2) for b, d, a, c in rows]
    return Candidates(
        score=p_in - p_out,
        effect_se=np.sqrt(p_in * (1 - p_in) / n_in + p_out * (1 - p_out) / n_out),
        ac_z=np.array([(m - q) / math.sqrt(m * (1 - m) / a + q * (1 - q) / b) for m, q, a, b in smooth]),
        null_se=np.sqrt(total / t * (1 - total / t) * t / (t - 1) * (1 / n_in + 1 / n_out)),
        n_in=n_in,
        n_models=t,
        strata=np.ones(len(n_in), dtype=bool),
        hits=k_in,
        total=total,
    )
