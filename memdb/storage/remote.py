"""Objects behind an fsspec driver, asked for again where a request fails in a way that may pass."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from memdb.errors import InvalidInputError, StorageError
from memdb.storage.cache import Cache
from memdb.storage.protocol import Found, concurrently, reported
from memdb.storage.retry import Patience, persistently, status_of

READ_ONLY_PROTOCOLS = ("http", "https", "hf")
WITHOUT_LISTING = ("http", "https")
TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")  # every driver has its own word
PRECONDITION_FAILED = 412
PATIENCE = Patience()
T = TypeVar("T")


class RemoteStorage:
    """A prefix in object storage, or a folder of a web server."""

    _creation = threading.Lock()  # drivers without a precondition check first: one at a time in a process

    def __init__(
        self,
        filesystem: Any,
        root: str,
        url: str,
        protocol: str,
        *,
        cache: Cache | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.url = url
        self.can_list = protocol not in WITHOUT_LISTING
        self.cache = cache
        self._filesystem = filesystem
        self._root = root
        self.can_write = protocol not in READ_ONLY_PROTOCOLS
        self._patience = patience or PATIENCE

    def direct(self) -> RemoteStorage:
        if self.cache is None:
            return self
        near = copy.copy(self)
        near.cache = None
        return near

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        with reported(self.url, "read", path):
            data = self._asked(lambda: self._filesystem.cat_file(self._full(path), start=start, end=stop))
        if not isinstance(data, bytes):
            raise StorageError(f"{self.url}/{path} gave {type(data).__name__}, not bytes", hint="try again")
        return data

    def names(self, folder: str) -> list[str]:
        self._require_listing()
        with reported(self.url, "list", folder):
            try:
                found = self._asked(lambda: self._filesystem.ls(self._full(folder), detail=False))
            except FileNotFoundError:
                return []
        return sorted({str(name).rstrip("/").rsplit("/", 1)[-1] for name in found} - {""})

    def find(self, folder: str) -> list[Found]:
        self._require_listing()
        prefix = f"{self._root.strip('/')}/"
        with reported(self.url, "list", folder):
            found = self._asked(lambda: self._filesystem.find(self._full(folder), detail=True))
            return sorted(
                (
                    Found(name.lstrip("/").removeprefix(prefix), int(item["size"]), _time_of(item))
                    for name, item in found.items()
                ),
                key=lambda item: item.path,
            )

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        self._refuse_read_only()

        def put(item: tuple[str, bytes]) -> None:
            with reported(self.url, "write", item[0]):
                self._asked(lambda: self._filesystem.pipe_file(self._full(item[0]), item[1]))

        concurrently(put, objects.items())

    def create(self, path: str, data: bytes) -> None:
        self._refuse_read_only()

        def put() -> None:
            try:
                self._filesystem.pipe_file(self._full(path), data, mode="create")
            except OSError as error:
                if status_of(error) == PRECONDITION_FAILED:
                    raise FileExistsError(path) from error
                raise

        with reported(self.url, "create", path), self._creation:
            self._asked(put)

    def remove(self, paths: Iterable[str]) -> None:
        self._refuse_read_only()

        def remove(path: str) -> None:
            with reported(self.url, "remove", path), contextlib.suppress(FileNotFoundError):
                self._asked(lambda: self._filesystem.rm_file(self._full(path)))

        concurrently(remove, paths)

    def _asked(self, request: Callable[[], T]) -> T:
        return persistently(request, self._patience)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _require_listing(self) -> None:
        if not self.can_list:
            raise StorageError(
                f"{self.url} cannot be listed: its protocol has no reliable listing",
                hint="copy the store to a local folder or a bucket",
            )

    def _refuse_read_only(self) -> None:
        if not self.can_write:
            raise InvalidInputError(
                f"{self.url} is read-only: its protocol has no writes",
                hint="write to a local folder or a bucket",
            )


def _time_of(item: Mapping[str, Any]) -> datetime:
    value = next((item[name] for name in TIMES if item.get(name) is not None), None)
    match value:
        case datetime():
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        case int() | float():
            return datetime.fromtimestamp(value, UTC)
        case str():
            return datetime.fromisoformat(value)
        case _:
            raise StorageError(f"{item.get('name')} has no time of modification", hint="use another storage")
