"""Sheets of small pictures, as pages show them: JPEG for colour, PNG for grey, the first 64 on the first."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.errors import NotFoundError

COLUMNS = 8
TILES = COLUMNS * COLUMNS
JPEG_BLOCK = 16  # pixels that JPEG encodes together: a tile that begins with one does not bleed into others
QUALITY = 85

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class PicturesOf:
    """Small pictures of one set: their shape, and what returns those of some rows, uint8 [rows, *shape]."""

    shape: Shape
    rows: Callable[[Sequence[int]], NDArray[np.uint8]]


def require_pillow() -> None:
    """Refuse to make sheets without the package that encodes them.

    Raises:
        NotFoundError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise NotFoundError("pictures need Pillow", hint="pip install pillow, or write it without pictures")


def sheets(pictures: PicturesOf, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield sheets of the pictures of some examples in their order."""
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    shape = pictures.shape
    height, width = tile_size(shape)
    is_grey = shape[2] == 1
    for start in range(0, len(rows), TILES):
        found = pictures.rows(rows[start : start + TILES])
        # the edge goes on into the margin, so that JPEG has no step to blur
        margin = ((0, 0), (0, height - shape[0]), (0, width - shape[1]), (0, 0))
        tiles = np.zeros((TILES, height, width, shape[2]), dtype=np.uint8)
        tiles[: len(found)] = np.pad(found, margin, mode="edge")
        grid = tiles.reshape(COLUMNS, COLUMNS, height, width, shape[2]).swapaxes(1, 2)
        pixels = grid.reshape(COLUMNS * height, COLUMNS * width, shape[2])
        image, buffer = Image.fromarray(pixels[:, :, 0] if is_grey else pixels), io.BytesIO()
        if is_grey:
            image.save(buffer, "PNG", optimize=True)
        else:
            image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)  # colours of neighbours stay apart
        yield buffer.getvalue()


def tile_size(shape: Shape) -> tuple[int, int]:
    """Return the height and width that a picture takes on a sheet."""
    step = 1 if shape[2] == 1 else JPEG_BLOCK
    return -(-shape[0] // step) * step, -(-shape[1] // step) * step


def mime(shape: Shape) -> str:
    """Return the media type of sheets."""
    return "image/png" if shape[2] == 1 else "image/jpeg"
