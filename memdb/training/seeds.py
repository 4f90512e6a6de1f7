"""Which models a run trains: their seeds, decided before anything is trained, and dealt out in batches."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from memdb.errors import InvalidInputError
from memdb.format import subsets

DOMAIN = b"memdb-task-1"


def random_seeds() -> Iterator[int]:
    """Yield seeds of 63 random bits without end."""
    while True:
        yield from subsets.random_seeds(64)


def task_seeds(task_id: str) -> Iterator[int]:
    """Yield the seeds of 63 bits that a task of this name has, the same ones whenever it is run."""
    name = hashlib.sha256(DOMAIN + task_id.encode()).digest()
    for number in itertools.count():
        digest = hashlib.sha256(name + number.to_bytes(8, "little")).digest()
        yield int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True)
class Seeds:
    """The first ``n_models`` of a source of seeds, or all of it where None; one model a seed.

    Models that are ``known`` are passed over. They are left out after batches are made, so that a list that
    was interrupted falls into the same batches again, whose half-trained models are then found.
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
        """How many models there are to train; None where there is no end."""
        return None if self.n_models is None else len(self._missing(self.source))

    def batches(self, size: int, n_workers: int = 1) -> Iterator[list[int]]:
        """Yield batches of at most so many seeds, of like size, as many for one worker as for the other."""
        for batch in self._parts(size, n_workers):
            missing = self._missing(batch)
            if missing:
                yield missing

    def _parts(self, size: int, n_workers: int) -> Iterator[Iterable[int]]:
        if self.n_models is None:
            endless = iter(self.source)
            while part := list(itertools.islice(endless, size)):
                yield part
            return
        seeds = np.asarray(self.source, dtype=np.uint64)
        n_parts = min(len(seeds), math.ceil(len(seeds) / (size * n_workers)) * n_workers)
        if n_parts:
            yield from (part.tolist() for part in np.array_split(seeds, n_parts))

    def _missing(self, seeds: Iterable[int]) -> list[int]:
        return [seed for seed in seeds if subsets.model_id(self.store_seed, seed) not in self.known]


def require_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are out of range or given twice.

    Raises:
        InvalidInputError: shows the first of them.
    """
    odd = next((seed for seed in seeds if not 0 <= seed < 2**64), None)
    if odd is not None or len(set(seeds)) != len(seeds):
        raise InvalidInputError(
            f"the seeds {list(seeds)[:5]} cannot be used",
            hint="give different numbers from 0 to 2**64 - 1",
        )
