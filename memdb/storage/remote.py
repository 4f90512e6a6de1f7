"""Objects behind an fsspec driver; requests with transient failures are retried."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import threading
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from memdb.errors import InvalidInputError, StorageError
from memdb.format.documents import MAX_DOCUMENT
from memdb.storage.cache import Cache
from memdb.storage.protocol import Found, concurrently, reported, require_bounded
from memdb.storage.retry import LONGEST_REQUEST, Patience, persistently, status_of

READ_ONLY_PROTOCOLS = ("http", "https", "hf")
WITHOUT_LISTING = ("http", "https")
TIMES = (
    "LastModified",
    "last_modified",
    "mtime",
    "updated",
    "created",
)  # each driver has its own name for it
TYPE_OPTIONS = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}
PRECONDITION_FAILED = 412
NOT_SATISFIABLE = 416
PATIENCE = Patience()
BETWEEN_NOTICES = 10.0  # seconds
NOT_FROM_CACHES = {"Cache-Control": "no-cache"}
log = logging.getLogger(__name__)


@dataclass
class Contact:
    """Whether a server has answered yet, and when waiting for it was last logged."""

    is_made: bool = False
    noticed: float = -BETWEEN_NOTICES


class RemoteStorage:
    """A prefix in object storage, or a folder of a web server.

    A slow request is logged at level INFO: "Waiting for" and the address.
    """

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
        self._type_option = TYPE_OPTIONS.get(protocol)
        self._root, mark, query = root.partition("?") if protocol in WITHOUT_LISTING else (root, "", "")
        self._root = self._root.rstrip("/")
        self._suffix = mark + query  # such as a signature, which goes with each object
        self.can_write = protocol not in READ_ONLY_PROTOCOLS
        self._patience = patience or PATIENCE
        self._contact = Contact()
        self._is_direct = False

    def direct(self) -> RemoteStorage:
        if self._is_direct:
            return self
        near = copy.copy(self)
        near.cache = None
        near._is_direct = True  # noqa: SLF001 - its own kind
        return near

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        options: dict[str, Any] = {"start": start, "end": stop, "most": most}
        if self.can_list:  # object storage returns the range requested; web servers may not
            first = start or 0
            options = {
                "start": first,
                "end": min(first + most + 1, first + most + 1 if stop is None else stop),
            }
        elif self._is_direct:
            options["headers"] = {**self._filesystem.kwargs.get("headers", {}), **NOT_FROM_CACHES}
        with reported(self.url, "read", path):
            limit = self._patience.limit(most if start is None or stop is None else stop - start)
            try:
                data = self._asked(path, limit, "cat_file", self._full(path), **options)
            except Exception as error:
                if start or status_of(error) != NOT_SATISFIABLE:
                    raise
                data = b""  # an empty object has no ranges
        if not isinstance(data, bytes):
            raise StorageError(f"{self.url}/{path} gave {type(data).__name__}, not bytes", hint="try again")
        return require_bounded(data, most, self.url, path)

    def above(self) -> Iterator[RemoteStorage]:
        root, url = self._root.rstrip("/"), self.url.rstrip("/")
        while "/" in root.strip("/"):  # the first part is the bucket
            root, url = root.rpartition("/")[0], url.rpartition("/")[0]
            folder = copy.copy(self)
            folder._root, folder.url, folder.cache = root, url, None  # noqa: SLF001 - its own kind
            yield folder

    def names(self, folder: str) -> list[str]:
        self._require_listing()
        with reported(self.url, "list", folder):
            try:
                limit = self._patience.listing
                names = self._asked(folder, limit, "ls", self._full(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted({str(name).rstrip("/").rsplit("/", 1)[-1] for name in names} - {""})

    def find(self, folder: str) -> list[Found]:
        self._require_listing()
        prefix = f"{self._root.strip('/')}/"
        with reported(self.url, "list", folder):
            limit = self._patience.listing
            listing = self._asked(folder, limit, "find", self._full(folder), detail=True)
            return sorted(
                (
                    Found(name.lstrip("/").removeprefix(prefix), int(item["size"]), _time_of(item))
                    for name, item in listing.items()
                ),
                key=lambda item: item.path,
            )

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        self._refuse_read_only()

        def put(item: tuple[str, bytes]) -> None:
            path, data = item
            with reported(self.url, "write", path):
                limit, options = self._patience.limit(len(data)), self._kind_of(path)
                self._asked(path, limit, "pipe_file", self._full(path), data, **options)

        concurrently(put, objects.items())

    def _kind_of(self, path: str) -> dict[str, str]:
        """Return what tells a bucket that an object is a page, which browsers save otherwise."""
        if self._type_option is None or not path.endswith(".html"):
            return {}
        return {self._type_option: "text/html; charset=utf-8"}

    def create(self, path: str, data: bytes) -> None:
        self._refuse_read_only()

        with reported(self.url, "create", path), self._creation:
            try:
                limit = self._patience.limit(len(data))
                self._asked(path, limit, "pipe_file", self._full(path), data, mode="create")
            except OSError as error:
                if status_of(error) == PRECONDITION_FAILED:
                    raise FileExistsError(path) from error
                raise

    def remove(self, paths: Iterable[str]) -> None:
        self._refuse_read_only()

        def remove(path: str) -> None:
            with reported(self.url, "remove", path), contextlib.suppress(FileNotFoundError):
                self._asked(path, self._patience.limit(0), "rm_file", self._full(path))

        concurrently(remove, paths)

    def _asked(self, path: str, limit: float, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the driver, with retries, for a limited time.

        The very first request has a short limit: there may be no server.
        """
        is_first = not self._contact.is_made
        begun = time.monotonic()

        def request(seconds: float) -> Any:
            if time.monotonic() - begun > self._patience.notice:
                self._notice(path)
            try:
                answer = self._within(seconds, path, method, *arguments, **options)
            except Exception as error:
                if isinstance(error, FileNotFoundError) or status_of(error) is not None:
                    self._contact.is_made = True
                raise
            self._contact.is_made = True
            return answer

        if is_first:
            return persistently(request, self._patience, min(limit, self._patience.answer))
        return persistently(request, self._patience, limit, LONGEST_REQUEST)

    def _within(self, seconds: float, path: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the driver with a time limit; drivers without an event loop have their own."""
        if not getattr(self._filesystem, "async_impl", False):
            return getattr(self._filesystem, method)(*arguments, **options)

        async def limited(coroutine: Awaitable[Any]) -> Any:
            notice = asyncio.get_running_loop().call_later(self._patience.notice, self._notice, path)
            try:
                async with asyncio.timeout(seconds):
                    return await coroutine
            finally:
                notice.cancel()

        coroutine = getattr(self._filesystem, f"_{method}")(*arguments, **options)
        running = asyncio.run_coroutine_threadsafe(limited(coroutine), self._filesystem.loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()  # after Ctrl-C its result is not needed
            raise

    def _notice(self, path: str) -> None:
        """Log what is waited for, unless that was done recently."""
        now = time.monotonic()
        if now - self._contact.noticed >= BETWEEN_NOTICES:
            self._contact.noticed = now
            log.info("Waiting for %s", f"{self.url}/{path}".rstrip("/"))

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}{self._suffix}" if path else f"{self._root}{self._suffix}"

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
