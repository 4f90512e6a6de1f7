"""Examples as people see them: pictures of bytes, grey or RGB, or text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY_OR_RGB = (1, 3)
RGBA = 4
WHITE = 255
FEATURES = 16  # of a table's row, or numbers of any other example, that its text has

Pixels = NDArray[Any]  # [height, width, channels]: grey, RGB, or RGB with opacity


def pixels_of(example: Any) -> Pixels | None:
    """Return an example as [height, width, 1, 3 or 4 channels]; None if it is not a picture.

    Pictures are [height, width], or have their channels last or, if these are 1 or 3, first.
    """
    if hasattr(example, "convert") and hasattr(example, "__array_interface__"):  # an image of Pillow
        example = example.convert("RGBA")
    values = np.asarray(example)
    if values.dtype.kind not in "biuf" or not values.size:
        return None
    if values.ndim == 2:
        return values[:, :, None]
    if values.ndim == 3 and values.shape[2] in {*GREY_OR_RGB, RGBA}:
        return values
    if values.ndim == 3 and values.shape[0] in GREY_OR_RGB:
        return np.moveaxis(values, 0, 2)
    return None


def range_of(examples: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return which numbers of some examples of one type are black and white: for bytes, 0 and 255."""
    least, largest = np.inf, -np.inf
    for values in examples:
        if values.dtype == np.uint8:
            return 0.0, float(WHITE)
        known = values[np.isfinite(values)]
        if known.size:
            least, largest = min(least, float(known.min())), max(largest, float(known.max()))
    return (least, largest) if least < largest else (0.0, float(WHITE))


def grey_levels(pixels: Pixels, black: float, white: float) -> NDArray[np.uint8]:
    """Return a picture in bytes, as it is or with black and below as 0, white and above as 255."""
    if pixels.dtype == np.uint8:
        return pixels
    known = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=white, neginf=black)
    levels = (known - black) * (WHITE / (white - black))
    return np.clip(np.rint(levels), 0, WHITE).astype(np.uint8)


def on_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture without opacity, as it looks on a white page."""
    if picture.shape[2] != RGBA:
        return picture
    colours, opacity = picture[:, :, :3].astype(np.float64), picture[:, :, 3:] / WHITE
    return np.rint(colours * opacity + WHITE * (1 - opacity)).astype(np.uint8)


def words_of(example: Any, feature_names: Sequence[str] = ()) -> str:
    """Return an example that is not a picture as text: its words, or its first numbers with their names."""
    if isinstance(example, bytes):
        return example.decode("utf-8", "replace")
    values = np.asarray(example)
    if values.ndim == 0:
        return _word(values[()])
    if values.ndim == 1 and len(feature_names) == len(values):
        lines = [f"{name} {_word(value)}" for name, value in zip(feature_names, values, strict=True)]
        return "\n".join(_cut(lines, len(lines)))
    words = [_word(value) for value in values.ravel()[: FEATURES + 1]] or ["nothing"]
    if values.ndim > 1:
        words[0] = f"{' x '.join(map(str, values.shape))}: {words[0]}"
    return " ".join(_cut(words, values.size))


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _cut(words: Sequence[str], n_all: int) -> list[str]:
    if n_all <= FEATURES:
        return list(words)
    return [*words[: FEATURES - 1], f"\u2026 {n_all - FEATURES + 1:,} more"]
