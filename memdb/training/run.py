"""A training run: the loop of `memdb.training.loop` with progress, limits and compaction."""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from memdb.errors import InvalidInputError, MemdbError
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations
from memdb.store import Snapshot, Store
from memdb.store.maintenance.compact import compact
from memdb.training.half_width import RunningPrecision
from memdb.training.loop import Engine, Hooks
from memdb.training.seeds import Seeds

MANY_SEGMENTS = 64


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """The status of a run: models of this run, accuracy and half-width of the whole store."""

    n_asked: int | None  # None if the run ends at a half-width or a time
    n_committed: int
    n_in_flight: float  # models of the batches in flight, times the fraction of their steps that is done
    test_accuracy: float | None
    mean_half_width: float | None  # of the 95 % anytime intervals of memorization
    remark: str = ""  # a failure that does not stop the run
    is_doubt: bool = False  # whether the remark casts doubt on the models


NOTHING_YET = TrainingStatus(None, 0, 0.0, None, None)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits at which a run ends.

    Attributes:
        half_width: end once the mean half-width of the 95 % anytime intervals of memorization, over the
            training examples that have one, is at most this. It is the one that `info` shows. Anytime
            intervals are valid however often one looks, so stopping by them is sound.
        seconds: end after this time. No batch begins that would exceed it if it took as long as the longest
            before; a batch that exceeds it anyway is dropped.
    """

    half_width: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.half_width is not None and not 0 < self.half_width < 1:
            raise InvalidInputError(
                f"until_half_width {self.half_width:g} is not between 0 and 1",
                hint="use e.g. until_half_width=0.05",
                parameter="until_half_width",
            )
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InvalidInputError(
                f"max_seconds {self.seconds:g} is not a length of time",
                hint="use e.g. max_seconds=7200",
                parameter="max_seconds",
            )


class _Clock:
    """Tracks the time that is left, and the longest batch."""

    def __init__(self, seconds: float | None) -> None:
        self._started = time.monotonic()
        self._seconds = math.inf if seconds is None else seconds
        self._longest = 0.0

    @property
    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def is_over(self) -> bool:
        return self._left <= 0

    def has_time(self) -> bool:
        return self._longest < self._left

    def committed(self, seconds: float) -> None:
        self._longest = max(self._longest, seconds)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, with which engine and limits."""

    engine: Engine
    seeds: Seeds
    limits: Limits = Limits()
    compact: bool = True
    doubt: str = ""  # a warning to show at the start


def warn_of_doubts(status: TrainingStatus, stacklevel: int = 4) -> None:
    """Issue a Python warning for remarks that cast doubt on the models: the default progress callback."""
    if status.is_doubt:
        warnings.warn(status.remark, stacklevel=stacklevel)  # where `Database.train` was called


def carry_out(
    store: Store,
    plan: Plan,
    before: Snapshot,
    progress: Callable[[TrainingStatus], None],
    stop_requested: Callable[[], bool],
) -> int:
    """Train, commit and report batches until done; return the number of models committed."""
    running = None  # computed only for those who look at it
    is_random = store.manifest.experiment is None
    if is_random and (progress is not warn_of_doubts or plan.limits.half_width is not None):
        running = RunningPrecision(Relations(before), IntervalSpec("anytime"))
    accuracies = [m.test_accuracy for _, m in before.models if m.test_accuracy is not None]
    n_asked = plan.seeds.n_missing

    def committed(n_models: int) -> TrainingStatus:
        width = running.mean_half_width() if running else None
        return TrainingStatus(n_asked, n_models, 0.0, _mean(accuracies), width)

    status = committed(0)
    clock = _Clock(plan.limits.seconds)
    progress(replace(status, remark=plan.doubt, is_doubt=bool(plan.doubt)))
    if n_asked == 0:
        return 0

    def is_settled() -> bool:
        width = plan.limits.half_width
        return width is not None and status.mean_half_width is not None and status.mean_half_width <= width

    hooks = Hooks(
        in_flight=lambda n_models: progress(replace(status, n_in_flight=n_models)),
        remark=lambda text: progress(replace(status, remark=text)),
        may_begin=lambda: not is_settled() and clock.has_time(),
        stop_requested=lambda: stop_requested() or clock.is_over(),
        looks_back=plan.limits != Limits(),
    )
    tidying = _Tidying(store, len(before.loose), wanted=plan.compact)
    shown = {""}
    with closing(plan.engine(plan.seeds, hooks)) as batches:
        for batch in batches:
            n_models = len(batch.models)
            clock.committed(batch.models[0].seconds * n_models)
            if running:
                running.add(batch.mask, batch.correct, n_models)
            accuracies += [m.test_accuracy for m in batch.models if m.test_accuracy is not None]
            status = committed(status.n_committed + n_models)
            doubt = "" if batch.doubt in shown else batch.doubt
            progress(replace(status, remark=doubt, is_doubt=bool(doubt)))
            shown.add(doubt)
            if remark := tidying.after_commit():
                progress(replace(status, remark=remark))
    return status.n_committed


class _Tidying:
    """Compacts the store whenever a few dozen segments are loose; a failure never stops the training."""

    def __init__(self, store: Store, n_loose: int, *, wanted: bool) -> None:
        self._store = store
        self._n_loose = n_loose
        self._wanted = wanted and store.manifest.put_if_absent
        self._limit = MANY_SEGMENTS + secrets.randbelow(MANY_SEGMENTS)  # workers should not all start at once

    def after_commit(self) -> str:
        """Count a segment and compact if it is time; return a remark if that failed, or an empty string."""
        self._n_loose += 1
        if not self._wanted or self._n_loose < self._limit:
            return ""
        self._n_loose = 0
        try:
            compact(self._store, thorough=False)
        except MemdbError as error:
            self._wanted = False
            return f"the store was not compacted: {error}"
        return ""


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
