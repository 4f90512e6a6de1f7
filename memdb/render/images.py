"""Small pictures of examples in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

RAMP = " .:-=+*#%@"
FINE = 8  # pixels across an area whose mean is taken, at least
SMALL = 14  # images narrower than this are shown at a multiple of their size


def is_picture(example: NDArray[Any]) -> bool:
    """Tell whether an example can be drawn: [height, width], or with 1 or 3 channels last."""
    return example.ndim == 2 or (example.ndim == 3 and example.shape[2] in {1, 3})


def picture(example: NDArray[Any], *, color: bool) -> Text:
    """Return an image as half blocks, two pixels a character, or as a ramp of grey where colours lack."""
    rgb = enlarged(as_rgb(example))
    text = Text(no_wrap=True)
    for start in range(0, len(rgb), 2):
        rows = rgb[start : start + 2]  # one where their number is odd
        for pixels in rows.swapaxes(0, 1):
            if color:
                below = _color(pixels[1]) if len(pixels) == 2 else None
                text.append("\u2580", Style(color=_color(pixels[0]), bgcolor=below))
            else:
                text.append(RAMP[min(len(RAMP) - 1, int(pixels.mean() / 255 * len(RAMP)))])
        text.append("\n")
    text.right_crop(1)
    return text


def gallery(pictures: Sequence[Text], captions: Sequence[str], width: int) -> Group:
    """Return pictures side by side with a caption below each, in as many rows as the width asks for."""
    if not pictures:
        return Group()
    image_width = max(line.cell_len for image in pictures for line in image.split("\n"))
    cell = max(image_width, *(len(caption) for caption in captions))
    n_across = max(1, (width + 2) // (cell + 2))
    rows = []
    for start in range(0, len(pictures), n_across):
        grid = Table.grid(padding=(0, 2))
        part = slice(start, start + n_across)
        for _ in pictures[part]:
            grid.add_column(width=cell)
        grid.add_row(*pictures[part])
        grid.add_row(*(Text(caption) for caption in captions[part]))
        rows.append(grid)
    return Group(*rows)


def as_rgb(example: NDArray[Any]) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]; real numbers are stretched from their own range."""
    values = example if example.ndim == 3 else example[..., None]
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) / (high - low or 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(values, (*values.shape[:2], 3))


def enlarged(rgb: NDArray[np.uint8], least: int = SMALL) -> NDArray[np.uint8]:
    """Return a picture whose longer side is shorter than that at the least multiple that is not."""
    factor = -(-least // max(rgb.shape[:2]))
    return rgb.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else rgb


def fitted(rgb: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return a picture of at most ``side`` pixels either way: as it is, or each pixel the mean of an area."""
    height, width = rgb.shape[:2]
    share = min(1.0, side / max(height, width))
    if share == 1.0:
        return rgb
    step = max(1, max(height, width) // (side * FINE))  # of a large picture, some pixels tell enough
    pixels = rgb[::step, ::step].astype(np.float64)
    for axis, n in ((0, height), (1, width)):
        pixels = _means(pixels, max(1, round(n * share)), axis)
    return np.rint(pixels).astype(np.uint8)


def _means(values: NDArray[np.float64], n_parts: int, axis: int) -> NDArray[np.float64]:
    """Return the means of equal parts of an axis, whose bounds may lie within a pixel."""
    n = values.shape[axis]
    sums = np.cumsum(values, axis=axis)
    sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
    at = np.linspace(0, n, n_parts + 1)
    whole = np.minimum(at.astype(int), n - 1)
    shape = [1] * values.ndim
    shape[axis] = -1
    part = (at - whole).reshape(shape)
    until = sums.take(whole, axis) + values.take(whole, axis) * part
    means: NDArray[np.float64] = np.diff(until, axis=axis) * (n_parts / n)
    return means


def _color(pixel: NDArray[np.uint8]) -> Color:
    red, green, blue = (int(value) for value in pixel)
    return Color.from_rgb(red, green, blue)
