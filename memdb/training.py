"""A whole training run: the loop of `memdb.train`, watched."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from memdb import layout, recipes
from memdb.datasets import Dataset
from memdb.errors import MemdbError
from memdb.query.connection import Relations
from memdb.query.intervals import IntervalChoice
from memdb.query.precision import RunningPrecision
from memdb.store import Store
from memdb.store.compaction import compact
from memdb.train import Hooks, require_positive, train

MANY_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """How far a run has come: models of this run, accuracies and widths of the whole store."""

    n_asked: int
    n_committed: int
    n_in_flight: float  # models of the batch in flight, times the share of its steps that is done
    test_accuracy: float | None
    mean_half_width: float | None  # of the 95 % anytime intervals of memorization
    remark: str = ""  # something that did not go as it should and does not stop the run


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train: one model a seed, in batches, on a device."""

    data: Dataset
    recipe: recipes.BoundRecipe
    seeds: Sequence[int]
    device: str = "auto"
    batch_models: int | None = None
    compact: bool = True

    def __post_init__(self) -> None:
        if self.batch_models is not None:
            require_positive(self.batch_models, "--batch-models")


def carry_out(
    store: Store,
    plan: Plan,
    before: Relations,
    observe: Callable[[TrainingStatus], None],
    stop_requested: Callable[[], bool],
) -> int:
    """Train, commit and report every batch; return how many models were committed."""
    running = RunningPrecision(before, IntervalChoice("anytime"))
    accuracies = [m.test_accuracy for _, m in before.snapshot.models if m.test_accuracy is not None]
    status = TrainingStatus(len(plan.seeds), 0, 0.0, _mean(accuracies), running.mean_half_width())
    observe(status)

    def progress(n_models: int, done: int, total: int) -> None:
        observe(replace(status, n_in_flight=n_models * done / max(1, total)))

    batches = train(
        store,
        plan.data,
        plan.recipe,
        plan.seeds,
        device=recipes.resolve_device(plan.device),
        batch_models=plan.batch_models,
        hooks=Hooks(progress, stop_requested),
    )
    tidying = _Tidying(store, len(before.snapshot.loose), wanted=plan.compact)
    for batch in batches:
        running.add(batch.masks, batch.outcomes[f"{layout.TRAIN}/correct"])
        accuracies += [m.test_accuracy for m in batch.segment.models if m.test_accuracy is not None]
        status = TrainingStatus(
            len(plan.seeds),
            status.n_committed + len(batch.segment.models),
            0.0,
            _mean(accuracies),
            running.mean_half_width(),
        )
        observe(status)
        remark = tidying.after_commit()
        if remark:
            observe(replace(status, remark=remark))
    return status.n_committed


class _Tidying:
    """Compacts the store whenever it has some dozens of segments more than blocks; never stops a training."""

    def __init__(self, store: Store, n_loose: int, *, wanted: bool) -> None:
        self._store = store
        self._n_loose = n_loose
        self._wanted = wanted and store.manifest.put_if_absent
        self._limit = MANY_SEGMENTS + secrets.randbelow(MANY_SEGMENTS)  # workers should not all begin at once

    def after_commit(self) -> str:
        """Count one more segment, compact if it is time, and return what went wrong, if anything did."""
        self._n_loose += 1
        if not self._wanted or self._n_loose < self._limit:
            return ""
        self._n_loose = 0
        try:
            compact(self._store.storage, self._store.manifest, thorough=False)
        except MemdbError as error:
            self._wanted = False
            return f"the store was not compacted: {error}"
        return ""


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
