"""SQL from files, filled in, and what differs in it between the outcomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

from memdb.errors import InvalidInputError

OUTCOMES = ("correct", "confidence")

# What the templates say for each outcome: how a pair is counted, the totals of an example, and
# the columns that a reader sees. A 0/1 outcome is its own square.
FORMS: Mapping[str, Mapping[str, str]] = {
    "correct": {
        "counted": "k_in_{set}", "s": "counted", "q": "counted",
        "s_all": "n_correct", "q_all": "n_correct", "own_s": "k_in", "own_q": "k_in",
        "sums": "s_in AS k_in, s_out AS k_out", "s_in": "k_in", "s_out": "k_out",
        "arms": "k_in, k_in, n_in, k_out, k_out, n_out",
    },
    "confidence": {
        "counted": "sums_in_{set}", "s": "counted.s", "q": "counted.q",
        "s_all": "s_all", "q_all": "q_all", "own_s": "s_in", "own_q": "q_in",
        "sums": "s_in, s_out, q_in, q_out", "s_in": "s_in", "s_out": "s_out",
        "arms": "s_in, q_in, n_in, s_out, q_out, n_out",
    },
}  # fmt: skip
SHOWN_SUMS = {"correct": ("k_in", "k_out"), "confidence": ("s_in", "s_out", "q_in", "q_out")}


CONTRACT = {"statistics.sql", "relations.sql", "pairs.sql", "score_tables.sql"}  # what users may rely on


def template(name: str, **values: str) -> str:
    """Return a file of SQL, of the contract or of `query/sql`, with ``:name`` in it replaced by values."""
    folder = files("memdb.schemas") if name in CONTRACT else files("memdb.query").joinpath("sql")
    text = folder.joinpath(name).read_text(encoding="utf-8")
    if not values:
        return text
    names = "|".join(sorted(values, key=len, reverse=True))
    return re.sub(rf"(?<!:):({names})(?![a-z])", lambda found: values[found[1]], text)


def require_outcome(outcome: str) -> str:
    """Refuse outcomes that do not exist.

    Raises:
        InvalidInputError: names those that do.
    """
    if outcome not in OUTCOMES:
        raise InvalidInputError(f"unknown outcome {outcome!r}", hint=f"use one of {', '.join(OUTCOMES)}")
    return outcome
