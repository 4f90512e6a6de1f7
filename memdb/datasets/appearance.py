"""What an example looks like: a picture or a text, the same wherever it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import plugins
from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.datasets.pictures import grey_levels, on_white, pixels_of, range_of, words_of
from memdb.errors import InvalidInputError, NotFoundError
from memdb.format import layout

SAMPLE = 64  # training examples whose range decides what is black and white, of a set that is read on demand
LONGEST_TEXT = 2000  # characters of an example that are shown
KEPT = 256  # examples that are kept as they are shown

Picture = NDArray[np.uint8]  # [height, width, 1 or 3 channels]
Content = Picture | str
Contents = Callable[[str, int], Content]  # from the name of a set and a row


def of_dataset(data: Dataset) -> Contents:
    """Return what shows the examples of a data set, by its own ``render`` if it has one.

    Numbers other than bytes are stretched from the least to the largest of the training set, so that all
    pictures look alike.

    Raises:
        InvalidInputError: when called, if ``render`` fails, or returns neither text nor a picture.
        NotFoundError: when called, if there is no such example.
    """
    bounds: list[tuple[float, float]] = []

    def content(set_name: str, row: int) -> Content:
        examples = data.sets[set_name]
        if not 0 <= row < len(examples):
            raise NotFoundError(
                f"there is no {set_name} example {row}", hint=f"there are {len(examples):,}, from 0"
            )
        with plugins.blaming(f"the {set_name} example {row} cannot be read:", "look at the data set"):
            example = examples.x[row]
        if data.render is not None:
            return _rendered(data.render, example, f"{set_name} example {row}")
        pixels = pixels_of(example)
        if pixels is None:
            return words_of(example, examples.feature_names)[:LONGEST_TEXT]
        if pixels.dtype != np.uint8 and not bounds:
            bounds.append(_range_of(data.sets[layout.TRAIN]))
        return on_white(grey_levels(pixels, *(bounds[0] if bounds else (0, 0))))

    return lru_cache(KEPT)(content)


def of_thumbnails(read: Callable[[str, Sequence[int]], NDArray[np.uint8] | list[str]]) -> Contents:
    """Return what shows the examples of a published copy by its thumbnails, or its words."""
    return lru_cache(KEPT)(lambda set_name, row: read(set_name, [row])[0])


def is_picture(content: Content) -> bool:
    """Tell pictures from texts."""
    return not isinstance(content, str)


def _range_of(examples: ExampleSet) -> tuple[float, float]:
    if isinstance(examples.x, np.ndarray) and not examples.x.dtype.hasobject:
        return range_of([examples.x])
    rows = np.linspace(0, len(examples) - 1, min(SAMPLE, len(examples))).astype(int)
    return range_of(np.asarray(examples.x[row]) for row in rows.tolist())


def _rendered(render: Callable[[Any], Any], example: Any, what: str) -> Content:
    with plugins.blaming(f"`render` of the data set, given the {what},", "return text or a picture"):
        shown = render(example)
    if isinstance(shown, str):
        return shown[:LONGEST_TEXT]
    pixels = pixels_of(shown)
    if pixels is None:
        kind = f"an array {shown.shape}" if isinstance(shown, np.ndarray) else f"a {type(shown).__name__}"
        raise InvalidInputError(
            f"`render` of the data set, given the {what}, returned {kind}",
            hint="return text, or a picture: [height, width], or with 1, 3 or 4 channels",
        )
    if pixels.dtype != np.uint8 and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise InvalidInputError(
            f"`render` of the data set, given the {what}, returned a picture of numbers from "
            f"{pixels.min():g} to {pixels.max():g}",
            hint="return bytes, or numbers from 0 to 1",
        )
    return on_white(grey_levels(pixels, 0, 1))
