"""Sheets of small pictures, as pages show them: JPEG for colour, PNG for grey, the first 64 on the first."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.environment import install
from memdb.errors import NotFoundError

COLUMNS = 8
TILES = COLUMNS * COLUMNS
JPEG_BLOCK = 16  # pixels that JPEG encodes together: a tile that begins with one does not bleed into others
QUALITY = 85

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


def sheets(pictures: PicturesOf, rows: Sequence[int]) -> Iterator[bytes]:
    """Yield sheets of the pictures of some examples in their order."""
    for start in range(0, len(rows), TILES):
        yield sheet_of(pictures.rows(rows[start : start + TILES]), TILES)


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


def suffix(shape: Shape) -> str:
    """Return how the names of files that hold sheets end."""
    return "png" if shape[2] == 1 else "jpg"


def mime(shape: Shape) -> str:
    """Return the media type of sheets."""
    return "image/png" if shape[2] == 1 else "image/jpeg"
