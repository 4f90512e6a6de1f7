"""Shared by the programs that train many models at once: data on the device, and schedules of batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.errors import InvalidInputError
from memdb.format.manifest import CORRECT, LOGIT_CONFIDENCE, NO_PREDICTION, PREDICTION
from memdb.recipes.augmentation import N_DRAWS, Augmentation
from memdb.recipes.devices import MANY, current
from memdb.recipes.logits import log_odds_of_tensor

EVALUATION_ROWS = 512
LEAST_EVALUATED = 64  # rows at once, of a network with large activations
MARGIN = 0.85  # of an estimate is used: what the allocator rounds, and workspaces of products, are not in it
MOST_OF_A_DEVICE = 0.92
TAKEN_AHEAD = 32 << 20  # bytes of augmented images
MODELS_IN_TURN = 16  # a commit, where they are trained one by one on a GPU
MOST_MODELS = 1024  # per batch, so that commits are not hours apart


@dataclass(frozen=True)
class Step:
    """The examples of one step: rows of the training set [model, row], and their draws for augmentation."""

    epoch: int
    rows: Tensor
    draws: Tensor | None

    def part(self, start: int, stop: int) -> Step:
        """Return the step of some of these examples."""
        draws = None if self.draws is None else self.draws[:, start:stop]
        return Step(self.epoch, self.rows[:, start:stop], draws)


@dataclass(frozen=True)
class Schedule:
    """The number of epochs over the subsets, and the size of their batches.

    With ``even``, batches of an epoch differ by at most one example; with ``equal``, not at all, and each
    epoch omits others of fewer examples than it has batches; otherwise the last one has the remainder.
    """

    epochs: int
    batch_size: int
    augmentation: Augmentation
    even: bool = True
    equal: bool = False

    def n_steps(self, subset_size: int) -> int:
        """Return the number of steps of all epochs."""
        return self.epochs * math.ceil(subset_size / self.batch_size)

    def steps(self, subsets: Tensor, generators: list[torch.Generator]) -> Iterator[Step]:
        """Yield all steps; each epoch has a new order and new draws, by each model's own generator."""
        starts = self._starts(subsets.shape[1])
        for whole in self._epochs(subsets, generators):
            yield from (whole.part(start, stop) for start, stop in starts)

    def batches(
        self, images: Tensor, subsets: Tensor, generators: list[torch.Generator]
    ) -> Iterator[tuple[Step, Tensor]]:
        """Yield all steps with their images, augmented.

        Beside a GPU, those of several steps are made at once, by as many kernels as those of one.
        """
        starts = self._starts(subsets.shape[1])
        bytes_a_step = images.itemsize * len(subsets) * self.batch_size * math.prod(images.shape[1:])
        at_once = 1 if images.device.type == "cpu" else max(1, TAKEN_AHEAD // bytes_a_step)
        for whole in self._epochs(subsets, generators):
            for first in range(0, len(starts), at_once):
                some = starts[first : first + at_once]
                begin = some[0][0]
                part = whole.part(begin, some[-1][1])
                taken = self.augmentation.take(images, part.rows, part.draws)
                for start, stop in some:
                    yield whole.part(start, stop), taken[:, start - begin : stop - begin]

    def _epochs(self, subsets: Tensor, generators: list[torch.Generator]) -> Iterator[Step]:
        """Yield every epoch as one step."""
        size, device = subsets.shape[1], subsets.device
        for epoch, (orders, drawn) in enumerate(self._drawn(size, generators, device)):
            rows = subsets.gather(1, moved(orders, device).long())
            yield Step(epoch, rows, None if drawn is None else moved(drawn, device))

    def _drawn(
        self, size: int, generators: list[torch.Generator], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield orders and draws of each epoch; beside a GPU, those of the next one are drawn meanwhile."""

        def draw() -> tuple[Tensor, Tensor | None]:
            with current(str(device)):  # of this thread, since to pin memory is a matter of the GPU
                orders = torch.empty(
                    len(generators), size, dtype=torch.int32, pin_memory=device.type == "cuda"
                )
            for order, generator in zip(orders, generators, strict=True):
                torch.randperm(size, generator=generator, out=order)
            return orders, self.augmentation.draws(size, generators) if self.augmentation.wanted else None

        if device.type == "cpu":
            yield from (draw() for _ in range(self.epochs))
            return
        with ThreadPoolExecutor(1, "memdb draws") as pool:
            coming = pool.submit(draw)
            for left in reversed(range(self.epochs)):
                drawn = coming.result()
                if left:
                    coming = pool.submit(draw)
                yield drawn

    def _starts(self, size: int) -> list[tuple[int, int]]:
        n_steps = math.ceil(size / self.batch_size)
        if self.equal:
            rows = size // n_steps
            return [(k * rows, (k + 1) * rows) for k in range(n_steps)]
        if self.even:
            return [(size * k // n_steps, size * (k + 1) // n_steps) for k in range(n_steps)]
        return [(k * self.batch_size, min(size, (k + 1) * self.batch_size)) for k in range(n_steps)]


def moved(values: Tensor, device: torch.device) -> Tensor:
    """Move what was drawn to a device; the host does not wait for CUDA."""
    if device.type == "cuda" and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


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
    rows = np.empty((len(masks), int(sizes[0])), dtype=np.int32)
    for mask, row in zip(masks, rows, strict=True):
        row[:] = np.flatnonzero(mask)
    return moved(torch.from_numpy(rows), device).long()


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
    """Return an array as float32 on the device; integers are divided by 255.

    Bytes are moved as they are, a quarter of what floats would be.
    """
    moving = np.array(values, dtype=np.uint8 if values.dtype == np.uint8 else np.float32, order="C")
    floats = torch.from_numpy(moving).to(device).float()
    return floats.div_(255) if values.dtype.kind in "iu" else floats


def labels_of(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return the labels as int64."""
    return torch.from_numpy(examples.labels).long().to(device)


def evaluated(logits: Tensor, labels: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    """Return outcomes by name, [model, row] each, from logits [model, row, class] and labels [row].

    The logit confidence is logit_y - logsumexp(the other logits). Predictions are there if they are wanted.
    """
    predicted, unknown = logits.argmax(-1), logits.isnan().any(-1)
    found = {
        LOGIT_CONFIDENCE.name: log_odds_of_tensor(logits, labels),
        CORRECT.name: (predicted == labels) & ~unknown,
    }
    if PREDICTION.name in wanted:  # 32 bits, since PyTorch does little with 16 unsigned ones
        found[PREDICTION.name] = predicted.to(torch.int32).masked_fill_(unknown, NO_PREDICTION)
    return found


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, NDArray[Any]]:
    """Return the outcomes of all rows, [model, example], from those of some rows each."""
    found = {name: torch.cat([part[name] for part in parts], 1).cpu().numpy() for name in parts[0]}
    if PREDICTION.name in found:
        found[PREDICTION.name] = found[PREDICTION.name].astype(np.uint32)
    return found


@dataclass(frozen=True)
class Memory:
    """The bytes that a training takes: on the device in all and a model, and on the host a model."""

    shared: int
    a_model: int
    on_host: int

    @classmethod
    def of(
        cls,
        data: Dataset,
        n_weights: int,
        working: float,
        *,
        n_evaluated: int = 0,
        size: int = 4,
        moves: bool = True,
    ) -> Memory:
        """Add what all recipes take to their own.

        Args:
            data: the data set; its examples lie on the device.
            n_weights: of one model.
            working: bytes of one model in a step, weights and the state of the optimizer included.
            n_evaluated: bytes of one model while it predicts, beside its weights, if that can be more.
            size: bytes of a number of an example.
            moves: whether images are mirrored, shifted or blanked at random.
        """
        n_train, n_all = len(data.train), sum(map(len, data.sets.values()))
        schedule = (3 * 8 + 8 + 4 * N_DRAWS * moves) * n_train  # subset, order, rows; learning signals; draws
        predictions = 2 * (4 + 1) * n_all
        a_model = max(working + schedule, n_evaluated + predictions + 16 * n_train)
        return cls(
            size * n_all * math.prod(data.train.array.shape[1:]),
            int(a_model / MARGIN),
            8 * n_weights + 2 * (schedule + predictions),
        )


def free_memory(device: str) -> int:
    """Return the bytes that can still be allocated on a device, what PyTorch keeps for later included."""
    kind = device.partition(":")[0]
    if kind in MANY:
        module, place = getattr(torch, kind), torch.device(device)
        kept = module.memory_reserved(place) - module.memory_allocated(place)
        return int(module.mem_get_info(place)[0]) + int(kept)
    if kind == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return int(psutil.virtual_memory().available)


def models_that_fit(memory: Memory, device: str, on_cpu: int) -> int:
    """Return how many models fit into the free memory of a device and half of the host's.

    On a CPU it is into half of the host's, and at most ``on_cpu``.
    """
    on_host = free_memory("cpu") // 2
    if device == "cpu":
        return max(1, min(on_host // memory.a_model, on_cpu))
    fit = (int(free_memory(device) * MOST_OF_A_DEVICE) - memory.shared) // memory.a_model
    return max(1, min(fit, on_host // memory.on_host, MOST_MODELS))
