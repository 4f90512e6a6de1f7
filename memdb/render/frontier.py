"""The frontier of quality against cost: tables, curves in a terminal, and the figure."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from memdb.errors import InvalidInputError
from memdb.render.analysis import DASH, duration, grid
from memdb.render.answer import Answer
from memdb.render.curves import HEIGHT, MARGIN, axis
from memdb.render.drawing import write_figure
from memdb.render.tables import brief, clean, console, facts, stacked

MEASURES = {  # the words for each, and the heading of its column
    "correlation": ("correlation with the truth", "corr"),
    "precision": ("strongest {at:,} among the first {at:,}", "p@{at}"),
    "top_10": ("top 10 of a test example", "top10"),
    "feldman_zhang": ("pairs that Feldman and Zhang select", "fz"),
    "strength": ("mean influence of the first {at:,}", "str"),
    "error": ("error on the strongest {at:,}", "err"),
    "certified": ("pairs certified at a false discovery rate of .1", "sure"),
    "certified_strength": ("mean influence of the certified pairs", "of sure"),
    "coverage": ("coverage of intervals", "all"),
    "coverage_of_first": ("coverage on its own first {at:,}", "1st"),
}
CURVES = tuple(MEASURES)
AXES = {"models": "n_models", "seconds": "seconds"}
PANELS = ("precision", "top_10", "error", "coverage_of_first")
LONGEST = ("error", "coverage_of_first")  # of which a table shows the longest list alone
HIDDEN = ("strength", "certified_strength")  # which a table has no room for
BOUNDS = {"at least": "\u2265", "at most": "\u2264", None: ""}
MARKERS = "\u25cf\u25c6\u25b2\u25a0\u2605\u25cb\u25c7\u25b3\u25a1"
DOT, REFERENCE = "\u00b7", "\u2508"
EXACT = "exact"
WIDTH = 80
Row = Mapping[str, Any]
Key = tuple[str, int | None]  # a measure and the length of its list


def require_choice(name: str, value: str, allowed: Sequence[str] | Mapping[str, str]) -> None:
    """Refuse a value that is not allowed.

    Raises:
        InvalidInputError: it names those that are.
    """
    if value not in allowed:
        raise InvalidInputError(
            f"unknown {name} {value!r}", hint=f"use one of {', '.join(allowed)}", parameter=name
        )


def frontier(answer: Answer, common: Mapping[str, Any], title: str, curve: tuple[str, str]) -> Table:
    """Return tables of quality and of plain models, and a curve of one measure over models or seconds."""
    rows = list(answer.rows())
    head = {
        "truth": f"{common['n_truth']:,} models, of which nobody below saw any; reliability "
        f"{brief(common['truth_reliability'])}",
        "judged": f"{common['n_pairs']:,} pairs of {common['n_tests']:,} test examples, "
        f"{common['n_strong_tests']:,} with strong influences",
    }
    columns = _columns(rows)
    headings = ("", "models", "time", *(_heading(key) for key in columns))
    quality = grid(_about(columns), headings, [_line(line, columns, _value) for line in _lines(rows)])
    parts: list[RenderableType] = [facts(head, title), "", quality]
    compared = [line for line in _lines(rows) if any(row["plain_models"] for row in line.values())]
    if compared:
        shown = [
            key for key in columns if any(key in line and line[key]["plain_models"] for line in compared)
        ]
        headings = ("", "models", "time", *(_heading(key) for key in shown))
        lines = [_line(line, shown, _plain) for line in compared]
        parts += [
            "",
            grid("As good as this many models by raw scores (~ extrapolated)", headings, lines),
        ]
    return stacked(*parts, "", _curves(rows, *curve))


def _about(columns: Sequence[Key]) -> str:
    """Return what the columns are about that say it in one word."""
    of = {name: at for name, at in columns if name in LONGEST}
    parts = ["Quality"]
    if "error" in of:
        parts.append(f"err: of {of['error']:,} pairs")
    if "coverage_of_first" in of:
        parts.append(f"all, 1st: coverage of all, of its first {of['coverage_of_first']:,}")
    return " \u00b7 ".join(parts)


def _columns(rows: Sequence[Row]) -> list[Key]:
    """Return the measures that a table has room for, in order."""
    measured = dict.fromkeys((row["measure"], row["at"]) for row in rows)
    longest = max((at for name, at in measured if name == "precision"), default=None)
    keys = [
        key
        for key in measured
        if key[0] not in (*LONGEST, *HIDDEN) or (key[0] not in HIDDEN and key[1] == longest)
    ]
    return sorted(keys, key=lambda key: (list(MEASURES).index(key[0]), key[1] or 0))


def _heading(key: Key) -> str:
    return MEASURES[key[0]][1].format(at=key[1])


def _lines(rows: Sequence[Row]) -> Iterator[dict[Key, Row]]:
    """Yield the rows of each estimator and number of models, by measure."""
    lines: dict[tuple[str, int | None], dict[Key, Row]] = {}
    for row in rows:
        lines.setdefault((row["estimator"], row["n_models"]), {})[row["measure"], row["at"]] = row
    yield from lines.values()


def _line(line: Mapping[Key, Row], columns: Sequence[Key], cell: Any) -> list[str]:
    first = next(iter(line.values()))
    models = "" if first["n_models"] is None else f"{first['n_models']:,}"
    time = "" if first["seconds"] is None else duration(first["seconds"])
    return [clean(first["estimator"], 20), models, time, *(cell(line.get(key)) for key in columns)]


def _value(row: Row | None) -> str:
    if row is None:
        return ""
    if row["value"] is None:
        return DASH
    return f"{row['value']:,.0f}" if row["measure"] == "certified" else brief(row["value"])


def _plain(row: Row | None) -> str:
    if row is None or row["plain_models"] is None:
        return ""
    if row["plain_extrapolated"] is not None:
        return f"~{two_digits(row['plain_extrapolated']):,}"
    return f"{BOUNDS[row['plain_bound']]}{row['plain_models']:,}"


def two_digits(n: int) -> int:
    """Round a number of models, which is known no better."""
    return round(n, 2 - len(str(n)))


def _series(rows: Sequence[Row], key: Key, against: str) -> dict[str, list[tuple[float | None, float]]]:
    """Return the points of each estimator, ascending; what has no models has one point without an x."""
    points_of: dict[str, list[tuple[float | None, float]]] = {}
    for row in rows:
        if (row["measure"], row["at"]) == key and row["value"] is not None:
            x = row[AXES[against]]
            points_of.setdefault(row["estimator"], []).append((x, row["value"]))
    return {name: sorted(points, key=lambda point: point[0] or 0.0) for name, points in points_of.items()}


def _curves(rows: Sequence[Row], measure: str, against: str) -> Text:
    """Return curves of one measure, over models or seconds, on a logarithmic scale."""
    lengths = [row["at"] for row in rows if row["measure"] == measure]
    if not lengths:
        return Text(f"No {measure} is known here.")
    key = (measure, max((at for at in lengths if at is not None), default=None))
    series = _series(rows, key, against)
    xs = [x for points in series.values() for x, _ in points if x]
    if not xs:
        return Text(f"No {measure} is known here.")
    columns = max(20, min(WIDTH, console().width) - MARGIN)
    first, last = min(xs), max(xs)
    high = max(value for points in series.values() for _, value in points) or 1.0
    canvas = [[" "] * columns for _ in range(HEIGHT)]
    markers = dict(zip((name for name in series if name != EXACT), MARKERS * len(series), strict=False))
    for name in sorted(series, key=lambda name: series[name][0][0] is not None):  # levels go below curves
        _draw_on(canvas, series[name], markers.get(name), (first, last, high))
    lines = [
        f"{_label(at, high):>{MARGIN - 2}} \u2502{''.join(cells)}".rstrip() for at, cells in enumerate(canvas)
    ]
    lines += axis(first, last, columns, against if against == "models" else "s")
    legend = [f"{marker}\u00a0{clean(name, 20)}" for name, marker in markers.items()]
    legend += [f"{REFERENCE}\u00a0exact"] if EXACT in series else []
    title = MEASURES[measure][0].format(at=key[1]).capitalize()
    indent = " " * MARGIN
    explained = textwrap.wrap(
        "  ".join(legend), MARGIN + columns, initial_indent=indent, subsequent_indent=indent
    )
    return Text("\n".join([title, *lines, *explained]).replace("\u00a0", " "), no_wrap=True)


def _label(line: int, high: float) -> str:
    return f"{high:.2f}" if line == 0 else "0" if line == HEIGHT - 1 else ""


def _draw_on(
    canvas: list[list[str]],
    points: Sequence[tuple[float | None, float]],
    marker: str | None,
    limits: tuple[float, float, float],
) -> None:
    """Draw one curve: its marker at each point, dots between them; a level if it has no x."""
    first, last, high = limits
    columns = len(canvas[0])
    spread = math.log(last / first) or 1.0

    def line_of(value: float) -> int:
        return min(HEIGHT - 1, max(0, HEIGHT - 1 - round(value / high * (HEIGHT - 1))))

    known = [(round(math.log(x / first) / spread * (columns - 1)), value) for x, value in points if x]
    if not known:
        for column in range(columns):
            canvas[line_of(points[0][1])][column] = marker or REFERENCE if column % 4 == 0 else REFERENCE
        return
    for (left, low), (right, up) in itertools.pairwise(known):
        for column in range(left + 1, right):
            canvas[line_of(low + (up - low) * (column - left) / (right - left))][column] = DOT
    for column, value in known:
        canvas[line_of(value)][column] = marker or REFERENCE


def draw(path: Path, rows: Sequence[Row], title: str, against: str) -> None:
    """Write the figure to a file, whole or not at all; the same rows give the same SVG.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - without pyplot: nothing global, no windows

    longest = max((row["at"] for row in rows if row["measure"] == "precision"), default=None)
    keys = [(name, {"top_10": 10}.get(name, longest)) for name in PANELS]
    present = {(row["measure"], row["at"]) for row in rows if row["value"] is not None}
    keys = [key for key in keys if key in present]
    names = list(dict.fromkeys(row["estimator"] for row in rows if row["estimator"] != EXACT))
    figure = Figure(figsize=(3.4 * max(1, len(keys)), 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False, fontsize=10)
    for column, key in enumerate(keys, start=1):
        axes = figure.add_subplot(1, len(keys), column)
        for name, points in _series(rows, key, against).items():
            color = "black" if name == EXACT else f"C{names.index(name)}"
            known = [(x, value) for x, value in points if x]
            label = clean(name, 40)
            if known:
                axes.plot(*zip(*known, strict=True), marker="o", markersize=3, color=color, label=label)
            else:
                axes.axhline(points[0][1], color=color, linestyle=":", label=label)
        unit = "models" if against == "models" else "seconds of training"
        axes.set(xscale="log", xlabel=unit, ylim=(0, None))
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:,g}")
        axes.set_title(MEASURES[key[0]][0].format(at=key[1]), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if column == 1:
            axes.legend(frameon=False, fontsize=8)
    write_figure(figure, path)
