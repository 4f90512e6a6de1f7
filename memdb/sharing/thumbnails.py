"""Small pictures of examples, for readers who have the scores but not the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset, ExampleSet
from memdb.datasets.pictures import GREY_OR_RGB, WHITE, grey_levels, on_white, pixels_of, range_of
from memdb.errors import InvalidInputError
from memdb.format import layout

SIDE = 64  # pixels of the longer side, at most


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a set's examples, made a few at a time: grey or RGB, all of one size.

    Attributes:
        examples: what they are pictures of.
        shape: examples, height, width, channels.
        black, white: the values of an example that become 0 and 255.
        is_filled: whether pictures that are narrower or lower than the others get black margins.
    """

    examples: ExampleSet
    shape: tuple[int, int, int, int]
    black: float
    white: float
    is_filled: bool

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the pictures of some examples, uint8 [examples, height, width, channels]."""
        found = np.zeros((stop - start, *self.shape[1:]), dtype=np.uint8)
        for row in range(start, stop):
            picture = on_white(grey_levels(_pixels(self.examples, row), self.black, self.white))
            height, width = self.shape[1:3] if not self.is_filled else _fitting(*picture.shape[:2])
            small = _resized(picture, height, width)
            top, left = (self.shape[1] - height) // 2, (self.shape[2] - width) // 2
            found[row - start, top : top + height, left : left + width] = small
        return found

    def chosen(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pictures of examples in any order, likewise."""
        return np.concatenate([self.rows(row, row + 1) for row in rows])


def thumbnails_of(data: Dataset) -> Mapping[str, Thumbnails]:
    """Return the pictures of a data set's examples, by set.

    What is larger than `SIDE` is made smaller, and what has an opacity is laid on white. Bytes stay
    as they are; other numbers are stretched from the least to the largest of the training set, so that both
    sets look alike.

    Raises:
        InvalidInputError: an example is not a picture; names it.
    """
    black, white = _range_of(data.sets[layout.TRAIN])
    return {name: _of_set(examples, black, white) for name, examples in data.sets.items() if len(examples)}


def _of_set(examples: ExampleSet, black: float, white: float) -> Thumbnails:
    if isinstance(examples.x, np.ndarray):
        height, width, channels = on_white(grey_levels(_pixels(examples, 0), black, white)).shape
        return Thumbnails(
            examples, (len(examples), *_fitting(height, width), channels), black, white, is_filled=False
        )
    return Thumbnails(examples, (len(examples), SIDE, SIDE, GREY_OR_RGB[-1]), black, white, is_filled=True)


def _pixels(examples: ExampleSet, row: int) -> NDArray[Any]:
    """Return an example as [height, width, channels]."""
    pixels = pixels_of(examples.x[row])
    if pixels is None:
        raise InvalidInputError(
            f"example {examples.keys[row]} has shape {np.shape(examples.x[row])}, which is not a picture",
            hint="omit thumbnails, or give a data set of pictures: [height, width], or with channels",
        )
    return pixels


def _range_of(examples: ExampleSet) -> tuple[float, float]:
    """Return what is black and what is white."""
    if np.asarray(examples.x[0]).dtype == np.uint8:
        return 0.0, float(WHITE)
    whole = isinstance(examples.x, np.ndarray)
    return range_of([examples.x] if whole else (np.asarray(examples.x[row]) for row in range(len(examples))))


def _fitting(height: int, width: int) -> tuple[int, int]:
    """Return the size of a picture whose longer side fits."""
    share = min(1.0, SIDE / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def _resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    grey = picture.shape[2] == 1
    image = Image.fromarray(picture[:, :, 0] if grey else picture)
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return small[:, :, None] if grey else small
