"""What the programs of many models share: data on the device, and which rows each model sees when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.datasets import ExampleSet
from memdb.errors import InvalidInput
from memdb.logits import log_odds_of_tensor
from memdb.recipes.augmentation import Augmentation

EVALUATION_ROWS = 512
MOST_MODELS = 1024  # of a batch: a commit should not take hours to come


@dataclass(frozen=True)
class Step:
    """The examples of one step: rows of the training set [model, row], and what chance does to each."""

    epoch: int
    rows: Tensor
    draws: Tensor | None


@dataclass(frozen=True)
class Schedule:
    """How often the subsets are gone through, in steps of so many examples.

    ``even`` makes the steps of an epoch alike in size; else the last one has what is left over.
    """

    epochs: int
    batch_size: int
    augmentation: Augmentation
    even: bool = True

    def n_steps(self, subset_size: int) -> int:
        """Return how many steps all epochs take."""
        return self.epochs * math.ceil(subset_size / self.batch_size)

    def steps(self, subsets: Tensor, generators: list[torch.Generator]) -> Iterator[Step]:
        """Yield every step: each epoch a new order and new draws, each model by its own generator."""
        size, device = subsets.shape[1], subsets.device
        starts = self._starts(size)
        for epoch in range(self.epochs):
            orders = torch.stack([torch.randperm(size, generator=g) for g in generators])
            rows = subsets.gather(1, orders.to(device))
            draws = self.augmentation.draws(size, generators, device) if self.augmentation.wanted else None
            for start, stop in starts:
                yield Step(epoch, rows[:, start:stop], None if draws is None else draws[:, start:stop])

    def _starts(self, size: int) -> list[tuple[int, int]]:
        n_steps = math.ceil(size / self.batch_size)
        if self.even:
            return [(size * k // n_steps, size * (k + 1) // n_steps) for k in range(n_steps)]
        return [(k * self.batch_size, min(size, (k + 1) * self.batch_size)) for k in range(n_steps)]


def subsets_of(masks: NDArray[np.bool_], recipe: str, device: torch.device) -> Tensor:
    """Return the rows of each model's subset, [model, example of subset].

    Raises:
        InvalidInput: subsets of several sizes.
    """
    sizes = masks.sum(axis=1)
    if (sizes != sizes[0]).any():
        raise InvalidInput(
            f"{recipe} trains subsets of one size together", hint="use the subset scheme `exact`"
        )
    return torch.from_numpy(np.nonzero(masks)[1].reshape(len(masks), -1)).to(device)


def generators_of(seeds: NDArray[np.uint64]) -> list[torch.Generator]:
    """Return one source of chance a model, on the CPU, so that every device draws the same."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def images_of(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return images as float32 [example, height, width, channel]; integers are taken as 0 to 255."""
    values = examples.numbers
    if values.ndim == 3:
        values = values[..., None]
    elif values.shape[-1] not in {1, 3, 4}:
        values = np.moveaxis(values, 1, -1)
    return as_float(values, device)


def as_float(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as float32 on the device; integers are taken as 0 to 255 and divided by 255."""
    floats = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).to(device)
    return floats.div_(255) if values.dtype.kind in "iu" else floats


def labels_of(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return the labels as int64."""
    return torch.from_numpy(examples.labels).long().to(device)


def logit_confidences(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logit_y - logsumexp(the other logits), and whether the prediction is y.

    Logits are [model, row, class], labels [row]; both answers are [model, row].
    """
    confidences = log_odds_of_tensor(logits, labels)
    return confidences, (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)


def free_memory(device: str) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)


def models_that_fit(bytes_a_model: int, device: str, on_cpu: int) -> int:
    """Return how many models of this size fit into half of the free memory, on a CPU no more than told."""
    fit = free_memory(device) // 2 // bytes_a_model
    return max(1, min(fit, on_cpu if device == "cpu" else MOST_MODELS))
