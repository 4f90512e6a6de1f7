"""A worker process of the local engine: it receives its work, then one batch after another."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType

from memdb.errors import MemdbError, TrainingError
from memdb.plugins import blaming
from memdb.recipes import device_failure
from memdb.training.engines.worker import Failed, Work, set_up
from memdb.training.loop import Hooks

SECONDS_BETWEEN = 0.2
ELSEWHERE = "put them into a module that every process can import, and name it as package.module:attribute"


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker is ready, and trains ``n_models`` at once."""

    n_models: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """The progress of the worker's batch, in models."""

    n_models: float


@dataclass(frozen=True, slots=True)
class Trained:
    """The worker's batch is trained and about to be committed: it can take another one."""


@dataclass(frozen=True, slots=True)
class Done:
    """The worker got no other batch, has committed all, and ends."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker's device failed, and works again in a new process at best."""

    reason: str


@dataclass(frozen=True, slots=True)
class LeftOff:
    """The worker stopped on request; its batch may be incomplete."""


class _Pipe:
    """The worker's end of the pipe: it reports progress, and receives batches and the request to stop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stopped = False
        self._said_at = 0.0
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the whole process group: the driver decides
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the driver blocked it until now
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def stop_requested(self) -> bool:
        """Whether the driver sent a message or died; during a batch, any message is a request to stop."""
        self._stopped = self._stopped or self._connection.poll()
        return self._stopped

    def in_flight(self, n_models: float) -> None:
        now = time.monotonic()
        if now - self._said_at >= SECONDS_BETWEEN:
            self._said_at = now
            self._connection.send(InFlight(n_models))

    def serve(self) -> None:
        try:
            with blaming("a worker process cannot load the recipe or the data:", ELSEWHERE, TrainingError):
                work: Work = self._connection.recv()
            bench = set_up(work)
            self._connection.send(Ready(bench.n_models))
            hooks = Hooks(
                in_flight=self.in_flight,
                committed=self._connection.send,
                stop_requested=self.stop_requested,
                looks_back=work.looks_back,
                looks_ahead=False,
            )
            for committed in bench.train(self, hooks):
                self._connection.send(committed)
            self._connection.send(LeftOff() if self._stopped else Done())
        except MemdbError as error:
            reason = device_failure(error)
            self._connection.send(Failed.of(error) if reason is None else Broken(reason))

    def batches(self, _size: int) -> Iterator[list[int]]:
        """Yield batches as the driver deals them; the one before is committed meanwhile."""
        while not self._stopped and (batch := self._connection.recv()) is not None:
            yield batch
            self._connection.send(Trained())


def serve(connection: Connection) -> None:
    """Work until there is nothing left, a stop is requested, or the driver is gone."""
    try:
        _Pipe(connection).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the driver is gone
