"""Which models of a run are sketched: the next ones, until the store has as many as were asked for.

Workers do not talk to each other. Each looks at the store before a batch to see how many sketched models are
still wanted, and again before it commits one, when it drops sketches that others made unnecessary meanwhile:
so no more are kept than were asked for, except by commits in the same second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, TrainingError
from memdb.format.manifest import SetInfo
from memdb.format.sketches import (
    DEFAULT_SIZE,
    SKETCH,
    SKETCH_DTYPE,
    Projection,
    require_n_models,
    require_no_size,
)
from memdb.recipes.protocol import SketchRequest
from memdb.store import Store
from memdb.store.encoding import ArrayData
from memdb.store.read_sketches import all_sketched, projection_in_use, sketch_arrays
from memdb.store.snapshot import Snapshot

BATCH_BYTES = 512 << 20  # of sketches in memory at once
LARGEST = float(np.finfo(SKETCH_DTYPE).max)


@dataclass(frozen=True)
class SketchTarget:
    """How many sketched models a store is to have, and by which projection."""

    n_models: int
    projection: Projection


def target_of(snapshot: Snapshot, more: int | None, size: int | None) -> SketchTarget | None:
    """Return what a run is to sketch: what its store was made for, and ``more`` models; None for nothing.

    Raises:
        InvalidInputError: a number below 1, or another size than that of the store's sketches.
    """
    plan, current = snapshot.manifest.sketches, projection_in_use(snapshot)
    if more is None:
        require_no_size(size, "sketch")
        return None if plan is None else SketchTarget(plan.models, plan.projection)
    require_n_models(more, "sketch")
    if current is not None and size not in {None, current.size}:
        raise InvalidInputError(
            f"{snapshot.url} has sketches of {current.size} numbers, and others of {size} cannot join them",
            hint="omit sketch_size",
            parameter="sketch_size",
        )
    wanted = current or Projection.of_store(snapshot.manifest.seed, DEFAULT_SIZE if size is None else size)
    present = sum(one.projection == wanted for one in all_sketched(_own(snapshot)))
    return SketchTarget(max(present + more, plan.models if plan else 0), wanted)


def _own(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without the models of the store that its store extends: workers count their own."""
    return replace(snapshot, base=None)


class Quota:
    """What is left of a target, as far as this worker knows."""

    def __init__(self, store: Store, target: SketchTarget | None) -> None:
        self._store = store
        self._target = target

    @property
    def is_open(self) -> bool:
        """Whether models may still be wanted, so that what to ask for depends on what was committed."""
        return self._target is not None

    def request(self, n_models: int) -> SketchRequest | None:
        """Return what to ask of a recipe that is about to train n_models models."""
        left = min(n_models, self._left())
        if self._target is None:
            return None
        projection = self._target.projection
        bytes_a_model = 2 * projection.size * sum(info.n_examples for info in self._store.manifest.sets)
        return SketchRequest(
            min(left, max(1, BATCH_BYTES // bytes_a_model)), projection.size, projection.seed
        )

    def arrays(
        self, returned: Mapping[str, Any], asked: SketchRequest | None, finite: NDArray[np.bool_], recipe: str
    ) -> dict[str, ArrayData]:
        """Return the arrays to commit of what a recipe returned: valid ones, and as many as are still wanted.

        Raises:
            TrainingError: sketches are missing, or have the wrong shape or type.
        """
        if asked is None or self._target is None:
            return {}
        found = checked_sketches(returned, asked, self._store.manifest.sets, finite, recipe)
        slots = [slot for slot in range(asked.n_models) if all(slot in some for some in found.values())]
        projection = self._target.projection
        slots = slots[: max(0, self._left())]
        values = {name: [some[slot] for slot in slots] for name, some in found.items()}
        return sketch_arrays(projection, values, slots)

    def _left(self) -> int:
        if self._target is None:
            return 0
        there = all_sketched(self._store.own_snapshot())
        left = self._target.n_models - sum(one.projection == self._target.projection for one in there)
        if left <= 0:
            self._target = None  # for good: nothing needs to be looked up again
        return left


def checked_sketches(
    returned: Mapping[str, Any],
    asked: SketchRequest,
    sets: Sequence[SetInfo],
    finite: NDArray[np.bool_],
    recipe: str,
) -> dict[str, dict[int, NDArray[np.float16]]]:
    """Return the sketches of a batch by set and model; models that diverged have none.

    Raises:
        TrainingError: sketches are missing, or have the wrong shape or type, or are not finite.
    """
    found: dict[str, dict[int, NDArray[np.float16]]] = {}
    for info in sets:
        path, shape = f"{info.name}/{SKETCH}", (asked.n_models, info.n_examples, asked.size)
        if path not in returned:
            raise TrainingError(
                f"recipe {recipe} returned no {path!r}, which was asked of it",
                hint="return what memdb.gradient_sketch gives if run.sketch is there, or sketch no models",
                parameter="sketch",
            )
        values = np.asarray(returned[path])
        if values.shape != shape or values.dtype.kind != "f":
            raise TrainingError(
                f"recipe {recipe} returned {path!r} as {values.dtype} {values.shape}; expected float {shape}",
                hint="its axes are [models, examples, size], of the first run.sketch.n_models models and "
                "run.sketch.size numbers",
            )
        found[info.name] = {}
        for slot, one in enumerate(values):
            if not one.any():
                raise TrainingError(
                    f"recipe {recipe} returned {path!r} full of zeros, for model {slot} of the batch",
                    hint="return what memdb.gradient_sketch gives",
                )
            if np.isfinite(one).all() and np.abs(one).max(initial=0) <= LARGEST:
                found[info.name][slot] = one.astype(SKETCH_DTYPE)
            elif finite[slot]:
                raise TrainingError(
                    f"recipe {recipe} returned {path!r} with numbers beyond float16, for model {slot} of the "
                    "batch",
                    hint="sketches are finite numbers of up to 65,504: scale the gradients",
                )
    return found
