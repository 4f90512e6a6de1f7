"""A step of SGD that also rounds the weights for the products of the next one, in one Triton kernel.

PyTorch adds tensors of two precisions slowly, and rounds in a kernel of its own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

PART = 2048  # weights that one program of the kernel changes


@triton.jit  # type: ignore[untyped-decorator]
def descended(weights, moments, rounded, rate, n, part: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Update one part; Triton does not take Python type annotations."""
    at = tl.program_id(0).to(tl.int64) * part + tl.arange(0, part)
    inside = at < n
    changed = tl.load(weights + at, inside) - rate * tl.load(moments + at, inside).to(tl.float32)
    tl.store(weights + at, changed, inside)
    tl.store(rounded + at, changed.to(tl.bfloat16), inside)


def descend(weights: Tensor, moments: Tensor, rounded: Tensor, rate: float) -> None:
    """Subtract ``rate`` times the bfloat16 moments from float32 weights, and round them to bfloat16.

    All three are contiguous and of one shape.
    """
    n = weights.numel()
    with torch.cuda.device(weights.device):
        descended[(triton.cdiv(n, PART),)](weights, moments, rounded, rate, n, part=PART)
