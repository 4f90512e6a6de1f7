"""Batches of models as Ray tasks, which Ray places, and restarts if a worker or a node dies.

Each task commits directly to the store; only what the driver shows passes through Ray. A task ends with its
last commit, so that none is lost with its process; short batches share a task, which commits each while it
trains the next.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import platform
import signal
import socket
import sys
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RaySystemError, RayTaskError

from memdb import recipes
from memdb.errors import InvalidInputError, MemdbError, NotFoundError, TrainingError
from memdb.training.engines.request import LOCAL, Request
from memdb.training.engines.worker import Bench, Failed, Work, committed_since, missing, set_up
from memdb.training.loop import Committed, Hooks
from memdb.training.seeds import Seeds
from memdb.wording import count

AUTO = "auto"
MAX_RETRIES = 20  # of a batch whose worker or node died
TICK_SECONDS = 0.5
SECONDS_A_TASK, MOST_BATCHES = 30.0, 16  # of a task of several batches, whose commits show when it ends
TASKS_A_SLOT = 4  # at least, of what is left: so that all end at about the same time
PROBE_SECONDS = 5.0
LONGEST_HELLO = 4096  # bytes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"  # how a gRPC client says hello, and
PING, PONG = b"\0\0\x08\6\0\0\0\0\0" + b"anybody?", b"\0\0\x08\6\1\0\0\0\0" + b"anybody?"  # sees who lives
CLUSTER = 'start one with `ray start --head`, give the address that it names, or use ray="local"'


class RayEngine:
    """Submits batches to a Ray cluster."""

    def __init__(self, work: Work, request: Request) -> None:
        if work.store.url.startswith("memory:"):
            raise InvalidInputError(
                f"{work.store.url} is in the memory of this process, where no worker sees it",
                hint="use a URL that the whole cluster reaches, or omit ray",
                parameter="ray",
            )
        self._work = work
        self._request = request

    def __call__(self, seeds: Seeds, hooks: Hooks) -> Generator[Committed]:
        """Train these models and yield every batch once it is committed.

        Raises:
            NotFoundError: nothing answers at the address.
            MemdbError: the error of a worker; batches committed before are kept.
            TrainingError: Ray gave up on a batch, or the cluster was lost.
        """
        with _cluster(self._request), _lost(self._request.address):
            yield from _Run(self._work, self._request, seeds, hooks).batches()


class _Run:
    """One run: the tasks that were submitted to Ray and have not finished."""

    def __init__(self, work: Work, request: Request, seeds: Seeds, hooks: Hooks) -> None:
        device, gpus = _device(work.device, request, _resources())
        self._request = request
        self._gpus = gpus
        share = max(1, int(1 / gpus)) if gpus else self._n_slots()
        told = replace(work, device=device, share=share, n_threads=request.task_cpus)
        # Pickled, because at a `ray://` address the head node unpickles arguments, and may lack the recipe.
        self._work = ray.put(cloudpickle.dumps(told))
        self._store = work.store
        self._seeds = seeds
        self._hooks = hooks
        self._begun_at = datetime.now(UTC)
        self._pending: dict[Any, list[list[int]]] = {}
        self._n_left = math.inf if seeds.n_missing is None else seeds.n_missing  # models in no task yet
        self._batch_seconds = math.inf  # until one is done
        resources = {"num_cpus": request.task_cpus, "num_gpus": gpus}
        self._options = {**resources, "max_retries": MAX_RETRIES, "retry_exceptions": False}

    def batches(self) -> Generator[Committed]:
        dealing: Iterator[list[int]] = iter(())
        measured = self._submit(_measure, [])
        try:
            while self._pending:
                if self._hooks.stop_requested():
                    break
                done, _ = ray.wait(list(self._pending), timeout=TICK_SECONDS)
                for task in done:
                    result = _result(task, self._pending[task])
                    del self._pending[task]  # not before: Ray may give up a task that committed some
                    if task == measured:
                        dealing = self._seeds.batches(result, self._n_slots())
                    else:
                        yield from self._committed(result)
                self._deal(dealing)
        except (KeyboardInterrupt, MemdbError):  # of one task, while others commit
            yield from self._last_words()
            raise
        yield from self._last_words()

    def _committed(self, result: Sequence[Committed | Failed]) -> Generator[Committed]:
        """Yield what a task has committed, and raise its error if it ended with one."""
        for each in result:
            if isinstance(each, Failed):
                each.reraise()
            self._batch_seconds = each.models[0].seconds * len(each.models)
            yield each

    def _deal(self, dealing: Iterator[list[int]]) -> None:
        """Submit slightly more tasks than fit, so that an autoscaler sees demand for more nodes."""
        n_slots = self._n_slots()
        n_most = self._request.n_tasks or n_slots + 1 + n_slots // 4
        while len(self._pending) < n_most and self._hooks.may_begin():
            batch = next(dealing, None)
            if batch is None:
                return
            more = itertools.islice(dealing, self._n_at_once(len(batch), n_slots) - 1)
            self._submit(_train, [batch, *more])

    def _n_at_once(self, batch_models: int, n_slots: int) -> int:
        """Return how many batches the next task takes: one if what it commits decides on the next."""
        if self._hooks.looks_back:
            return 1
        fair = self._n_left / (batch_models * n_slots * TASKS_A_SLOT)
        return max(1, int(min(SECONDS_A_TASK / self._batch_seconds, fair, MOST_BATCHES)))

    def _submit(self, function: Any, batches: list[list[int]]) -> Any:
        task = function.options(**self._options).remote([self._work], batches, datetime.now(UTC))
        self._pending[task] = batches
        self._n_left -= sum(map(len, batches))
        return task

    def _n_slots(self) -> int:
        """Return the number of tasks that the cluster can run at once now."""
        total = _resources()
        wanted = {"CPU": self._request.task_cpus, "GPU": self._gpus}
        fit = min(int(total.get(name, 0) / number) for name, number in wanted.items() if number)
        return max(1, min(fit, self._request.n_tasks or fit))

    def _last_words(self) -> Generator[Committed]:
        """Cancel unfinished tasks, and yield what they committed."""
        for task in self._pending:
            ray.cancel(task, force=True)
        seeds = [seed for batches in self._pending.values() for batch in batches for seed in batch]
        if seeds:
            yield from committed_since(self._store, self._begun_at, seeds)


# By default Ray starts a new process for each GPU task, which would load PyTorch and the data again.
@ray.remote(max_calls=0)
def _measure(boxed: list[Any], _batches: list[list[int]], _since: datetime) -> int | Failed:
    """Return the number of models that a worker trains at once."""
    try:
        return _bench(boxed[0]).n_models
    except MemdbError as error:
        return _from_here(error)


@ray.remote(max_calls=0)
def _train(boxed: list[Any], batches: list[list[int]], since: datetime) -> list[Committed | Failed]:
    """Train batches, except the models that an earlier attempt committed; an error comes after them."""
    committed: list[Committed | Failed] = []
    try:
        bench = _bench(boxed[0])
        earlier = committed_since(bench.work.store, since, [seed for batch in batches for seed in batch])
        committed += earlier
        left = (missing(bench.work.store, earlier, batch) for batch in batches)
        committed.extend(bench.train(_Dealt(filter(None, left)), Hooks()))
    except MemdbError as error:
        if (reason := recipes.device_failure(error)) is not None:
            sys.stderr.write(f"This worker lost its device and ends: {reason}\n")
            sys.stderr.flush()
            os._exit(1)  # Ray starts another one, which can use the device
        committed.append(_from_here(error))
    return committed


class _Dealt(list[list[int]]):
    """The batches of a task."""

    def batches(self, _size: int) -> Iterator[list[int]]:
        """Yield them, whatever their size."""
        return iter(self)


@lru_cache(maxsize=1)
def _bench(work: Any) -> Bench:
    """Return the worker of this process, which is reused by all tasks of a run."""
    return set_up(cloudpickle.loads(ray.get(work)))


def _from_here(error: MemdbError) -> Failed:
    """Return an error that names this machine."""
    named = type(error)(f"{error} (on {platform.node()})", hint=error.hint, parameter=error.parameters)
    named.__cause__ = error.__cause__
    return Failed.of(named)


def _result(task: Any, batches: list[list[int]]) -> Any:
    """Return the result of a task, or raise its error."""
    try:
        result = ray.get(task)
    except RayTaskError as error:
        text = str(error)
        if "ModuleNotFoundError" in text or "ImportError" in text:
            raise TrainingError(
                f"the cluster's workers cannot import what they need: {_last_line(text)}",
                hint="install the same memdb and recipe on every node",
            ) from error
        raise TrainingError(
            f"a task of the cluster failed: {_last_line(text)}",
            hint="what was committed stays; MEMDB_TRACEBACK=1 shows where it failed",
        ) from error
    except RayError as error:
        n_models = sum(map(len, batches))
        what = f"a task of {count(n_models, 'model')}" if batches else "the first worker"
        raise TrainingError(
            f"Ray gave up on {what}: {type(error).__name__}: {_first_line(str(error))}",
            hint="use a smaller batch_models, or look at the cluster's logs; what was committed stays",
            parameter="batch_models",
        ) from error
    if isinstance(result, Failed):
        result.reraise()
    return result


def _device(name: str, request: Request, resources: Mapping[str, float]) -> tuple[str, float]:
    """Return the device of tasks, and the number of GPUs that each requests."""
    n_gpus = resources.get("GPU", 0.0)
    wants_gpu = name.startswith("cuda") or bool(request.task_gpus) or (name == "auto" and n_gpus > 0)
    if not wants_gpu or request.task_gpus == 0:  # then Ray hides all GPUs from the task
        return name if name != "auto" else "cpu", 0.0
    if name.startswith("cuda") and n_gpus == 0 and request.task_gpus is None:
        raise InvalidInputError(
            f"device {name!r} cannot be used: the Ray cluster at {request.address} has no GPU",
            hint='use device="auto" or "cpu"; task_gpus=1 waits for a GPU that the cluster is to start',
            parameter=("device", "task_gpus"),
        )
    return (
        "cuda:0",
        1.0 if request.task_gpus is None else request.task_gpus,
    )  # Ray shows each task its own GPU as the first


def _resources() -> Mapping[str, float]:
    resources: Mapping[str, float] = ray.cluster_resources()
    return resources


@contextlib.contextmanager
def _cluster(request: Request) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, unless Ray is initialized already."""
    if ray.is_initialized():
        yield
        return
    given: dict[str, Any] = {"address": request.address}
    if request.address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        given |= {"include_dashboard": False}
        if request.n_tasks:
            given["num_cpus"] = request.n_tasks * request.task_cpus
    else:
        _require_answer(request.address)
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **given)
    except (ConnectionError, RuntimeError, ValueError, ImportError, RayError) as error:
        raise NotFoundError(
            f"the Ray cluster at {request.address} cannot be used: {_reason(str(error))}",
            hint=_hint(request.address, error),
            parameter="ray",
        ) from error
    try:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, on_term)  # Ray installs a handler that exits at once
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _lost(address: str) -> Iterator[None]:
    """Turn the loss of the cluster during training into a TrainingError."""
    try:
        yield
    except (ConnectionError, RaySystemError) as error:
        raise TrainingError(
            f"the Ray cluster at {address} was lost: {_reason(str(error))}",
            hint="what was committed stays; once the cluster is there again, train what is missing",
        ) from error


def _hint(address: str, error: Exception) -> str:
    if isinstance(error, ImportError):
        return "run: pip install 'ray[client]', in the version of the cluster"
    if address != AUTO and "RAY_AUTH_MODE" not in os.environ:
        return (
            "look at `ray status` on its head node; set RAY_AUTH_MODE=token if it wants a token, as those of "
            'recent versions do; or use ray="local"'
        )
    return 'look at `ray status` on its head node, or use ray="local"'


def _require_answer(address: str) -> None:
    """Check that a Ray server answers at an address: Ray's own client would wait for minutes.

    Raises:
        NotFoundError: nothing answers, or something other than Ray.
        InvalidInputError: not a valid address.
    """
    if address == AUTO:
        address = _last_known() or AUTO  # which may have ended since
        if address == AUTO:
            return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host or int(port) > 65535:
        raise InvalidInputError(
            f"ray {address!r} is not the address of a cluster",
            hint="use local, auto, HOST:6379, or ray://HOST:10001",
            parameter="ray",
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS) as connection:
            connection.sendall(PREFACE + PING)
            answer = _answer(connection)
    except OSError as error:
        raise NotFoundError(
            f"no Ray cluster answers at {address}: {error.strerror or error}", hint=CLUSTER, parameter="ray"
        ) from error
    if PONG not in answer and os.environ.get("RAY_USE_TLS", "0") == "0":
        said = answer[:8].decode("ascii", "backslashreplace").strip()
        said = repr(said) if said else "something that hangs up"
        raise NotFoundError(
            f"what answers at {address} is not a Ray cluster but {said}",
            hint="give the port that `ray start --head` names, 6379 unless it was given another",
        )


def _answer(connection: socket.socket) -> bytes:
    """Return what a server sends until it answers the ping, hangs up, or speaks another protocol."""
    answer = b""
    while PONG not in answer and len(answer) < LONGEST_HELLO and (part := connection.recv(1024)):
        answer += part
        if answer[:3].isalpha():  # HTTP, SSH, ...; Ray answers in binary frames
            break
    return answer


def _last_known() -> str | None:
    """Return the address at which Ray would look for the cluster of this machine; None if unknown."""
    try:
        from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 - may move
    except ImportError:
        return None
    try:
        return canonicalize_bootstrap_address(AUTO)
    except (ConnectionError, ValueError):
        return None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")


def _reason(text: str) -> str:
    """Return the first sentence of an error of Ray, or the last line if the first one ends with a colon."""
    first = _first_line(text)
    line = _last_line(text) if first.endswith(":") else first
    return line.split(". ")[0].rstrip(".:")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
