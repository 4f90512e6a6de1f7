"""Small convolutional networks; all models of a batch are trained as one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from memdb.recipes.grouped import Draw, Way, classify, convolve, train

if TYPE_CHECKING:
    from memdb.recipes.cnn import CNN

__all__ = ["Network", "train"]


class Network:
    """3 x 3 convolutions with ReLU and 2 x 2 max pooling, then one linear layer."""

    way = Way()

    def __init__(self, recipe: CNN, image: tuple[int, int, int], n_classes: int, draw: Draw) -> None:
        height, width, n_channels = image
        widths = list(itertools.pairwise((n_channels, *recipe.channels)))
        self._filters = [draw.weights(n_out, n_in, 3, 3) for n_in, n_out in widths]
        self._offsets = [draw.constant(0.0, n_out) for _, n_out in widths]
        shrunk = 2 ** len(recipe.channels)
        n_features = recipe.channels[-1] * (height // shrunk) * (width // shrunk)
        self._out, self._out_offset = draw.weights(n_classes, n_features), draw.constant(0.0, n_classes)
        self.decaying: Sequence[Tensor] = [*self._filters, self._out]
        self.others: Sequence[Tensor] = [*self._offsets, self._out_offset]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:  # noqa: ARG002 - the same in both
        """Return the logits [model, row, class]."""
        for weight, bias in zip(self._filters, self._offsets, strict=True):
            x = functional.max_pool2d(convolve(x, weight, bias).relu_(), 2)
        return classify(x.flatten(1), self._out, self._out_offset)
