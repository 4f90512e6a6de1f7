"""What a recipe is: anything that fits this Protocol, in any framework. No base class, no registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.datasets import Dataset
from memdb.format.documents import Json
from memdb.format.manifest import CORRECT, CUMULATIVE_LOSS, FIRST_LEARNED, LOGIT_CONFIDENCE


@dataclass(frozen=True)
class Run:
    """What a recipe may ask of the run it is part of.

    Attributes:
        device: where to train, such as ``cpu`` or ``cuda:0``.
        progress: call it with steps done and in all, as often as you like.
        stop_requested: true once the user asked to stop; a recipe may then raise KeyboardInterrupt.
        checkpoint_dir: a folder that is the same again when the same seeds are retried; create it on use.
            It is removed once the models are committed.
        outcomes: names of what the store keeps; a recipe may leave the work for others out.
    """

    device: str
    progress: Callable[[int, int], None]
    stop_requested: Callable[[], bool]
    checkpoint_dir: Path
    outcomes: frozenset[str] = frozenset()


BUILT_IN_OUTCOMES = frozenset(
    {CORRECT.name, LOGIT_CONFIDENCE.name, CUMULATIVE_LOSS.name, FIRST_LEARNED.name}
)  # of recipes that look on while they train


@runtime_checkable
class Recipe(Protocol):
    """How models are trained. ``name``, ``version`` and ``options`` together are its fingerprint.

    It may also have ``models_per_batch(data, device) -> int``, the number of models that it trains best
    at once; without it, it is called for one model at a time. A plain function fits too: its name is
    its import path, its version its ``version`` attribute, else "0". With an attribute ``outcomes``, the
    names of those it gives, a store that would keep others is refused when it is made.

    What one model predicts must not depend on which others share its batch.
    """

    name: str
    version: str
    options: Mapping[str, Json]

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, ArrayLike]:
        """Train one model a mask and return their predictions.

        Args:
            data: the data set, examples in the store's order.
            masks: bool [models, train], the subset each model may see.
            seeds: uint64 [models], to drive initialisation, order and augmentation.
            run: device, progress, checkpoints.

        Returns:
            ``train/correct`` and ``test/correct``, bool [models, examples], and optionally
            ``train/logit_confidence`` and ``test/logit_confidence``, real [models, examples]: of the final
            models, in evaluation mode, computed alike for examples in and out of the subset. Where
            ``run.outcomes`` names them, also ``train/cumulative_loss``, real, and ``train/first_learned``,
            unsigned integers: see `memdb.format.manifest` for their definitions.
        """
        ...
