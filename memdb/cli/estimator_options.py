"""How a question chooses its estimator, and what its answer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memdb.cli.app import say
from memdb.cli.options import EstimatorOption, OptionGroup, ScreenByOption, ScreenOption
from memdb.query.options import Estimator
from memdb.render.answer import Answer
from memdb.render.tables import clean
from memdb.wording import count


class Choice(OptionGroup):
    """How influences are estimated and tested; contradictions are refused before the store is opened."""

    estimator: EstimatorOption = "raw"

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        _ = self.chosen

    @property
    def chosen(self) -> dict[str, Any]:
        """The arguments that choose an estimator, none for raw estimates with tests of all pairs."""
        estimator = self._estimator
        if estimator.is_plain:
            return {}
        return {"estimator": estimator.kind, "screen": estimator.screen, "screen_by": estimator.screen_by}

    @property
    def _estimator(self) -> Estimator:
        given = {name: value for name, value in vars(self).items() if name != "estimator"}
        screen = given.get("screen")
        if screen is not None and screen.isascii() and screen.isdecimal():
            given["screen"] = int(screen)
        return Estimator(self.estimator, **given)


class RankedChoice(Choice):
    """The same of a ranked list."""

    screen: ScreenOption = None
    screen_by: ScreenByOption = None


class NamedChoice(Choice):
    """The same of named scores, which nothing screens."""

    screen_by: ScreenByOption = None

    @property
    def named(self) -> dict[str, Any]:
        """The arguments of methods that screen nothing."""
        return {name: value for name, value in self.chosen.items() if name != "screen"}


def estimator_line(facts: Mapping[str, Any]) -> str:
    """Return what a title says of an estimator that takes a prior."""
    match facts.get("estimator"):
        case "informed":
            return (
                f"\nCalibrated prediction from {clean(facts['prior'])} and raw influences \u00b7 the prior "
                f"explains {facts['prior_gain'] * 100:.0f} % of the variance of influence, spread "
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
