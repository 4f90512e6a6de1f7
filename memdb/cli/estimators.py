"""How a question chooses its estimator, and what its answer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.cli.app import say
from memdb.render.answer import Answer
from memdb.render.tables import clean, count

if TYPE_CHECKING:
    from memdb.database import Database


def estimator_of(kind: str, screen: str | None, screen_by: Path | None) -> dict[str, Any]:
    """Return the arguments that choose an estimator, none for raw estimates with tests of all pairs.

    Raises:
        InvalidInputError: options that contradict each other.
    """
    from memdb.query.options import AUTO, Estimator

    n_screened: int | str | None = screen
    if screen is not None and screen != AUTO and screen.isascii() and screen.isdecimal():
        n_screened = int(screen)
    chosen = Estimator(kind, n_screened, screen_by)
    return {} if chosen.is_plain else {"estimator": kind, "screen": n_screened, "screen_by": screen_by}


def answers_of(db: Database, chosen: Mapping[str, Any], outcome: str) -> Any:
    """Return the source of answers by the estimator that was chosen."""
    from memdb.query.options import Estimator

    if not chosen:
        return db.answers(outcome)
    kind, screen, screen_by = (chosen[name] for name in ("estimator", "screen", "screen_by"))
    return db.predictions(Estimator(kind, screen, screen_by), outcome)


def estimator_line(facts: Mapping[str, Any]) -> str:
    """Return what a title says of an estimator that takes a prior."""
    match facts.get("estimator"):
        case "informed":
            return (
                f"\nCalibrated prediction from {clean(facts['prior'])} and raw influences \u00b7 the prior "
                f"explains {facts['prior_gain']:.0%} of the variance of influence, spread "
                f"{facts['prior_spread']:.4f}"
            )
        case "screened":
            return (
                f"\nTested by {count(facts['n_testing_models'], 'model')}: the pairs that "
                f"{clean(facts['prior'])} rank first"
            )
        case _:
            return ""


def remark_on_estimator(answer: Answer) -> None:
    """Say why the answer is the raw estimate, or what a prediction is not."""
    if "why_raw" in answer.facts:
        say(f"Raw estimates: {answer.facts['why_raw']}.")
    if "estimator" in answer.facts and _agree(answer):
        say("All models agree on what is shown here: no influence can show.")
    elif answer.facts.get("estimator") == "informed":
        say("Predictions are calibrated on average over pairs, and no guarantee for one of them.")


def _agree(answer: Answer) -> bool:
    """Tell whether all models do the same on every row, where there are rows that say so."""
    names = ("k_in", "n_in", "k_out", "n_out")
    if not hasattr(answer.table, "num_rows") or not set(names) <= set(answer.table.column_names):
        return False
    counts = [tuple(row[name] for name in names) for row in answer.rows()]
    return bool(counts) and all(
        (k_in, k_out) in {(n_in, n_out), (0, 0)} for k_in, n_in, k_out, n_out in counts
    )
