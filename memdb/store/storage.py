"""Bytes at a URL: durable writes, exclusive creation, and errors that say what failed.

Neither zarr nor fsspec calls fsync, so local folders have an implementation of their own; everything
else goes through the fsspec driver of its protocol.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import fsspec

from memdb.errors import AlreadyExists, InvalidInput, MemdbError, NotFound, StorageFailed

CONCURRENCY = 32  # requests in flight; threads that wait cost nothing
READING = ("read", "list")
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)  # exFAT, some network mounts
READ_ONLY_PROTOCOLS = ("http", "https", "hf")
T = TypeVar("T")
R = TypeVar("R")


class Storage(Protocol):
    """A folder of objects, named by relative paths with ``/``."""

    url: str

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return an object's bytes, or those of a range. NotFound where it is absent."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the sorted names in a folder, empty where it does not exist."""
        ...

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects concurrently; when it returns they survive a power cut."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write an object that must not exist. AlreadyExists where it does, with other bytes or the same."""
        ...


def open_storage(url: str, options: Mapping[str, Any] | None = None) -> Storage:
    """Return the storage behind a path or URL; nothing is read or written yet.

    Raises:
        InvalidInput: a protocol that fsspec does not know, or whose driver is not installed.
    """
    protocol = urlsplit(url).scheme if "://" in url else "file"
    if protocol in {"file", "local"}:
        return LocalStorage(Path(url.split("://", 1)[-1]).expanduser(), url)
    try:
        filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False, **(options or {}))
    except ImportError as error:
        extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
        package = f"memdb[{extra[protocol]}]" if protocol in extra else str(error)
        raise InvalidInput(
            f"the driver for {protocol}:// of {url} is not installed", hint=f"run: pip install '{package}'"
        ) from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            f"{url} cannot be opened: {error}", hint="use a path, s3://, gs://, az://, memory:// or https://"
        ) from error
    return RemoteStorage(filesystem, root.rstrip("/"), url, read_only=protocol in READ_ONLY_PROTOCOLS)


def concurrently(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Apply a function that waits for storage to every item, in threads; results in order."""
    jobs = list(items)
    if len(jobs) < 2:
        return [function(item) for item in jobs]
    with ThreadPoolExecutor(min(CONCURRENCY, len(jobs)), thread_name_prefix="memdb") as pool:
        return list(pool.map(function, jobs))


class LocalStorage:
    """A folder on a local or network disk."""

    def __init__(self, root: Path, url: str) -> None:
        self.url = url
        self._root = root

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        with self._reported("read", path), (self._root / path).open("rb") as file:
            if start is None:
                return file.read()
            file.seek(start)
            return file.read() if stop is None else file.read(stop - start)

    def names(self, folder: str) -> list[str]:
        with self._reported("list", folder):
            try:
                return sorted(os.listdir(self._root / folder))  # noqa: PTH208 - names, not paths
            except FileNotFoundError:
                return []
            except NotADirectoryError as error:
                raise AlreadyExists(
                    f"{self.url} is a file, not a folder", hint="name a folder with --store"
                ) from error

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        folders = {self._root / PurePosixPath(path).parent for path in objects}
        for folder in sorted(folders):
            with self._reported("create", str(folder)):
                folder.mkdir(parents=True, exist_ok=True)
        concurrently(lambda item: self._put(*item, self._rename), objects.items())
        self._sync_up(folders)

    def create(self, path: str, data: bytes) -> None:
        with self._reported("create", path):
            (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        self._put(path, data, self._link)
        self._sync_up({(self._root / path).parent})

    def _put(self, path: str, data: bytes, publish: Callable[[Path, Path], None]) -> None:
        """Write under a temporary name, fsync, and give the object its name in one step."""
        target = self._root / path
        temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
        with self._reported("write", path):
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    @staticmethod
    def _rename(temporary: Path, target: Path) -> None:
        temporary.replace(target)

    @staticmethod
    def _link(temporary: Path, target: Path) -> None:
        try:
            os.link(temporary, target)  # fails where the name is taken, even in a race, also on NFS
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with target.open("xb") as file:  # exclusive too, but a crash may leave it half written
                file.write(temporary.read_bytes())
                file.flush()
                os.fsync(file.fileno())

    def _sync_up(self, folders: set[Path]) -> None:
        """Fsync the folders and all above them up to the one that holds the store: names are data too."""
        every = set(folders)
        for folder in folders:
            for above in folder.parents:
                every.add(above)
                if above == self._root.parent:
                    break
        if os.name == "nt":
            return  # there a folder cannot be opened, and NTFS journals names by itself
        for folder in sorted(every, reverse=True):
            if folder.is_relative_to(self._root.parent):
                try:
                    with self._reported("fsync", str(folder)):
                        descriptor = os.open(folder, os.O_RDONLY)
                        try:
                            os.fsync(descriptor)
                        finally:
                            os.close(descriptor)
                except StorageFailed:
                    if folder != self._root.parent:  # which need not be ours to open
                        raise

    @contextlib.contextmanager
    def _reported(self, verb: str, path: str) -> Iterator[None]:
        place = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except MemdbError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            if verb in READING:
                raise NotFound(f"{place} does not exist", hint="check the path") from error
            raise StorageFailed(f"cannot {verb} {place}: {error.strerror}", hint=_advice(error)) from error
        except FileExistsError as error:
            raise AlreadyExists(f"{place} already exists", hint="use another place") from error
        except OSError as error:
            raise StorageFailed(
                f"cannot {verb} {place}: {error.strerror or error}", hint=_advice(error)
            ) from error


class RemoteStorage:
    """Objects behind an fsspec driver."""

    _creation = threading.Lock()  # drivers without a precondition check first: one at a time in a process

    def __init__(self, filesystem: Any, root: str, url: str, *, read_only: bool) -> None:
        self.url = url
        self._filesystem = filesystem
        self._root = root
        self._read_only = read_only

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        with self._reported("read", path):
            data = self._filesystem.cat_file(self._full(path), start=start, end=stop)
        if not isinstance(data, bytes):
            raise StorageFailed(f"{self.url}/{path} gave {type(data).__name__}, not bytes", hint="try again")
        return data

    def names(self, folder: str) -> list[str]:
        if self._read_only:
            raise StorageFailed(
                f"{self.url} cannot be listed: its protocol has no reliable listing",
                hint="copy the store to a local folder or a bucket and query it there",
            )
        full = self._full(folder)
        with self._reported("list", folder):
            try:
                found = self._filesystem.ls(full, detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(name).rstrip("/").rsplit("/", 1)[-1] for name in found} - {""})

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        self._refuse_read_only()

        def put(item: tuple[str, bytes]) -> None:
            with self._reported("write", item[0]):
                self._filesystem.pipe_file(self._full(item[0]), item[1])

        concurrently(put, objects.items())

    def create(self, path: str, data: bytes) -> None:
        self._refuse_read_only()
        with self._reported("create", path), self._creation:
            self._filesystem.pipe_file(self._full(path), data, mode="create")

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _refuse_read_only(self) -> None:
        if self._read_only:
            raise InvalidInput(
                f"{self.url} is read-only: its protocol has no writes",
                hint="write to a local folder or a bucket",
            )

    @contextlib.contextmanager
    def _reported(self, verb: str, path: str) -> Iterator[None]:
        place = f"{self.url}/{path}" if path else self.url
        try:
            yield
        except MemdbError:
            raise
        except FileNotFoundError as error:
            raise NotFound(f"{place} does not exist", hint="check the URL") from error
        except FileExistsError as error:
            raise AlreadyExists(f"{place} already exists", hint="use another URL") from error
        except Exception as error:  # every driver raises a tree of its own: this is where they end
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageFailed(f"cannot {verb} {place}: {text}", hint=_advice(error)) from error


def _advice(error: Exception) -> str:
    match error:
        case PermissionError():
            return "get access to it, or use another place"
        case OSError(errno=errno.ENOSPC):
            return "free some space and run the command again; what was committed is safe"
        case _:
            return "check the address and your access, then try again; what was committed is safe"
