"""How a question is asked: how many rows, in which order, which pairs, within which limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from memdb.errors import InvalidInputError
from memdb.query.intervals import IntervalSpec

DIRECTIONS = ("helps", "hurts", "both")
FDRS = ("once", "anytime")
MAX_ROWS = 2**31 - 1
MAX_PAIRS = 100_000_000  # that one statement may look at
TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is ranked, and what is said of each row's rank.

    ``by`` is ``shrunk``, the score's own name, ``q_value`` or ``lo``; ``direction`` is ``helps``, ``hurts``
    or ``both`` (by absolute value); ``fdr`` is ``once`` or ``anytime``; ``ranks`` asks for rank intervals.
    """

    by: str = "shrunk"
    direction: str = "helps"
    fdr: str = "once"
    ranks: bool = False

    def require(self, score: str) -> None:
        """Refuse what does not exist.

        Raises:
            InvalidInputError: names what does.
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

    def require(self, score: str) -> dict[str, Any]:
        """Return what the SQL of the interval needs, after checking all.

        Raises:
            InvalidInputError: a number, order, level or interval that does not exist or does not suit.
        """
        self.order.require(score)
        require_k(self.k)
        return self.interval.parameters()


def require_k(k: int) -> int:
    """Refuse lists without rows.

    Raises:
        InvalidInputError: less than one row, or more than ids can number.
    """
    if not 1 <= k <= MAX_ROWS:
        raise InvalidInputError(
            f"k {k} is not a number from 1 to {MAX_ROWS:,}", hint="use e.g. k=20", parameter="k"
        )
    return k


class PairOptions(TypedDict, total=False):
    """What `memdb.Database.pairs` can be told: which pairs to keep, and how to go about it.

    Attributes:
        level, interval: of the intervals; ``selected`` where not given, for the pairs found of all ranked.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        progress: hears how many pairs of how many were looked at.
        stop_requested: asked all the time; true ends the search.
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
