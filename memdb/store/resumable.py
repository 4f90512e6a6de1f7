"""Write to a place where an interrupted writer may have written some of it: identical objects are kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping

from memdb.errors import AlreadyExistsError, NotFoundError
from memdb.format.documents import MAX_DOCUMENT
from memdb.format.manifest import ObjectInfo
from memdb.storage.cache import Cache
from memdb.storage.protocol import Found, Storage, concurrently
from memdb.store.read_arrays import check_object


class ResumableStorage:
    """A storage to which only missing or different objects are written; it counts what it wrote."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage.direct()
        self.url = storage.url
        self.can_list = storage.can_list
        self.can_write = storage.can_write
        self.cache: Cache | None = None
        self.n_written = 0
        self.n_bytes_written = 0
        self._lock = threading.Lock()
        self._sizes = {found.path: found.size for found in self._listing()}

    def _listing(self) -> list[Found]:
        try:
            return self.storage.find("")
        except NotFoundError:
            return []

    def has(self, path: str, info: ObjectInfo, *, checked: bool = False) -> bool:
        """Tell whether an object is there; its bytes are read unless they were ``checked`` before."""
        if self._sizes.get(path) != info.size:
            return False
        return checked or hashlib.sha256(self.storage.read(path, most=info.size)).hexdigest() == info.sha256

    def direct(self) -> ResumableStorage:
        return self

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        return self.storage.read(path, start, stop, most=most)

    def above(self) -> Iterator[Storage]:
        return self.storage.above()

    def names(self, folder: str) -> list[str]:
        return self.storage.names(folder)

    def find(self, folder: str) -> list[Found]:
        return self.storage.find(folder)

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        def is_there(item: tuple[str, bytes]) -> bool:
            path, data = item
            return self._sizes.get(path) == len(data) and self.storage.read(path, most=len(data)) == data

        there = concurrently(is_there, objects.items())
        missing = {
            path: data for (path, data), found in zip(objects.items(), there, strict=True) if not found
        }
        self.put_all(missing)

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Write objects whether or not they are there."""
        if objects:
            self.storage.write_all(objects)
        self._note(objects)

    def create(self, path: str, data: bytes) -> None:
        if path in self._sizes:
            raise AlreadyExistsError(f"{self.url}/{path} already exists", hint="use another place")
        self.storage.create(path, data)
        self._note({path: data})

    def remove(self, paths: Iterable[str]) -> None:
        self.storage.remove(paths)

    def _note(self, objects: Mapping[str, bytes]) -> None:
        with self._lock:
            self._sizes.update({path: len(data) for path, data in objects.items()})
            self.n_written += len(objects)
            self.n_bytes_written += sum(map(len, objects.values()))


def copy_object(
    source: Storage,
    path: str,
    target: ResumableStorage,
    name: str,
    info: ObjectInfo,
    *,
    checked: bool = False,
) -> None:
    """Copy an immutable object, unless it is there; see `ResumableStorage.has`.

    Raises:
        DamagedError: it is missing or altered in the source.
    """
    if not target.has(name, info, checked=checked):
        target.put_all({name: check_object(source, path, info)})
