"""Worker processes on one machine: one per GPU, or several that share the cores of the CPU.

A worker commits a batch while it trains the next one. One that dies is replaced, and its batches are trained
again unless they were committed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import resource_tracker
from multiprocessing.connection import wait

from memdb import recipes
from memdb.environment import environment_variables, n_cores
from memdb.errors import InvalidInputError, MemdbError, TrainingError
from memdb.training.engines.script import require_guarded
from memdb.training.engines.worker import Failed, Work, committed_since, missing
from memdb.training.engines.worker_process import Broken, Done, InFlight, LeftOff, Ready, Trained, serve
from memdb.training.loop import Committed, Hooks
from memdb.training.seeds import Seeds
from memdb.wording import count

MAX_DEATHS = 5  # of workers at one batch, or before they were ready
PATIENCE_SECONDS = 10.0  # for a worker to stop, or to finish its commit
SECONDS_TO_EXIT = 2.0  # after its pipe was closed
TICK_SECONDS = 0.25


@dataclass
class _Batch:
    seeds: list[int]
    dealt_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    n_deaths: int = 0


class _Worker:
    """A worker process, the pipe to it, and its batches: one in training, and one that is being committed."""

    def __init__(self, number: int, work: Work, n_threads: int) -> None:
        self.number = number
        self.device = work.device
        self.batches: deque[_Batch] = deque()
        self.in_flight = 0.0
        self.reason = ""  # why its device is lost
        context = multiprocessing.get_context("spawn")  # a forked process with threads or CUDA may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), name=f"memdb worker {number}")
        threads = dict.fromkeys(recipes.THREADS, str(n_threads))
        with environment_variables(threads), recipes.without_gpus(work.device), _without_ctrl_c():
            self.process.start()
        theirs.close()  # so that the death of the worker closes the pipe
        self.connection.send(work)

    def deal(self, batch: _Batch) -> None:
        batch.dealt_at = datetime.now(UTC)
        self.batches.append(batch)
        with contextlib.suppress(OSError):  # it died, which shows when its messages are received
            self.connection.send(batch.seeds)

    def ask_to_stop(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.send(None)

    def end(self, seconds: float = 0.0) -> None:
        """End the process; it has this time to end by itself, and to give back what it has of the system."""
        self.connection.close()
        self.process.join(seconds)
        self.process.kill()
        self.process.join()


class LocalEngine:
    """Distributes batches over worker processes."""

    def __init__(self, work: Work, n_workers: int) -> None:
        if n_workers < 1:
            raise InvalidInputError(
                f"workers {n_workers} is not a number from 1", hint="use e.g. workers=2", parameter="workers"
            )
        if work.store.url.startswith("memory:"):
            raise InvalidInputError(
                f"{work.store.url} is in the memory of this process, where no worker sees it",
                hint="use a path or a URL, or omit workers",
                parameter="workers",
            )
        require_guarded()
        _require_sendable(work)
        self._work = work
        self._n_workers = n_workers

    def __call__(self, seeds: Seeds, hooks: Hooks) -> Generator[Committed]:
        """Train these models and yield every batch once it is committed.

        Raises:
            MemdbError: the error of a worker; what others have committed is yielded before.
            TrainingError: workers died repeatedly, at one batch or before they were ready.
        """
        devices = recipes.worker_devices(self._work.device, self._n_workers)
        run = _Run(self._work, devices, seeds, hooks)
        try:
            yield from run.batches()
        finally:
            run.end()


class _Run:
    """One run: its workers, and the batches that are not committed yet."""

    def __init__(self, work: Work, devices: list[str], seeds: Seeds, hooks: Hooks) -> None:
        self._work = work
        self._devices = devices
        self._seeds = seeds
        self._hooks = hooks
        self._dealing: Iterator[list[int]] | None = None
        self._again: deque[_Batch] = deque()
        self._n_early_deaths = 0
        self._is_over = False
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []  # which have nothing left to do

    def batches(self) -> Generator[Committed]:
        for number, device in enumerate(self._devices):
            self._start(number, device)
        try:
            while self._workers:
                if self._hooks.stop_requested():
                    break
                yield from self._receive(TICK_SECONDS)
        except (KeyboardInterrupt, MemdbError):  # of one worker, while others commit
            yield from self._last_words()
            raise
        yield from self._last_words()

    def end(self) -> None:
        workers = [*self._workers, *self._leaving]
        for worker in workers:
            worker.connection.close()  # all may end at once
        until = time.monotonic() + SECONDS_TO_EXIT
        for worker in workers:
            worker.end(max(0.0, until - time.monotonic()))

    def _start(self, number: int, device: str) -> None:
        share = self._devices.count(device)
        n_threads = max(1, n_cores() // len(self._devices))
        work = replace(self._work, device=device, share=share, looks_back=self._hooks.looks_back)
        self._workers.append(_Worker(number, work, n_threads))

    def _receive(self, seconds: float) -> Generator[Committed]:
        """Handle the messages that workers send within this time."""
        for worker in _talking(self._workers, seconds):
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(SECONDS_TO_EXIT)  # or `_died` would kill it, and call that the cause
                yield from self._died(worker)
                continue
            match message:
                case Ready(n_models):
                    self._n_early_deaths = 0
                    self._dealing = self._dealing or self._seeds.batches(n_models, len(self._devices))
                    self._deal(worker)
                case InFlight(n_models):
                    worker.in_flight = n_models
                    self._hooks.in_flight(sum(each.in_flight for each in self._workers))
                case Committed():
                    worker.batches.popleft()
                    worker.in_flight = max(0.0, worker.in_flight - len(message.models))
                    self._n_early_deaths = 0
                    yield message
                case Failed():
                    self._let_go(worker)
                    message.reraise()
                case Broken(reason):
                    worker.reason = reason
                    yield from self._died(worker)
                case Trained():
                    self._deal(worker)
                case Done():
                    self._let_go(worker)

    def _let_go(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._leaving.append(worker)
        worker.connection.close()

    def _deal(self, worker: _Worker) -> None:
        """Send a worker its next batch, or word that there is none, or none that may begin."""
        self._is_over = self._is_over or not self._hooks.may_begin()
        if self._is_over:
            worker.ask_to_stop()
        elif self._again:
            worker.deal(self._again.popleft())
        elif seeds := next(self._dealing or iter(()), None):
            worker.deal(_Batch(seeds))
        else:
            worker.ask_to_stop()

    def _died(self, worker: _Worker) -> Generator[Committed]:
        """Yield what a dead worker committed, requeue the rest of its batches, and replace it."""
        worker.end()
        self._workers.remove(worker)
        how = f"lost its device ({worker.reason})" if worker.reason else _cause(worker.process.exitcode)
        batch = worker.batches[-1] if worker.batches else None  # which it was training
        n_deaths = self._n_early_deaths = self._n_early_deaths + (batch is None)
        for some in worker.batches:
            committed = committed_since(self._work.store, some.dealt_at, some.seeds)
            yield from committed
            some.seeds = missing(self._work.store, committed, some.seeds)
            some.n_deaths = n_deaths = some.n_deaths + 1
            if some.seeds:
                self._again.append(some)
        raised = batch is None and not worker.reason and worker.process.exitcode == 1  # others would, too
        if n_deaths >= MAX_DEATHS or raised:
            raise _gave_up(how, batch, n_deaths)
        self._hooks.remark(f"worker {worker.number} {how}; another one trains its batch")
        self._start(worker.number, worker.device)

    def _last_words(self) -> Generator[Committed]:
        """Ask all busy workers to stop, and yield what they still commit.

        One that does not end in time is killed: it may have committed a batch that it could not report yet.
        """
        self._is_over = True
        busy = [worker for worker in self._workers if worker.batches]
        silent = set(busy)
        for worker in busy:
            worker.ask_to_stop()
        until = time.monotonic() + PATIENCE_SECONDS
        while busy and time.monotonic() < until:
            for worker in _talking(busy, until - time.monotonic()):
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    busy.remove(worker)
                    continue
                if isinstance(message, Committed):
                    worker.batches.popleft()
                    yield message
                elif isinstance(message, LeftOff | Done | Failed | Broken):
                    busy.remove(worker)
                    silent.remove(worker)
        for worker in silent:
            worker.end()
            for batch in worker.batches:
                yield from committed_since(self._work.store, batch.dealt_at, batch.seeds)


@contextlib.contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C in processes that start inside, which would end with a traceback while they import.

    Here it is only delayed; a worker unblocks it once it ignores it.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # now: it would unblock Ctrl-C after its start
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _talking(workers: Sequence[_Worker], seconds: float) -> list[_Worker]:
    """Return the workers that send a message, or die, within this time."""
    by_connection: dict[object, _Worker] = {worker.connection: worker for worker in workers}
    ready = wait([worker.connection for worker in workers], seconds)
    return [by_connection[connection] for connection in ready]


def _gave_up(how: str, batch: _Batch | None, n_deaths: int) -> TrainingError:
    if batch is None:
        return TrainingError(
            f"a worker {how} before it could begin, {n_deaths} time{'s in a row' if n_deaths > 1 else ''}",
            hint='see its own words above; a script that uses workers needs `if __name__ == "__main__":`',
        )
    return TrainingError(
        f"a worker {how} while it trained {count(len(batch.seeds), 'model')}, {count(n_deaths, 'time')} "
        f"in a row",
        hint="use a smaller batch_models or fewer workers; what was committed stays",
        parameter=("batch_models", "workers"),
    )


def _require_sendable(work: Work) -> None:
    """Check that recipe and data can be pickled, before any process is started."""
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device
            pickle.Pickler(nowhere).dump((work.recipe, work.dataset))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            f"the recipe or the data cannot be sent to worker processes: {error}",
            hint="put them into a module, and name them as package.module:attribute",
        ) from error


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        number = -exit_code
        memory = " (often the system, out of memory)" if number == signal.SIGKILL else ""
        return f"was killed by signal {number}{memory}"
    return f"ended by itself (exit code {exit_code})"
