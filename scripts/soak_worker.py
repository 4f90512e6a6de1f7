"""A worker of the soak test (see soak.py): it commits, compacts, cleans up and reads until it is killed.

What it commits is a function of seeds, so that every reader can tell whether a model is intact.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import MemdbError
from memdb.format import bits, subsets
from memdb.format.segment import ModelInfo
from memdb.storage import open_storage
from memdb.store import Snapshot, Store, grace
from memdb.store.maintenance.compact import compact
from memdb.store.maintenance.gc import garbage, remove

N_TRAIN, N_TEST = 203, 101
STORE_SEED = 7
GRACE = timedelta(seconds=20)
STALLED = GRACE / 2
LARGEST_BATCH = 6
SEEDS_PER_LIFE = 2**32  # each life of a worker has seeds of its own
PAUSE = 0.1  # seconds between two actions of a worker, on average
KILL_DELAY = 0.08  # seconds at most from the beginning of an action to the kill
COMMIT, COMPACT, CLEAN, READ = "commit", "compact", "clean", "read"
FULL, STOP = "full", "stop"  # flags that the parent sets

Content = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]  # mask, train and test correct


@dataclass(frozen=True)
class Life:
    """A worker from its start to its end, and where it notes what it does."""

    url: str
    folder: str
    slot: int
    number: int
    seed: int
    parent: int

    def flag(self, name: str) -> bool:
        """Tell whether the parent has set a flag."""
        return Path(self.folder, name).exists()


@dataclass(frozen=True)
class Note:
    """A line in a worker's log: it begins something, has done it, or failed."""

    life: int
    verb: str
    state: str  # begun, done or failed
    seeds: list[int] = field(default_factory=list)
    count: int = 0
    text: str = ""


def work(life: Life) -> None:
    """Do one thing after another until told to stop, or killed."""
    grace.STALLED = STALLED
    store = Store.open(open_storage(life.url))
    random = np.random.default_rng([life.seed, life.number])
    path = log_path(Path(life.folder), life.slot)
    earlier = tried_before(path)
    fresh = iter(range(life.number * SEEDS_PER_LIFE, (life.number + 1) * SEEDS_PER_LIFE))
    with path.open("a") as log:
        log.write("\n")  # the last life may have left half a line
        worker = Worker(life.number, store, random, log)
        worker.commit(fresh, earlier)
        while not life.flag(STOP) and os.getppid() == life.parent:
            time.sleep(random.uniform(0, 2 * PAUSE))
            match random.choice([COMMIT, COMPACT, CLEAN, READ], p=[0.4, 0.25, 0.15, 0.2]):
                case "commit" if not life.flag(FULL):
                    worker.commit(fresh, earlier)
                case "compact":
                    worker.compact()
                case "clean":
                    worker.clean()
                case _:
                    worker.read()


@dataclass
class Worker:
    """What a worker does, and notes before and after."""

    life: int
    store: Store
    random: np.random.Generator
    log: IO[str]

    def commit(self, fresh: Iterator[int], earlier: list[int]) -> None:
        """Commit a batch: new models, and now and then some that were tried before."""
        seeds = [next(fresh) for _ in range(self.random.integers(1, LARGEST_BATCH + 1))]
        if earlier and self.random.random() < 0.2:
            n_again = min(len(earlier), len(seeds))
            again = self.random.choice(earlier, n_again, replace=False).tolist()
            seeds = again if self.random.random() < 0.5 else [*seeds, *again][-LARGEST_BATCH:]
        self.note(COMMIT, "begun", seeds=seeds)
        contents = [content(seed) for seed in seeds]
        masks, train, test = (np.stack(rows) for rows in zip(*contents, strict=True))
        outcomes = {"train/correct": train, "test/correct": test}
        try:
            self.store.commit([model(seed) for seed in seeds], masks, outcomes)
        except MemdbError as error:
            self.note(COMMIT, "failed", text=described(error))
            return
        time.sleep(max(0.0, self.random.uniform(-KILL_DELAY, KILL_DELAY)))
        self.note(COMMIT, "done", seeds=seeds)
        earlier += seeds

    def compact(self) -> None:
        """Compact, thoroughly or not."""
        self.note(COMPACT, "begun")
        thorough = bool(self.random.integers(2))
        try:
            done = compact(self.store, thorough=thorough)
        except MemdbError as error:
            self.note(COMPACT, "failed", text=described(error))
        else:
            self.note(COMPACT, "done", count=done is not None)

    def clean(self) -> None:
        """Remove what is older than the grace period of this test."""
        self.note(CLEAN, "begun")
        try:
            for _ in remove(self.store, garbage(self.store, GRACE, alone=True)):
                self.note(CLEAN, "done", count=1)
        except MemdbError as error:
            self.note(CLEAN, "failed", text=described(error))

    def read(self) -> None:
        """Compare all models with what their seeds give."""
        self.note(READ, "begun")
        try:
            problems = problems_of(self.store.snapshot())
        except MemdbError as error:
            problems = [described(error)]
        for problem in problems:
            self.note(READ, "failed", text=problem)
        self.note(READ, "done", count=1)

    def note(self, verb: str, state: str, **details: Any) -> None:
        """Write a line; an acknowledgement is on the disk when this returns."""
        self.log.write(json.dumps(asdict(Note(self.life, verb, state, **details))) + "\n")
        self.log.flush()
        if state == "done":
            os.fsync(self.log.fileno())


def log_path(folder: Path, slot: int) -> Path:
    return folder / f"{slot}.log"


def notes_in(text: bytes) -> Iterator[Note]:
    for line in text.splitlines():
        try:
            yield Note(**json.loads(line))
        except ValueError:  # a kill cut it
            continue


def tried_before(path: Path) -> list[int]:
    """Return the seeds that earlier lives in this slot tried to commit."""
    if not path.exists():
        return []
    return [seed for note in notes_in(path.read_bytes()) if note.state == "begun" for seed in note.seeds]


# Models as a function of their seeds


@cache
def content(seed: int) -> Content:
    random = np.random.default_rng([seed, 1])
    return random.random(N_TRAIN) < 0.7, random.random(N_TRAIN) < 0.6, random.random(N_TEST) < 0.5


@cache
def model(seed: int) -> ModelInfo:
    mask, train, test = content(seed)
    return ModelInfo(
        model_id=subsets.model_id(STORE_SEED, seed),
        seed=seed,
        subset_size=int(mask.sum()),
        seconds=1.0,
        trained_at="2026-01-01T00:00:00+00:00",
        train_accuracy=float(train[mask].mean()),
        out_accuracy=float(train[~mask].mean()),
        test_accuracy=float(test.mean()),
        diverged=False,
        device="cpu",
        host="soak",
    )


def problems_of(snapshot: Snapshot) -> list[str]:
    """Return how a snapshot differs from what the seeds of its models give."""
    models = [found for _, found in snapshot.models]
    problems = [f"model of seed {found.seed} is altered" for found in models if found != model(found.seed)]
    if len({found.model_id for found in models}) != len(models):
        problems.append("a model is there twice")
    arrays = {
        "mask": snapshot.mask(),
        "train/correct": snapshot.outcome_bits("train/correct"),
        "test/correct": snapshot.outcome_bits("test/correct"),
    }
    for position, (name, packed) in enumerate(arrays.items()):
        for found, row in zip(models, bits.unpack(packed, len(models)), strict=True):
            if not np.array_equal(row, content(found.seed)[position]):
                problems.append(f"{name} of seed {found.seed} is wrong")
    return problems


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    work(Life(**json.loads(sys.argv[1])))
