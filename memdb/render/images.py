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
SMALL = 14  # images narrower than this are shown at twice their size


def is_picture(example: NDArray[Any]) -> bool:
    """Tell whether an example can be drawn: [height, width], or with 1 or 3 channels last."""
    return example.ndim == 2 or (example.ndim == 3 and example.shape[2] in {1, 3})


def picture(example: NDArray[Any], *, color: bool) -> Text:
    """Return an image as half blocks, two pixels a character, or as a ramp of grey where colours lack."""
    rgb = _as_rgb(example)
    if rgb.shape[1] < SMALL:
        rgb = rgb.repeat(2, axis=0).repeat(2, axis=1)
    if len(rgb) % 2:
        rgb = np.concatenate([rgb, np.zeros_like(rgb[:1])])
    upper, lower = rgb[0::2], rgb[1::2]
    text = Text(no_wrap=True)
    for top, bottom in zip(upper, lower, strict=True):
        for first, second in zip(top, bottom, strict=True):
            if color:
                text.append("\u2580", Style(color=_color(first), bgcolor=_color(second)))
            else:
                grey = (float(first.mean()) + float(second.mean())) / 2 / 255
                text.append(RAMP[min(len(RAMP) - 1, int(grey * len(RAMP)))])
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


def _as_rgb(example: NDArray[Any]) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]; real numbers are stretched from their own range."""
    values = example if example.ndim == 3 else example[..., None]
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        values = ((values - low) / (high - low or 1.0) * 255).astype(np.uint8)
    return np.broadcast_to(values, (*values.shape[:2], 3))


def _color(pixel: NDArray[np.uint8]) -> Color:
    red, green, blue = (int(value) for value in pixel)
    return Color.from_rgb(red, green, blue)
