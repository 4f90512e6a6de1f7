"""The pair kernel on a GPU: products of bits as bfloat16 with float32 sums, exact below 2**24 models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.query.pairs.kernel import (
    EXACT_MODELS,
    MARGIN,
    SIGNS,
    Z_BINS,
    Z_STEP,
    Survivors,
    TestBlock,
    TrainTile,
)
from memdb.query.pairs.popcount import Words

ODD = 257  # a sum that bfloat16 would round


@dataclass(frozen=True, slots=True)
class _Prepared:
    masks: Tensor  # [train, models], 0 or 1
    labels: Tensor
    n_in: Tensor
    n_out: Tensor
    sign: int


class TorchKernel:
    """Computes products, scores and the comparison on a device; only survivors are copied back."""

    columns = 16_384

    def __init__(self, n_models: int, direction: str, *, device: str) -> None:
        self._n_models, self._direction = n_models, direction
        self._device = torch.device(device)
        self._bits = torch.bfloat16 if sums_in_float32(self._device) else torch.float32
        self._real = torch.float32 if n_models <= EXACT_MODELS else torch.float64
        self._histogram: NDArray[np.int64] | None = None

    def tally(self, into: NDArray[np.int64]) -> None:
        """Start adding the z statistics of all pairs to a histogram."""
        self._histogram = into

    def prepare(self, trains: TrainTile) -> _Prepared:
        """Unpack a tile on the device."""
        n_in = self._moved(trains.n_in, self._real)
        labels = self._moved(trains.labels, torch.int32)
        sign = SIGNS[self._direction]
        return _Prepared(self._unpacked(trains.masks), labels, n_in, self._n_models - n_in, sign)

    def filter(
        self, tile: _Prepared, tests: TestBlock, floors: NDArray[np.float32], k: int | None
    ) -> Iterator[Survivors]:
        """Yield the pairs that reach the floors (see `PairKernel.filter`)."""
        k_in = self._product(self._unpacked(tests.outcomes), tile.masks).to(self._real)
        n_correct = self._moved(tests.totals, self._real)[:, None]
        difference = self._n_models * k_in - n_correct * tile.n_in
        if self._histogram is not None:
            self._count_z(tile, tests, n_correct, difference)
        strength = tile.sign * difference / (tile.n_in * tile.n_out)
        if self._direction == "both":
            strength = strength.abs()
        if k is not None and strength.shape[1] >= k and np.isneginf(floors).any():
            kth = strength.topk(k, dim=1, sorted=True).values[:, -1]
            np.maximum(floors, kth.to(torch.float32).cpu().numpy(), out=floors)
        least = torch.from_numpy(floors - np.float32(MARGIN)).to(self._device)
        rows, columns = torch.nonzero(strength >= least[:, None], as_tuple=True)
        if len(rows):
            yield Survivors(
                rows.cpu().numpy(),
                columns.cpu().numpy(),
                k_in[rows, columns].to(torch.int32).cpu().numpy(),
                strength[rows, columns].to(torch.float32).cpu().numpy(),
            )

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """Count the common ones of each pair of rows: float32 sums, never rounded to the type of the bits."""
        if self._bits == torch.bfloat16:
            return torch.mm(left, right.T, out_dtype=torch.float32)
        return left @ right.T

    def _count_z(self, tile: _Prepared, tests: TestBlock, n_correct: Tensor, difference: Tensor) -> None:
        per_chance = ((self._n_models - 1) / (n_correct * (self._n_models - n_correct))).sqrt()
        z = difference * (tile.n_in * tile.n_out).rsqrt() * per_chance / Z_STEP
        bins = torch.clip(z + (Z_BINS // 2 + 0.5), 0.5, Z_BINS - 0.5)
        same = self._moved(tests.labels, torch.int32)[:, None] == tile.labels
        assert self._histogram is not None  # noqa: S101 - for the type checker
        for same_class in (False, True):
            chosen = bins[same == same_class].to(torch.int64)
            self._histogram[int(same_class)] += torch.bincount(chosen, minlength=Z_BINS).cpu().numpy()

    def _unpacked(self, words: Words) -> Tensor:
        packed = torch.from_numpy(np.ascontiguousarray(words).view(np.uint8)).to(self._device)
        shifts = torch.arange(8, device=self._device, dtype=torch.uint8)
        bits = (packed[:, :, None] >> shifts) & 1
        return bits.reshape(len(words), -1).to(self._bits)

    def _moved(self, values: NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device, dtype)


def sums_in_float32(device: torch.device) -> bool:
    """Whether products of bfloat16 can be had in float32: older PyTorch and some devices, ROCm's, cannot."""
    if device.type != "cuda":
        return False
    ones = torch.ones(1, ODD, dtype=torch.bfloat16, device=device)
    try:
        return int(torch.mm(ones, ones.T, out_dtype=torch.float32)) == ODD
    except (TypeError, RuntimeError):  # which NotImplementedError is
        return False


def kernel_on(device: str) -> Callable[[int, str], TorchKernel]:
    """Return a factory of kernels on a device.

    Raises:
        RuntimeError: PyTorch cannot use the device.
    """
    torch.empty(0, device=device)
    return partial(TorchKernel, device=device)


def gpu_is_there() -> bool:
    """Whether PyTorch finds a GPU."""
    return torch.cuda.is_available()
