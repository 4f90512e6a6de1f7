"""Products of rows of int8 numbers on a GPU: as bfloat16, which holds them exactly, with float32 sums."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.query.pairs.kernel_torch import sums_in_float32


class TorchProducts:
    """Products on a device; results are copied back."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._dtype = torch.bfloat16 if sums_in_float32(self._device) else torch.float32

    def packed(self, rows: NDArray[np.int8]) -> Tensor:
        """Move rows to the device as the right operand of `product`."""
        return torch.from_numpy(rows).to(self._device, self._dtype).T

    def product(self, left: NDArray[np.int8], right: Tensor) -> NDArray[np.float32]:
        """Return the dot product of each pair of rows, float32 [left, right]."""
        moved = torch.from_numpy(left).to(self._device, self._dtype)
        if self._dtype == torch.bfloat16:
            return torch.mm(moved, right, out_dtype=torch.float32).cpu().numpy()
        return (moved @ right).cpu().numpy()
