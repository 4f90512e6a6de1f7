"""Recover from running out of memory by splitting a batch of models into halves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.errors import TrainingError
from memdb.format.sketches import SKETCH
from memdb.recipes.devices import release
from memdb.recipes.protocol import Run

Train = Callable[[Dataset, NDArray[np.bool_], NDArray[np.uint64], Run], Any]
SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "could not create a primitive",  # oneDNN, without a reason
    "cublas_status_not_initialized",  # its handle and workspace are allocated at the first product
    "alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_, HIPBLAS_STATUS_
    "allocfailed",  # miopenStatus
    "allocation_failed",
    "unable to find an engine",  # cuDNN, where every algorithm needs a larger workspace
    "valid cudnn algorithm",
    "hiperroroutofmemory",
    "cudaerrormemoryallocation",
    "out_of_device_memory",  # of Intel's runtime
    "out_of_host_memory",
    "out_of_resources",
    "bad_alloc",  # of C++
    "failed to allocate memory",
)


class Fitting:
    """Wraps a recipe to split batches that do not fit into memory; it remembers the size that fits."""

    def __init__(self, train: Train, name: str) -> None:
        self._train = train
        self._name = name
        self._most: int | None = None  # models at once, after a batch was too large

    def __call__(self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run) -> Any:
        """Train one model per mask; predictions do not depend on how the batch is split.

        Raises:
            TrainingError: not even one model fits.
        """
        while True:
            most = self._most or len(seeds)
            try:
                return self._in_parts(data, masks, seeds, run, -(-len(seeds) // most))
            except Exception as error:  # frameworks raise different errors
                if not is_out_of_memory(error):
                    raise
                most = min(most, len(seeds))
                if most == 1:
                    raise TrainingError(
                        f"one model of recipe {self._name} does not fit into the memory of {run.device}: "
                        f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
                        hint="free memory, take a smaller batch_size in another store, or another device",
                        parameter="device",
                    ) from error
            run = replace(run, prepared=None)  # the draws are spent
            self._most = most // 2  # outside of `except`: the error keeps all tensors of its frames alive
            gc.collect()
            release(run.device)

    def _in_parts(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run, n_parts: int
    ) -> Any:
        if n_parts == 1:
            return self._train(data, masks, seeds, run)
        return in_turns(self._train, data, masks, seeds, run, n_parts)


def in_turns(
    train: Train,
    data: Dataset,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    run: Run,
    n_parts: int | None = None,
) -> Any:
    """Train a batch in ``n_parts``, by default one per model, one after the other, and join the outcomes."""
    n_parts = n_parts or len(seeds)
    found = []
    for part, rows in enumerate(np.array_split(np.arange(len(seeds)), n_parts)):

        def progress(done: int, total: int, part: int = part) -> None:
            run.progress(part * total + done, n_parts * total)

        folder = run.checkpoint_dir / f"{part + 1}-of-{n_parts}"
        sketch = run.sketch.within(int(rows[0]), int(rows[-1]) + 1) if run.sketch else None
        inner = replace(run, progress=progress, checkpoint_dir=folder, sketch=sketch, prepared=None)
        returned = train(data, masks[rows], seeds[rows], inner)
        if not isinstance(returned, Mapping):
            return returned  # the caller reports the error
        found.append({path: np.asarray(values) for path, values in returned.items()})
    sketches = {
        path for path in found[0] if path.endswith(f"/{SKETCH}")
    }  # of the first models: later parts have none
    return {
        path: np.concatenate([part[path] for part in found if path in part or path not in sketches])
        for path in found[0]
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that a device or the machine ran out of memory."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(sign in str(error).lower() for sign in SIGNS)
    )
