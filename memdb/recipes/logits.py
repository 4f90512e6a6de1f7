"""The logit confidence of a prediction, from its logits."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from memdb.errors import InvalidInputError


def log_odds(logits: Any, labels: Any) -> Any:
    """Return log(p / (1 - p)) of each label's probability p under softmax: what `logit_confidence` is.

    Computed as logit_y - logsumexp(the other logits), which stays exact where p itself rounds to 1.

    Args:
        logits: [..., classes], NumPy or PyTorch; of two classes with one logit z, stack (0, z).
        labels: integers from 0, [...]; leading axes may be missing, such as logits [models, examples,
            classes] with labels [examples].

    Returns:
        [...], an array or tensor as the logits are; NaN where a logit is NaN.

    Raises:
        InvalidInputError: shapes that do not fit, or labels that are not classes.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(logits, torch.Tensor):
        index = torch.as_tensor(labels, device=logits.device)
        _require(tuple(logits.shape), tuple(index.shape), not index.is_floating_point(), index)
        return log_odds_of_tensor(logits if logits.is_floating_point() else logits.float(), index.long())
    values = np.asarray(logits)
    values = values if values.dtype.kind == "f" and values.itemsize >= 4 else values.astype(np.float64)
    index = np.asarray(labels)
    _require(values.shape, index.shape, index.dtype.kind in "iu", index)
    index = np.broadcast_to(index, values.shape[:-1])[..., None].astype(np.int64)
    own = np.take_along_axis(values, index, axis=-1)[..., 0]
    others = values.copy()
    np.put_along_axis(others, index, -np.inf, axis=-1)
    largest = others.max(axis=-1)
    shift = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return own - (np.log(np.exp(others - shift[..., None]).sum(axis=-1)) + shift)


def log_odds_of_tensor(logits: Any, labels: Any) -> Any:
    """Return the same for tensors, without checks, which would synchronize with a GPU."""
    index = labels.expand(logits.shape[:-1])[..., None]
    own = logits.gather(-1, index)[..., 0]
    return own - logits.scatter(-1, index, -math.inf).logsumexp(-1)


def _require(shape: tuple[int, ...], wanted: tuple[int, ...], is_integer: bool, labels: Any) -> None:  # noqa: FBT001
    n_axes = len(wanted)
    if (
        len(shape) < 1
        or n_axes >= len(shape)
        or wanted != shape[len(shape) - 1 - n_axes : -1]
        or not is_integer
    ):
        raise InvalidInputError(
            f"logits {shape} and labels {wanted} do not fit" if is_integer else "labels are not integers",
            hint="give logits [..., classes] and integer labels [...]",
        )
    if math.prod(wanted) and not 0 <= int(labels.min()) <= int(labels.max()) < shape[-1]:
        wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise InvalidInputError(
            f"the label {wrong} is not one of the {shape[-1]} classes of the logits",
            hint="number the classes from 0, one logit each",
        )
