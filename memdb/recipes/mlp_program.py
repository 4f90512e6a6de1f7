"""Many multi-layer perceptrons trained as one: every product has a leading axis of models.

The gradients are written out, so that each step runs in buffers that are allocated once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.datasets import Dataset, ExampleSet
from memdb.errors import InvalidInput
from memdb.recipes.protocol import Run

if TYPE_CHECKING:
    from memdb.recipes.mlp import MLP

EVALUATION_ROWS = 512


def train(
    recipe: MLP, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Mapping[str, NDArray[np.bool_] | NDArray[np.float32]]:
    """Train one network a mask, all at once, and return what they predict."""
    sizes = masks.sum(axis=1)
    if (sizes != sizes[0]).any():
        raise InvalidInput("mlp trains subsets of one size together", hint="use the subset scheme `exact`")
    device = torch.device(run.device)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    subsets = torch.from_numpy(np.nonzero(masks)[1].reshape(len(masks), -1))  # [model, example of subset]
    x, y = _inputs(data.train, device), _labels(data.train, device)

    network = Network(recipe.layer_sizes(data), generators, device)
    optimizer = _optimizer(recipe, network.parameters)
    n_steps = recipe.epochs * math.ceil(subsets.shape[1] / recipe.batch_size)
    for step, rows in enumerate(_batches(recipe, subsets, generators, device)):
        if run.stop_requested():
            raise KeyboardInterrupt
        optimizer.param_groups[0]["lr"] = recipe.lr * _decay(recipe.schedule, step / n_steps)
        network.gradients(x[rows], y[rows], recipe.label_smoothing)
        optimizer.step()
        run.progress(step + 1, n_steps)

    outcomes = {}
    for name, examples in data.sets.items():
        confidence = network.logit_confidence(_inputs(examples, device), _labels(examples, device))
        outcomes[f"{name}/logit_confidence"] = confidence[0].cpu().numpy()
        outcomes[f"{name}/correct"] = confidence[1].cpu().numpy()
    return outcomes


class Network:
    """Fully connected layers of several models; weights [model, in, out], biases [model, 1, out]."""

    def __init__(self, sizes: list[int], generators: list[torch.Generator], device: torch.device) -> None:
        shapes = list(itertools.pairwise(sizes))
        drawn = [  # He et al. (2015); one model after the other, so that a model's draws are its own
            [torch.randn(n_in, n_out, generator=g) * math.sqrt(2 / n_in) for n_in, n_out in shapes]
            for g in generators
        ]
        self.weights = [torch.stack(layer).to(device) for layer in zip(*drawn, strict=True)]
        self.biases = [torch.zeros(len(generators), 1, n_out, device=device) for _, n_out in shapes]
        self.parameters = [*self.weights, *self.biases]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return the input and every layer's output, the last one the logits: [model, row, unit]."""
        found = [x]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, found[-1], weight)
            found.append(out.relu_() if layer + 1 < len(self.weights) else out)
        return found

    def gradients(self, x: Tensor, y: Tensor, label_smoothing: float) -> None:
        """Set every parameter's gradient of the mean cross entropy of its own model over these rows."""
        n_rows = x.shape[1]
        *inputs, logits = self.activations(x)
        delta = logits.softmax(-1)
        if label_smoothing:
            delta -= label_smoothing / logits.shape[-1]
        delta.scatter_add_(-1, y[..., None], torch.full_like(delta[..., :1], label_smoothing - 1))
        delta /= n_rows
        for layer in reversed(range(len(self.weights))):
            weight, bias = self.weights[layer], self.biases[layer]
            torch.bmm(inputs[layer].transpose(1, 2), delta, out=weight.grad)
            torch.sum(delta, 1, keepdim=True, out=bias.grad)
            if layer:
                delta = torch.bmm(delta, weight.transpose(1, 2)).mul_(inputs[layer] > 0)

    def logit_confidence(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return logit_y - logsumexp(the other logits), and whether the prediction is y: [model, example]."""
        n_models = self.weights[0].shape[0]
        confidences, corrects = [], []
        for start in range(0, len(x), EVALUATION_ROWS):
            rows, labels = x[start : start + EVALUATION_ROWS], y[start : start + EVALUATION_ROWS]
            logits = self.activations(rows.expand(n_models, *rows.shape))[-1]
            index = labels.expand(n_models, -1)[..., None]
            own = logits.gather(-1, index)[..., 0]
            others = logits.scatter(-1, index, -math.inf).logsumexp(-1)
            confidences.append(own - others)
            corrects.append((logits.argmax(-1) == labels) & ~logits.isnan().any(-1))
        return torch.cat(confidences, 1), torch.cat(corrects, 1)


def _batches(
    recipe: MLP, subsets: Tensor, generators: list[torch.Generator], device: torch.device
) -> Iterator[Tensor]:
    """Yield the training examples of each step, [model, row]: every epoch a new order, each model its own."""
    for _ in range(recipe.epochs):
        orders = torch.stack([torch.randperm(subsets.shape[1], generator=g) for g in generators])
        rows = subsets.gather(1, orders).to(device)
        for start in range(0, rows.shape[1], recipe.batch_size):
            yield rows[:, start : start + recipe.batch_size]


def _optimizer(recipe: MLP, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )


def _decay(schedule: str, done: float) -> float:
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def _inputs(examples: ExampleSet, device: torch.device) -> Tensor:
    """Return the examples as rows of float32; integers are taken as 0 to 255."""
    values = examples.array
    flat = values.reshape(len(values), -1).astype(np.float32)
    return torch.from_numpy(flat / 255 if values.dtype.kind in "iu" else flat).to(device)


def _labels(examples: ExampleSet, device: torch.device) -> Tensor:
    return torch.from_numpy(examples.labels).long().to(device)


def free_memory(device: str) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return int(psutil.virtual_memory().available)
