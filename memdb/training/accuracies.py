"""What a model got right: its accuracies, and whether it learned anything at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import layout

ROUNDING = 1e-9


def accuracies(
    row: int,
    mask: NDArray[np.bool_],
    outcomes: Mapping[str, NDArray[Any]],
    classes: Classes,
    *,
    finite: bool,
) -> dict[str, Any]:
    """Return the accuracies of one model, and whether it diverged.

    A model diverged if it gave numbers that are not finite, or learned nothing of its own subset.
    """
    correct = outcomes[f"{layout.TRAIN}/correct"][row]
    test = outcomes.get(f"{layout.TEST}/correct")
    inside = correct & mask  # several times as fast as correct[mask]
    n, k, k_all = (int(np.count_nonzero(some)) for some in (mask, inside, correct))
    return {
        "train_accuracy": k / n,
        "out_accuracy": None if n == len(mask) else (k_all - k) / (len(mask) - n),
        "test_accuracy": None if test is None else float(test[row].mean()),
        "diverged": not finite
        or (k <= classes.most_guessed and learned_nothing(correct[mask], classes.of_train[mask])),
    }


@dataclass(frozen=True)
class Classes:
    """The classes of the training examples, numbered without gaps: labels may have nine digits."""

    of_train: NDArray[np.int64]
    most_guessed: float  # examples that a model has right at most if it learned nothing: see there

    @classmethod
    def of(cls, labels: NDArray[np.int32]) -> Classes:
        """Number the labels."""
        _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return cls(numbers, float(counts.max() * (1 + math.sqrt(len(counts)) + ROUNDING)))


def learned_nothing(correct: NDArray[np.bool_], classes: NDArray[np.int64]) -> bool:
    """Return whether a model does no better on its subset than guessing, whatever the class frequencies.

    A guess, even a constant one, names each class with a probability that does not depend on the label, so
    the accuracies on the classes add up to 1. A model that exceeds 1 by two standard errors has learned
    something. The probabilities are fitted to the accuracies, weighted by the sizes of the classes; with two
    classes this is the usual test of two proportions. Since no standard error exceeds one half, the
    accuracies of a model that learned nothing add up to no more than 1 and the root of their number.
    """
    counts = np.bincount(classes)
    there = counts > 0
    if there.sum() == 1 or correct.all():
        return False
    rates = np.bincount(classes, weights=correct)[there] / counts[there]
    variances = 1 / counts[there]
    excess = float(rates.sum()) - 1
    guessed = np.clip(rates - excess * variances / variances.sum(), 0, 1)
    return excess <= 2 * math.sqrt(float((guessed * (1 - guessed) * variances).sum())) + ROUNDING
