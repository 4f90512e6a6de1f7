"""Tables of how well scores of pairs do: beside each other, and against what any could reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from memdb.render.analysis import DASH, duration, grid
from memdb.render.answer import Answer
from memdb.render.tables import class_label, clean, facts, interval, number, stacked
from memdb.wording import count


def lds(
    answer: Answer, common: Mapping[str, Any], title: str, class_names: Sequence[str], n_rows: int
) -> Table:
    """Return how attribution scores do over all test examples, and on the first of them."""
    mean = {"lo": common["mean_lo"], "hi": common["mean_hi"]}
    head = {
        "mean": f"{number(common['mean_lds'], '+')} {interval(mean)}",
        "test examples": f"{common['n_scored']:,} with a score",
        "models": f"{common['n_held_out']:,}",
        **ceiling(common),
    }
    if common["of_ceiling"] is not None:
        head["of the ceiling"] = percent(common["of_ceiling"])
    rows = [
        [str(row["test_id"]), class_label(row["label"], class_names), number(row["lds"], "+"), interval(row)]
        for row, _ in zip(answer.rows(), range(n_rows), strict=False)
    ]
    level = f"{answer.facts['level'] * 100:g} % bootstrap"
    listed = grid("By test example", ("test", "class", "LDS", level), rows, n_left=2)
    return stacked(facts(head, title), "", listed)


def estimators(answer: Answer, common: Mapping[str, Any], title: str) -> Table:
    """Return how several estimators do beside each other."""
    head = {
        "computed from": count(common["n_pilots"], "model"),
        "graded on": f"{count(common['n_held_out'], 'other')} and {count(common['n_tests'], 'test example')}",
        **ceiling(common),
    }
    rows = [
        [
            clean(row["estimator"], 30),
            number(row["mean_lds"], "+"),
            interval(row),
            percent(row["of_ceiling"]),
            number(row["forecast"], "+") if row["forecast"] is not None else "",
        ]
        for row in answer.rows()
    ]
    level = f"{answer.facts['level'] * 100:g} % bootstrap"
    table = grid("Means over test examples", ("scores", "LDS", level, "of ceiling", "forecast"), rows)
    return stacked(facts(head, title), "", table)


def plan(answer: Answer, title: str) -> Table:
    """Return how many models predict others this well."""
    rows = [
        [
            f"LDS of {row['lds']:g} (now {number(row['lds_now'])})",
            _count(row["n_models_needed"]),
            _between(row["n_models_least"], row["n_models_most"]),
            _count(row["n_models_more"]),
            duration(row["seconds_more"]),
        ]
        for row in answer.rows()
    ]
    row = next(answer.rows())
    most = interval({"lo": row["ceiling_lo"], "hi": row["ceiling_hi"]})
    table = grid(title, ("goal", "models", "between", "more", "time"), rows)
    level = f"{answer.facts['level'] * 100:g} %"
    said = f"No scores can be expected to reach more than {number(row['ceiling'])} {most} ({level}) here."
    return stacked(table, Text(said, style="italic"))


def _between(least: int | None, most: int | None) -> str:
    upper = " or more" if most is None and least is not None else f" to {_count(most)}"
    return f"{_count(least)}{upper}"


def _count(n: int | None) -> str:
    return "out of reach" if n is None else f"{n:,}"


def ceiling(common: Mapping[str, Any]) -> dict[str, str]:
    """Return what masks explain, and the most that scores can reach, a line each."""
    if common["h2"] is None:
        return {"ceiling": "unknown with so few models"}
    share = {"lo": common["h2_lo"], "hi": common["h2_hi"]}
    most = {"lo": common["ceiling_lo"], "hi": common["ceiling_hi"]}
    return {
        "linear in masks": f"{number(common['h2'], '+')} {interval(share)} of the variance (h2)",
        "masks permuted": f"{common['h2_permuted']:+.3f} \u00b1{common['h2_permuted_se']:.3f}",
        "ceiling": f"{number(common['ceiling'], '+')} {interval(most)}",
    }


def percent(share: float | None) -> str:
    """Return a share in percent."""
    return DASH if share is None else f"{share * 100:.0f} %"
