"""Many convolutional networks trained as one: the models stand side by side in the channels.

Images are [row, model x channel, height, width], channels last in memory, and every convolution is a
grouped one with a group a model. Each model has its own rows, so nothing passes between groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from memdb.datasets import Dataset
from memdb.recipes.augmentation import Augmentation
from memdb.recipes.batches import (
    EVALUATION_ROWS,
    Schedule,
    generators_of,
    images_of,
    labels_of,
    logit_confidences,
    subsets_of,
)
from memdb.recipes.protocol import Run
from memdb.recipes.signals import signals_of

MEAN, SPREAD = 0.5, 0.25  # fixed, so that no model sees the pixels of examples held out


class Options(Protocol):
    """What the recipes of convolutional networks have in common."""

    name: ClassVar[str]

    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def epochs(self) -> int: ...
    @property
    def flip(self) -> bool: ...
    @property
    def shift(self) -> int: ...
    @property
    def cutout(self) -> int: ...
    @property
    def precision(self) -> str: ...
    def rate(self, done: float) -> float:
        """Return the learning rate once this share of the steps is done."""


class Network(Protocol):
    """Several networks as one."""

    decaying: Sequence[Tensor]  # parameters, those with weight decay and those without
    others: Sequence[Tensor]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Return the logits [model, row, class] of grouped images."""


@dataclass(frozen=True)
class Draw:
    """Draws parameters: one model after the other by its own generator, so that its draws are its own."""

    generators: list[torch.Generator]
    device: torch.device

    def weights(self, *shape: int) -> Tensor:
        """Return He et al.'s (2015) initial weights [model, out, in, ...], to be trained."""
        spread = math.sqrt(2 / math.prod(shape[1:]))
        drawn = [torch.randn(*shape, generator=g).mul_(spread) for g in self.generators]
        return torch.stack(drawn).to(self.device).requires_grad_()

    def constant(self, value: float, size: int) -> Tensor:
        """Return [model, size] of one value, to be trained."""
        return torch.full((len(self.generators), size), value, device=self.device).requires_grad_()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each model's channels with its own weights [model, out, in, k, k]; sizes stay."""
    return functional.conv2d(
        x,
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        padding=weight.shape[-1] // 2,
        groups=weight.shape[0],
    )


def classify(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each model's features [row, model x feature] by its weights [model, class, feature]."""
    features = x.view(x.shape[0], weight.shape[0], -1).transpose(0, 1)
    logits = torch.bmm(features, weight.transpose(1, 2))
    return logits if bias is None else logits + bias[:, None]


def train(
    recipe: Options,
    make: Callable[[Draw], Network],
    data: Dataset,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    run: Run,
) -> Mapping[str, NDArray[np.generic]]:
    """Train one network a mask, all at once, by SGD with Nesterov's momentum; return what they predict."""
    device = torch.device(run.device)
    generators = generators_of(seeds)
    subsets = subsets_of(masks, recipe.name, device)
    schedule = Schedule(
        recipe.epochs, recipe.batch_size, Augmentation(recipe.flip, recipe.shift, recipe.cutout)
    )
    network = make(Draw(generators, device))
    optimizer = torch.optim.SGD(
        [
            {"params": list(network.decaying), "weight_decay": recipe.weight_decay},
            {"params": list(network.others), "weight_decay": 0.0},
        ],
        lr=recipe.rate(0.0),
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )
    x, y = _standardized(images_of(data.train, device)), labels_of(data.train, device)
    signals = signals_of(run, subsets, len(y))
    precision = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    n_steps = schedule.n_steps(subsets.shape[1])
    for number, step in enumerate(schedule.steps(subsets, generators)):
        if run.stop_requested():
            raise KeyboardInterrupt
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(number / n_steps)
        images = side_by_side(schedule.augmentation.take(x, step.rows, step.draws))
        labels = y[step.rows]
        optimizer.zero_grad()
        with precision:
            logits = network(images, training=True)
        torch.autograd.backward(_loss(logits.float(), labels, recipe.label_smoothing))
        optimizer.step()
        if signals:
            signals.record(step.rows, step.epoch, logits.detach().float(), labels)
        run.progress(number + 1, n_steps)

    outcomes: dict[str, NDArray[np.generic]] = {}
    for name, examples in data.sets.items():
        images, labels = _standardized(images_of(examples, device)), labels_of(examples, device)
        with precision, torch.no_grad():
            confidence, correct = _predictions(network, images, labels, len(seeds))
        outcomes[f"{name}/logit_confidence"] = confidence.cpu().numpy()
        outcomes[f"{name}/correct"] = correct.cpu().numpy()
    return {**outcomes, **(signals.outcomes() if signals else {})}


def side_by_side(images: Tensor) -> Tensor:
    """Turn images [model, row, h, w, channel] into [row, model x channel, h, w], channels last in memory."""
    n_models, n_rows, height, width, channels = images.shape
    grouped = images.permute(1, 2, 3, 0, 4).reshape(n_rows, height, width, n_models * channels)
    return grouped.permute(0, 3, 1, 2)


def _standardized(images: Tensor) -> Tensor:
    return images.sub_(MEAN).div_(SPREAD)


def _loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the sum over models of each one's mean cross entropy: no gradient mixes two models."""
    total = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
    return total / labels.shape[1]


def _predictions(network: Network, images: Tensor, labels: Tensor, n_models: int) -> tuple[Tensor, Tensor]:
    """Return every model's logit confidence and correctness on the same images, [model, example]."""
    found = []
    for start in range(0, len(images), EVALUATION_ROWS):
        rows = images[start : start + EVALUATION_ROWS]
        logits = network(side_by_side(rows.expand(n_models, *rows.shape)), training=False).float()
        found.append(logit_confidences(logits, labels[start : start + EVALUATION_ROWS]))
    confidences, corrects = zip(*found, strict=True)
    return torch.cat(confidences, 1), torch.cat(corrects, 1)
