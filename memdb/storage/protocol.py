"""What memdb requires of a storage: durable writes, exclusive creation, listings with times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from memdb.errors import AlreadyExistsError, DamagedError, MemdbError, NotFoundError, StorageError
from memdb.format.documents import MAX_DOCUMENT
from memdb.storage.cache import Cache
from memdb.storage.failures import advice, said, showable

CONCURRENCY = 32  # requests in flight; threads that wait cost nothing
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Found:
    """An object in a listing; ``modified`` is by the storage's own clock."""

    path: str
    size: int
    modified: datetime


class Storage(Protocol):
    """A folder of objects, named by relative paths with ``/``."""

    url: str
    can_list: bool
    can_write: bool
    cache: Cache | None  # a nearer copy of immutable objects

    def direct(self) -> Storage:
        """Return the same storage without its cache and past those of the network: what is there now."""
        ...

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        """Return an object's bytes, or those of a range.

        Hardly more than ``most`` bytes are read, whatever the server sends. A range may be answered with the
        whole object.

        Raises:
            NotFoundError: it does not exist.
            DamagedError: it has more than ``most`` bytes.
        """
        ...

    def above(self) -> Iterator[Storage]:
        """Yield the folders above it, nearest first."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder; none if it does not exist."""
        ...

    def find(self, folder: str) -> list[Found]:
        """Return every object below a folder, half-written ones of other writers included."""
        ...

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects concurrently; once this returns they survive a power cut."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Create an object; AlreadyExistsError if it exists, even with the same bytes."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects concurrently, ignoring those that do not exist."""
        ...


def concurrently(function: Callable[[T], R], items: Iterable[T], n_workers: int = CONCURRENCY) -> list[R]:
    """Apply a function that waits for storage to every item, in threads; return the results in order."""
    jobs = list(items)
    if len(jobs) < 2:
        return [function(item) for item in jobs]
    with ThreadPoolExecutor(min(n_workers, len(jobs)), thread_name_prefix="memdb") as pool:
        running = [pool.submit(function, item) for item in jobs]
        try:
            return [job.result() for job in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what has not started is not needed
            raise


def create_once(storage: Storage, path: str, data: bytes) -> None:
    """Create an object if absent. Finding identical bytes counts as success.

    A client that retries after a lost acknowledgement gets "already exists" for its own write. The object is
    read back in any case: an acknowledgement may come from something in between.

    Raises:
        AlreadyExistsError: it exists with other bytes.
    """
    with contextlib.suppress(AlreadyExistsError):
        storage.create(path, data)
    try:
        written = storage.read(path, most=max(len(data), MAX_DOCUMENT))
    except NotFoundError as error:
        hint = "check what answers there for the storage"
        raise StorageError(f"{storage.url}/{path} was acknowledged but is not there", hint=hint) from error
    if written != data:
        raise AlreadyExistsError(f"{storage.url}/{path} already exists", hint="use another place")


def require_bounded(data: bytes, most: int, url: str, path: str) -> bytes:
    """Return what was read of an object, after checking that it is not longer than its reader expects.

    Raises:
        DamagedError: it is more.
    """
    if len(data) > most:
        raise DamagedError(
            f"{url}/{path} has more than the {most:,} bytes that it may have",
            hint="restore it from a copy of the store, or ask its owner",
        )
    return data


@contextlib.contextmanager
def reported(url: str, verb: str, path: str) -> Iterator[None]:
    """Turn the exceptions of a disk or driver into errors that say what failed, and where."""
    place = f"{url}/{path}" if path else url
    try:
        yield
    except MemdbError:
        raise
    except FileNotFoundError as error:
        if verb in {"read", "list"}:
            raise NotFoundError(f"{place} does not exist", hint="check the address") from showable(error)
        raise StorageError(
            f"cannot {verb} {place}: {said(error)}", hint=advice(error), parameter="anonymous"
        ) from showable(error)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{place} already exists", hint="use another place") from showable(error)
    except Exception as error:  # noqa: BLE001 - every driver raises a tree of its own: this is where they end
        raise StorageError(
            f"cannot {verb} {place}: {said(error)}", hint=advice(error), parameter="anonymous"
        ) from showable(error)
