"""The outcomes that scores can average over models, one entry each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memdb.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """An outcome that questions can be asked of.

    Attributes:
        meaning: what it is, as the help of ``--outcome`` says it.
        shown: the columns of sums that a reader sees.
        sql: what is filled into the templates of `query/sql` and `schemas`. ``counted`` names the function of
            `udfs` that counts a pair; ``s`` and ``q`` are sums of the outcome and of its square.
    """

    meaning: str
    shown: tuple[str, ...]
    sql: Mapping[str, str]


OUTCOMES: Mapping[str, QueryOutcome] = {
    "correct": QueryOutcome(
        "0 or 1",
        ("k_in", "k_out"),
        {  # a 0/1 outcome is its own square
            "counted": "k_in_{set}", "s": "counted", "q": "counted",
            "s_all": "n_correct", "q_all": "n_correct", "own_s": "k_in", "own_q": "k_in",
            "sums": "s_in AS k_in, s_out AS k_out", "s_in": "k_in", "s_out": "k_out",
            "arms": "k_in, k_in, n_in, k_out, k_out, n_out",
        },
    ),
    "confidence": QueryOutcome(
        "the probability given to the label",
        ("s_in", "s_out", "q_in", "q_out"),
        {
            "counted": "sums_in_{set}", "s": "counted.s", "q": "counted.q",
            "s_all": "s_all", "q_all": "q_all", "own_s": "s_in", "own_q": "q_in",
            "sums": "s_in, s_out, q_in, q_out", "s_in": "s_in", "s_out": "s_out",
            "arms": "s_in, q_in, n_in, s_out, q_out, n_out",
        },
    ),
}  # fmt: skip


def require_outcome(outcome: str) -> str:
    """Check the name of an outcome.

    Raises:
        InvalidInputError: an unknown one; lists those that exist.
    """
    if outcome not in OUTCOMES:
        raise InvalidInputError(f"unknown outcome {outcome!r}", hint=f"use one of {', '.join(OUTCOMES)}")
    return outcome
