"""Pairs of near-duplicates as a table, and the examples whose memorization a twin hides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from memdb.render.analysis import grid
from memdb.render.answer import Answer
from memdb.render.fitted import Fitted
from memdb.render.tables import brief, brief_q, class_label, stacked
from memdb.wording import count

Row = Mapping[str, Any]


def table(answer: Answer, title: str, class_names: Sequence[str], most: int, more: str) -> RenderableType:
    """Return the first pairs, and of these the examples that are hidden.

    ``more`` says how to get the other pairs.
    """
    pairs = list(pairs_of(answer.rows()))
    shown = pairs[:most]
    first = _pairs(shown, f"{count(len(pairs), 'pair')} of {title}", class_names)
    if len(pairs) > most:
        first.caption = f"{count(len(pairs) - most, 'more pair')}; {more}"
    hidden = [row for pair in shown for row in pair if row["hidden_by"] is not None]
    return stacked(first, "", _hidden(hidden, answer.facts)) if hidden else first


def pairs_of(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows of each pair: one, or of two training examples one each way."""
    for row in rows:
        yield [row] if row["target_id"] is None else [row, next(rows)]


def _pairs(pairs: Sequence[Sequence[Row]], title: str, class_names: Sequence[str]) -> Fitted:
    headings = ("train", "twin", "class", "found by", "influence", "share", "q", "similar", "distance")
    return grid(title, headings, [_cells(pair, class_names) for pair in pairs], 4, 5)


def _cells(pair: Sequence[Row], class_names: Sequence[str]) -> list[str]:
    """Return a pair as a line: what each does for the other, in the order of the two."""
    first = pair[-1]  # of two training examples, the row whose target is the larger id
    classes = dict.fromkeys(class_label(first[name], class_names) for name in ("train_label", "target_label"))
    return [
        str(first["train_id"]),
        f"test\u00a0{first['test_id']}" if first["target_id"] is None else f"train\u00a0{first['target_id']}",
        "/".join(classes),
        first["found_by"].replace("+", ", "),
        "\u00a0".join(brief(row["influence"], "+") for row in reversed(pair)),
        "\u00a0".join(brief(row["share"]) for row in reversed(pair)),
        brief_q(first["q_value"]),
        brief(first["similarity"]),
        brief(first["distance"]),
    ]


def _hidden(rows: Sequence[Row], facts: Mapping[str, Any]) -> Fitted:
    """Return memorization beside what it is with the twin held out, too."""
    kind = f"{facts['level'] * 100:g} % {facts['interval']}"
    headings = ("train", "hidden by", "memor.", "twin out", kind, "right/in", "right/\nboth out")
    cells = [
        [
            str(row["target_id"]),
            str(row["hidden_by"]),
            brief(row["memorization"]),
            brief(row["pair_memorization"]),
            f"[{brief(row['pair_lo'], '+')}, {brief(row['pair_hi'], '+')}]",
            f"{row['k_own_in']}/{row['n_own_in']}",
            f"{row['k_out']}/{row['n_out']}",
        ]
        for row in rows
    ]
    return grid("Memorization that a twin hides", headings, cells, 0)
