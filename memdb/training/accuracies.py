"""What a model got right: its accuracies, and whether it learned anything at all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout

ROUNDING = 1e-9


def accuracies(
    masks: NDArray[np.bool_],
    outcomes: Mapping[str, NDArray[Any]],
    classes: Classes,
    finite: NDArray[np.bool_],
) -> Iterator[dict[str, Any]]:
    """Yield of each model the size of its subset, its accuracies, and whether it diverged.

    A model diverged if it gave numbers that are not finite, or learned nothing of its own subset. All models
    are counted at once: each call of NumPy may have to wait for a training that holds Python's lock.
    """
    n_train, correct = masks.shape[1], outcomes[f"{layout.TRAIN}/correct"]
    test = outcomes.get(f"{layout.TEST}/correct")
    inside, right = _words(masks), _words(correct)
    counts = (bits.count(some).tolist() for some in (inside, inside & right, right))
    n_tested = [None] * len(masks) if test is None else bits.count(_words(test)).tolist()
    for row, (n, k, k_all, k_test) in enumerate(zip(*counts, n_tested, strict=True)):
        mask = masks[row]
        yield {
            "subset_size": n,
            "train_accuracy": k / n,
            "out_accuracy": None if n == n_train else (k_all - k) / (n_train - n),
            "test_accuracy": None if test is None else k_test / test.shape[1],
            "diverged": not finite[row]
            or (k <= classes.most_guessed and learned_nothing(correct[row][mask], classes.of_train[mask])),
        }


def _words(values: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack the examples of each model."""
    return bits.words(np.packbits(values, axis=1, bitorder="little"))


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
