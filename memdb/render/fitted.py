"""Tables that fit a terminal: numbers are whole or omitted, never cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

ELLIPSIS = "\u2026"
NARROWEST = 16  # to which text is wrapped before the table gives up
DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Column:
    """A column, and what may become of it where the terminal is narrow.

    Attributes:
        short: a heading for tight tables, which may have several lines.
        least: a width to which cells may be cut; None if they may not. What is cut is their beginning if
            ``tail``: the end of a path tells more.
        folds: cells may be wrapped, but not within a word that has digits: an id, a time, a version.
        rank: columns of the highest rank are omitted first; those of rank 0 stay.
        is_extra: nobody is told when it is omitted.
    """

    heading: str
    right: bool = True
    short: str = ""
    least: int | None = None
    tail: bool = False
    folds: bool = False
    rank: int = 0
    is_extra: bool = False


@dataclass
class Fitted:
    """Rows under headings, in as many columns as there is room for; or, where that is too few, as records.

    Attributes:
        dim: which rows stand back, those that chance explains; none if empty.
        instead: what is shown in place of records.
        keeps_empty: whether records have a line for a value that is empty, such as NULL.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    dim: Sequence[bool] = ()
    instead: RenderableType | None = None
    keeps_empty: bool = False
    _widths: list[int] = field(init=False)
    _words: list[int] = field(init=False)

    def __post_init__(self) -> None:
        cells = [
            [line for row in self.rows for line in row[place].split("\n")]
            for place in range(len(self.columns))
        ]
        self._widths = [max(map(_width, texts), default=0) for texts in cells]
        self._words = [
            max((_width(word) for text in texts for word in text.split() if DIGIT.search(word)), default=0)
            if column.folds else 0
            for column, texts in zip(self.columns, cells, strict=True)
        ]  # fmt: skip

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for a width."""
        if self.title:
            yield Text(self.title, style="bold")
        shown = self._layout(options.max_width)
        caption = [self.caption] if self.caption else []
        if shown is not None:
            yield self._table(*shown)
            kept = set(shown[0])
            missing = [c.heading for n, c in enumerate(self.columns) if n not in kept and not c.is_extra]
            if missing:
                caption.append(f"not shown, for lack of room: {', '.join(missing)}")
        else:
            yield self._records() if self.instead is None else self.instead
        if caption:
            yield Text("; ".join(" ".join(text.split()) for text in caption), style="italic")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Take all the room there is."""
        return Measurement(1, options.max_width)

    def _layout(self, width: int) -> tuple[list[int], list[int], int, bool] | None:
        """Return which columns fit, their widths, the gap beside each and whether headings are short."""
        kept = list(range(len(self.columns)))
        while kept:
            for gap, tight in ((1, False), (0, False), (0, True)):
                widths = [max(self._widths[n], self._heading(n, tight=tight)) for n in kept]
                room = width - (len(kept) - 1) - gap * len(kept)
                if sum(widths) <= room:
                    return kept, widths, gap, tight
            least = [self._least(n, most) for n, most in zip(kept, widths, strict=True)]
            spare = room - sum(least)
            if spare >= 0:
                for column, (low, most) in enumerate(zip(least, widths, strict=True)):
                    widths[column] = low + min(spare, most - low)
                    spare -= widths[column] - low
                return kept, widths, 0, True
            last = max(kept, key=lambda n: (self.columns[n].rank, n))
            if self.columns[last].rank == 0:
                return None
            kept.remove(last)
        return None

    def _heading(self, place: int, *, tight: bool) -> int:
        return max(map(_width, _heading_of(self.columns[place], tight=tight).split("\n")))

    def _least(self, place: int, most: int) -> int:
        column = self.columns[place]
        if column.folds:
            return min(most, max(NARROWEST, self._words[place], self._heading(place, tight=True)))
        return (
            most if column.least is None else min(most, max(column.least, self._heading(place, tight=True)))
        )

    def _table(self, kept: list[int], widths: list[int], gap: int, tight: bool) -> Table:  # noqa: FBT001
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0))
        for place, width in zip(kept, widths, strict=True):
            column = self.columns[place]
            table.add_column(
                Text(_heading_of(column, tight=tight)),
                justify="right" if column.right else "left",
                no_wrap=not column.folds,
                overflow="fold" if column.folds else "ellipsis",
                width=width,
            )
        for number, row in enumerate(self.rows):
            cells = [
                Text(_cut(row[place], width) if self.columns[place].tail else row[place])
                for place, width in zip(kept, widths, strict=True)
            ]
            table.add_row(*cells, style="dim" if self.dim and self.dim[number] else None)
        return table

    def _records(self) -> Table:
        """Return a line for each value that there is, a block for each row."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(style="bold", overflow="fold")
        table.add_column(overflow="fold")
        for number, row in enumerate(self.rows):
            if number:
                table.add_row("", "")
            style = "dim" if self.dim and self.dim[number] else None
            for column, cell in zip(self.columns, row, strict=True):
                if cell or self.keeps_empty:
                    table.add_row(Text(" ".join(column.heading.split())), Text(cell), style=style)
        return table


def _heading_of(column: Column, *, tight: bool) -> str:
    return column.short or column.heading if tight else column.heading


def _width(text: str) -> int:
    return Text(text).cell_len


def _cut(text: str, width: int) -> str:
    """Return the end of a text that is too long."""
    return text if _width(text) <= width else ELLIPSIS + text[len(text) - width + 1 :]
