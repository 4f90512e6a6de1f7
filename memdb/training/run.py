"""A training run: the loop of `memdb.training.loop` with progress, limits and compaction."""

from __future__ import annotations

import math
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memdb.errors import InvalidInputError, MemdbError
from memdb.query.intervals import IntervalSpec
from memdb.query.relations import Relations
from memdb.store import Snapshot, Store
from memdb.store.maintenance.compact import compact
from memdb.training.half_width import RunningPrecision
from memdb.training.loop import Committed, Engine, Hooks
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


def warn_of_doubts(status: TrainingStatus) -> None:
    """Issue a Python warning for remarks that cast doubt on the models: the default progress callback."""
    if status.is_doubt:
        warnings.warn(status.remark, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """Return the level of the frame that called memdb, as `warnings.warn` in the caller of this counts."""
    frame, level, outermost = sys._getframe(1), 1, 1  # noqa: SLF001 - inspect reads the sources of all of them
    while above := frame.f_back:
        if f"{frame.f_globals.get('__name__')}.".startswith("memdb."):
            outermost = level + 1
        frame, level = above, level + 1
    return outermost


def carry_out(
    store: Store,
    plan: Plan,
    before: Snapshot,
    progress: Callable[[TrainingStatus], None],
    stop_requested: Callable[[], bool],
) -> int:
    """Train, commit and report batches until done; return the number of models committed."""
    course = _Course(store, plan, before, progress)
    if plan.seeds.n_missing == 0:
        return 0
    hooks = Hooks(
        in_flight=lambda n_models: course.show(n_in_flight=n_models),
        remark=lambda text: course.show(remark=text),
        committed=course.committed,
        may_begin=course.may_begin,
        stop_requested=lambda: stop_requested() or course.clock.is_over(),
        looks_back=plan.limits != Limits(),
    )
    with closing(plan.engine(plan.seeds, hooks)) as batches:
        try:
            for batch in batches:
                course.committed(batch)
                course.tidy()
        except KeyboardInterrupt:
            course.show_last()
            raise
    return course.n_committed


class _Course:
    """The state of a run: what it has committed, which it reports, and whether another batch may begin."""

    def __init__(
        self, store: Store, plan: Plan, before: Snapshot, progress: Callable[[TrainingStatus], None]
    ) -> None:
        self.clock = _Clock(plan.limits.seconds)
        self._progress = progress
        self._width = plan.limits.half_width
        self._running = None  # computed only where it is shown or decides
        is_random = store.manifest.experiment is None
        if is_random and (progress is not warn_of_doubts or self._width is not None):
            self._running = RunningPrecision(Relations(before), IntervalSpec("anytime"))
        self._accuracies = [m.test_accuracy for _, m in before.models if m.test_accuracy is not None]
        self._tidying = _Tidying(store, len(before.loose), wanted=plan.compact)
        self._sizes: dict[str, int] = {}  # models of each batch, by the id of the first
        self._shown = {""}
        self._n_asked = plan.seeds.n_missing
        self._status = self._now()
        self.show(remark=plan.doubt, is_doubt=bool(plan.doubt))

    @property
    def n_committed(self) -> int:
        """The number of models that were committed."""
        return sum(self._sizes.values())

    def show_last(self) -> None:
        """Report what was counted when Ctrl-C came, which may not have been reported yet."""
        self.show(n_committed=self.n_committed)

    def show(self, **changes: Any) -> None:
        """Report the status, with these changes for this moment alone."""
        self._progress(replace(self._status, **changes))

    def committed(self, batch: Committed) -> None:
        """Count a batch and report it, while the next one is trained if that has begun.

        Where Ctrl-C interrupts this, it is called again.
        """
        first, n_models = batch.models[0], len(batch.models)
        if first.model_id not in self._sizes:
            self._sizes[first.model_id] = n_models
            self.clock.committed(first.seconds * n_models)
            if self._running:
                self._running.add(batch.mask, batch.correct, n_models)
            self._accuracies += [m.test_accuracy for m in batch.models if m.test_accuracy is not None]
            self._tidying.committed()
        self._status = self._now()
        doubt = "" if batch.doubt in self._shown else batch.doubt
        self._shown.add(doubt)
        self.show(remark=doubt, is_doubt=bool(doubt))

    def may_begin(self) -> bool:
        """Whether another batch may begin, before which the store is tidied."""
        self.tidy()
        width = self._status.mean_half_width
        is_settled = self._width is not None and width is not None and width <= self._width
        return not is_settled and self.clock.has_time()

    def tidy(self) -> None:
        """Compact the store if it is time."""
        if remark := self._tidying.tidy():
            self.show(remark=remark)

    def _now(self) -> TrainingStatus:
        width = self._running.mean_half_width() if self._running else None
        return TrainingStatus(self._n_asked, self.n_committed, 0.0, _mean(self._accuracies), width)


class _Tidying:
    """Compacts the store whenever a few dozen segments are loose; a failure never stops the training."""

    def __init__(self, store: Store, n_loose: int, *, wanted: bool) -> None:
        self._store = store
        self._n_loose = n_loose
        self._wanted = wanted and store.manifest.put_if_absent
        self._limit = MANY_SEGMENTS + secrets.randbelow(MANY_SEGMENTS)  # workers should not all start at once

    def committed(self) -> None:
        """Count a segment."""
        self._n_loose += 1

    def tidy(self) -> str:
        """Compact if it is time; return a remark if that failed, or an empty string."""
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
