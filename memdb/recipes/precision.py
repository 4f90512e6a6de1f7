"""The precision of matrix products and convolutions on a GPU: one option means one thing for both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

PRECISE, LOWERED = "ieee", "tf32"


@contextlib.contextmanager
def products(device: str, precision: str) -> Iterator[None]:
    """Set how a GPU multiplies float32 numbers, let cuDNN look for its fastest algorithms, and restore both.

    By PyTorch's defaults, convolutions round float32 to TF32, which has 10 bits, and matrix products don't.
    Here both do with ``tf32``, and neither with any other precision.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    settings = [(cudnn, "benchmark", True)]
    if hasattr(cudnn, "conv"):  # PyTorch 2.9; it refuses to mix its own names with those before
        value: Any = LOWERED if precision == "tf32" else PRECISE
        parts = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        settings += [(part, "fp32_precision", value) for part in parts]
    else:
        settings += [
            (part, "allow_tf32", precision == "tf32") for part in (torch.backends.cuda.matmul, cudnn)
        ]
    before = [(part, name, getattr(part, name)) for part, name, _ in settings]
    try:
        for part, name, value in settings:
            setattr(part, name, value)
        yield
    finally:
        for part, name, value in before:
            setattr(part, name, value)
