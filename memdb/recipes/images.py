"""Read, crop and resize images one at a time, in separate processes if there are many."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from memdb.datasets.example_set import ExampleSet
from memdb.environment import n_cores
from memdb.errors import MemdbError

FEW = 2048  # images that are read without extra processes
MOST_PROCESSES = 16
TRIES = 10  # of a random crop to lie inside the image
RATIOS = (3 / 4, 4 / 3)  # width to height of random crops


@dataclass(frozen=True)
class Crop:
    """How images become squares: by a random crop that depends on seed and epoch, or by a center crop.

    Args:
        size: pixels of a side.
        least: the smallest fraction of the area for a random crop; 1 for a center crop.
        flip: mirror at random.
        seed, epoch: together with the row of the example, they determine all randomness.
    """

    size: int
    least: float = 1.0
    flip: bool = False
    seed: int = 0
    epoch: int = 0

    def __call__(self, image: Tensor, row: int) -> Tensor:
        """Return the square of an image [channel, height, width]."""
        key = np.array([self.seed, self.epoch << 32 | row], dtype=np.uint64)
        chance = np.random.Generator(np.random.Philox(key=key))
        if self.flip and chance.random() < 0.5:
            image = functional.horizontal_flip(image)
        box = self._box(image.shape[-2], image.shape[-1], chance)
        if box is None:
            image = functional.resize(image, [self.size], antialias=True)
            middle: Tensor = functional.center_crop(image, [self.size, self.size])
            return middle
        part: Tensor = functional.resized_crop(image, *box, [self.size, self.size], antialias=True)
        return part

    def _box(self, height: int, width: int, chance: np.random.Generator) -> tuple[int, int, int, int] | None:
        """Return top, left, height and width of a random crop, or None for a center crop."""
        if self.least >= 1:
            return None
        for _ in range(TRIES):
            area = height * width * chance.uniform(self.least, 1)
            ratio = math.exp(chance.uniform(*np.log(RATIOS)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(chance.integers(height - h + 1)), int(chance.integers(width - w + 1)), h, w
        return None


class _Pictures(Dataset[Any]):
    """The cropped examples of all sources, or the error that reading one raised, for the caller to raise."""

    def __init__(self, sources: Sequence[tuple[ExampleSet, Crop]]) -> None:
        self._sources = [(examples.x, crop) for examples, crop in sources]

    def __getitem__(self, item: tuple[int, int]) -> tuple[int, Tensor | MemdbError]:
        source, row = item
        x, crop = self._sources[source]
        try:
            return row, crop(_as_colours(np.asarray(x[row])), row)
        except MemdbError as error:  # raised in another process, it would arrive as the text of its traceback
            return row, error


def read(
    sources: Sequence[tuple[ExampleSet, Crop]],
    batches: Iterable[list[tuple[int, int]]],
    n_images: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of rows and their images, uint8 [row, 3, size, size], in order, on the device.

    The reading processes start once, so several epochs or sets are best read by one call.

    Args:
        sources: what to read: examples, and how they become squares.
        batches: of pairs, a source's number and a row of its examples.
        n_images: roughly how many, which decides whether extra processes pay.
        device: where to yield them; the host does not wait for the copies.

    Raises:
        InvalidInputError: an image cannot be decoded.
    """
    loader = DataLoader(
        _Pictures(sources),
        batch_sampler=batches,
        num_workers=0 if n_images <= FEW else min(MOST_PROCESSES, n_cores()),
        collate_fn=_joined,
        pin_memory=device.type == "cuda",
    )
    for rows, images in loader:
        if isinstance(images, MemdbError):
            raise images
        yield rows.to(device, non_blocking=True), images.to(device, non_blocking=True)


def _joined(items: list[tuple[int, Tensor | MemdbError]]) -> tuple[Tensor, Tensor | MemdbError]:
    rows = torch.tensor([row for row, _ in items])
    images: list[Tensor] = []
    for _, image in items:
        if isinstance(image, MemdbError):
            return rows, image
        images.append(image)
    return rows, torch.stack(images)


def _as_colours(values: NDArray[Any]) -> Tensor:
    """Return an image as uint8 [3, height, width]; gray is repeated, floats are in [0, 1]."""
    if values.dtype.kind == "f":
        values = np.rint(np.clip(values, 0, 1) * 255)
    image = torch.from_numpy(np.ascontiguousarray(values.astype(np.uint8)))
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] in {1, 3, 4}:
        image = image.permute(2, 0, 1)
    return image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
