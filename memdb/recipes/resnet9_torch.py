"""Residual networks of nine layers; all models of a batch are trained as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from memdb.recipes.grouped import Draw, Way, classify, convolve, train

if TYPE_CHECKING:
    from memdb.recipes.resnet9 import ResNet9

__all__ = ["Network", "train"]

LOGIT_SCALE = 0.125  # keeps the first softmax soft (Page, "How to train your ResNet", 2018)
STATISTICS_MOMENTUM = 0.2  # on a short schedule, statistics must forget the first steps


class Network:
    """One layer, then three stages that halve the image; the first and last have a residual block."""

    way = Way()

    def __init__(self, recipe: ResNet9, n_channels: int, n_classes: int, draw: Draw) -> None:
        width, first = recipe.width, recipe.first_width
        self._first = Layer(n_channels, first, draw)
        self._stages = [Layer(first if k == 0 else width << k, width << (k + 1), draw) for k in range(3)]
        self._blocks = {
            k: (Layer(n, n, draw), Layer(n, n, draw)) for k, n in ((0, width << 1), (2, width << 3))
        }
        self.out = draw.weights(n_classes, width << 3)
        layers = [
            self._first,
            *self._stages,
            *(layer for block in self._blocks.values() for layer in block),
        ]
        self.filters = [layer.weight for layer in layers]
        self.decaying: Sequence[Tensor] = [*self.filters, self.out]
        self.others: Sequence[Tensor] = [
            parameter for layer in layers for parameter in (layer.gain, layer.offset)
        ]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Return the logits [model, row, class]."""
        x = self._first(x, training=training)
        for number, stage in enumerate(self._stages):
            x = stage(x, training=training, halve=True)
            if number in self._blocks:
                one, two = self._blocks[number]
                x = x + two(one(x, training=training), training=training)
        return classify(x.amax((2, 3)), self.out) * LOGIT_SCALE


class Layer:
    """A 3 x 3 convolution, optional 2 x 2 max pooling, batch norm and ReLU."""

    def __init__(self, n_in: int, n_out: int, draw: Draw) -> None:
        self.weight = draw.weights(n_out, n_in, 3, 3)
        self.gain, self.offset = draw.constant(1.0, n_out), draw.constant(0.0, n_out)
        self._mean = torch.zeros(self.gain.numel(), device=draw.device)
        self._variance = torch.ones(self.gain.numel(), device=draw.device)

    def __call__(self, x: Tensor, *, training: bool, halve: bool = False) -> Tensor:
        x = convolve(x, self.weight)
        if halve:
            x = functional.max_pool2d(x, 2)
        x = functional.batch_norm(
            x,
            self._mean,
            self._variance,
            self.gain.flatten(),
            self.offset.flatten(),
            training=training,
            momentum=STATISTICS_MOMENTUM,
        )
        return x.relu_()
