"""Which interval is wanted with a score: kinds, levels and what SQL needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from memdb.errors import InvalidInputError

INTERVALS = ("fixed", "anytime", "selected", "simultaneous")
NAMED_INTERVALS = ("fixed", "anytime", "simultaneous")


@dataclass(frozen=True, slots=True)
class IntervalSpec:
    """Which kind of interval to give with a score, and its level."""

    kind: str
    level: float = 0.95

    def parameters(self, allowed: tuple[str, ...] = INTERVALS) -> dict[str, Any]:
        """Return what the SQL needs, after checking both.

        Raises:
            InvalidInputError: an unknown or unsuitable kind, or a level outside (0, 1).
        """
        level = require_level(self.level)
        interval = require_interval(self.kind, allowed)
        return {"interval": interval, "alpha": 1 - level, "fixed_z": fixed_z(level)}


def fixed_z(level: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf(1 - (1 - level) / 2)


def require_level(level: float) -> float:
    """Refuse levels that are no probability.

    Raises:
        InvalidInputError: outside (0, 1), so near 1 that no interval has it, or below 0.5, where the
            anytime multiplier is not defined.
    """
    if not 0 < level < 1 or 1 - (1 - level) / 2 >= 1:
        raise InvalidInputError(
            f"the level {level:g} is not between 0 and 1", hint="use e.g. level=0.95", parameter="level"
        )
    if level < 0.5:
        raise InvalidInputError(
            f"the level {level:g} is below 0.5", hint="use e.g. level=0.95", parameter="level"
        )
    return level


def require_interval(interval: str, allowed: tuple[str, ...] = INTERVALS) -> str:
    """Refuse kinds of interval that do not exist, or do not suit the question.

    Raises:
        InvalidInputError: names the kinds that do.
    """
    if interval not in INTERVALS:
        raise InvalidInputError(f"unknown interval {interval!r}", hint=f"use one of {', '.join(allowed)}")
    if interval not in allowed:
        raise InvalidInputError(
            f"the interval {interval!r} is for ranked lists: here nothing is chosen by its rank",
            hint=f"use one of {', '.join(allowed)}",
        )
    return interval
