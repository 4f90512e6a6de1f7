"""The figure of the README: what few models find, drawn as an SVG that reads on light and dark ground."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Points = Sequence[tuple[int, float]]
WIDTH, HEIGHT = 760, 298
PANEL_WIDTH, PANEL_HEIGHT, TOP, GAP, LEFT = 310, 170, 58, 64, 44
STYLE = """
svg { --ground: #ffffff; --text: #1f2328; --quiet: #59636e; --line: #d1d9e0; --informed: #2b6cb0; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --text: #f0f6fc; --quiet: #9198a1; --line: #3d444d; --informed: #63b3ed; }
}
text { font: 12px system-ui, sans-serif; fill: var(--quiet); }
.title { font-weight: 600; fill: var(--text); }
.informed { stroke: var(--informed); } .raw { stroke: var(--quiet); }
text.informed { fill: var(--informed); stroke: none; } text.raw { stroke: none; }
polyline { fill: none; stroke-width: 2; } circle.informed { fill: var(--informed); } circle.raw { fill: var(--quiet); }
.grid { stroke: var(--line); }
"""


def figure(title: str, panels: Mapping[str, Mapping[str, Points]], caption: str) -> str:
    """Return an SVG of some panels, each with curves by name."""
    drawn = "\n".join(
        f'<g transform="translate({LEFT + place * (PANEL_WIDTH + GAP)},{TOP})">\n'
        + "\n".join(_panel(name, curves))
        + "\n</g>"
        for place, (name, curves) in enumerate(panels.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="var(--ground)"/>\n'
        f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>\n{drawn}\n'
        f'<text x="{LEFT}" y="{HEIGHT - 12}">{escape(caption)}</text>\n</svg>\n'
    )


def _panel(name: str, curves: Mapping[str, Points]) -> Iterator[str]:
    xs = [n for points in curves.values() for n, _ in points]
    first, last = math.log(min(xs)), math.log(max(xs))
    top = math.ceil(10.5 * max(y for points in curves.values() for _, y in points)) / 10

    def at(n: int, value: float) -> tuple[float, float]:
        x = (math.log(n) - first) / (last - first) * PANEL_WIDTH
        return round(x, 1), round((1 - value / top) * PANEL_HEIGHT, 1)

    yield f'<text x="0" y="-12">{escape(name)}</text>'
    for value in (0.0, top / 2, top):
        _, y = at(min(xs), value)
        yield f'<line class="grid" x1="0" x2="{PANEL_WIDTH}" y1="{y}" y2="{y}"/>'
        yield f'<text x="-8" y="{y + 4}" text-anchor="end">{value:.0%}</text>'
    for n in sorted(set(xs)):
        yield f'<text x="{at(n, 0)[0]}" y="{PANEL_HEIGHT + 18}" text-anchor="middle">{n:,}</text>'
    yield f'<text x="{PANEL_WIDTH / 2}" y="{PANEL_HEIGHT + 36}" text-anchor="middle">models</text>'
    for kind, points in curves.items():
        places = [at(n, value) for n, value in points]
        joined = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline class="{kind}" points="{joined}"/>'
        yield from (f'<circle class="{kind}" cx="{x}" cy="{y}" r="3"/>' for x, y in places)
        x, y = places[len(places) // 2]
        below = kind != "raw"  # between the curves, where there is room
        yield f'<text class="{kind}" x="{x}" y="{y + (18 if below else -10)}" text-anchor="middle">{kind}</text>'


def curves_of(
    lines: Mapping[tuple[str, int | None], Mapping[tuple[str, int | None], Mapping[str, Any]]],
    key: tuple[str, int | None],
    kinds: Sequence[str],
) -> dict[str, list[tuple[int, float]]]:
    """Return the points of some estimators for one measure, ascending in models."""
    found: dict[str, list[tuple[int, float]]] = {kind: [] for kind in kinds}
    for (kind, n_models), line in sorted(lines.items(), key=lambda item: item[0][1] or 0):
        if kind in found and n_models and key in line and line[key]["value"] is not None:
            found[kind].append((n_models, line[key]["value"]))
    return found
