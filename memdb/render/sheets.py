"""Sheets of examples as pages show them, 64 on each: JPEG for colour, PNG for grey, JSON for words."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.environment import install
from memdb.errors import NotFoundError

COLUMNS = 8
TILES = COLUMNS * COLUMNS
JPEG_BLOCK = 16  # pixels that JPEG encodes together: a tile that begins with one does not bleed into others
QUALITY = 85

LONGEST_WORDS = 300  # characters of an example in a file or a published copy

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class PicturesOf:
    """Small pictures of one set.

    Attributes:
        shape: height, width, channels.
        rows: returns those of some examples, uint8 [rows, *shape].
        order: the examples, as they lie on sheets that were made before; None if there are none.
        sheet: returns such a sheet by its number.
    """

    shape: Shape
    rows: Callable[[Sequence[int]], NDArray[np.uint8]]
    order: NDArray[np.int32] | None = None
    sheet: Callable[[int], bytes] | None = None

    @property
    def mime(self) -> str:
        """The media type of sheets."""
        return mime(self.shape)

    @property
    def blank(self) -> NDArray[np.uint8]:
        """What lies where there is no example."""
        return np.zeros(self.shape, dtype=np.uint8)

    def encoded(self, found: Any, n_tiles: int) -> bytes:
        """Return a sheet of some pictures, [pictures, *shape], with room for others."""
        return sheet_of(np.asarray(found), n_tiles)

    @property
    def facts(self) -> dict[str, Any]:
        """What a page has to know of the sheets."""
        tile_height, tile_width = tile_size(self.shape)
        height, width, _ = self.shape
        sizes = {"height": height, "width": width, "tile_height": tile_height, "tile_width": tile_width}
        return {**sizes, "columns": COLUMNS, "tiles": TILES, "mime": self.mime}


@dataclass(frozen=True)
class WordsOf:
    """The words of one set, of which a sheet is a list.

    Attributes:
        rows: returns those of some examples.
        longest: characters of an example that are shown.
        order, sheet: see `PicturesOf`.
    """

    rows: Callable[[Sequence[int]], Sequence[str]]
    longest: int = LONGEST_WORDS
    order: NDArray[np.int32] | None = None
    sheet: Callable[[int], bytes] | None = None
    shape: ClassVar[tuple[()]] = ()
    mime: ClassVar[str] = "application/json"
    blank: ClassVar[str] = ""

    def encoded(self, found: Any, n_tiles: int) -> bytes:  # noqa: ARG002 - as of pictures
        """Return a sheet of some texts."""
        cut = [text if len(text) <= self.longest else f"{text[: self.longest - 1]}\u2026" for text in found]
        return json.dumps(cut, ensure_ascii=False).encode("utf-8", "replace")

    @property
    def facts(self) -> dict[str, Any]:
        """What a page has to know of the sheets."""
        return {"tiles": TILES, "mime": self.mime}


ShownOf = PicturesOf | WordsOf


def shown_of(
    shape: tuple[int, ...],
    rows: Callable[[Sequence[int]], Any],
    order: NDArray[np.int32] | None = None,
    sheet: Callable[[int], bytes] | None = None,
) -> ShownOf:
    """Return pictures, [height, width, channels], or words, whose shape is empty."""
    if not shape:
        return WordsOf(rows, LONGEST_WORDS, order, sheet)
    height, width, channels = shape
    return PicturesOf((height, width, channels), rows, order, sheet)


def require_pillow() -> None:
    """Refuse to make or read sheets without the package that encodes them.

    Raises:
        NotFoundError: Pillow is not installed.
    """
    if not has_pillow():
        raise NotFoundError(
            "sheets of pictures need Pillow, which is not installed", hint=f"run: {install('pictures')}"
        )


def has_pillow() -> bool:
    """Whether the package that encodes and decodes sheets is installed."""
    return importlib.util.find_spec("PIL") is not None


def sheets(shown: ShownOf, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield sheets of some examples in their order."""
    for start in range(0, len(rows), TILES):
        yield shown.encoded(shown.rows(rows[start : start + TILES]), TILES)


def sheet_of(found: NDArray[np.uint8], n_tiles: int) -> bytes:
    """Return a sheet of some pictures, with room for others."""
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    shape: Shape = found.shape[1:]
    height, width = tile_size(shape)
    n_rows, is_grey = -(-n_tiles // COLUMNS), shape[2] == 1
    # the edge goes on into the margin, so that JPEG has no step to blur
    margin = ((0, 0), (0, height - shape[0]), (0, width - shape[1]), (0, 0))
    tiles = np.zeros((n_rows * COLUMNS, height, width, shape[2]), dtype=np.uint8)
    tiles[: len(found)] = np.pad(found, margin, mode="edge")
    grid = tiles.reshape(n_rows, COLUMNS, height, width, shape[2]).swapaxes(1, 2)
    pixels = grid.reshape(n_rows * height, COLUMNS * width, shape[2])
    image, buffer = Image.fromarray(pixels[:, :, 0] if is_grey else pixels), io.BytesIO()
    if is_grey:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY, subsampling="4:2:0", optimize=True)
    return buffer.getvalue()


def tiles_of(sheet: bytes, shape: Shape) -> NDArray[np.uint8]:
    """Return the pictures on a sheet, uint8 [`TILES`, *shape].

    Raises:
        ValueError: it is not a sheet of such pictures.
    """
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    height, width = tile_size(shape)
    try:
        with Image.open(io.BytesIO(sheet), formats=["PNG" if shape[2] == 1 else "JPEG"]) as image:
            mode = "L" if shape[2] == 1 else "RGB"
            if (image.size, image.mode) != ((COLUMNS * width, COLUMNS * height), mode):
                raise ValueError(f"it is {image.mode} of {image.size[0]} x {image.size[1]} pixels")
            pixels = np.asarray(image).reshape(COLUMNS, height, COLUMNS, width, shape[2])
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return pixels.swapaxes(1, 2).reshape(TILES, height, width, shape[2])[:, : shape[0], : shape[1]]


def tile_size(shape: Shape) -> tuple[int, int]:
    """Return the height and width that a picture takes on a sheet."""
    step = 1 if shape[2] == 1 else JPEG_BLOCK
    return -(-shape[0] // step) * step, -(-shape[1] // step) * step


def words_of(sheet: bytes, n: int) -> list[str]:
    """Return the n texts on a sheet.

    Raises:
        ValueError: it is not a sheet of n texts.
    """
    words = json.loads(sheet)
    if not (isinstance(words, list) and len(words) == n and all(isinstance(one, str) for one in words)):
        raise ValueError(f"it is not a list of {n} texts")
    return [one[:LONGEST_WORDS] for one in words]


def suffix(shape: Shape | tuple[()]) -> str:
    """Return how the names of files that hold sheets end."""
    if not shape:
        return "json"
    return "png" if shape[2] == 1 else "jpg"


def mime(shape: Shape) -> str:
    """Return the media type of sheets."""
    return "image/png" if shape[2] == 1 else "image/jpeg"
