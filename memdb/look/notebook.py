"""An answer as a static HTML table with small pictures, as notebooks show it and keep it."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from memdb.datasets.appearance import Content, Contents, Picture
from memdb.errors import MemdbError
from memdb.render.answer import rows_of
from memdb.render.images import as_rgb, enlarged, fitted
from memdb.render.tables import clean
from memdb.wording import count

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

ROWS = 50
COLUMNS = 40
SIDE = 48  # pixels of a picture on the page, and at most in it
MOST_BYTES = 180_000  # of a table, besides its head
PICTURE_BYTES = 90_000  # of its pictures, at most
CELL = 80  # characters of a text
WORDS = 120  # of an example that is text
SETS = {"train_id": "train", "test_id": "test", "target_id": "train"}  # the ids that have pictures
SCORES = ("memorization", "influence", "shrunk", "difference", "lo", "hi", "p_in", "p_out", "q_value")
SMALL = 0.001  # a q-value below which it need not be told
NOTHING = "\u2013"
TABLE = "white-space:nowrap;font-variant-numeric:tabular-nums"
IMAGE = "image-rendering:pixelated;vertical-align:middle;display:inline-block;margin:0"
TEXT = "max-width:24em;text-align:left;white-space:normal"


def table_of(relation: DuckDBPyRelation, contents: Contents | None) -> str:
    """Return the first rows of an answer as an HTML table; its ids have pictures, each where it comes first.

    Everything that a store says is escaped, nothing runs, and no style reaches beyond the table. Where a
    picture cannot be shown, the id is.
    """
    found = relation.limit(ROWS + 1).to_arrow_table()
    all_names = found.column_names
    names = all_names[:COLUMNS]
    values = found.select(range(len(names))).rename_columns([str(column) for column in range(len(names))])
    rows = [list(row.values()) for batch in values.slice(0, ROWS).to_batches() for row in rows_of(batch)]
    numeric = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(names))]
    sides = ["right" if is_numeric else "left" for is_numeric in numeric]
    pictures, lines, room = _Pictures(contents), [], MOST_BYTES - PICTURE_BYTES
    for row in rows:
        texts = [_text(_shown(name, value)) for name, value in zip(names, row, strict=True)]
        room -= sum(len(text.encode()) + len('<td style="text-align:right"></td>') for text in texts)
        if room < 0:
            break
        cells = zip(texts, names, row, sides, strict=True)
        lines.append(
            "".join(_cell(text, pictures.of(name, value), side) for text, name, value, side in cells)
        )
    head = "".join(
        f'<th style="text-align:{side}">{_text(clean(name, CELL))}</th>'
        for name, side in zip(names, sides, strict=True)
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    note = _note(relation, found.num_rows, len(lines), len(all_names) - len(names))
    table = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<table class="dataframe" style="{TABLE}">{table}</table>{note}'


class _Pictures:
    """What examples look like as HTML, each once, as long as there is room."""

    def __init__(self, contents: Contents | None) -> None:
        can_encode = importlib.util.find_spec("PIL") is not None
        self._contents = contents if can_encode else None
        self._room = PICTURE_BYTES
        self._seen: set[tuple[str, int]] = set()

    def of(self, column: str, row: Any) -> str:
        """Return the picture or the words of the example that an id names, if it does; else nothing."""
        name = SETS.get(column)
        if self._contents is None or name is None or not isinstance(row, int) or (name, row) in self._seen:
            return ""
        self._seen.add((name, row))
        try:
            made = _html(self._contents(name, row), f"{name} example {row}")
        except MemdbError:  # of a column that is called so, and names no example; or of the data set
            return ""
        self._room -= len(made.encode())
        return made if self._room >= 0 else ""


def _html(content: Content, name: str) -> str:
    if isinstance(content, str):
        return f'<div style="{TEXT}">{_text(clean(" ".join(content.split()), WORDS))}</div>'
    kind, data = _encoded(content)
    height, width = (max(1, round(SIDE * n / max(content.shape[:2]))) for n in content.shape[:2])
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'&ensp;<img alt="{name}" width="{width}" height="{height}" style="{IMAGE}" src="{source}">'


def _encoded(content: Picture) -> tuple[str, bytes]:
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    pixels, buffer = fitted(as_rgb(content), SIDE), io.BytesIO()
    if (pixels == pixels[:, :, :1]).all():
        Image.fromarray(np.ascontiguousarray(pixels[:, :, 0])).save(buffer, "PNG", optimize=True)
        return "png", buffer.getvalue()
    Image.fromarray(np.ascontiguousarray(enlarged(pixels))).save(buffer, "JPEG", quality=85, subsampling=0)
    return "jpeg", buffer.getvalue()


def _cell(text: str, picture: str, side: str) -> str:
    return f'<td style="text-align:{side}">{text}{picture}</td>'


def _shown(name: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if not isinstance(value, float):
        return clean(value, CELL)
    if name == "q_value" and value < SMALL:
        return f"<{SMALL}"
    return f"{value:.3f}" if name in SCORES else f"{value:.6g}"


def _text(text: str) -> str:
    return html.escape(clean(text, CELL + WORDS))


def _note(relation: DuckDBPyRelation, n_found: int, n_shown: int, n_hidden: int) -> str:
    """Say what is not shown, and how to get it."""
    parts = [f"{n_shown} of {len(relation):,} rows"] if n_found > n_shown else []
    parts += [count(n_hidden, "more column")] if n_hidden else []
    return f"<p>{'; '.join(parts)}: <code>.df()</code> has all</p>" if parts else ""
