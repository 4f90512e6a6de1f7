"""Examples as published copies and pages show them: small pictures of one size, or words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.datasets.appearance import Content, Contents, Picture, of_dataset
from memdb.errors import InvalidInputError

SIDE = 64  # pixels of the longer side, at most
SAMPLE = 64  # examples of a set that decide how large its pictures are, unless all are of one size


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a set's examples, made a few at a time: grey or RGB, all of one size.

    Attributes:
        shape: examples, height, width, channels.
    """

    data: Dataset
    set_name: str
    content: Contents
    shape: tuple[int, int, int, int]

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the pictures of some examples, uint8 [examples, height, width, channels]."""
        return self.chosen(range(start, stop))

    def chosen(self, rows: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pictures of examples in any order, likewise.

        What is narrower or lower than the others is in the middle, on black.
        """
        found = np.zeros((len(rows), *self.shape[1:]), dtype=np.uint8)
        for place, row in enumerate(rows):
            picture = _picture(self.data, self.set_name, row, self.content(self.set_name, row))
            small = _resized(picture, *_fitting(picture, *self.shape[1:3]))
            top, left = (self.shape[1] - small.shape[0]) // 2, (self.shape[2] - small.shape[1]) // 2
            spot = found[place, top : top + small.shape[0], left : left + small.shape[1]]
            spot[:] = small.mean(axis=2, keepdims=True) if self.shape[3] < small.shape[2] else small
        return found


@dataclass(frozen=True)
class Words:
    """The words of a set's examples.

    Attributes:
        shape: examples.
    """

    set_name: str
    content: Contents
    shape: tuple[int]

    def chosen(self, rows: Sequence[int]) -> list[str]:
        """Return those of some examples; of one that a data set shows as a picture, that it is one."""
        found = (self.content(self.set_name, row) for row in rows)
        return [one if isinstance(one, str) else "a picture among texts" for one in found]


def appearances_of(data: Dataset) -> Mapping[str, Thumbnails | Words]:
    """Return how a data set's examples are shown, by set: as pictures or words, as its first one is.

    What is larger than `SIDE` is made smaller, and what has an opacity is laid on white. Bytes stay
    as they are; other numbers are stretched from the least to the largest of the training set, so that both
    sets look alike.

    Raises:
        InvalidInputError: an example is not a picture although the first ones are; names it. `render` failed.
    """
    content = of_dataset(data)
    if any(isinstance(content(name, 0), str) for name in data.sets):
        return {name: Words(name, content, (len(examples),)) for name, examples in data.sets.items()}
    height, width, channels = _size_of(data, content)
    return {
        name: Thumbnails(data, name, content, (len(examples), height, width, channels))
        for name, examples in data.sets.items()
    }


def _size_of(data: Dataset, content: Contents) -> tuple[int, int, int]:
    """Return the height, width and channels in which the pictures of all sets fit."""
    sizes = [
        (*_fitting(picture, SIDE, SIDE), picture.shape[2])
        for name, row in _samples(data)
        for picture in [_picture(data, name, row, content(name, row))]
    ]
    height, width, channels = np.max(sizes, axis=0).tolist()
    return height, width, channels


def _samples(data: Dataset) -> Iterator[tuple[str, int]]:
    """Yield examples that tell the sizes of all others: of arrays one, which they all are like."""
    for name, examples in data.sets.items():
        is_uniform = isinstance(examples.x, np.ndarray) and not examples.x.dtype.hasobject and not data.render
        n_seen = 1 if is_uniform else min(SAMPLE, len(examples))
        yield from ((name, row) for row in np.linspace(0, len(examples) - 1, n_seen).astype(int).tolist())


def _picture(data: Dataset, set_name: str, row: int, content: Content) -> Picture:
    if isinstance(content, str):
        examples = data.sets[set_name]
        raise InvalidInputError(
            f"example {examples.keys[row]} has shape {np.shape(examples.x[row])}, which is not a picture as "
            "others of its data set are",
            hint="omit pictures, or give the data set a `render` that returns one for each example",
        )
    return content


def _fitting(picture: Picture, height: int, width: int) -> tuple[int, int]:
    """Return the size of a picture that fits, no larger than it is."""
    share = min(1.0, height / picture.shape[0], width / picture.shape[1])
    return max(1, round(picture.shape[0] * share)), max(1, round(picture.shape[1] * share))


def _resized(picture: Picture, height: int, width: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    grey = picture.shape[2] == 1
    image = Image.fromarray(picture[:, :, 0] if grey else picture)
    small = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return small[:, :, None] if grey else small
