"""Inputs and results of a search through all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.query.confidences import Confidences
from memdb.query.pairs.kernel import SIGNS, TestBlock
from memdb.query.pairs.popcount import Words

MAX_TOP = 16_384


@dataclass(frozen=True)
class PairBits:
    """The bits that pairs are counted from or, with ``confidence``, the probabilities to sum."""

    n_models: int
    masks: Words  # [train, words]
    train_labels: NDArray[np.int32]
    memorization: NDArray[np.float64]  # [train]; NaN where there is none
    correct: Words  # [test, words]; unused for confidences
    test_labels: NDArray[np.int32]
    n_in: NDArray[np.int32]  # [train]
    n_correct: NDArray[np.int32]  # [test]; unused for confidences
    confidence: PairConfidence | None = None
    are_labelled: bool = True  # else all labels are placeholders

    def tests(self, rows: slice) -> TestBlock:
        """Return a range of test examples with their outcomes."""
        labels = self.test_labels[rows]
        ids = np.arange(*rows.indices(len(self.test_labels)), dtype=np.int32)
        if self.confidence is None:
            return TestBlock(self.correct[rows], self.n_correct[rows].astype(np.int64), labels, ids)
        outcomes = np.stack(self.confidence.of.rows(ids), axis=-1)
        return TestBlock(outcomes, self.confidence.s_all[rows], labels, ids)

    @property
    def outcome(self) -> str:
        """The outcome that is counted or summed."""
        return "correct" if self.confidence is None else "confidence"

    def sums_of(self, inside: NDArray[Any], test_ids: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return sums as columns: ``inside`` over the models in, and those of the test examples over all."""
        if self.confidence is None:
            k_all = self.n_correct[test_ids]  # a 0/1 outcome is its own square
            return {"s_in": inside, "q_in": inside, "s_all": k_all, "q_all": k_all}
        of_all = {"s_all": self.confidence.s_all[test_ids], "q_all": self.confidence.q_all[test_ids]}
        return {"s_in": inside[:, 0], "q_in": inside[:, 1], **of_all}

    def no_sums(self, n_pairs: int = 0) -> NDArray[Any]:
        """Return zero sums, of the type that this outcome has."""
        if self.confidence is None:
            return np.zeros(n_pairs, dtype=np.int32)
        return np.zeros((n_pairs, 2))


@dataclass(frozen=True)
class PairConfidence:
    """The probability p of every model on the test examples, and its sums over all models."""

    of: Confidences
    s_all: NDArray[np.float64]  # [test]
    q_all: NDArray[np.float64]  # [test], of squares


@dataclass(frozen=True, slots=True)
class PairChoice:
    """Which pairs to find: the ``top`` strongest of every test example, those at or above a score, or both.

    The strength of a pair is its influence for ``helps``, the negated influence for ``hurts`` and the
    absolute value for ``both``; ``min_influence`` bounds the strength. ``min_memorization`` and
    ``same_class`` restrict the pairs that are ranked at all; pairs without a score never are.

    Raises:
        InvalidInputError: neither ``top`` nor ``min_influence`` is given, or a value is out of range.
    """

    top: int | None = None
    min_influence: float | None = None
    min_memorization: float | None = None
    same_class: bool = False
    direction: str = "helps"

    def __post_init__(self) -> None:
        if self.top is None and self.min_influence is None:
            raise InvalidInputError(
                "neither a smallest influence nor a number of pairs was given, and all pairs are too many",
                hint="use e.g. min_influence=0.15, or top=256 for each test example",
                parameter=("min_influence", "top"),
            )
        if self.top is not None and not 1 <= self.top <= MAX_TOP:
            raise InvalidInputError(
                f"top {self.top} is not a number from 1 to {MAX_TOP:,}",
                hint="use e.g. top=256",
                parameter="top",
            )
        for name, value in (
            ("min_influence", self.min_influence),
            ("min_memorization", self.min_memorization),
        ):
            if value is not None and not -1 <= value <= 1:
                raise InvalidInputError(
                    f"{name} {value:g} is not between -1 and 1", hint="use e.g. 0.15", parameter=name
                )
        if self.direction not in SIGNS:
            raise InvalidInputError(
                f"unknown direction {self.direction!r}", hint=f"use one of {', '.join(SIGNS)}"
            )


@dataclass(frozen=True, slots=True)
class PairBlock:
    """The pairs found for a block of test examples: by test id, then from the strongest, ties by train id.

    ``sums`` are over the models trained on the training example: k_in, int32 [pairs], or the sums of p and of
    its square, float64 [pairs, 2].
    """

    number: int
    train_id: NDArray[np.int32]
    test_id: NDArray[np.int32]
    sums: NDArray[Any]
    z_histogram: NDArray[np.int64] | None  # [other class, same class][Z_BINS], over all pairs ranked

    def __len__(self) -> int:
        return len(self.train_id)
