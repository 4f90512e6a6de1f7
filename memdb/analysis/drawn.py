"""With which fraction training examples were drawn into subsets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.query.example_counts import times_in
from memdb.query.formulas import Arms
from memdb.store import Snapshot

PILOT = 50  # models from which rates are known well enough to plan with
UNLIKELY = 6.0  # standard deviations beyond which examples were not all drawn with one fraction
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawn:
    """With which fraction examples are in subsets: the store's, unless some were drawn with another.

    Where examples are in every subset, or classes are drawn with fractions of their own, that of a store is a
    mean which no example has; then each has the share of the models that it was in.
    """

    usual: float
    alike: bool = True

    @classmethod
    def of(cls, snapshot: Snapshot) -> Drawn:
        """Return the fractions of a store's models."""
        fraction, n_models = snapshot.manifest.subset_fraction, snapshot.n_models
        if n_models < PILOT:
            return cls(fraction)
        n_in = times_in(snapshot)
        z = (n_in - fraction * n_models) / math.sqrt(n_models * fraction * (1 - fraction))
        n = len(z)
        # Wilson and Hilferty, as for the sizes of subsets: see memdb.interop.survey
        overall = (np.cbrt(float((z**2).sum()) / n) - (1 - 2 / (9 * n))) / math.sqrt(2 / (9 * n))
        varying = n_in[(n_in > 0) & (n_in < n_models)]
        if overall <= UNLIKELY or not len(varying):
            return cls(fraction)
        return cls(float(np.median(varying)) / n_models, alike=False)

    def fractions(self, arms: Arms) -> Numbers:
        """Return the fraction of each case."""
        if self.alike:
            return np.full(len(arms.n_in), self.usual)
        shares: Numbers = arms.n_in / (arms.n_in + arms.n_out)
        return shares
