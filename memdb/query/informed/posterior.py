"""A raw influence corrected by a prediction: normal times normal."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]


class Posterior(NamedTuple):
    """The calibrated prediction of pairs, and its standard deviation."""

    informed: Numbers
    deviation: Numbers


def noise(accuracy: Numbers, n_in: Numbers, n_out: Numbers) -> Numbers:
    """Return the variance of raw influences, a (1 - a) (1 / n_in + 1 / n_out); arguments broadcast."""
    return accuracy * (1 - accuracy) * (1 / n_in + 1 / n_out)


def smoothed(n_correct: NDArray[Any], n_models: int) -> Numbers:
    """Return accuracies with half a correct and half a wrong model added, so that none is 0 or 1."""
    accuracy: Numbers = (n_correct + 0.5) / (n_models + 1)
    return accuracy


def posterior(raw: Numbers, prediction: Numbers, spread: Numbers, variance: Numbers) -> Posterior:
    """Return f + tau^2 / (tau^2 + s^2) (raw - f), and the root of tau^2 s^2 / (tau^2 + s^2).

    Arguments broadcast. ``spread`` is tau^2, the variance of the truth about the prediction f, and
    ``variance`` is s^2, that of the raw influence.
    """
    share = spread / (spread + variance)
    return Posterior(prediction + share * (raw - prediction), np.sqrt(share * variance))
