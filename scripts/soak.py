"""Does a store keep what it acknowledged while writers, compactors and cleaners race and are killed?

Worker processes commit batches of models whose content is a function of their seeds, commit some of them
again, compact, and clean up with a grace period of seconds; the parent kills them with SIGKILL, mostly in
the middle of something, starts others in their place, and reads all the while. In the end every acknowledged
model must be there once, bit for bit; nothing may be there that nobody wrote; ``verify`` must find no damage;
cleaning up must still work, and leave nothing to clean.

    python scripts/soak.py
    python scripts/soak.py --processes 8 --models 4000 --kills 300 --seconds 300 --seed 1
    python scripts/soak.py --store s3://bucket/soak.zarr

Models and kills are spread over the seconds; the run ends when either is used up, or the time is. The exit
status is 1 if anything was lost, doubled or wrong. A store named with --store must not exist and stays.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import soak_worker
from soak_worker import (
    CLEAN,
    COMMIT,
    COMPACT,
    FULL,
    KILL_DELAY,
    N_TEST,
    N_TRAIN,
    READ,
    STOP,
    STORE_SEED,
    Life,
    Note,
    described,
    log_path,
    notes_in,
    problems_of,
)

from memdb.errors import MemdbError, StorageError
from memdb.store import Snapshot, Store
from memdb.store.maintenance.compact import compact
from memdb.store.maintenance.gc import garbage, remove
from memdb.store.maintenance.verify import verify

KILLING_TIME = 0.8  # of the seconds; in the rest no worker is killed
PATIENCE = 3.0  # seconds to wait for a victim that does what is wanted
READ_EVERY = 1.0
LAST_ACTION = 120.0  # seconds that a worker may take to finish


@dataclass(frozen=True)
class Result:
    """What happened in a soak test, and what went wrong."""

    processes: int
    kills: int
    restarts: int
    acknowledged: int
    lost: int
    doubled: int
    unacknowledged: int  # whole, though their writer was killed before it could note them
    repeats: int
    compactions: int
    removals: int
    races: int  # compactions that gave up: others were faster
    reads: int
    seconds: float
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.problems)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--models", type=int, default=400)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, help="of the choices; random by default")
    parser.add_argument("--store", help="path or URL; by default a temporary folder")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    print(f"seed              {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        url = options.store or f"{folder}/soak.zarr"
        result = soak(url, options.processes, options.models, options.kills, options.seconds, seed)
    print_result(result)
    return 0 if result.passed else 1


def print_result(result: Result) -> None:
    rows = {
        "processes": result.processes,
        "kills survived": result.kills,
        "restarts": result.restarts,
        "acknowledged": result.acknowledged,
        "lost": result.lost,
        "doubled": result.doubled,
        "unacknowledged": f"{result.unacknowledged:,}, whole",
        "repeats": f"{result.repeats:,}, counted once",
        "compactions": f"{result.compactions:,}, and {result.races:,} that others overtook",
        "removed by gc": result.removals,
        "reads checked": result.reads,
        "wrong": len(result.problems),
        "seconds": f"{result.seconds:.0f}",
    }
    for name, value in rows.items():
        print(f"{name:17} {value if isinstance(value, str) else format(value, ',')}")
    kinds: dict[str, list[str]] = {}
    for problem in result.problems:
        kinds.setdefault(re.sub(r"\d[\w-]*", "", problem), []).append(problem)
    for alike in kinds.values():
        print(f"WRONG {len(alike):,} times, such as: {alike[0]}")


def soak(url: str, processes: int, models: int, kills: int, seconds: float, seed: int) -> Result:
    """Make a store, let workers use it and kill them, and compare what it holds in the end."""
    started = time.monotonic()
    store = new_store(url)
    with tempfile.TemporaryDirectory() as folder:
        parent = Parent(store, Path(folder), processes, seed)
        try:
            parent.run(models, kills, seconds)
            parent.finish()
        finally:
            parent.end_all()
        lost, doubled, repeats = parent.check_the_end()
        diary = parent.diary
        return Result(
            processes=processes,
            kills=parent.n_kills,
            restarts=parent.n_lives - processes,
            acknowledged=len(diary.acknowledged),
            lost=lost,
            doubled=doubled,
            unacknowledged=parent.n_unacknowledged,
            repeats=repeats,
            compactions=diary.counts[COMPACT],
            removals=diary.counts[CLEAN],
            races=diary.n_races,
            reads=diary.counts[READ] + parent.n_reads,
            seconds=time.monotonic() - started,
            problems=(*diary.problems, *parent.problems),
        )


def new_store(url: str) -> Store:
    import memdb  # only the parent needs all of it

    def recipe(*_: object) -> dict[str, Any]:
        raise NotImplementedError

    data = memdb.Dataset(
        np.arange(N_TRAIN)[:, None], np.arange(N_TRAIN) % 3, np.arange(N_TEST)[:, None], np.arange(N_TEST) % 3
    )
    return memdb.init(url, data, recipe, recipe_version="0", outcomes=["correct"], seed=STORE_SEED).store


class Diary:
    """What the workers noted, read as it grows."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._paths = [log_path(folder, slot) for slot in range(slots)]
        self._positions = [0] * slots
        self.tried: Counter[int] = Counter()
        self.acknowledged: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.committed_in: set[int] = set()  # lives
        self.n_races = 0
        self.problems: list[str] = []

    def news(self) -> list[Note]:
        """Take in what was noted since the last call, and return it."""
        found = []
        for slot, path in enumerate(self._paths):
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._positions[slot])
                whole = file.read().rpartition(b"\n")[0]
            self._positions[slot] += len(whole)
            found += list(notes_in(whole))
        for note in found:
            self._take(note)
        return found

    def _take(self, note: Note) -> None:
        if note.state == "failed":
            overtaken = note.verb == COMPACT and note.text.startswith(StorageError.__name__)
            self.n_races += overtaken
            if not overtaken:
                self.problems.append(f"{note.verb} in life {note.life}: {note.text}")
        elif note.verb == COMMIT:
            seeds = set(note.seeds)  # a batch may hold a model twice; it is one commit of it
            (self.tried if note.state == "begun" else self.acknowledged).update(seeds)
            if note.state == "done":
                self.committed_in.add(note.life)
        else:
            self.counts[note.verb] += note.count


class Parent:
    """Starts workers, kills them, and reads."""

    def __init__(self, store: Store, folder: Path, slots: int, seed: int) -> None:
        self.store, self.folder, self.seed = store, folder, seed
        self.diary = Diary(folder, slots)
        self.problems: list[str] = []
        self.n_lives = self.n_kills = self.n_reads = self.n_unacknowledged = 0
        self._random = np.random.default_rng(seed)
        self._workers: dict[int, tuple[Life, subprocess.Popen[bytes]]] = {}
        for slot in range(slots):
            self._start(slot)

    def run(self, models: int, kills: int, seconds: float) -> None:
        """Let them work until the models, the kills or the seconds are used up."""
        began = time.monotonic()
        interval = KILLING_TIME * seconds / max(1, kills)
        next_read = began + READ_EVERY
        next_kill = began + self._random.uniform(0, 2 * interval)
        wanted = self._choose_action()
        while (now := time.monotonic()) - began < seconds and len(self.diary.acknowledged) < models:
            if kills and self.n_kills == kills:
                break
            notes = self.diary.news()
            self._set(FULL, len(self.diary.acknowledged) / models > (now - began) / seconds)
            self._replace_ended()
            if now >= next_kill and self._kill_one(notes, wanted if now < next_kill + PATIENCE else None):
                due = began + (self.n_kills + 1) * interval
                next_kill = max(now, due + self._random.uniform(-interval, interval))
                wanted = self._choose_action()
            if now >= next_read:
                self.read()
                next_read = time.monotonic() + READ_EVERY
            time.sleep(0.003)

    def finish(self) -> None:
        """Let the workers end what they do."""
        self._set(STOP, True)
        for life, process in self._workers.values():
            try:
                process.wait(LAST_ACTION)
            except subprocess.TimeoutExpired:
                self.problems.append(f"life {life.number} does not end")
            else:
                self._judge(life, process)

    def end_all(self) -> None:
        """Leave no worker behind."""
        for _, process in self._workers.values():
            process.kill()
            process.wait()

    def read(self, *, last: bool = False) -> Snapshot | None:
        """Compare the models of now with what was acknowledged before and tried until after."""
        self.diary.news()
        before = set(self.diary.acknowledged)
        try:
            snapshot = self.store.snapshot()
            self.problems += problems_of(snapshot)
        except MemdbError as error:
            self.problems.append(f"a read failed: {described(error)}")
            return None
        self.diary.news()
        seen = {model.seed for _, model in snapshot.models}
        if not last and (missing := before - seen):
            self.problems.append(f"a read misses acknowledged models: {some(missing)}")
        if strangers := seen - set(self.diary.tried):
            self.problems.append(f"a read has models that nobody tried to commit: {some(strangers)}")
        self.n_reads += 1
        return snapshot

    def check_the_end(self) -> tuple[int, int, int]:
        """Compare everything once more; return how many models are lost and doubled, and the repeats."""
        snapshot = self.read(last=True)
        if snapshot is None:
            return len(self.diary.acknowledged), 0, 0
        seeds = Counter(model.seed for _, model in snapshot.models)
        lost = set(self.diary.acknowledged) - set(seeds)
        self.n_unacknowledged = len(set(seeds) - set(self.diary.acknowledged))
        fewest = self.diary.acknowledged.total() - len(self.diary.acknowledged)
        most = sum(n - 1 for seed, n in self.diary.tried.items() if seed in seeds)
        if not fewest <= snapshot.n_repeats <= most:
            self.problems.append(f"{snapshot.n_repeats} repeats, expected {fewest} to {most}")
        self._check_history()
        self._check_damage()
        try:
            self._clean_up()
        except MemdbError as error:
            self.problems.append(f"cleaning up in the end failed: {described(error)}")
        after = self.read(last=True)
        if after is not None and after.models_by_commit != snapshot.models_by_commit:
            self.problems.append("cleaning up in the end changed the models")
        self._check_history()
        self._check_damage()
        return len(lost), sum(n - 1 for n in seeds.values()), snapshot.n_repeats

    def _check_history(self) -> None:
        newest = self.store.snapshot().record
        for number in range(1, newest.number + 1 if newest else 1):
            try:
                found = problems_of(self.store.snapshot(number))
            except MemdbError as error:
                found = [described(error)]
            self.problems += [f"snapshot {number}: {problem}" for problem in found]

    def _check_damage(self) -> None:
        report = verify(self.store)
        self.problems += [f"verify: {damage.place}: {damage.problem}" for damage in report.damages]

    def _clean_up(self) -> None:
        compact(self.store)
        for _ in remove(self.store, garbage(self.store, timedelta(), alone=True)):
            pass
        self.problems += [
            f"{item.path} ({item.reason}) was cleaned up and is still there"
            for item in garbage(self.store, timedelta(), alone=True)
        ]

    def _start(self, slot: int) -> None:
        self.n_lives += 1
        life = Life(self.store.url, str(self.folder), slot, self.n_lives, self.seed, os.getpid())
        command = [sys.executable, soak_worker.__file__, json.dumps(asdict(life))]
        with self._errors(slot).open("wb") as errors:
            process = subprocess.Popen(command, stderr=errors, start_new_session=True)
        self._workers[slot] = life, process

    def _kill_one(self, notes: Iterable[Note], wanted: str | None) -> bool:
        """Kill a worker that has just begun an action, if one that has committed before did."""
        slots = {life.number: slot for slot, (life, _) in self._workers.items()}
        ready = [
            note.life
            for note in notes
            if note.state == "begun" and note.life in self.diary.committed_in and note.life in slots
        ]
        right = [note.life for note in notes if note.verb == wanted and note.life in ready]
        chosen = right if wanted else ready
        if not chosen:
            return False
        slot = slots[int(self._random.choice(chosen))]
        time.sleep(self._random.uniform(0, KILL_DELAY))
        life, process = self._workers[slot]
        process.kill()
        if process.wait() == -signal.SIGKILL:
            self.n_kills += 1
        else:
            self._judge(life, process)
        self._start(slot)
        return True

    def _replace_ended(self) -> None:
        for slot, (life, process) in list(self._workers.items()):
            if process.poll() is not None:
                self._judge(life, process)
                self._start(slot)

    def _judge(self, life: Life, process: subprocess.Popen[bytes]) -> None:
        if process.returncode:
            said = self._errors(life.slot).read_text(errors="replace").strip()
            self.problems.append(f"life {life.number} ended with {process.returncode}: {said[-2000:]}")

    def _choose_action(self) -> str:
        return str(self._random.choice([COMMIT, COMMIT, COMPACT, COMPACT, CLEAN]))

    def _errors(self, slot: int) -> Path:
        return self.folder / f"{slot}.errors"

    def _set(self, name: str, on: bool) -> None:  # noqa: FBT001 - a flag is set or not
        if on:
            (self.folder / name).touch()
        else:
            (self.folder / name).unlink(missing_ok=True)


def some(seeds: Iterable[int]) -> Sequence[int]:
    return sorted(seeds)[:5]


if __name__ == "__main__":
    sys.exit(main())
