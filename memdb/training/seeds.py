"""The seeds of the models that a run trains, fixed before training starts, and their batches."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from memdb.errors import InvalidInputError
from memdb.format import subsets
from memdb.format.experiment import ARM_SHIFT

DOMAIN = b"memdb-task-1"


def random_seeds() -> Iterator[int]:
    """Yield seeds of 63 random bits indefinitely."""
    while True:
        yield from subsets.random_seeds(64)


def task_seeds(task_id: str) -> Iterator[int]:
    """Yield the seeds of 63 bits that derive from the name of a task, indefinitely."""
    name = hashlib.sha256(DOMAIN + task_id.encode()).digest()
    for number in itertools.count():
        digest = hashlib.sha256(name + number.to_bytes(8, "little")).digest()
        yield int.from_bytes(digest[:8], "little") >> 1


class Batches(Protocol):
    """Seeds in batches, which need not be known before they are to be trained."""

    def batches(self, size: int) -> Iterator[list[int]]:
        """Yield batches of at most ``size`` seeds."""


@dataclass(frozen=True)
class Seeds:
    """The seeds to train, one per model: the first ``n_models`` of ``source``, or all if None.

    ``known`` models are skipped. They are removed after batches are formed, so that an interrupted run forms
    the same batches again and finds their checkpoints.
    """

    source: Iterable[int]
    n_models: int | None
    store_seed: int
    known: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.n_models is not None:
            object.__setattr__(self, "source", tuple(itertools.islice(self.source, self.n_models)))

    @property
    def n_missing(self) -> int | None:
        """The number of models to train; None if unlimited."""
        return None if self.n_models is None else len(self._missing(self.source))

    def batches(self, size: int, n_workers: int = 1) -> Iterator[list[int]]:
        """Yield batches of at most ``size`` seeds, of similar sizes, equally many for each worker."""
        for batch in self._all_batches(size, n_workers):
            missing = self._missing(batch)
            if missing:
                yield missing

    def _all_batches(self, size: int, n_workers: int) -> Iterator[Iterable[int]]:
        if self.n_models is None:
            endless = iter(self.source)
            while batch := list(itertools.islice(endless, size)):
                yield batch
            return
        seeds = np.asarray(self.source, dtype=np.uint64)
        n_batches = min(len(seeds), math.ceil(len(seeds) / (size * n_workers)) * n_workers)
        if n_batches:
            yield from (batch.tolist() for batch in np.array_split(seeds, n_batches))

    def _missing(self, seeds: Iterable[int]) -> list[int]:
        return [seed for seed in seeds if subsets.model_id(self.store_seed, seed) not in self.known]


@dataclass(frozen=True)
class ArmSeeds(Seeds):
    """The seeds of an experiment, given repetition by repetition.

    A batch has one arm, since models that train together have subsets of one size. Arms take turns, so that
    an interrupted run has tried all of them.
    """

    def _all_batches(self, size: int, n_workers: int) -> Iterator[Iterable[int]]:  # noqa: ARG002
        arms: dict[int, list[int]] = {}
        for seed in self.source:
            arms.setdefault(seed >> ARM_SHIFT, []).append(seed)
        longest = max(map(len, arms.values()), default=0)
        for start in range(0, longest, size):
            yield from (seeds[start : start + size] for seeds in arms.values() if start < len(seeds))


def require_seeds(seeds: Sequence[int]) -> None:
    """Check that seeds are in range and distinct.

    Raises:
        InvalidInputError: they are not; shows the first of them.
    """
    odd = next((seed for seed in seeds if not 0 <= seed < 2**64), None)
    if odd is not None or len(set(seeds)) != len(seeds):
        raise InvalidInputError(
            f"the seeds {list(seeds)[:5]} cannot be used",
            hint="give different numbers from 0 to 2**64 - 1",
        )
