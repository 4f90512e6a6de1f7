"""The options of questions: rows and order of a list, selection of pairs, limits of statements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from memdb.errors import InvalidInputError
from memdb.query.intervals import IntervalSpec

DIRECTIONS = ("helps", "hurts", "both")
FDRS = ("once", "anytime")
MAX_ROWS = 2**31 - 1
MAX_PAIRS = 100_000_000  # counted by one statement
MAX_SCREENED = 10_000_000  # pairs
TIMEOUT_SECONDS = 600.0
MEMORY = 4 * 10**9  # bytes of DuckDB's buffers, which excludes what functions allocate themselves


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ranked, and what it says about the rank of each row.

    ``by`` is ``shrunk``, the score's own name, ``q_value`` or ``lo``; ``direction`` is ``helps``, ``hurts``
    or ``both`` (by absolute value); ``fdr`` is ``once`` or ``anytime``; ``ranks`` asks for rank intervals.
    """

    by: str = "shrunk"
    direction: str = "helps"
    fdr: str = "once"
    ranks: bool = False

    def key(self, score: str) -> str:
        """Return what SQL orders a list by: this score, or the end of its interval that is ``lo``."""
        if self.by == "lo":
            return {"helps": "lo DESC", "hurts": "hi ASC", "both": "greatest(lo, -hi) DESC"}[self.direction]
        return {"helps": f"{score} DESC", "hurts": f"{score} ASC", "both": f"abs({score}) DESC"}[
            self.direction
        ]

    def require(self, score: str) -> None:
        """Check all of it for lists of this score.

        Raises:
            InvalidInputError: an unknown value; lists those that exist.
        """
        for word, given, allowed in (
            ("order", self.by, ("shrunk", score, "q_value", "lo")),
            ("direction", self.direction, DIRECTIONS),
            ("fdr", self.fdr, FDRS),
        ):
            if given not in allowed:
                raise InvalidInputError(f"unknown {word} {given!r}", hint=f"use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class RankedQuery:
    """Which rows of a ranked list to show: the first ``k`` in this order, with which interval."""

    k: int
    order: Order
    interval: IntervalSpec

    def require(self, score: str) -> None:
        """Check the order and the number of rows.

        Raises:
            InvalidInputError: an unknown order, or a number of rows out of range.
        """
        self.order.require(score)
        require_k(self.k)


def require_k(k: int) -> int:
    """Check the number of rows of a list.

    Raises:
        InvalidInputError: less than one row, or more than there can be ids.
    """
    if not 1 <= k <= MAX_ROWS:
        raise InvalidInputError(
            f"k {k} is not a number from 1 to {MAX_ROWS:,}", hint="use e.g. k=20", parameter="k"
        )
    return k


ESTIMATORS = ("raw", "informed")
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Estimator:
    """How influences on test examples are estimated and tested.

    Attributes:
        kind: ``raw``, the difference in means, or ``informed``, the calibrated prediction.
        screen: test only this many pairs, those that a prior ranks first; ``auto`` for one a model.
        screen_by: a file of scores [train, test] that is the prior, in place of gradient sketches.

    Raises:
        InvalidInputError: an unknown kind, or options that contradict each other.
    """

    kind: str = "raw"
    screen: int | str | None = None
    screen_by: Path | None = None

    def __post_init__(self) -> None:
        if self.kind not in ESTIMATORS:
            raise InvalidInputError(
                f"unknown estimator {self.kind!r}",
                hint=f"use one of {', '.join(ESTIMATORS)}",
                parameter="estimator",
            )
        if self.screen is not None:
            if self.screen != AUTO and (type(self.screen) is not int or not 1 <= self.screen <= MAX_SCREENED):
                raise InvalidInputError(
                    f"screen {self.screen} is neither auto nor a number from 1 to {MAX_SCREENED:,}",
                    hint="use screen=auto, or e.g. screen=1000",
                    parameter="screen",
                )
            if self.kind == "informed":
                raise InvalidInputError(
                    "screening tests raw influences, and informed ones take part of them from the prior",
                    hint="ask for one at a time: omit estimator or screen",
                    parameter=("estimator", "screen"),
                )
        elif self.screen_by is not None and self.kind == "raw":
            raise InvalidInputError(
                f"screen_by {self.screen_by} does nothing to raw estimates",
                hint="add screen=auto, or estimator=informed",
                parameter=("screen_by", "screen", "estimator"),
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is the raw estimate with tests of all pairs."""
        return self.kind == "raw" and self.screen is None

    def n_screened(self, n_models: int) -> int:
        """Return how many pairs to test."""
        assert self.screen is not None  # noqa: S101 - it is asked of screenings
        return n_models if self.screen == AUTO else int(self.screen)


@dataclass(frozen=True, slots=True)
class StatementLimits:
    """How much a statement may do.

    Attributes:
        max_pairs: how many pairs it may count.
        timeout: seconds that it may run; None for as long as it takes.
    """

    max_pairs: int = MAX_PAIRS
    timeout: float | None = None


OWN_LIMITS = StatementLimits()  # of memdb's own statements
USER_LIMITS = StatementLimits(timeout=TIMEOUT_SECONDS)


class PairOptions(TypedDict, total=False):
    """The options of `memdb.Database.pairs`.

    Attributes:
        top: keep this many of the strongest pairs of each test example.
        min_influence: keep pairs at or above this strength, in [-1, 1].
        min_memorization: rank only training examples with at least this memorization, in [-1, 1].
        same_class: rank only pairs with equal labels.
        direction: ``helps``, ``hurts`` or ``both`` (by absolute value).
        level: coverage of the intervals, in [0.5, 1).
        interval: the kind of interval, by default ``selected``: valid for pairs selected from all ranked.
        device: where to search: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        progress: called with the number of pairs searched so far and in all.
        stop_requested: polled during the search; return True to stop it.
    """

    top: int | None
    min_influence: float | None
    min_memorization: float | None
    same_class: bool
    direction: str
    level: float
    interval: str
    device: str
    progress: Callable[[int, int], None]
    stop_requested: Callable[[], bool]
