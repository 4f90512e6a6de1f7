"""An answer as a static HTML table with small pictures, as notebooks show it and keep it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memdb.look.rows import Content, Contents
from memdb.render.answer import rows_of
from memdb.render.images import as_rgb, enlarged, fitted
from memdb.render.tables import clean

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

ROWS = 50
SIDE = 48  # pixels of a picture on the page, and at most in it
MOST_BYTES = 200_000
TABLE_BYTES = 110_000  # of it without pictures, at most
CELL = 80  # characters of a text
WORDS = 120  # of an example that is text
COLUMNS = 40
SETS = {"train_id": "train", "test_id": "test", "target_id": "train"}  # the ids that have pictures
SCORES = ("memorization", "influence", "shrunk", "difference", "lo", "hi", "p_in", "p_out", "q_value")
STYLE = "font-variant-numeric:tabular-nums;text-align:"
NOTHING = "\u2013"


def table_of(relation: DuckDBPyRelation, contents: Contents | None) -> str:
    """Return the first rows of an answer as an HTML table; its ids have pictures, each where it comes first.

    Everything that a store says is escaped, no script runs, and no style outside of the table changes.
    """
    found = relation.limit(ROWS + 1).to_arrow_table()
    names = found.column_names[:COLUMNS]
    rows = [row for batch in found.select(names).slice(0, ROWS).to_batches() for row in rows_of(batch)]
    pictures = _Pictures(contents, MOST_BYTES - TABLE_BYTES)
    body, size = [], 0
    for row in rows:
        line = "".join(_cell(name, row[name], pictures) for name in names)
        size += len(line.encode()) - pictures.taken_by_last_row()
        if size > TABLE_BYTES:
            break
        body.append(f"<tr>{line}</tr>")
    head = "".join(f'<th style="{STYLE}{_side(rows, name)}">{_text(name)}</th>' for name in names)
    note = _note(relation, found.num_rows, len(body), len(found.column_names) - len(names))
    return (
        f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        f"{note and f'<p>{note}</p>'}"
    )


class _Pictures:
    """Small pictures of examples as HTML, as long as there is room, each once."""

    def __init__(self, contents: Contents | None, room: int) -> None:
        self._contents = contents
        self._room = room
        self._seen: set[tuple[str, int]] = set()
        self._taken = 0

    def of(self, set_name: str, row: int) -> str:
        """Return the picture or the words of an example; nothing if it was shown before, or is not known."""
        if self._contents is None or (set_name, row) in self._seen:
            return ""
        self._seen.add((set_name, row))
        made = _shown(self._contents(set_name, row), f"{set_name} example {row}")
        if len(made.encode()) > self._room:
            return ""
        self._room -= len(made.encode())
        self._taken += len(made.encode())
        return made

    def taken_by_last_row(self) -> int:
        """Return the bytes that were made since the last call."""
        taken, self._taken = self._taken, 0
        return taken


def _shown(content: Content, name: str) -> str:
    if isinstance(content, str):
        words = clean(" ".join(content.split()), WORDS)
        return f'<div style="max-width:24em;text-align:left">{_text(words)}</div>'
    kind, data = _encoded(content)
    height, width = (max(1, round(SIDE * n / max(content.shape[:2]))) for n in content.shape[:2])
    return (
        f'<img alt="{_text(name)}" width="{width}" height="{height}" style="image-rendering:pixelated" '
        f'src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}"><br>'
    )


def _encoded(content: Any) -> tuple[str, bytes]:
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    is_grey = content.shape[2] == 1 or bool((content == content[:, :, :1]).all())
    pixels = fitted(as_rgb(content), SIDE)
    buffer = io.BytesIO()
    if is_grey:
        Image.fromarray(np.ascontiguousarray(pixels[:, :, 0])).save(buffer, "PNG", optimize=True)
        return "png", buffer.getvalue()
    Image.fromarray(np.ascontiguousarray(enlarged(pixels))).save(buffer, "JPEG", quality=85, subsampling=0)
    return "jpeg", buffer.getvalue()


def _cell(name: str, value: Any, pictures: _Pictures) -> str:
    align = "right" if isinstance(value, int | float) else "left"
    shown = _number(name, value) if isinstance(value, float) else _value(value)
    picture = pictures.of(SETS[name], value) if name in SETS and isinstance(value, int) else ""
    return f'<td style="{STYLE}{align}">{picture}{_text(shown)}</td>'


def _number(name: str, value: float) -> str:
    return f"{value:.3f}" if name in SCORES else f"{value:.6g}"


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    return clean(value, CELL)


def _side(rows: Sequence[dict[str, Any]], name: str) -> str:
    first: Iterator[Any] = (row[name] for row in rows if row[name] is not None)
    return "right" if isinstance(next(first, None), int | float) else "left"


def _text(value: object) -> str:
    return html.escape(clean(value, CELL + WORDS))


def _note(relation: DuckDBPyRelation, n_found: int, n_shown: int, n_hidden: int) -> str:
    parts = []
    if n_found > n_shown:
        parts.append(f"{n_shown} of {len(relation):,} rows")
    if n_hidden:
        parts.append(f"{n_hidden:,} more columns")
    return "; ".join(parts) + (": .df() has them all" if parts else "")
