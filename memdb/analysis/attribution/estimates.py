"""Scores of pairs as they are compared: an estimate and what it claims, and the sums behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.attribution.model_outcomes import outcomes_on_tests
from memdb.errors import InvalidInputError
from memdb.format import bits
from memdb.query.relations import Relations

TRAINS_AT_ONCE = 4096
WIDEST = 1e3  # half-width of an interval that holds all
Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


class Certified(NamedTuple):
    """Pairs that help, by tests at the false discovery rate `FDR`: positions of rows, and train ids."""

    rows: Ids
    trains: Ids


@dataclass(frozen=True, slots=True)
class Estimate:
    """Scores of all training examples on some test examples, [tests, train], and intervals if there are any.

    A pair whose score is not known has 0, with an interval that holds all.

    Attributes:
        values: the scores; None from what only tests.
        certified: what is certain; None if nothing was tested.
        ranked: what pairs are ordered by, if it is not ``values``.
        is_influence: whether scores are differences of means of the outcome, and not of some other scale.
    """

    values: NDArray[np.floating[Any]] | None
    lo: Floats | None = None
    hi: Floats | None = None
    ranked: NDArray[np.floating[Any]] | None = None
    is_influence: bool = True
    certified: Certified | None = None


class Estimates(Protocol):
    """Scores that can be had for some test examples at a time."""

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on test examples, whose ids ascend."""
        ...


Estimator = Callable[[Relations, str], Estimates]


class Attribution(Protocol):
    """Attribution scores [test, train] that can be read in ranges of rows."""

    @property
    def place(self) -> str:
        """The source of the scores, for messages."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of test and training examples."""
        ...

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return the scores on a range of test examples."""
        ...


@dataclass(frozen=True, slots=True)
class Given:
    """Somebody's scores: whatever they were computed from, they stay what they are."""

    scores: Attribution

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on some test examples.

        Raises:
            InvalidInputError: a score that is NaN or infinite.
        """
        runs = np.split(tests, np.flatnonzero(np.diff(tests) != 1) + 1) if len(tests) else []
        rows = [np.asarray(self.scores.rows(int(run[0]), int(run[-1]) + 1)) for run in runs]
        values = np.concatenate([np.empty((0, self.scores.shape[1])), *rows]).astype(np.float64)
        require_finite(self.scores, values, tests)
        return Estimate(values, is_influence=False)


def require_finite(scores: Attribution, values: NDArray[Any], tests: Ids) -> None:
    """Check scores on some test examples.

    Raises:
        InvalidInputError: NaN or infinity; it names the first pair.
    """
    if np.isfinite(values).all():
        return
    row, column = np.argwhere(~np.isfinite(values))[0]
    raise InvalidInputError(
        f"{scores.place} holds {values[row, column]} for test example {tests[row]} and training "
        f"example {column}",
        hint="give a number for every pair; 0 where there is no attribution",
    )


@dataclass(frozen=True, slots=True)
class Arms:
    """Sums of an outcome over the models whose subset holds a training example, and over all models.

    Attributes:
        n_models: all of them.
        n_in: [train].
        s_in, q_in: of the outcome and of its square, [tests, train]; for 0 and 1 one array is both.
        s_all, q_all: over all models, [tests, 1].
    """

    n_models: int
    n_in: Numbers
    s_in: Floats
    q_in: Floats
    s_all: Numbers
    q_all: Numbers

    @classmethod
    def of(cls, relations: Relations, outcome: str, tests: Ids) -> Arms:
        """Sum an outcome on some test examples as products of matrices, some training examples at a time."""
        n_models, n_train = relations.snapshot.n_models, len(relations.mask)
        values = outcomes_on_tests(relations, outcome, tests)
        squares = np.square(values)
        narrow = [values.astype(np.float32)] + ([] if outcome == "correct" else [squares.astype(np.float32)])
        sums = [np.empty((len(tests), n_train), dtype=np.float32) for _ in narrow]
        for start in range(0, n_train, TRAINS_AT_ONCE):
            part = slice(start, min(n_train, start + TRAINS_AT_ONCE))
            inside = bits.unpack(relations.mask[part].view(np.uint8), n_models).astype(np.float32)
            for summed, given in zip(sums, narrow, strict=True):
                np.matmul(given, inside, out=summed[:, part])
        n_in = bits.count(relations.mask).astype(np.float64)
        totals = (numbers.sum(axis=1, keepdims=True) for numbers in (values, squares))
        return cls(n_models, n_in, sums[0], sums[-1], *totals)

    @property
    def n_out(self) -> Numbers:
        """The models whose subset does not hold a training example, [train]."""
        return self.n_models - self.n_in

    @property
    def has_score(self) -> NDArray[np.bool_]:
        """Whether both arms have models, [train]."""
        return (self.n_in > 0) & (self.n_out > 0)

    def means(self, row: int, more: float = 0.0) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Return mean and variance of the mean of the arms in and out on one test example, [train] each.

        ``more`` models that are right, and as many that are wrong, are added to each arm.
        """
        means: list[Numbers] = []
        for n, s, q in (
            (self.n_in, self.s_in[row].astype(np.float64), self.q_in[row].astype(np.float64)),
            (self.n_out, self.s_all[row] - self.s_in[row], self.q_all[row] - self.q_in[row]),
        ):
            some = np.maximum(n + 2 * more, 1)
            mean = (s + more) / some
            means += [mean, np.maximum((q + more) / some - mean**2, 0) / some]
        return means[0], means[1], means[2], means[3]

    def influence(self, row: int) -> Numbers:
        """Return the difference of the arms' means on one test example, 0 where one is empty, [train]."""
        mean_in, _, mean_out, _ = self.means(row)
        return np.where(self.has_score, mean_in - mean_out, 0.0)

    def sampling_variance(self, row: int) -> Numbers:
        """Return an unbiased estimate of the variance of `influence`, 0 where an arm is empty."""
        _, of_in, _, of_out = self.means(row)
        parts = (v * n / np.maximum(n - 1, 1) for v, n in ((of_in, self.n_in), (of_out, self.n_out)))
        return np.where(self.has_score, sum(parts), 0.0)

    def null_se(self, row: int) -> Numbers:
        """Return the standard deviation of `influence` if models were assigned to arms at random."""
        n = self.n_models
        variance = max(0.0, float(self.q_all[row, 0] / n - (self.s_all[row, 0] / n) ** 2)) * n / max(1, n - 1)
        safe_in, safe_out = np.maximum(self.n_in, 1), np.maximum(self.n_out, 1)
        return np.where(self.has_score, np.sqrt(variance * (1 / safe_in + 1 / safe_out)), 0.0)
