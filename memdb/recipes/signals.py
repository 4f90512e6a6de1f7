"""Learning signals of each example, recorded during training at little cost."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memdb.format import layout
from memdb.format.manifest import CUMULATIVE_LOSS, FIRST_LEARNED
from memdb.recipes.protocol import Run


class Signals:
    """The loss of each example summed over epochs, and the epoch from which it stays correct.

    Both come from the forward passes of training, so only examples in the subset of a model have them, as
    augmented and before the step.
    """

    def __init__(self, subsets: Tensor, n_train: int) -> None:
        shape = subsets.shape[0], n_train
        self._loss = torch.full(shape, torch.nan, device=subsets.device).scatter_(1, subsets, 0.0)
        self._learned = torch.zeros(shape, dtype=torch.int32, device=subsets.device).scatter_(1, subsets, 1)

    def record(self, rows: Tensor, epoch: int, logits: Tensor, labels: Tensor) -> None:
        """Record a step: rows and labels [model, row], logits [model, row, class], epochs from 0."""
        own = logits.gather(-1, labels[..., None])[..., 0]
        self._loss.scatter_add_(1, rows, logits.logsumexp(-1) - own)
        wrong = (logits.argmax(-1) != labels) | own.isnan()
        since = self._learned.gather(1, rows).masked_fill_(wrong, epoch + 2)  # counted from 1, the next one
        self._learned.scatter_(1, rows, since)

    def outcomes(self) -> dict[str, NDArray[np.float32] | NDArray[np.uint16]]:
        """Return the outcomes by path, [model, example]."""
        return {
            f"{layout.TRAIN}/{CUMULATIVE_LOSS.name}": self._loss.cpu().numpy(),
            f"{layout.TRAIN}/{FIRST_LEARNED.name}": self._learned.cpu().numpy().astype(np.uint16),
        }


def signals_of(run: Run, subsets: Tensor, n_train: int) -> Signals | None:
    """Return a recorder of learning signals, or None if the store keeps none."""
    wanted = run.outcomes & {CUMULATIVE_LOSS.name, FIRST_LEARNED.name}
    return Signals(subsets, n_train) if wanted else None
