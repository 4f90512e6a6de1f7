"""A raw influence corrected by a prediction: normal times normal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Posterior(NamedTuple):
    """The calibrated prediction of pairs, and its standard deviation."""

    informed: Numbers
    deviation: Numbers


def noise(accuracy: Numbers, n_in: Numbers, n_out: Numbers) -> Numbers:
    """Return the variance of raw influences, a (1 - a) (1 / n_in + 1 / n_out); arguments broadcast."""
    return accuracy * (1 - accuracy) * (1 / n_in + 1 / n_out)


def smoothed(n_correct: NDArray[np.integer], n_models: int) -> Numbers:
    """Return accuracies with half a correct and half a wrong model added: none is 0 or 1, nor is its variance."""
    return (n_correct + 0.5) / (n_models + 1)


def posterior(raw: Numbers, prediction: Numbers, spread: Numbers, variance: Numbers) -> Posterior:
    """Return f + tau^2 / (tau^2 + s^2) (raw - f), and the root of tau^2 s^2 / (tau^2 + s^2); arguments broadcast.

    ``spread`` is tau^2, the variance of the truth about the prediction f, and ``variance`` is s^2, that of the raw
    influence.
    """
    share = spread / (spread + variance)
    return Posterior(prediction + share * (raw - prediction), np.sqrt(share * variance))
