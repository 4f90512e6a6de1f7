"""Residual networks of nine layers whose filters are changed by orthogonal steps, all at once."""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from memdb.recipes import resnet9_torch
from memdb.recipes.grouped import Draw, Way, train
from memdb.recipes.spectral import Stack

if TYPE_CHECKING:
    from memdb.recipes.resnet9_v2 import ResNet9v2

__all__ = ["Network", "train"]


class Optimizer:
    """Muon for filters (Jordan et al., 2024), SGD for all other parameters."""

    def __init__(self, recipe: ResNet9v2, network: Network) -> None:
        self._network = network
        self._ratio = recipe.filter_lr / recipe.lr
        self._rest = torch.optim.SGD(
            [
                {"params": [network.out], "weight_decay": recipe.weight_decay},
                {"params": list(network.others), "weight_decay": 0.0},
            ],
            lr=recipe.rate(0.0),
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            fused=True,
        )
        dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self._stacks = [Stack(some, recipe.filter_momentum, dtype) for some in _by_size(network.filters)]
        self.param_groups: list[dict[str, Any]] = self._rest.param_groups

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._rest.zero_grad()
        for filters in self._network.filters:
            filters.grad = None

    def step(self) -> None:
        """Change the parameters."""
        self._rest.step()
        for stack in self._stacks:
            stack.step(self._ratio * self.param_groups[0]["lr"])


def _by_size(filters: list[Tensor]) -> list[list[Tensor]]:
    """Return the filters in two groups, so that padding to the largest of a group does not cost much."""
    largest = max(one.shape[1] for one in filters)
    groups = [
        [one for one in filters if (one.shape[1] <= largest // 4) == are_small] for are_small in (True, False)
    ]
    return [group for group in groups if group]


@functools.cache
def _compiled() -> Any:
    return torch.compile(_logits)


def _logits(network: Network, x: Tensor) -> Tensor:
    return network(x, training=True)


def forward(network: Network, x: Tensor) -> Tensor:
    """Return the logits of a step: compiled on a GPU, as it is where the compiler fails or is not there."""
    if x.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return _logits(network, x)
    with torch._dynamo.config.patch(suppress_errors=True):  # noqa: SLF001 - as PyTorch's documentation does
        logits: Tensor = _compiled()(network, x)
    return logits


class ChannelsLast(Draw):
    """Draws filters that are channels last in memory, as their images are."""

    def weights(self, *shape: int) -> Tensor:
        """Return trainable weights [model, out, in, ...]."""
        drawn = super().weights(*shape).detach()
        if drawn.dim() == 5:
            drawn = drawn.movedim(2, -1).contiguous().movedim(-1, 2)
        return drawn.requires_grad_()


class Network(resnet9_torch.Network):
    """The network of version 1 with a narrower first layer."""

    way = Way(Optimizer, forward, equal=True)

    def __init__(self, recipe: ResNet9v2, n_channels: int, n_classes: int, draw: Draw) -> None:
        super().__init__(recipe, n_channels, n_classes, ChannelsLast(draw.generators, draw.device))
