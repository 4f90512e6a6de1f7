"""The kinds of confidence interval, one entry each, and the interval that a question asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from memdb.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class IntervalKind:
    """A kind of interval. Its multiplier z is the branch of its name in ``interval_z`` of `statistics.sql`.

    Attributes:
        meaning: what the interval is valid for, as the help of ``--interval`` says it.
        needs_rank: it suits ranked lists only, not scores that are named.
    """

    meaning: str
    needs_rank: bool = False


KINDS: Mapping[str, IntervalKind] = {
    "fixed": IntervalKind("one score, looked at once, at a number of models fixed beforehand"),
    "anytime": IntervalKind("one score, looked at as often as you like while models are added"),
    "selected": IntervalKind("honest for the rows shown because they rank first", needs_rank=True),
    "simultaneous": IntervalKind("all ranked scores at once"),
}


def kinds_for(*, ranked: bool) -> dict[str, str]:
    """Return the kinds that suit a ranked list, or scores that are named, with their meanings."""
    return {name: kind.meaning for name, kind in KINDS.items() if ranked or not kind.needs_rank}


@dataclass(frozen=True, slots=True)
class IntervalSpec:
    """The interval to give with each score: its kind, a key of `KINDS`, and its level in [0.5, 1).

    ``n_shown`` and ``n_ranked`` are set for a list (see `of_list`), whose intervals may depend on them.

    Raises:
        InvalidInputError: an unknown kind, or a level out of range.
    """

    kind: str
    level: float = 0.95
    n_shown: int | None = None
    n_ranked: int | None = None

    def __post_init__(self) -> None:
        require_level(self.level)
        if self.kind not in KINDS:
            raise InvalidInputError(f"unknown interval {self.kind!r}", hint=f"use one of {', '.join(KINDS)}")

    def for_named(self) -> IntervalSpec:
        """Return this interval for scores that are named rather than selected by their rank.

        Raises:
            InvalidInputError: the kind is for ranked lists only.
        """
        suitable = kinds_for(ranked=False)
        if self.kind not in suitable:
            raise InvalidInputError(
                f"the interval {self.kind!r} is for ranked lists: here nothing is chosen by its rank",
                hint=f"use one of {', '.join(suitable)}",
            )
        return self

    def of_list(self, n_shown: int, n_ranked: int) -> IntervalSpec:
        """Return this interval for a list of ``n_shown`` rows selected from ``n_ranked`` scores."""
        return replace(self, n_shown=n_shown, n_ranked=n_ranked)

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the SQL macro ``interval_z``; n_shown and n_ranked for lists only."""
        of_all = {"interval": self.kind, "alpha": 1 - self.level, "fixed_z": fixed_z(self.level)}
        of_list = {"n_shown": self.n_shown, "n_ranked": self.n_ranked}
        return of_all if self.n_ranked is None else of_all | of_list


def fixed_z(level: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf(1 - (1 - level) / 2)


def require_level(level: float) -> float:
    """Check the level of an interval.

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
