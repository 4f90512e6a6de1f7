"""A score while models were added, as a curve in a terminal or in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from memdb.environment import install
from memdb.errors import InvalidInputError
from memdb.render.drawing import write_figure

PLOTS = (".svg", ".png")
HEIGHT = 15
MARGIN = 8  # columns for the numbers beside the curve
ESTIMATE, FIXED, ANYTIME, ZERO = "\u25cf", "\u2592", "\u2591", "\u2508"
Row = Mapping[str, Any]


def curve(rows: Sequence[Row], score: str, level: float, width: int) -> Text:
    """Return a curve with both intervals over the number of models, on a logarithmic scale.

    ``rows`` are those of `convergence`, about one for each column of the picture.
    """
    columns = max(20, width - MARGIN)
    known = [row for row in rows if row[score] is not None]
    if not known:
        return Text("No score yet: the example was in every subset or in none.")
    low = min(0.0, *(row["anytime_lo"] for row in known))
    high = max(0.0, *(row["anytime_hi"] for row in known))
    step = (high - low) / (HEIGHT - 1) or 1.0
    shown = [_nearest(rows, at / (columns - 1)) for at in range(columns)]
    lines = []
    for line in range(HEIGHT):
        value = high - line * step
        zero = abs(value) <= step / 2
        label = f"{value:+.2f}" if line in {0, HEIGHT - 1} else "0" if zero else ""
        cells = "".join(_cell(row, score, value, step, zero=zero) for row in shown)
        lines.append(f"{label:>{MARGIN - 2}} \u2502{cells}".rstrip())
    lines += axis(rows[0]["n_models"], rows[-1]["n_models"], columns)
    percent = f"{level * 100:g} %"
    lines.append(f"{'':{MARGIN}}{ESTIMATE} {score}   {FIXED} {percent} fixed   {ANYTIME} {percent} anytime")
    return Text("\n".join(lines), no_wrap=True)


def _nearest(rows: Sequence[Row], share: float) -> Row:
    first, last = (math.log(rows[at]["n_models"]) for at in (0, -1))
    wanted = first + share * (last - first)
    return min(rows, key=lambda row: abs(math.log(row["n_models"]) - wanted))


def _cell(row: Row, score: str, value: float, step: float, *, zero: bool) -> str:
    if row[score] is None:
        return ZERO if zero else " "
    if abs(row[score] - value) <= step / 2:
        return ESTIMATE
    for kind, char in (("fixed", FIXED), ("anytime", ANYTIME)):
        if row[f"{kind}_lo"] <= value <= row[f"{kind}_hi"]:
            return char
    return ZERO if zero else " "


def axis(first: float, last: float, columns: int, unit: str = "models") -> list[str]:
    """Return the line below a curve over a logarithmic scale, and the numbers below that."""
    spread = math.log(last / first) or 1.0
    ticks = {first, last} | {10**power for power in range(-3, 10) if first < 10**power < last}
    line, labels, free = ["\u2500"] * columns, [" "] * columns, columns
    for n in sorted(ticks, reverse=True):  # the last one has its place for sure
        at = round(math.log(n / first) / spread * (columns - 1)) if last > first else 0
        text = f"{n:,}" if n == int(n) else f"{n:,.3g}"
        start = min(max(0, at - len(text) // 2), columns - len(text))
        if start + len(text) < free or free == columns:
            line[at] = "\u252c"
            labels[start : start + len(text)] = text
            free = start
    return [
        f"{'':{MARGIN - 1}}\u2514{''.join(line)}",
        f"{unit:>{MARGIN - 2}}  {''.join(labels).rstrip()}",
    ]


def require_plot(path: Path) -> Path:
    """Refuse files that no plot can be written to, before anything is asked.

    Raises:
        InvalidInputError: not the suffix of a format for plots, or Matplotlib is not installed.
    """
    if path.suffix.lower() not in PLOTS:
        raise InvalidInputError(
            f"plot {path} has a suffix that names no format",
            hint=f"use one of {', '.join(PLOTS)}",
            parameter="plot",
        )
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - only plots need it, and it takes a while
    except ImportError as error:
        raise InvalidInputError(
            f"plot {path} needs Matplotlib, which is not installed",
            hint=f"run: {install('plots')}",
            parameter="plot",
        ) from error
    return path


def draw(path: Path, rows: Sequence[Row], score: str, title: str, level: float) -> None:
    """Write the curve to a file, whole or not at all; the same rows give the same SVG.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - without pyplot: nothing global, no windows

    known = [row for row in rows if row[score] is not None]
    n_models = [row["n_models"] for row in known]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for kind, shade in (("anytime", 0.18), ("fixed", 0.35)):
        lo, hi = ([row[f"{kind}_{end}"] for row in known] for end in ("lo", "hi"))
        label = f"{level * 100:g} % {kind}"
        axes.fill_between(n_models, lo, hi, color="tab:blue", alpha=shade, linewidth=0, label=label)
    axes.plot(n_models, [row[score] for row in known], color="tab:blue", label=score)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="models", ylabel=score)
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    axes.set_title(title, parse_math=False, wrap=True, fontsize=10)  # a "$" in a name is not math
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    write_figure(figure, path)
