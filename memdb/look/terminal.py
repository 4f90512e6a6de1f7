"""Portraits and galleries in a terminal: pictures with captions below, or lists without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from memdb.datasets.appearance import Content, Contents
from memdb.format import layout
from memdb.look.couples import Couples
from memdb.look.exhibits import Gallery
from memdb.look.portrait import Portrait, Rate
from memdb.look.suspects import Suspects
from memdb.look.tiles import Source, Tile
from memdb.render import graphics, images
from memdb.render.tables import clean
from memdb.wording import count

LARGEST = 64  # pixels of a picture's longer side
OWNER_COLUMNS = 32  # of the example that a portrait is of, by a protocol
LEAST_COLUMNS = 14  # of a picture that makes room for others
GAP = 2
CLASS, SCORE, N_WHOLE = 1, 2, 4  # columns of a listing: name, class, score and interval; then key and words
LEAST_TEXT = 8  # columns of a text that is cut
TEXT_LINES = 7  # of an example that is text
BAR = 20
COLOURS = {"in": "#2b6cb0", "out": "#c05621", "all": "default"}  # as on pages; both grounds leave 3 : 1


class Wall:
    """Where examples hang: a terminal of some width, with a way to show pictures.

    ``contents`` returns what examples look like; None if that is unknown.
    """

    def __init__(self, console: Console, contents: Contents | None, way: str) -> None:
        self._console = console
        self._contents = contents
        self._way = way
        self._width = console.width

    def portrait(self, shown: Portrait) -> None:
        """Print an example, its score and its partners."""
        owner = shown.owner
        kind = "Training" if owner.set_name == layout.TRAIN else "Test"
        key = "" if owner.key == str(owner.row) else f" \u00b7 {owner.key}"
        self._say(f"{kind} example {owner.row} \u00b7 class {owner.class_name}{key}", "bold")
        self._hang_one(owner)
        if shown.score:
            self._say(f"memorization {owner.score_text} {owner.interval_text}")
        for rate in shown.rates:
            self._print(_bar(rate))
        for title, tiles in zip(shown.titles, (shown.helps, shown.hurts), strict=True):
            self._say()
            self._say(title, "bold")
            self.strip(tiles)
        self._foot(shown.source, [*shown.helps, *shown.hurts])

    def gallery(self, shown: Gallery) -> None:
        """Print a gallery line by line."""
        for line in shown.lines:
            if isinstance(line.head, Tile):
                head = line.head
                self._say(f"Training example {head.row} \u00b7 class {head.class_name}", "bold")
                self._hang_one(head)
                self._say(f"memorization {head.score_text} {head.interval_text}")
                self._say("helps these test examples most")
                self.strip(line.tiles)
                self._say(f"control: random test examples of class {head.class_name}")
                self.strip(line.control)
            else:
                self._say(f"memorization near {line.level}", "bold")
                self.strip(line.tiles)
            self._say()
        self._foot(shown.source, shown.tiles)

    def suspects(self, shown: Suspects) -> None:
        """Print the pictures of suspected label errors, where the terminal shows any."""
        if self._way != "none":
            self._say()
            self.strip(shown.tiles)
        self._foot(shown.source, ())

    def couples(self, shown: Couples) -> None:
        """Print near-duplicates two by two, where the terminal shows pictures."""
        for couple in shown.pairs if self._way != "none" else ():
            self._say()
            self._say(couple.found_by, "bold")
            self.strip(couple.tiles)
        self._foot(shown.source, ())

    def strip(self, tiles: Sequence[Tile]) -> None:
        """Print examples side by side, in as many lines as the width asks for."""
        if not tiles:
            self._say("none", "dim")
        elif self._way == "none":
            self._print(self._listing(tiles))
        else:
            captions = [_caption(tile) for tile in tiles]
            contents = [self._content(tile) for tile in tiles]
            n_across, columns = self._divided(
                contents, max(cell_len(line) for lines in captions for line in lines)
            )
            for start in range(0, len(tiles), n_across):
                part = slice(start, start + n_across)
                self._hang(tiles[part], contents[part], captions[part], columns)

    def _divided(self, contents: Sequence[Content], caption: int) -> tuple[int, int]:
        """Return how many examples hang side by side, and on how many columns each."""
        own = LEAST_COLUMNS + 4
        if self._way not in graphics.PROTOCOLS:
            own = max((_pixels(c).shape[1] for c in contents if not isinstance(c, str)), default=own)
        wanted, room = max(own, caption), self._width + GAP
        least = max(LEAST_COLUMNS, min(caption, wanted))
        n_across = max(room // (wanted + GAP), min(len(contents), room // (least + GAP)), 1)
        n_across = min(n_across, len(contents))
        return n_across, max(1, min(wanted, room // n_across - GAP, self._width))

    def _hang(
        self, tiles: Sequence[Tile], contents: Sequence[Content], captions: Sequence[list[str]], columns: int
    ) -> None:
        drawn = [self._drawn(content, columns) for content in contents]
        if self._way in graphics.PROTOCOLS and any(not isinstance(content, str) for content in contents):
            self._emit(contents, columns)
        grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        for _ in tiles:
            grid.add_column(width=columns, no_wrap=True, overflow="ellipsis")
        if any(text.plain for text in drawn):
            grid.add_row(*drawn)
        for lines in zip(*captions, strict=True):
            cells = zip(lines, tiles, strict=True)
            grid.add_row(*(Text(line, "dim" if tile.is_explained_by_chance else "") for line, tile in cells))
        self._print(grid)

    def _hang_one(self, tile: Tile) -> None:
        if self._way == "none":
            return
        content, columns = self._content(tile), min(self._width, LARGEST)
        if not isinstance(content, str) and self._way in graphics.PROTOCOLS:
            self._emit([content], min(columns, OWNER_COLUMNS))
        else:
            self._print(self._drawn(content, columns))

    def _drawn(self, content: Content, columns: int) -> Text:
        """Return a picture of characters or a text, ``columns`` wide; nothing for what a protocol shows."""
        if isinstance(content, str):
            lines = Text(_printable(content)).wrap(self._console, columns)
            if len(lines) > TEXT_LINES:
                lines = type(lines)([*lines[: TEXT_LINES - 1], Text("\u2026")])
            return Text("\n").join(lines)
        if self._way in graphics.PROTOCOLS:
            return Text()
        return images.picture(images.fitted(_pixels(content), columns), color=self._way == "blocks")

    def _emit(self, contents: Sequence[Content], columns: int) -> None:
        """Print pictures side by side as one that a protocol shows."""
        lines = max(1, columns // 2)
        step, height = (columns + GAP) * graphics.CELL[0], lines * graphics.CELL[1]
        side = min(columns * graphics.CELL[0], height)
        canvas = np.zeros((height, step * len(contents) - GAP * graphics.CELL[0], 4), dtype=np.uint8)
        for number, content in enumerate(contents):
            if not isinstance(content, str):
                rgb = images.fitted(images.as_rgb(content), side)
                factor = max(1, side // max(rgb.shape[:2]))
                rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
                spot = canvas[: rgb.shape[0], number * step : number * step + rgb.shape[1]]
                spot[:, :, :3], spot[:, :, 3] = rgb, 255
        n_columns = canvas.shape[1] // graphics.CELL[0]
        self._console.file.write(f"{graphics.escape(self._way, canvas, n_columns, lines)}\n")

    def _listing(self, tiles: Sequence[Tile]) -> Table:
        """Return examples as lines of text, with their words where they are text."""
        grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        rows = []
        for tile in tiles:
            content = self._content(tile)
            words = " ".join(_printable(content).split()) if isinstance(content, str) else ""
            key = "" if tile.key == str(tile.row) else tile.key
            rows.append([tile.name, tile.class_name, tile.score_text, tile.interval_text, key or words])
            if key and words:
                rows[-1].append(words)
        for number, most in enumerate(self._widths(rows)):
            justify: JustifyMethod = "right" if number == SCORE else "left"
            grid.add_column(no_wrap=True, overflow="ellipsis", justify=justify, max_width=most)
        for tile, row in zip(tiles, rows, strict=True):
            cells = (Text(cell) for cell in row[: len(grid.columns)])
            grid.add_row(*cells, style="dim" if tile.is_explained_by_chance else "")
        return grid

    def _widths(self, rows: Sequence[Sequence[str]]) -> list[int]:
        """Return the widths of a listing's columns: numbers stay whole, texts are cut, or omitted."""
        widths = [max(map(cell_len, cells)) for cells in zip_longest(*rows, fillvalue="")]
        room = self._width - sum(width + GAP for width in widths[:N_WHOLE])
        kept = widths[:N_WHOLE]
        kept[CLASS] = max(min(kept[CLASS], LEAST_TEXT), kept[CLASS] + min(0, room + GAP))
        for width in widths[N_WHOLE:]:
            if room >= LEAST_TEXT:
                kept.append(min(width, room))
                room -= kept[-1] + GAP
        return kept

    def _content(self, tile: Tile) -> Content:
        return "" if self._contents is None else self._contents(tile.set_name, tile.row)

    def _foot(self, source: Source, tiles: Sequence[Tile]) -> None:
        by_chance = sum(tile.is_explained_by_chance for tile in tiles)
        if by_chance:
            self._say(f"Chance explains {by_chance} of {count(len(tiles), 'score')}: the dim ones (q > .1).")
        for line in source.lines:
            self._say(line, "dim")

    def _say(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style, no_wrap=False))

    def _print(self, shown: Text | Table) -> None:
        self._console.print(shown)


def _caption(tile: Tile) -> list[str]:
    return [f"{tile.name} \u00b7 {tile.class_name}", tile.score_text, tile.interval_text]


def _bar(rate: Rate) -> Text:
    filled = round(BAR * (rate.mean or 0.0))
    bar = Text(f"{rate.models:<4}")
    bar.append("\u2588" * filled, COLOURS[rate.models])
    bar.append("\u2591" * (BAR - filled) + f" {rate.words}")
    return bar


def _pixels(content: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.enlarged(images.fitted(images.as_rgb(content), LARGEST))


def _printable(text: str) -> str:
    return "\n".join(clean(line) for line in text.splitlines())
