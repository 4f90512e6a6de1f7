"""Portraits and galleries as figures of Matplotlib, which read when they are printed 8 cm wide."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from memdb.datasets.appearance import Contents
from memdb.environment import install
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.look.couples import Couples
from memdb.look.exhibits import Gallery, Line
from memdb.look.portrait import Portrait, Rate
from memdb.look.suspects import Suspects
from memdb.look.tiles import Source, Tile
from memdb.render.tables import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINT = 1 / 72  # inches
WIDTH = 3.15  # inches, 8 cm: of a figure whose strips have few pictures
LARGEST, SMALLEST = 0.75, 0.5  # of a picture in a strip
SUSPECTS_ACROSS = 4
COUPLES_ACROSS = 2
GAP = 4 / 96  # 4 pixels
MARGIN = 0.06
HEAD = 0.34  # beside a row: its level
LARGE, TEXT, SMALL, LEAST = 9.0, 8.0, 7.0, 5.9  # points
LINE = 1.25  # heights of text from one line to the next
INK, GREY, FAINT, RULE = "#1a202c", "#4a5568", "#6b7280", "#cbd5e0"
IN, OUT = "#2b6cb0", "#c05621"
NEARLY = 1.01  # of a width: less than this is not cut
NARROWEST = 0.75  # of a size, to which a long text shrinks before it is cut
MOST_LINES = 40  # of an example that is text
DPI = 300
HAIR = 0.6  # points


def require_matplotlib() -> None:
    """Refuse to draw without Matplotlib.

    Raises:
        InvalidInputError: it is not installed.
    """
    try:
        import matplotlib as mpl  # noqa: F401, PLC0415 - only figures need it, and it takes a while
    except ImportError as error:
        raise InvalidInputError(
            "figures need Matplotlib, which is not installed", hint=f"run: {install('plots')}"
        ) from error


def draw_gallery(shown: Gallery, contents: Contents | None) -> Figure:
    """Return the figure of a gallery; ``contents`` is None if it is unknown what examples look like."""
    is_influence = shown.choice.by == "influence"
    n_across = max(len(line.tiles) for line in shown.lines)
    if is_influence:
        sheet = Sheet(contents, n_across, 4 * GAP, n_heads=1)
        sheet.write("memorization", 0, sheet.y, SMALL, GREY, width=sheet.left - 2 * GAP)
        sheet.heading("influence on test examples", sheet.left)
    else:
        sheet = Sheet(contents, n_across, HEAD)
        sheet.heading("memorization near", 0)
    for line in shown.lines:
        if isinstance(line.head, Tile):
            _draw_influence(sheet, line.head, line)
        else:
            sheet.write(line.level, 0, sheet.y + sheet.side / 2, LARGE, va="center")
            sheet.strip(line.tiles, with_scores=False)
    if is_influence:
        return sheet.finished(shown.source, shown.tiles)
    return sheet.finished(replace(shown.source, intervals=""), ())  # which it shows none of


def draw_suspects(shown: Suspects, contents: Contents | None) -> Figure:
    """Return the figure of suspected label errors, the most suspect first, likewise."""
    n_across = min(len(shown.tiles), SUSPECTS_ACROSS)
    sheet = Sheet(contents, n_across)
    sheet.heading("given label \u2192 what held-out models agree on, and how many of them", 0)
    for start in range(0, len(shown.tiles), n_across):
        sheet.strip(shown.tiles[start : start + n_across])
    return sheet.finished(shown.source, ())


def draw_couples(shown: Couples, contents: Contents | None) -> Figure:
    """Return the figure of near-duplicates, two pairs in a line, likewise."""
    sheet = Sheet(contents, 2 * COUPLES_ACROSS)
    sheet.heading("near-duplicates, and the influence of each on the other", 0)
    for start in range(0, len(shown.pairs), COUPLES_ACROSS):
        line, top = shown.pairs[start : start + COUPLES_ACROSS], sheet.y
        for number, couple in enumerate(line):
            left = 2 * number * (sheet.side + GAP)
            bottom = sheet.lines([(couple.found_by, LEAST, GREY)], left, top, width=2 * sheet.side)
        sheet.y = bottom + GAP / 2
        named = [
            replace(tile, class_name=f"{tile.name} \u00b7 {tile.class_name}")
            for couple in line
            for tile in couple.tiles
        ]
        sheet.strip(named)
        for number in range(1, len(line)):
            sheet.rule(2 * number * (sheet.side + GAP) - GAP / 2, top, sheet.y - 2 * GAP)
    return sheet.finished(shown.source, ())


def draw_portrait(shown: Portrait, contents: Contents | None) -> Figure:
    """Return the figure of an example with its partners, likewise."""
    sheet, owner = Sheet(contents, max(len(shown.helps), len(shown.hurts))), shown.owner
    side = WIDTH / 3
    left = side + 3 * GAP
    sheet.picture(owner, 0, side)
    kind = "training" if owner.set_name == layout.TRAIN else "test"
    key = "" if owner.key == str(owner.row) else owner.key
    lines = [(f"{kind} example {owner.row}", LARGE, INK), (f"class {owner.class_name}", TEXT, GREY)]
    lines += [(key, SMALL, GREY)] if key else []
    if shown.score:
        lines.append((f"memorization {_signed(owner.score_text)}", TEXT, INK))
        lines.append((_signed(owner.interval_text), SMALL, GREY))
    bottom = sheet.lines(lines, left, sheet.y)
    bottom = max(bottom, sheet.bars(shown.rates, left, bottom + GAP))
    sheet.y = max(sheet.y + side, bottom) + 2 * GAP
    for title, tiles in zip(shown.titles, (shown.helps, shown.hurts), strict=True):
        sheet.heading(title, 0)
        if tiles:
            sheet.strip(tiles)
        else:
            sheet.y = sheet.lines([("none", TEXT, GREY)], 0, sheet.y) + GAP
    return sheet.finished(shown.source, [*shown.helps, *shown.hurts])


def _draw_influence(sheet: Sheet, head: Tile, line: Line) -> None:
    """Draw a training example, a rule, what it helps most, and below them the control."""
    top = sheet.y
    sheet.tile(head, 0)
    sheet.strip(line.tiles)
    if line.control:
        sheet.y -= GAP
        sheet.heading(f"control: random test examples of class {head.class_name}", sheet.left)
        sheet.strip(line.control, is_control=True)
    sheet.rule(sheet.side + 2 * GAP, top, sheet.y - 3 * GAP)
    sheet.y += 2 * GAP


def _signed(text: str) -> str:
    """Return numbers with the sign of print."""
    return text.replace("-", "\u2212")


class Sheet:
    """A figure on white that grows downwards: places in inches from its left edge and from its top.

    Args:
        contents: what examples look like.
        n_across: pictures of the longest strip.
        room: to the left of strips, besides ``n_heads`` pictures.
        n_heads: pictures to the left of strips.
    """

    def __init__(
        self, contents: Contents | None, n_across: int, room: float = 0.0, *, n_heads: int = 0
    ) -> None:
        self._contents = contents
        inner, between = WIDTH - 2 * MARGIN, (n_across - 1) * GAP
        fitting = (inner - room - between) / max(1, n_across + n_heads)
        self.side = min(max(fitting, SMALLEST), LARGEST)
        self.left = room + n_heads * self.side
        self._width = max(self.left + n_across * self.side + between, inner)
        self._drawings: list[Any] = []  # what draws on a figure, once its height is known
        self.y = MARGIN

    def strip(self, tiles: Sequence[Tile], *, with_scores: bool = True, is_control: bool = False) -> None:
        """Hang examples side by side, and go below them."""
        bottoms = [self.y + self.side]
        for number, tile in enumerate(tiles):
            left = self.left + number * (self.side + GAP)
            bottoms.append(self.tile(tile, left, with_scores=with_scores, is_control=is_control))
        if not tiles:
            self.write("none within .125", self.left, self.y + self.side / 2, TEXT, GREY, va="center")
        self.y = max(bottoms) + 2 * GAP

    def heading(self, text: str, left: float) -> None:
        """Write a line above a strip."""
        self.y = self.lines([(text, SMALL, GREY)], left, self.y) + GAP / 2

    def tile(self, tile: Tile, left: float, *, with_scores: bool = True, is_control: bool = False) -> float:
        """Hang an example with its class below, and its score; return where that ends."""
        self.picture(tile, left, self.side)
        lines = [(tile.class_name, TEXT, GREY)]
        if with_scores and tile.score is not None:
            ink = FAINT if tile.is_explained_by_chance or is_control else INK
            interval = tile.interval_text.replace("+", "")  # narrower
            lines += [(_signed(tile.score_text), TEXT, ink), (_signed(interval), LEAST, GREY)]
        top = self.y + self.side + GAP / 2
        return self.lines(lines, left + self.side / 2, top, width=self.side + GAP / 2, ha="center")

    def picture(self, tile: Tile, left: float, side: float) -> None:
        """Hang a picture, or the words, of an example in a square."""
        content = "" if self._contents is None else self._contents(tile.set_name, tile.row)
        top = self.y
        if isinstance(content, str):
            size = LEAST if side == self.side else SMALL
            words = content or f"no picture\n{tile.name}"
            self._drawings.append(lambda on: _draw_words(on, words, (left, top, side), size))
            return
        pixels = content if content.shape[2] == 3 else content[:, :, 0]
        self._drawings.append(lambda on: _draw_pixels(on, pixels, (left, top, side)))

    def lines(
        self, lines: Sequence[tuple[str, float, str]], left: float, top: float, **options: Any
    ) -> float:
        """Write lines, each a text with its size and colour, below each other; return where they end."""
        for text, size, ink in lines:
            self.write(text, left, top, size, ink, **options)
            top += size * LINE * POINT
        return top

    def write(self, text: str, left: float, top: float, size: float, ink: str = INK, **options: Any) -> None:
        """Write a line, cut to a width, by default to what is left of the sheet's."""
        width = options.pop("width", self._width - left)
        options = {"va": "top", "ha": "left", "color": ink, **options}
        self._drawings.append(lambda on: _draw_text(on, text, (left, top, width), size, options))

    def bars(self, rates: Sequence[Rate], left: float, top: float) -> float:
        """Draw how many models are right on an example; return where that ends."""
        colours = {"in": IN, "out": OUT, "all": GREY}
        for rate in rates:
            self.write(rate.models, left, top, SMALL, colours[rate.models])
            length = 0.6
            for share, colour in ((1.0, RULE), (rate.mean or 0.0, colours[rate.models])):
                box = (left + 0.22, top + 0.02, length * share, 0.075)
                self._drawings.append(lambda on, box=box, colour=colour: on.box(box, facecolor=colour))
            self.write(rate.words, left + 0.22 + length + GAP, top, SMALL, GREY)
            top += SMALL * LINE * POINT * 1.1
        return top

    def rule(self, left: float, top: float, bottom: float) -> None:
        """Draw a thin vertical line."""
        self._drawings.append(lambda on: on.box((left, top, HAIR * POINT, bottom - top), facecolor=RULE))

    def finished(self, source: Source, scored: Sequence[Tile]) -> Figure:
        """Return the figure, with whose numbers these are at its foot."""
        notes = list(source.lines)
        if any(tile.is_explained_by_chance for tile in scored):
            notes.append("grey scores: chance explains them (q > .1)")
        if self._contents is None:
            notes.append("without pictures: the data was not there")
        lines = [part for line in notes for part in _wrapped(line, SMALL, self._width)]
        self.y = self.lines([(line, SMALL, GREY) for line in lines], 0, self.y)
        canvas = _Canvas(self._width, self.y + MARGIN)
        for draw in self._drawings:
            draw(canvas)
        return canvas.figure


class _Canvas:
    """A figure of Matplotlib with places in inches, down from the top."""

    def __init__(self, width: float, height: float) -> None:
        self.size = (width + 2 * MARGIN, height)
        self.figure = _new_figure(self.size)

    def place(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height as parts of the figure."""
        left, top, width, height = box
        across, down = self.size
        return (left + MARGIN) / across, 1 - (top + height) / down, width / across, height / down

    def axes(self, box: tuple[float, float, float, float]) -> Any:
        """Return axes without anything in a box."""
        axes = self.figure.add_axes(self.place(box))
        axes.set_axis_off()
        return axes

    def box(self, box: tuple[float, float, float, float], **options: Any) -> None:
        """Draw a rectangle without an edge."""
        from matplotlib.patches import Rectangle  # noqa: PLC0415

        left, bottom, width, height = self.place(box)
        shape = Rectangle(
            (left, bottom), width, height, linewidth=0, transform=self.figure.transFigure, **options
        )
        self.figure.add_artist(shape)


def _new_figure(size: tuple[float, float]) -> Figure:
    """Return a figure that any notebook shows, without pyplot: nothing global, no windows."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            data = io.BytesIO()
            self.savefig(data, format="png", dpi=DPI // 2)
            return data.getvalue()

        def draw(self, renderer: Any) -> None:
            with warnings.catch_warnings():  # a name may have characters that the font lacks
                warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
                super().draw(renderer)

    return Shown(figsize=size, facecolor="white")


def _draw_pixels(on: _Canvas, pixels: Any, square: tuple[float, float, float]) -> None:
    left, top, side = square
    height, width = (n / max(pixels.shape[:2]) * side for n in pixels.shape[:2])
    axes = on.axes((left + (side - width) / 2, top + (side - height) / 2, width, height))
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="antialiased", aspect="auto")


def _draw_words(on: _Canvas, words: str, square: tuple[float, float, float], size: float) -> None:
    """Write the first words of an example into its square."""
    left, top, side = square
    on.box((left, top, side, side), facecolor="#f7fafc")
    n_lines = int((side - GAP / 2) / (size * LINE * POINT))
    wrapped = [part for line in words.splitlines() for part in _wrapped(clean(line), size, side - GAP)]
    if len(wrapped) > n_lines:
        wrapped = [*wrapped[: n_lines - 1], "\u2026"]
    for number, line in enumerate(wrapped):
        place = (left + GAP / 2, top + GAP / 2 + number * size * LINE * POINT, side - GAP)
        _draw_text(on, line, place, size, {"va": "top", "ha": "left", "color": INK})


def _draw_text(
    on: _Canvas, text: str, place: tuple[float, float, float], size: float, options: dict[str, Any]
) -> None:
    left, top, width = place
    whole = _width_of(text, size)
    if whole > width:
        size *= max(NARROWEST, width / whole)
    cut = _cut(clean(text), size, width)
    x, y, _, _ = on.place((left, top, 0, 0))
    on.figure.text(x, y, cut, size=size, parse_math=False, **options)  # a "$" in a name is not math


def _cut(text: str, size: float, width: float) -> str:
    whole = _width_of(text, size)
    if whole <= width * NEARLY:
        return text
    text = text[: int(len(text) * width / whole * 1.5) + 2]
    while text and _width_of(f"{text}\u2026", size) > width:
        text = text[:-1]
    return f"{text}\u2026"


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Return a text in lines of a width, broken between words where these are not too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width_of(longer, size) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
        if len(lines) > MOST_LINES:
            break
    return lines


@lru_cache(4096)
def _width_of(text: str, size: float) -> float:
    """Return the width of a text in inches."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415
    from matplotlib.textpath import text_to_path  # noqa: PLC0415

    if not text.strip():
        return 0.0
    with warnings.catch_warnings():  # of characters that the font lacks
        warnings.simplefilter("ignore")
        width, _, _ = text_to_path.get_text_width_height_descent(
            text, FontProperties(size=size), ismath=False
        )
    return float(width) * POINT
