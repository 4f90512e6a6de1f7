"""The curves of a removal experiment, as a table with a picture in a terminal, or as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from memdb.render.analysis import grid
from memdb.render.answer import Answer
from memdb.render.drawing import write_figure
from memdb.render.fitted import Fitted
from memdb.render.tables import brief, number, stacked
from memdb.wording import count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Strip = Sequence[tuple[NDArray[np.uint8] | str, str]]  # pictures or texts of examples, with captions

WIDEST = 80
LABEL = 32
MARKS = {"memorized": "\u25cf", "random": "\u25cb", "matched": "\u25c7", "added": "\u25b3"}
STYLES = {  # told apart without colours, too
    "memorized": {"color": "#c05621", "marker": "o", "linestyle": "-"},
    "random": {"color": "#5a5a5a", "marker": "s", "linestyle": "--"},
    "matched": {"color": "#2b6cb0", "marker": "D", "linestyle": "-."},
    "added": {"color": "#6b46c1", "marker": "^", "linestyle": ":"},
}
LABELS = {
    "memorized": "without the memorized",
    "random": "without as many at random",
    "matched": "without as many matched",
    "added": "slice from here on added to the easy",
}
SCORES = {
    "raw": "raw scores",
    "lower": "lower ends of their simultaneous intervals",
    "shrunk": "shrunk scores",
}
APART = 0.012  # of the thresholds' range, between the marks of two curves
Row = Mapping[str, Any]


def table(answer: Answer, width: int) -> Any:
    """Return the rows, their curves, what they say, and the test examples that lose most."""
    rows, facts = list(answer.rows()), answer.facts
    parts: list[Any] = [_numbers(rows, facts), "", picture(rows, min(width, WIDEST)), ""]
    parts += [Text(f"\u2022 {sentence}") for sentence in facts["in_words"]]
    if facts.get("lost"):
        parts += ["", _lost(facts["lost"])]
    return stacked(*parts)


def _numbers(rows: Sequence[Row], facts: Mapping[str, Any]) -> Fitted:
    kept = f"with all examples {_accuracy(facts, 'accuracy_all')}"
    title = f"Test accuracy in %, {facts['level'] * 100:g} % anytime intervals \u00b7 {kept}"
    accuracies = ("test\nacc.", "con-\ntrol", "difference", "no\ntwins")
    headings = ("memorized", "control", "re-\nmoved", "n", *accuracies, "held out", "left")
    cells = [
        [
            f"{row['rule']}\u00a0\u2265\u00a0{row['threshold']:g}",
            row["control"],
            f"{row['n_removed']:,}",
            f"{row['n_repetitions']:,}",
            _points(row, "accuracy"),
            _points(row, "control_accuracy"),
            _accuracy(row, "difference", "+") + ("*" if row["separates"] else " "),
            _points(row, "difference_without_near_duplicates", "+"),
            _held_out(row),
            f"{100 * row['fraction_left']:.1f}",
        ]
        for row in rows
    ]
    return grid(title, headings, cells, 2, n_kept=7)


def _held_out(row: Row) -> str:
    """Return how often held-out models are right on what is removed, and on what the control removes."""
    return "\u00a0".join(brief(row[name]) for name in ("held_out", "control_held_out"))


def _points(row: Row, name: str, sign: str = "") -> str:
    return "\u2013" if row[name] is None else f"{100 * row[name]:{sign}.2f}"


def _accuracy(row: Row, name: str, sign: str = "") -> str:
    half = "" if row[f"{name}_lo"] is None else f" \u00b1{50 * (row[f'{name}_hi'] - row[f'{name}_lo']):.2f}"
    return f"{_points(row, name, sign)}{half}"


def curves_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the curves: by rule and what was removed, points with a fraction left and an accuracy."""
    curves: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    for row in rows:
        sides = [("memorized", "accuracy")] * (row["control"] != "added")
        sides += [(row["control"], "control_accuracy")]
        for name, value in sides:
            if row[value] is not None:
                point = {
                    "threshold": row["threshold"],
                    "left": row["fraction_left"],
                    **{end: row[f"{value}{end}"] for end in ("_lo", "_hi")},
                    "value": row[value],
                }
                curves.setdefault((row["rule"], name), {})[row["threshold"]] = point
    return {name: [points[t] for t in sorted(points)] for name, points in curves.items()}


def picture(rows: Sequence[Row], width: int) -> Text:
    """Return each accuracy as a mark within its interval, on one scale."""
    curves = curves_of(rows)
    every = [p for points in curves.values() for p in points]
    if not every:
        return Text("No model yet.")
    ends = [v for p in every for v in (p["value"], p["_lo"], p["_hi"]) if v is not None]
    low, high = min(ends), max(ends)
    columns = max(20, width - LABEL)
    step = (high - low) / (columns - 1) or 1.0
    lines = []
    thresholds = dict.fromkeys((row["rule"], row["threshold"]) for row in rows)
    for rule, threshold in thresholds:
        for (of, name), points in curves.items():
            for p in (p for p in points if of == rule and p["threshold"] == threshold):
                cells = [" "] * columns
                if p["_lo"] is not None:
                    first, last = round((p["_lo"] - low) / step), round((p["_hi"] - low) / step)
                    cells[first : last + 1] = "\u2500" * (last + 1 - first)
                cells[round((p["value"] - low) / step)] = MARKS[name]
                label = f"{rule} \u2265 {threshold:g} {name}"
                lines.append(f"{label:<{LABEL - 2}}\u2502{''.join(cells)}".rstrip())
    scale = f"{100 * low:.2f} %{'':{max(1, columns - 16)}}{100 * high:.2f} %"
    return Text("\n".join([*lines, f"{'':{LABEL - 1}}{scale}"]), no_wrap=True)


def _lost(rows: Sequence[Row]) -> Fitted:
    cells = [
        [
            f"{row['test_id']}",
            f"{row['label']}",
            number(row["p_control"]),
            number(row["p_memorized"]),
            number(row["loss"], "+"),
            f"{number(row['lo'], '+')} to {number(row['hi'], '+')}",
            ", ".join(map(str, row.get("influencers") or ())) + " (twin)" * row["near_duplicate"],
        ]
        for row in rows
    ]
    headings = ("test", "class", "random", "memorized", "loss", "simultaneous", "removed influencers")
    return grid(
        "Test examples that lose most: how often models are right without ...", headings, cells, 0, n_kept=5
    )


def draw(path: Path, answer: Answer, strips: Sequence[Strip] = ()) -> None:
    """Write the curves to a file, and pictures below them, whole or not at all; equal rows give an equal SVG.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - without pyplot: nothing global, no windows

    rows = list(answer.rows())
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    heights = [4.0] * max(1, len(rules)) + [1.3] * len(strips)
    figure = Figure(figsize=(10, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, rule in zip(parts, rules, strict=False):
        _draw_curves(part, [row for row in rows if row["rule"] == rule], answer.facts)
    for part, strip in zip(parts[len(heights) - len(strips) :], strips, strict=True):
        _hang(part, strip, max(map(len, strips)))
    write_figure(figure, path)


def _draw_curves(part: Any, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Draw the accuracies of one rule, and beside them the differences, which are the answer."""
    accuracies, differences = part.subplots(1, 2)
    curves = {name: points for (_, name), points in curves_of(rows).items()}
    for at, (name, points) in enumerate(curves.items()):
        _curve(accuracies, name, points, at - (len(curves) - 1) / 2)
    if facts["accuracy_all"] is not None:
        accuracies.axhline(100 * facts["accuracy_all"], color="black", linewidth=0.8, label="all examples")
    accuracies.set_ylabel("test accuracy, %")
    controls = [name for name in curves if name != "memorized"]
    for at, name in enumerate(controls):
        found = [row for row in rows if row["control"] == name and row["difference"] is not None]
        points = [
            {"threshold": row["threshold"], "value": row["difference"]}
            | {end: row[f"difference{end}"] for end in ("_lo", "_hi")}
            for row in found
        ]
        _curve(differences, name, points, at - (len(controls) - 1) / 2)
    differences.axhline(0, color="black", linewidth=0.8)
    differences.set_ylabel("difference, points")
    left = {row["threshold"]: row["fraction_left"] for row in rows if row["control"] != "added"}
    ticks = {t: f"{t:g}\n{100 * share:.4g} %" for t, share in left.items()}
    beside = (max(ticks) - min(ticks) or 1) / 16
    for axes in (accuracies, differences):
        axes.set_xticks(list(ticks), list(ticks.values()), fontsize=min(9, 60 / len(ticks)))
        axes.set_xlim(min(ticks) - beside, max(ticks) + beside)
        axes.set_xlabel("removed at or above this memorization, and what is left")
        axes.spines[["top", "right"]].set_visible(False)
    n_models = max(row["n_repetitions"] for row in rows)
    scores, level = SCORES[rows[0]["rule"]], f"{facts['level'] * 100:g} % anytime intervals"
    title = f"{scores} \u00b7 up to {count(n_models, 'model')} an arm \u00b7 {level}"
    part.suptitle(title, parse_math=False, fontsize=10)
    part.legend(*accuracies.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _curve(axes: Any, name: str, points: Sequence[Row], place: float) -> None:
    """Draw values in percent with their intervals, a little beside those of the other curves."""
    thresholds = [p["threshold"] for p in points]
    shift = place * APART * (max(thresholds, default=0) - min(thresholds, default=0) or 1)
    y = [100 * p["value"] for p in points]
    ends = [[100 * (p["value"] if p[end] is None else p[end]) for p in points] for end in ("_lo", "_hi")]
    error = [
        [v - lo for v, lo in zip(y, ends[0], strict=True)],
        [hi - v for v, hi in zip(y, ends[1], strict=True)],
    ]
    x = [t + shift for t in thresholds]
    axes.errorbar(x, y, yerr=error, label=LABELS[name], markersize=4, linewidth=1.2, **STYLES[name])


def _hang(part: Any, strip: Strip, n_across: int) -> None:
    """Hang the first example of a strip, which loses, and what of the removed helped it, side by side."""
    for axes, (content, caption) in zip(part.subplots(1, n_across, squeeze=False)[0], strip, strict=False):
        if isinstance(content, str):
            axes.text(0.5, 0.5, content, ha="center", va="center", wrap=True, fontsize=6, parse_math=False)
        else:
            axes.imshow(content if content.shape[2] == 3 else content[:, :, 0], cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, parse_math=False, fontsize=7)
    for axes in part.axes:
        axes.set_axis_off()
