"""Orthogonal steps for the filters of many layers and models at once (Jordan et al., Muon, 2024)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of Jordan's quintic, which drives singular values to about 1
ITERATIONS = 3
TINY = 1e-7


def orthogonal(matrices: Tensor) -> Tensor:
    """Return almost the nearest orthogonal matrices, [matrix, row, column] with no more rows than columns.

    By Newton-Schulz iterations in the precision of the matrices. Rows and columns of zeros stay zeros.
    """
    a, b, c = COEFFICIENTS
    x: Tensor = matrices / (torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True) + TINY)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.transpose(1, 2))
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


class Stack:
    """Filters [model, out, in, k, k] of several layers, padded to matrices of one size and changed together.

    A normalization follows them, so each keeps its length, the root of its outputs, and the learning rate is
    the length of a step by that of the filter. Products are made in ``dtype``, all else in float32.
    """

    def __init__(self, filters: list[Tensor], momentum: float, dtype: torch.dtype) -> None:
        self._filters, self._momentum = filters, momentum
        first = filters[0]
        shape = (
            len(filters),
            len(first),
            max(f.shape[1] for f in filters),
            max(f[0, 0].numel() for f in filters),
        )
        self._weights = torch.zeros(shape, device=first.device)
        self._moments, self._slopes = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self._ahead = torch.zeros_like(self._weights, dtype=dtype)
        lengths = torch.tensor([f.shape[1] ** 0.5 for f in filters])
        self._lengths = lengths[:, None, None, None].to(first.device)
        self._own_weights = [self._part(self._weights, layer) for layer in range(len(filters))]
        self._own_slopes = [self._part(self._slopes, layer) for layer in range(len(filters))]
        with torch.no_grad():
            torch._foreach_copy_(self._own_weights, filters)
            self._settle()

    def _part(self, padded: Tensor, layer: int) -> Tensor:
        """Return the view of a stack that has the shape of a layer's filters."""
        _, n_out, n_in, height, width = self._filters[layer].shape
        part = padded[layer, :, :n_out, : n_in * height * width]
        rows, row, column = part.stride()
        strides = (rows, row, column, width * n_in * column, n_in * column)
        return part.as_strided((len(part), n_out, n_in, height, width), strides, part.storage_offset())

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Change the filters by their gradients."""
        torch._foreach_copy_(self._own_slopes, [cast("Tensor", filters.grad) for filters in self._filters])
        torch.add(self._slopes, self._moments, alpha=self._momentum, out=self._moments)
        torch.add(self._slopes, self._moments, alpha=self._momentum, out=self._ahead)  # Nesterov
        self._weights.add_(orthogonal(self._ahead.flatten(0, 1)).view_as(self._ahead), alpha=-lr)
        self._settle()

    def _settle(self) -> None:
        """Set the lengths of the filters, and let the layers have them."""
        lengths = torch.linalg.vector_norm(self._weights, dim=(2, 3), keepdim=True)
        self._weights.mul_(self._lengths / (lengths + TINY))
        torch._foreach_copy_(self._filters, self._own_weights)
