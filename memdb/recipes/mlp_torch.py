"""Train many multi-layer perceptrons as one: every product has a leading axis of models.

Gradients are computed explicitly, so that each step reuses the same buffers. A GPU spends most of a step on
reading and writing models, so SGD there adds each gradient to its momentum within the product that makes it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.datasets import Dataset
from memdb.datasets.example_set import ExampleSet
from memdb.environment import n_cores
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
    moved,
    subsets_of,
)
from memdb.recipes.precision import products
from memdb.recipes.protocol import Run, SketchRequest
from memdb.recipes.signals import signals_of
from memdb.recipes.sketch_torch import Sketch, margin_gradients, vectors

if TYPE_CHECKING:
    from memdb.recipes.mlp import MLP

MOST_DRAWING = 8  # threads
threshold_backward = (
    torch.ops.aten.threshold_backward.grad_input
)  # the gradient of a ReLU, as autograd has it


def train(
    recipe: MLP, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Mapping[str, NDArray[np.generic]]:
    """Train one network per mask, all at once, and return outcomes by path."""
    with products(run.device, recipe.precision):
        return _trained(recipe, data, masks, seeds, run)


def prepare(recipe: MLP, data: Dataset, seeds: NDArray[np.uint64], device: str) -> Start:
    """Draw the initial weights of a batch, for `Run.prepared`."""
    return Start.of(recipe.layer_sizes(data), generators_of(seeds), torch.device(device))


def _trained(
    recipe: MLP, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Mapping[str, NDArray[np.generic]]:
    device = torch.device(run.device)
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    sizes = recipe.layer_sizes(data)
    start = run.prepared or Start.of(sizes, generators_of(seeds), device)
    subsets = subsets_of(masks, recipe.name, device)
    augmentation = Augmentation(recipe.flip, recipe.shift, recipe.cutout)
    x, y = _inputs(data.train, augmentation, device, dtype), labels_of(data.train, device)

    network = Network(sizes, start.generators, device, dtype, start.weights)
    start.weights.clear()  # gives back pinned memory, which the next batch takes
    optimizer = optimizer_of(recipe, network)
    schedule = Schedule(recipe.epochs, recipe.batch_size, augmentation, even=False)
    signals = signals_of(run, subsets, len(y))
    n_steps = schedule.n_steps(subsets.shape[1])
    for number, (step, images) in enumerate(schedule.batches(x, subsets, start.generators)):
        if run.stop_requested():
            raise KeyboardInterrupt
        labels = y[step.rows]
        logits = network.gradients(images.flatten(2), labels, recipe.label_smoothing)
        if signals:
            signals.record(step.rows, step.epoch, logits, labels)
        optimizer.step(recipe.lr * _decay(recipe.schedule, number / n_steps))
        run.progress(number + 1, n_steps)

    outcomes: dict[str, NDArray[np.generic]] = {}
    for name, examples in data.sets.items():
        inputs = (x if examples is data.train else _inputs(examples, augmentation, device, dtype)).flatten(1)
        labels = labels_of(examples, device)
        found = network.outcomes(inputs, labels, run.outcomes)
        outcomes |= {f"{name}/{outcome}": values for outcome, values in found.items()}
        if run.sketch:
            outcomes[f"{name}/{SKETCH}"] = network.sketches(inputs, labels, run.sketch)
    return {**outcomes, **(signals.outcomes() if signals else {})}


@dataclass(frozen=True)
class Start:
    """Initial weights [model, in, out] in the memory of the host, and the generators that drew them."""

    weights: list[Tensor]
    generators: list[torch.Generator]

    @classmethod
    def of(cls, sizes: Sequence[int], generators: list[torch.Generator], device: torch.device) -> Start:
        """Draw weights as He et al. (2015) do, those of each model by its own generator.

        Beside a GPU, which would wait for them, several threads draw. On a CPU none is started: where memory
        is short, Python may wait for ever for a thread that could not begin.
        """
        weights = [
            torch.empty(len(generators), n_in, n_out, pin_memory=device.type == "cuda")
            for n_in, n_out in itertools.pairwise(sizes)
        ]

        def draw(model: int) -> None:
            for layer in weights:
                layer[model].normal_(generator=generators[model]).mul_(math.sqrt(2 / layer.shape[1]))

        models = range(len(generators))
        if device.type == "cpu":
            deque(map(draw, models), maxlen=0)
        else:
            with ThreadPoolExecutor(min(MOST_DRAWING, n_cores()), "memdb weights") as pool:
                deque(pool.map(draw, models), maxlen=0)  # raises what they raised
        return cls(weights, generators)


class Network:
    """Fully connected layers of several models; weights [model, in, out], biases [model, 1, out].

    Attributes:
        dtype: of what is multiplied; weights, the gradients of biases and the loss are float32.
        slopes: the gradients of weights and biases of each layer; the optimizer says where they lie.
        kept: the share of the slopes to which new gradients are added; None to replace them.
        rounded: the weights in the precision of products, where the optimizer sees to it.
    """

    slopes: list[tuple[Tensor, Tensor]]
    kept: float | None = None
    rounded: list[Tensor] | None = None

    def __init__(
        self,
        sizes: Sequence[int],
        generators: list[torch.Generator],
        device: torch.device,
        dtype: torch.dtype,
        drawn: list[Tensor] | None = None,
    ) -> None:
        drawn = drawn or Start.of(sizes, generators, device).weights
        self.weights = [moved(layer, device) for layer in drawn]
        self.biases = [torch.zeros(len(w), 1, w.shape[2], device=device) for w in self.weights]
        self.parameters = [*self.weights, *self.biases]
        self.dtype = dtype

    def activations(self, x: Tensor, weights: list[Tensor] | None = None) -> list[Tensor]:
        """Return the input and the output of every layer, the last being logits: [model, row, unit].

        The inputs may be those of the first models alone. ``weights`` are `lowered`, where they serve often.
        """
        outputs, n_models = [x.to(self.dtype)], len(x)
        weights = weights or self.lowered()
        for layer, (weight, bias) in enumerate(zip(weights, self.biases, strict=True)):
            out = torch.baddbmm(bias[:n_models].to(self.dtype), outputs[-1], weight[:n_models])
            outputs.append(out.relu_() if layer + 1 < len(weights) else out.float())
        return outputs

    def lowered(self) -> list[Tensor]:
        """Return the weights in the precision of products."""
        return self.rounded or [weight.to(self.dtype) for weight in self.weights]

    def gradients(self, x: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
        """Set the gradients of each model's mean cross entropy, or add to them, and return the logits."""
        n_rows, weights = x.shape[1], self.lowered()
        *inputs, logits = self.activations(x, weights)
        delta = logits.softmax(-1)
        if label_smoothing:
            delta -= label_smoothing / logits.shape[-1]
        delta.scatter_add_(-1, y[..., None], torch.full_like(delta[..., :1], label_smoothing - 1))
        delta = delta.div_(n_rows).to(self.dtype)
        for layer in reversed(range(len(weights))):
            self._note(layer, inputs[layer], delta)
            if layer:
                delta = torch.bmm(delta, weights[layer].transpose(1, 2))
                threshold_backward(delta, inputs[layer], 0, grad_input=delta)
        return logits

    def _note(self, layer: int, inputs: Tensor, delta: Tensor) -> None:
        """Set the gradients of a layer, or add them to the share of the former ones that is kept."""
        (weights, biases), inputs = self.slopes[layer], inputs.transpose(1, 2)
        if self.kept is not None:
            torch.add(delta.sum(1, keepdim=True, dtype=torch.float32), biases, alpha=self.kept, out=biases)
            torch.baddbmm(weights, inputs, delta, beta=self.kept, out=weights)
            return
        torch.sum(delta, 1, keepdim=True, dtype=torch.float32, out=biases)
        if weights.dtype == delta.dtype:
            torch.bmm(inputs, delta, out=weights)
        else:
            weights.copy_(torch.bmm(inputs, delta))

    def outcomes(self, x: Tensor, y: Tensor, wanted: frozenset[str]) -> dict[str, NDArray[Any]]:
        """Return the outcomes by name, [model, example] each."""
        n_models = self.weights[0].shape[0]
        parts, weights = [], self.lowered()
        for start in range(0, len(x), EVALUATION_ROWS):
            rows = x[start : start + EVALUATION_ROWS]
            logits = self.activations(rows.expand(n_models, *rows.shape), weights)[-1]
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


class _Optimizer:
    """An optimizer of PyTorch's, in one kernel."""

    def __init__(self, recipe: MLP, network: Network) -> None:
        for parameter in network.parameters:
            parameter.grad = torch.zeros_like(parameter)
        network.slopes = [
            (cast("Tensor", w.grad), cast("Tensor", b.grad))
            for w, b in zip(network.weights, network.biases, strict=True)
        ]
        options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
        self._inner: torch.optim.Optimizer
        if recipe.optimizer == "adamw":
            self._inner = torch.optim.AdamW(network.parameters, **options)
        else:
            self._inner = torch.optim.SGD(network.parameters, momentum=recipe.momentum, **options)

    def step(self, lr: float) -> None:
        self._inner.param_groups[0]["lr"] = lr
        self._inner.step()


class Descent:
    """SGD whose gradients were added to the momentum already: what PyTorch's does, up to rounding.

    No gradient is written and read again, and none needs memory. The momentum of weights has the precision of
    the products that add to it; see `MLP.keeps_no_gradients`.
    """

    def __init__(self, recipe: MLP, network: Network) -> None:
        weights = [torch.zeros_like(layer, dtype=network.dtype) for layer in network.weights]
        biases = [torch.zeros_like(layer) for layer in network.biases]
        network.kept, network.slopes = recipe.momentum, list(zip(weights, biases, strict=True))
        self._network, self._weight_decay = network, recipe.weight_decay
        self._weights, self._biases = weights, biases
        self._descend = _in_one_kernel(biases[0].device) if network.dtype == torch.bfloat16 else None
        if self._descend:
            network.rounded = network.lowered()

    def step(self, lr: float) -> None:
        """Change the parameters, after `Network.gradients`."""
        network, moments = self._network, [*self._weights, *self._biases]
        if self._weight_decay:
            torch._foreach_add_(moments, network.parameters, alpha=self._weight_decay)
        if self._descend is None:
            torch._foreach_add_(network.parameters, moments, alpha=-lr)
            return
        for layer in zip(network.weights, self._weights, network.lowered(), strict=True):
            self._descend(*layer, lr)
        torch._foreach_add_(network.biases, self._biases, alpha=-lr)


@functools.cache
def _in_one_kernel(device: torch.device) -> Callable[[Tensor, Tensor, Tensor, float], None] | None:
    """Return what changes weights and rounds them at once, or None where Triton cannot compile it."""
    if device.type != "cuda":
        return None
    weights = torch.zeros(1, device=device)
    try:
        from memdb.recipes.descent_triton import descend  # noqa: PLC0415 - not on every machine

        descend(weights, weights.bfloat16(), weights.bfloat16(), 0.0)
    except Exception:  # noqa: BLE001 - no Triton, no C compiler, a GPU that is too old
        return None
    return descend


def optimizer_of(recipe: MLP, network: Network) -> _Optimizer | Descent:
    """Return what takes the steps of a network on its device."""
    device = str(network.weights[0].device)
    return Descent(recipe, network) if recipe.keeps_no_gradients(device) else _Optimizer(recipe, network)


def _decay(schedule: str, done: float) -> float:
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]


def _inputs(
    examples: ExampleSet, augmentation: Augmentation, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the examples as products take them, in the layout of images if they are to be augmented."""
    floats = images_of(examples, device) if augmentation.wanted else as_float(examples.numbers, device)
    return floats.to(dtype)
