"""What memdb needs of a place for bytes: durable writes, exclusive creation, listings with times."""

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
    cache: Cache | None  # where immutable objects are kept nearer by

    def direct(self) -> Storage:
        """Return the same place without a cache, and past those of the network: what is there now."""
        ...

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        """Return an object's bytes, or those of a range. NotFoundError where it is absent.

        Few more than ``most`` are taken in, whatever answers: where there are more, it is Damaged. A range
        may be answered with all of the object.
        """
        ...

    def above(self) -> Iterator[Storage]:
        """Yield the folders that it lies in, nearest first."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, empty where it does not exist."""
        ...

    def find(self, folder: str) -> list[Found]:
        """Return every object below a folder, half-written ones of other writers included."""
        ...

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects concurrently; when it returns they survive a power cut."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write an object that must not exist; AlreadyExistsError if it does, whatever its bytes."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects concurrently; those that are gone already do not matter."""
        ...


def concurrently(function: Callable[[T], R], items: Iterable[T], n_workers: int = CONCURRENCY) -> list[R]:
    """Apply a function that waits for storage to every item, in threads; results in order."""
    jobs = list(items)
    if len(jobs) < 2:
        return [function(item) for item in jobs]
    with ThreadPoolExecutor(min(n_workers, len(jobs)), thread_name_prefix="memdb") as pool:
        running = [pool.submit(function, item) for item in jobs]
        try:
            return [job.result() for job in running]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what has not begun need not
            raise


def create_once(storage: Storage, path: str, data: bytes) -> None:
    """Create an object; that it is there already with these very bytes is success.

    A client whose acknowledgement was lost asks again and hears "already exists" of its own write. It is
    read back in any case: an acknowledgement may come from something in between.

    Raises:
        AlreadyExistsError: it is there with other bytes.
    """
    with contextlib.suppress(AlreadyExistsError):
        storage.create(path, data)
    try:
        found = storage.read(path, most=max(len(data), MAX_DOCUMENT))
    except NotFoundError as error:
        hint = "check what answers there for the storage"
        raise StorageError(f"{storage.url}/{path} was acknowledged but is not there", hint=hint) from error
    if found != data:
        raise AlreadyExistsError(f"{storage.url}/{path} already exists", hint="use another place")


def require_bounded(data: bytes, most: int, url: str, path: str) -> bytes:
    """Return what was read of an object, unless there was more than its reader expects.

    Raises:
        DamagedError: there was.
    """
    if len(data) > most:
        raise DamagedError(
            f"{url}/{path} has more than the {most:,} bytes that it may have",
            hint="restore it from a copy of the store, or ask whoever keeps it",
        )
    return data


@contextlib.contextmanager
def reported(url: str, verb: str, path: str) -> Iterator[None]:
    """Turn what a disk or a driver raises into errors that say what could not be done, and where."""
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
