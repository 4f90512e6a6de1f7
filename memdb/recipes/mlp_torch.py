"""Train many multi-layer perceptrons as one: every product has a leading axis of models.

Gradients are computed explicitly, so that each step reuses the same buffers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.datasets import Dataset, ExampleSet
from memdb.format.sketches import SKETCH
from memdb.recipes.augmentation import Augmentation
from memdb.recipes.batches import (
    EVALUATION_ROWS,
    Schedule,
    as_float,
    evaluated,
    generators_of,
    images_of,
    joined,
    labels_of,
    subsets_of,
)
from memdb.recipes.precision import products
from memdb.recipes.protocol import Run, SketchRequest
from memdb.recipes.signals import signals_of
from memdb.recipes.sketch_torch import Sketch, margin_gradients, vectors

if TYPE_CHECKING:
    from memdb.recipes.mlp import MLP


def train(
    recipe: MLP, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Mapping[str, NDArray[np.generic]]:
    """Train one network per mask, all at once, and return outcomes by path."""
    with products(run.device, recipe.precision):
        return _trained(recipe, data, masks, seeds, run)


def _trained(
    recipe: MLP, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Mapping[str, NDArray[np.generic]]:
    device = torch.device(run.device)
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    generators = generators_of(seeds)
    subsets = subsets_of(masks, recipe.name, device)
    augmentation = Augmentation(recipe.flip, recipe.shift, recipe.cutout)
    x, y = _inputs(data.train, augmentation, device), labels_of(data.train, device)

    network = Network(recipe.layer_sizes(data), generators, device, dtype)
    optimizer = _optimizer(recipe, network.parameters)
    schedule = Schedule(recipe.epochs, recipe.batch_size, augmentation, even=False)
    signals = signals_of(run, subsets, len(y))
    n_steps = schedule.n_steps(subsets.shape[1])
    for number, step in enumerate(schedule.steps(subsets, generators)):
        if run.stop_requested():
            raise KeyboardInterrupt
        optimizer.param_groups[0]["lr"] = recipe.lr * _decay(recipe.schedule, number / n_steps)
        labels = y[step.rows]
        taken = augmentation.take(x, step.rows, step.draws).flatten(2)
        logits = network.gradients(taken, labels, recipe.label_smoothing)
        if signals:
            signals.record(step.rows, step.epoch, logits, labels)
        optimizer.step()
        run.progress(number + 1, n_steps)

    outcomes: dict[str, NDArray[np.generic]] = {}
    for name, examples in data.sets.items():
        inputs = (x if examples is data.train else _inputs(examples, augmentation, device)).flatten(1)
        labels = labels_of(examples, device)
        found = network.outcomes(inputs, labels, run.outcomes)
        outcomes |= {f"{name}/{outcome}": values for outcome, values in found.items()}
        if run.sketch:
            outcomes[f"{name}/{SKETCH}"] = network.sketches(inputs, labels, run.sketch)
    return {**outcomes, **(signals.outcomes() if signals else {})}


class Network:
    """Fully connected layers of several models; weights [model, in, out], biases [model, 1, out]."""

    def __init__(
        self, sizes: list[int], generators: list[torch.Generator], device: torch.device, dtype: torch.dtype
    ) -> None:
        shapes = list(itertools.pairwise(sizes))
        drawn = [  # He et al. (2015); one model after the other, each by its own generator
            [torch.randn(n_in, n_out, generator=g) * math.sqrt(2 / n_in) for n_in, n_out in shapes]
            for g in generators
        ]
        self.weights = [torch.stack(layer).to(device) for layer in zip(*drawn, strict=True)]
        self.biases = [torch.zeros(len(generators), 1, n_out, device=device) for _, n_out in shapes]
        self.parameters = [*self.weights, *self.biases]
        self._dtype = dtype  # of the products; weights, their gradients and the loss are float32
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the input and the output of every layer, the last being logits: [model, row, unit].

        The inputs may be those of the first models alone.
        """
        outputs, n_models = [x.to(self._dtype)], len(x)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(
                bias[:n_models].to(self._dtype), outputs[-1], weight[:n_models].to(self._dtype)
            )
            outputs.append(out.relu_() if layer + 1 < len(self.weights) else out.float())
        return outputs

    def gradients(self, x: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
        """Set the gradients of each model's mean cross entropy, and return the logits."""
        n_rows = x.shape[1]
        *inputs, logits = self.activations(x)
        delta = logits.softmax(-1)
        if label_smoothing:
            delta -= label_smoothing / logits.shape[-1]
        delta.scatter_add_(-1, y[..., None], torch.full_like(delta[..., :1], label_smoothing - 1))
        delta = (delta / n_rows).to(self._dtype)
        for layer in reversed(range(len(self.weights))):
            weight, bias = self.weights[layer], self.biases[layer]
            if self._dtype == torch.float32:
                torch.bmm(inputs[layer].transpose(1, 2), delta, out=weight.grad)
            else:
                weight.grad = torch.bmm(inputs[layer].transpose(1, 2), delta).float()
            torch.sum(delta, 1, keepdim=True, dtype=torch.float32, out=bias.grad)
            if layer:
                delta = torch.bmm(delta, weight.to(self._dtype).transpose(1, 2)).mul_(inputs[layer] > 0)
        return logits

    def outcomes(self, x: Tensor, y: Tensor, wanted: frozenset[str]) -> dict[str, NDArray[Any]]:
        """Return the outcomes by name, [model, example] each."""
        n_models = self.weights[0].shape[0]
        parts = []
        for start in range(0, len(x), EVALUATION_ROWS):
            rows = x[start : start + EVALUATION_ROWS]
            logits = self.activations(rows.expand(n_models, *rows.shape))[-1]
            parts.append(evaluated(logits, y[start : start + EVALUATION_ROWS], wanted))
        return joined(parts)

    def sketches(self, x: Tensor, y: Tensor, wanted: SketchRequest) -> NDArray[np.float16]:
        """Return the gradient sketches of the first models, [model, example, size]: see `sketch_torch`."""
        sketch, n_models = Sketch(wanted.size, wanted.seed), wanted.n_models
        found = np.empty((n_models, len(x), wanted.size), dtype=np.float16)
        for start in range(0, len(x), EVALUATION_ROWS):
            rows = x[start : start + EVALUATION_ROWS]
            *inputs, logits = self.activations(rows.expand(n_models, *rows.shape))
            delta = margin_gradients(logits, y[start : start + EVALUATION_ROWS])
            total = torch.zeros(n_models * len(rows), wanted.size, device=x.device)
            for layer in reversed(range(len(self.weights))):
                a = inputs[layer]
                total += sketch.of_layer(
                    layer, a.flatten(0, 1), vectors, vectors(delta.flatten(0, 1)), has_bias=True
                )
                if layer:
                    delta = torch.bmm(delta, self.weights[layer][:n_models].transpose(1, 2)).mul_(a > 0)
            total /= math.sqrt(wanted.size)
            found[:, start : start + EVALUATION_ROWS] = total.view(n_models, len(rows), -1).cpu().numpy()
        return found


def _optimizer(recipe: MLP, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )


def _decay(schedule: str, done: float) -> float:
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def _inputs(examples: ExampleSet, augmentation: Augmentation, device: torch.device) -> Tensor:
    """Return the examples as float32, in the layout of images if they are to be augmented."""
    return images_of(examples, device) if augmentation.wanted else as_float(examples.numbers, device)
