"""Gradient sketches: random projections of the gradient of each example's margin, from one backward pass.

For one example, the gradient of a layer's weights is the sum, over the positions where the layer is applied,
of the outer product of its input a and the gradient d of its output. Projected onto the outer product of two
vectors of random signs, r and s, it is the sum of (r . a)(s . d). So one backward pass over many examples is
enough (Park et al., TRAK, 2023, attribute predictions by projections of the same gradients). A bias is the
weight of an input that is 1. Models are in evaluation mode, where no example's margin depends on another's.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from memdb.errors import InvalidInputError
from memdb.format.sketches import DEFAULT_SIZE, Projection
from memdb.recipes.logits import log_odds, log_odds_of_tensor
from memdb.wording import count

DOMAIN = b"memdb-signs-1"
WORKING_BYTES = 64 << 20  # of unfolded inputs and their projections at once
CACHED_BYTES = 2 << 20  # the same on a CPU, whose caches hold that: a quarter faster


def signs(seed: int, layer: int, side: str, size: int, width: int) -> Tensor:
    """Return random signs [size, width] of one side of a layer, the same on every machine."""
    name = DOMAIN + seed.to_bytes(8, "little") + layer.to_bytes(4, "little") + side.encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(-(-size * width // 64))
    drawn = np.unpackbits(words.astype("<u8").view(np.uint8), count=size * width, bitorder="little")
    return torch.from_numpy(drawn.reshape(size, width).astype(np.float32)).mul_(2).sub_(1)


def factored(inputs: Tensor, deltas: Tensor, r: Tensor, s: Tensor) -> Tensor:
    """Return the projected gradients [row, size] of inputs [row, group, p, position] and deltas [.., q, ..].

    Either both are projected at every position, or the gradient is formed first, whichever is less work: the
    former for wide layers, the latter for narrow ones at many positions. The result is the same.
    """
    n_rows, n_groups, p, n_positions = inputs.shape
    q, size = deltas.shape[2], len(r)
    if n_positions == n_groups == 1:
        return (inputs.flatten(1) @ r.T) * (deltas.flatten(1) @ s.T)
    if n_positions * (size * (p + q) - p * q) < size * p * q:
        at_positions = deltas.permute(1, 0, 3, 2).reshape(n_groups, -1, q)
        projected = inputs.permute(1, 0, 3, 2).reshape(-1, p) @ r.T  # one large product: small ones are slow
        projected.view(n_groups, -1, size).mul_(at_positions @ s.view(size, n_groups, q).permute(1, 2, 0))
        return projected.view(n_groups, n_rows, n_positions, size).sum((0, 2))
    gradients = (deltas @ inputs.transpose(2, 3)).view(-1, p)
    return (gradients @ r.T).view(n_rows, n_groups * q, size).mul_(s.T).sum(1)


@dataclass(frozen=True)
class _Seen:
    """What a layer saw: its inputs [row, ...], and how they and the gradients of its output are laid out."""

    layer: int
    inputs: Tensor
    columns: Callable[[Tensor], Tensor]  # of some inputs, [row, group, p, position]
    deltas: Callable[[Tensor], Tensor]  # of the gradients of the output, [row, group, q, position]
    has_bias: bool
    probe: Tensor


class Sketch:
    """Notes what layers see in a forward pass, and adds up their projected gradients in the backward pass."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._signs: dict[tuple[int, str, int], Tensor] = {}
        self._seen: list[_Seen] = []

    def note(
        self,
        layer: int,
        inputs: Tensor,
        output: Tensor,
        *,
        columns: Callable[[Tensor], Tensor],
        deltas: Callable[[Tensor], Tensor],
        has_bias: bool,
    ) -> Tensor:
        """Note a layer, and return the output to go on with: it may be changed in place afterwards."""
        probe = torch.zeros_like(output, requires_grad=True)  # its gradient is that of the output
        self._seen.append(_Seen(layer, inputs.detach(), columns, deltas, has_bias, probe))
        return output + probe

    @property
    def n_seen(self) -> int:
        """How many layers were noted in this pass."""
        return len(self._seen)

    def gather(self, margins: Tensor) -> Tensor:
        """Go backward from the margins and return the sketches, [row, size]."""
        probes = [seen.probe for seen in self._seen]
        is_seen = bool(probes) and margins.requires_grad
        found = torch.autograd.grad(margins.sum(), probes, allow_unused=True) if is_seen else ()
        parts = [
            self.of_layer(seen.layer, seen.inputs, seen.columns, seen.deltas(delta), has_bias=seen.has_bias)
            for seen, delta in zip(self._seen, found, strict=is_seen)
            if delta is not None
        ]
        self._seen.clear()
        if not parts:
            raise InvalidInputError(
                "the model has no layer to sketch: none of its nn.Linear and nn.Conv2d layers took part",
                hint="sketch a model that has such layers and calls them as modules",
            )
        return torch.stack(parts).sum(0).div_(math.sqrt(self.size))

    def of_layer(
        self,
        layer: int,
        inputs: Tensor,
        columns: Callable[[Tensor], Tensor],
        deltas: Tensor,
        *,
        has_bias: bool,
    ) -> Tensor:
        """Return the projected gradients of one layer, [row, size], before the division by root size."""

        def taken(start: int, stop: int) -> Tensor:
            found = columns(inputs[start:stop].float())
            return torch.cat([found, torch.ones_like(found[:, :, :1])], 2) if has_bias else found

        p = taken(0, 1).shape[2]
        n_rows, n_groups, q, n_positions = deltas.shape
        r = self._side(layer, "in", p, deltas.device)
        s = self._side(layer, "out", n_groups * q, deltas.device)
        working = CACHED_BYTES if deltas.device.type == "cpu" else WORKING_BYTES
        step = max(1, working // (4 * n_groups * n_positions * (p + q + 2 * self.size)))
        parts = [
            factored(taken(start, start + step), deltas[start : start + step].float(), r, s)
            for start in range(0, n_rows, step)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _side(self, layer: int, side: str, width: int, device: torch.device) -> Tensor:
        key = (layer, side, width)
        if key not in self._signs:
            self._signs[key] = signs(self.seed, layer, side, self.size, width).to(device)
        return self._signs[key]


def vectors(values: Tensor) -> Tensor:
    """Lay out what a fully connected layer sees, [row, ..., unit], as [row, group, unit, position]."""
    return values.reshape(len(values), -1, values.shape[-1]).transpose(1, 2)[:, None]


def margin_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients of the margins with respect to the logits, [..., class]."""
    leaf = logits.detach().float().requires_grad_()
    return torch.autograd.grad(log_odds_of_tensor(leaf, labels).sum(), leaf)[0]


def gradient_sketch(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
    batch_size: int = 256,
) -> NDArray[np.float32]:
    """Return a sketch of every example: a random projection of the gradient of its margin, [example, size].

    The margin is the label's logit minus the log-sum-exp of the others; the gradient is that of the weights
    and biases of all `torch.nn.Linear` and `torch.nn.Conv2d` layers, in evaluation mode. Other parameters,
    such as those of norms and embeddings, are omitted. Inner products of sketches estimate those of
    gradients, by which Park et al. (TRAK, 2023) attribute predictions.

    Args:
        model: gives logits [example, class]; it is left as it was.
        x: what the model takes, [example, ...], on its device or another.
        y: integer labels, [example].
        size: numbers per example.
        seed: of the projection: sketches of one seed and size can be compared between models.
        batch_size: examples at once.

    Raises:
        InvalidInputError: labels that do not fit, a size out of range, or a model without such layers.
    """
    Projection(size, seed)
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if len(x) != len(y):
        raise InvalidInputError(f"{count(len(x), 'example')} and {count(len(y), 'label')} do not fit")
    device = next((parameter.device for parameter in model.parameters()), x.device)
    sketch = Sketch(size, seed)
    found = np.empty((len(x), size), dtype=np.float32)
    with _evaluating(model), hooked(model, sketch), torch.enable_grad():
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            logits = model(x[rows].to(device))
            if not isinstance(logits, Tensor):
                raise InvalidInputError(
                    f"the model returns a {type(logits).__name__}, not logits [example, class]",
                    hint="wrap it in a module that returns its logits",
                )
            found[rows] = sketch.gather(log_odds(logits.float(), y[rows].to(device))).cpu().numpy()
    return found


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode, and each of its modules back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextlib.contextmanager
def hooked(model: nn.Module, sketch: Sketch) -> Iterator[None]:
    """Let a sketch note every fully connected and convolutional layer of a model."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    handles = [
        layer.register_forward_hook(partial(_noted, sketch, number)) for number, layer in enumerate(layers)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _noted(
    sketch: Sketch, number: int, layer: nn.Module, given: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    columns, deltas = (vectors, vectors) if isinstance(layer, nn.Linear) else _of_convolution(layer)
    return sketch.note(
        number, given[0], output, columns=columns, deltas=deltas, has_bias=layer.bias is not None
    )


def _of_convolution(layer: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the layouts of a convolution's inputs and of the gradients of its outputs."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def columns(images: Tensor) -> Tensor:
        padded = functional.pad(images, layer._reversed_padding_repeated_twice, mode=mode)  # noqa: SLF001
        found = functional.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)
        return found.view(len(found), layer.groups, -1, found.shape[-1])

    def deltas(found: Tensor) -> Tensor:
        n_rows, n_channels, height, width = found.shape
        return found.reshape(n_rows, layer.groups, n_channels // layer.groups, height * width)

    return columns, deltas
