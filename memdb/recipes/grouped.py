"""Train many convolutional networks as one, by laying out the models along the channels.

Images are [row, model x channel, height, width], channels last in memory, and every convolution is grouped
with one group per model. Each model has its own rows, so nothing passes between groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.format.sketches import SKETCH
from memdb.recipes.augmentation import Augmentation
from memdb.recipes.batches import (
    EVALUATION_ROWS,
    LEAST_EVALUATED,
    Schedule,
    evaluated,
    generators_of,
    images_of,
    joined,
    labels_of,
    subsets_of,
)
from memdb.recipes.logits import log_odds_of_tensor
from memdb.recipes.out_of_memory import in_turns
from memdb.recipes.precision import products
from memdb.recipes.protocol import Run, SketchRequest
from memdb.recipes.signals import signals_of
from memdb.recipes.sketch_torch import Sketch, vectors

SKETCHED_ROWS = 128  # at once, with what every layer saw
MEAN, SPREAD = 0.5, 0.25  # constants, so that no model depends on the pixels of held-out examples


class Options(Protocol):
    """The options shared by the recipes of convolutional networks."""

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
        """Return the learning rate after this fraction of the steps."""

    def side_by_side(self, device: str) -> bool:
        """Whether models are trained at once on a device, or one after the other."""


class Optimizer(Protocol):
    """What takes the steps of an optimizer of PyTorch."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...
    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> None:
        """Change the parameters, at the rate ``lr`` of their group."""


class Network(Protocol):
    """Several networks as one module."""

    decaying: Sequence[Tensor]  # parameters with weight decay, and those without
    others: Sequence[Tensor]
    way: ClassVar[Way]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Return the logits [model, row, class] of grouped images."""


def by_sgd(recipe: Options, network: Network) -> Optimizer:
    """Return SGD with Nesterov momentum."""
    return torch.optim.SGD(
        [
            {"params": list(network.decaying), "weight_decay": recipe.weight_decay},
            {"params": list(network.others), "weight_decay": 0.0},
        ],
        lr=recipe.rate(0.0),
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        fused=True,
    )


def _plainly(network: Network, x: Tensor) -> Tensor:
    return network(x, training=True)


@dataclass(frozen=True)
class Way:
    """How networks of one kind are trained.

    Attributes:
        optimizer: of a network.
        forward: of a step; returns the logits of a network.
        equal: whether all batches have one size, see `Schedule`.
    """

    optimizer: Callable[[Any, Any], Optimizer] = by_sgd
    forward: Callable[[Any, Tensor], Tensor] = _plainly
    equal: bool = False


@dataclass(frozen=True)
class Draw:
    """Initializes parameters, one model after the other by its own generator."""

    generators: list[torch.Generator]
    device: torch.device

    def weights(self, *shape: int) -> Tensor:
        """Return trainable weights [model, out, in, ...], initialized as by He et al. (2015)."""
        spread = math.sqrt(2 / math.prod(shape[1:]))
        drawn = [torch.randn(*shape, generator=g).mul_(spread) for g in self.generators]
        return torch.stack(drawn).to(self.device).requires_grad_()

    def constant(self, value: float, size: int) -> Tensor:
        """Return trainable parameters [model, size] of one value."""
        return torch.full((len(self.generators), size), value, device=self.device).requires_grad_()


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each model's channels with its own weights [model, out, in, k, k], keeping sizes."""
    n_models, kernel = weight.shape[0], weight.shape[-1]
    out = functional.conv2d(
        x,
        weight.flatten(0, 1),
        None if bias is None else bias.flatten(),
        padding=kernel // 2,
        groups=n_models,
    )

    def one_by_one(values: Tensor, n_first: int) -> Tensor:
        n_rows, n_channels, height, width = values.shape
        by_model = values.reshape(n_rows, n_models, n_channels // n_models, height, width)
        return by_model[:, :n_first].transpose(0, 1).flatten(0, 1)

    return _noted(
        x,
        out,
        one_by_one,
        columns=lambda images: functional.unfold(images, kernel, padding=kernel // 2)[:, None],
        deltas=lambda deltas: deltas.flatten(2)[:, None],
        has_bias=bias is not None,
    )


def classify(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply each model's features [row, model x feature] by its weights [model, class, feature]."""
    features = x.view(x.shape[0], weight.shape[0], -1).transpose(0, 1)
    logits = torch.bmm(features, weight.transpose(1, 2))
    return _noted(
        features,
        logits if bias is None else logits + bias[:, None],
        lambda values, n_first: values[:n_first].flatten(0, 1),
        columns=vectors,
        deltas=vectors,
        has_bias=bias is not None,
    )


_sketching: ContextVar[tuple[Sketch, int] | None] = ContextVar("sketching", default=None)


def _noted(
    x: Tensor,
    out: Tensor,
    one_by_one: Callable[[Tensor, int], Tensor],
    *,
    columns: Callable[[Tensor], Tensor],
    deltas: Callable[[Tensor], Tensor],
    has_bias: bool,
) -> Tensor:
    """Let a sketch that is being made note a layer; its rows are those of the first models, one by one."""
    if torch.compiler.is_compiling():  # PyTorch 2.11 ends its graph at a context variable
        return out
    if (making := _sketching.get()) is None:
        return out
    sketch, n_models = making
    return sketch.note(
        sketch.n_seen,
        one_by_one(x, n_models),
        out,
        columns=columns,
        deltas=lambda found: deltas(one_by_one(found, n_models)),
        has_bias=has_bias,
    )


def train(
    recipe: Options,
    make: Callable[[Draw], Network],
    data: Dataset,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    run: Run,
) -> Mapping[str, NDArray[np.generic]]:
    """Train one network per mask, in the way of its kind; return outcomes by path.

    All at once, or one after the other: see `Options.side_by_side`. The data is moved to the device once.
    """
    at_once = _Program(recipe, make, _Moved(data, torch.device(run.device)))
    with products(run.device, recipe.precision):
        if recipe.side_by_side(run.device) or len(seeds) == 1:
            return at_once(data, masks, seeds, run)
        found: Mapping[str, NDArray[np.generic]] = in_turns(at_once, data, masks, seeds, run)
        return found


class _Moved:
    """The images and labels of a data set, on a device; those of the training set stay there."""

    def __init__(self, data: Dataset, device: torch.device) -> None:
        self._data = data
        self._device = device

    @cached_property
    def train(self) -> tuple[Tensor, Tensor]:
        return self._of(self._data.train)

    def sets(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield name, images and labels of each set."""
        for name, examples in self._data.sets.items():
            yield (name, *(self.train if examples is self._data.train else self._of(examples)))

    def _of(self, examples: ExampleSet) -> tuple[Tensor, Tensor]:
        return _standardized(images_of(examples, self._device)), labels_of(examples, self._device)


@dataclass(frozen=True)
class _Program:
    """Trains several networks as one."""

    recipe: Options
    make: Callable[[Draw], Network]
    moved: _Moved

    def __call__(
        self, _data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[np.generic]]:
        """Train one network per mask and return outcomes by path."""
        recipe, device = self.recipe, torch.device(run.device)
        generators = generators_of(seeds)
        subsets = subsets_of(masks, recipe.name, device)
        network = self.make(Draw(generators, device))
        signals = signals_of(run, subsets, masks.shape[1])
        precision = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
        schedule = self._schedule(network.way)
        optimizer = network.way.optimizer(recipe, network)
        x, y = self.moved.train
        n_steps = schedule.n_steps(subsets.shape[1])
        for number, (step, taken) in enumerate(schedule.batches(x, subsets, generators)):
            if run.stop_requested():
                raise KeyboardInterrupt
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(number / n_steps)
            labels = y[step.rows]
            optimizer.zero_grad()
            with precision:
                logits = network.way.forward(network, side_by_side(taken))
            torch.autograd.backward(_loss(logits.float(), labels, recipe.label_smoothing))
            optimizer.step()
            if signals:
                signals.record(step.rows, step.epoch, logits.detach().float(), labels)
            run.progress(number + 1, n_steps)
        with precision:
            outcomes = self._outcomes(network, len(seeds), run)
        return {**outcomes, **(signals.outcomes() if signals else {})}

    def _schedule(self, way: Way) -> Schedule:
        recipe = self.recipe
        augmentation = Augmentation(recipe.flip, recipe.shift, recipe.cutout)
        return Schedule(recipe.epochs, recipe.batch_size, augmentation, equal=way.equal)

    def _outcomes(self, network: Network, n_models: int, run: Run) -> dict[str, NDArray[np.generic]]:
        found: dict[str, NDArray[np.generic]] = {}
        for name, images, labels in self.moved.sets():
            with torch.no_grad():
                parts = list(
                    _evaluated(network, images, labels, n_models, self.recipe.batch_size, run.outcomes)
                )
            found |= {f"{name}/{outcome}": values for outcome, values in joined(parts).items()}
            if run.sketch:
                with torch.autocast(images.device.type, enabled=False):
                    found[f"{name}/{SKETCH}"] = _sketches(network, images, labels, n_models, run.sketch)
        return found


def side_by_side(images: Tensor) -> Tensor:
    """Turn images [model, row, h, w, channel] into [row, model x channel, h, w], channels last in memory."""
    n_models, n_rows, height, width, channels = images.shape
    grouped = images.permute(1, 2, 3, 0, 4).reshape(n_rows, height, width, n_models * channels)
    return grouped.permute(0, 3, 1, 2)


def _standardized(images: Tensor) -> Tensor:
    return images.sub_(MEAN).div_(SPREAD)


def _loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return the sum over models of their mean cross entropies, whose gradients do not mix."""
    total = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
    return total / labels.shape[1]


def _evaluated(
    network: Network, images: Tensor, labels: Tensor, n_models: int, batch_size: int, wanted: frozenset[str]
) -> Iterator[dict[str, Tensor]]:
    """Yield every model's outcomes on the same images by name, [model, row] each.

    A step had room for as many rows, and for what its backward pass needed.
    """
    n_rows = min(EVALUATION_ROWS, max(LEAST_EVALUATED, batch_size))
    for start in range(0, len(images), n_rows):
        rows = images[start : start + n_rows]
        logits = network(side_by_side(rows.expand(n_models, *rows.shape)), training=False).float()
        yield evaluated(logits, labels[start : start + n_rows], wanted)


def _sketches(
    network: Network, images: Tensor, labels: Tensor, n_models: int, wanted: SketchRequest
) -> NDArray[np.float16]:
    """Return the gradient sketches of the first models, [model, example, size]: see `sketch_torch`."""
    sketch, n_first = Sketch(wanted.size, wanted.seed), wanted.n_models
    found = np.empty((n_first, len(images), wanted.size), dtype=np.float16)
    making = _sketching.set((sketch, n_first))
    try:
        for start in range(0, len(images), SKETCHED_ROWS):
            rows = images[start : start + SKETCHED_ROWS]
            logits = network(side_by_side(rows.expand(n_models, *rows.shape)), training=False)
            total = sketch.gather(log_odds_of_tensor(logits[:n_first], labels[start : start + SKETCHED_ROWS]))
            found[:, start : start + SKETCHED_ROWS] = total.view(n_first, len(rows), -1).cpu().numpy()
    finally:
        _sketching.reset(making)
    return found
