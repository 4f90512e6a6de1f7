"""Shared by the programs that train many models at once: data on the device, and schedules of batches."""

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
from memdb.errors import InvalidInputError
from memdb.recipes.augmentation import Augmentation
from memdb.recipes.logits import log_odds_of_tensor

EVALUATION_ROWS = 512
MOST_MODELS = 1024  # per batch, so that commits are not hours apart


@dataclass(frozen=True)
class Step:
    """The examples of one step: rows of the training set [model, row], and their draws for augmentation."""

    epoch: int
    rows: Tensor
    draws: Tensor | None


@dataclass(frozen=True)
class Schedule:
    """The number of epochs over the subsets, and the size of their batches.

    With ``even``, batches of an epoch differ by at most one example; otherwise the last one has the
    remainder.
    """

    epochs: int
    batch_size: int
    augmentation: Augmentation
    even: bool = True

    def n_steps(self, subset_size: int) -> int:
        """Return the number of steps of all epochs."""
        return self.epochs * math.ceil(subset_size / self.batch_size)

    def steps(self, subsets: Tensor, generators: list[torch.Generator]) -> Iterator[Step]:
        """Yield all steps; each epoch has a new order and new draws, by each model's own generator."""
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
        InvalidInputError: subsets of several sizes.
    """
    sizes = masks.sum(axis=1)
    if (sizes != sizes[0]).any():
        raise InvalidInputError(
            f"{recipe} trains subsets of one size together", hint="use the subset scheme `exact`"
        )
    return torch.from_numpy(np.nonzero(masks)[1].reshape(len(masks), -1)).to(device)


def generators_of(seeds: NDArray[np.uint64]) -> list[torch.Generator]:
    """Return one generator per model, on the CPU, so that all devices draw the same numbers."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def images_of(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return images as float32 [example, height, width, channel]; integers are scaled from 0..255 to 0..1."""
    values = examples.numbers
    if values.ndim == 3:
        values = values[..., None]
    elif values.shape[-1] not in {1, 3, 4}:
        values = np.moveaxis(values, 1, -1)
    return as_float(values, device)


def as_float(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array as float32 on the device; integers are divided by 255."""
    floats = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32))).to(device)
    return floats.div_(255) if values.dtype.kind in "iu" else floats


def labels_of(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return the labels as int64."""
    return torch.from_numpy(examples.labels).long().to(device)


def logit_confidences(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logit_y - logsumexp(the other logits), and whether the prediction is y, [model, row] each.

    Logits are [model, row, class], labels [row].
    """
    confidences = log_odds_of_tensor(logits, labels)
    return confidences, (logits.argmax(-1) == labels) & ~logits.isnan().any(-1)


def free_memory(device: str) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)


def models_that_fit(bytes_a_model: int, device: str, on_cpu: int) -> int:
    """Return how many models fit into half of the free memory, and on a CPU at most ``on_cpu``."""
    fit = free_memory(device) // 2 // bytes_a_model
    return max(1, min(fit, on_cpu if device == "cpu" else MOST_MODELS))
