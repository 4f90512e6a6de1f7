"""The Protocol of recipes: any object that fits it is a recipe, in any framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.datasets import Dataset
from memdb.format.documents import Json
from memdb.format.manifest import CORRECT, CUMULATIVE_LOSS, FIRST_LEARNED, LOGIT_CONFIDENCE, PREDICTION
from memdb.format.sketches import SKETCH


@dataclass(frozen=True)
class SketchRequest:
    """What a store asks of a recipe beside outcomes: gradient sketches of some models of the batch.

    Attributes:
        n_models: sketch the first n_models models of the batch, from 1.
        size: numbers per example.
        seed: of the projection.
    """

    n_models: int
    size: int
    seed: int

    def within(self, start: int, stop: int) -> SketchRequest | None:
        """Return what is asked of a part of the batch, its models from ``start`` up to ``stop``."""
        n_models = min(self.n_models, stop) - start
        return replace(self, n_models=n_models) if n_models > 0 else None


@dataclass(frozen=True)
class Run:
    """The run that a recipe trains in.

    Attributes:
        device: where to train, such as ``cpu`` or ``cuda:0``.
        progress: call it with steps done and in all, as often as you like.
        stop_requested: returns True once the user asked to stop; a recipe may then raise KeyboardInterrupt.
        checkpoint_dir: a folder for checkpoints, the same when the same seeds are trained again; create it on
            use. It is removed once the models are committed.
        outcomes: names of the outcomes that the store keeps; a recipe need not compute others.
        sketch: which models of this batch to sketch, and how; None for none of them.
        prepared: what the recipe's ``prepare`` returned for this batch, to be used once; None for nothing.
    """

    device: str
    progress: Callable[[int, int], None]
    stop_requested: Callable[[], bool]
    checkpoint_dir: Path
    outcomes: frozenset[str] = frozenset()
    sketch: SketchRequest | None = None
    prepared: Any = None


BUILT_IN_OUTCOMES = frozenset(
    {CORRECT.name, LOGIT_CONFIDENCE.name, CUMULATIVE_LOSS.name, FIRST_LEARNED.name, PREDICTION.name, SKETCH}
)  # of recipes that record learning signals


@runtime_checkable
class Recipe(Protocol):
    """How models are trained. ``name``, ``version`` and ``options`` determine its fingerprint.

    A recipe may have ``models_per_batch(data, device) -> int``, the number of models that it prefers to train
    at once; otherwise it is called for one model at a time. It may have ``outcomes``, the names of those it
    provides, so that no store is made that would keep others. A plain function is a recipe, too: its name is
    its import path, its version its ``version`` attribute, or else "0".

    It may have ``prepare(data, seeds, device)``, called in another thread while the batch before is trained.
    What it returns, such as initial weights, is ``run.prepared`` of its batch, or None if there is not enough
    memory, so a recipe must not depend on it.

    The predictions of a model must not depend on which other models share its batch.
    """

    name: str
    version: str
    options: Mapping[str, Json]

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, ArrayLike]:
        """Train one model per mask and return their outcomes.

        Args:
            data: the data set, examples in the store's order.
            masks: bool [models, train], the subset of each model.
            seeds: uint64 [models], for initialization, order and augmentation.
            run: device, progress, checkpoints.

        Returns:
            ``train/correct`` and ``test/correct``, bool [models, examples], and optionally
            ``train/logit_confidence`` and ``test/logit_confidence``, real [models, examples]: of the final
            models, in evaluation mode, computed alike for examples in and out of the subset. If
            ``run.outcomes`` contains them, also ``train/cumulative_loss``, real, and ``train/first_learned``,
            unsigned integers, and ``train/prediction`` and ``test/prediction``, the predicted labels as
            unsigned integers: see `memdb.format.manifest` for their definitions. If ``run.sketch`` is not
            None, also ``train/gradient_sketch`` and ``test/gradient_sketch``, real [models, examples, size]
            of the first ``run.sketch.n_models`` models: `memdb.gradient_sketch` gives those of one.
        """
        ...
