"""Read arrays against the list of their objects: absent, short or altered bytes raise an error."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer.cpu import NDBuffer
from zarr.core.buffer import Buffer, BufferPrototype

from memdb.errors import DamagedError, MemdbError, NotFoundError
from memdb.format.documents import MAX_DOCUMENT, Json, canonical_json, parse_json
from memdb.format.layout import GROUP_METADATA
from memdb.format.manifest import ObjectInfo, Objects
from memdb.format.segment import Segment
from memdb.storage.cache import Cache
from memdb.storage.protocol import concurrently
from memdb.store.stated import RESTORE, Stated, stated

MAX_OBJECT = 1 << 30  # bytes; a copy's tables may be large


class Readable(Protocol):
    """What reading needs of a storage."""

    @property
    def url(self) -> str:
        """Where it is."""
        ...

    @property
    def cache(self) -> Cache | None:
        """A nearer copy of immutable objects."""
        ...

    def direct(self) -> Readable:
        """Return the same place past all caches."""
        ...

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        """Return an object's bytes, or those of a range; see `Storage.read`."""
        ...


def read_listed(storage: Readable, path: str, info: ObjectInfo) -> bytes:
    """Read a document that a list names; see `read_object`.

    Raises:
        DamagedError: it is missing, has another size or sha256, or is too large for a document.
    """
    if info.size > MAX_DOCUMENT:
        raise DamagedError(
            f"{storage.url}/{path} has {info.size:,} bytes; documents of memdb have at most {MAX_DOCUMENT:,}",
            hint=RESTORE,
        )
    return read_object(storage, path, info)


def read_object(
    storage: Readable, path: str, info: ObjectInfo, start: int = 0, stop: int | None = None
) -> bytes:
    """Read an immutable object, or a range of it, from the cache or the storage.

    One that does not match is fetched once more before it counts as damaged: the transfer may have been cut.

    Raises:
        DamagedError: it is missing, or has another size or sha256. (Ranges have crc32c inside.)
    """
    end = info.size if stop is None else min(stop, info.size)
    whole = (start, end) == (0, info.size)
    key = info.sha256 if whole else f"{info.sha256}:{start}-{end}"
    cached = storage.cache.find(key) if storage.cache else None
    if cached is not None and _problem(cached, info, start, end) is None:
        return cached
    data = _fetched(storage, path, info, start, end)
    if _problem(data, info, start, end) is not None:
        data = _fetched(storage.direct(), path, info, start, end)
    problem = _problem(data, info, start, end)
    if problem is not None:
        raise DamagedError(f"{storage.url}/{path} {problem}", hint=RESTORE)
    if storage.cache:
        storage.cache.keep(key, data)
    return data


def check_object(storage: Readable, path: str, info: ObjectInfo) -> bytes:
    """Read an immutable object from the storage, never from the cache, and return it if it is intact.

    Raises:
        DamagedError: it is missing, or has another size or sha256.
    """
    data = _fetched(storage, path, info, 0, info.size)
    if _problem(data, info, 0, info.size) is not None:
        data = _fetched(storage.direct(), path, info, 0, info.size)
    problem = _problem(data, info, 0, info.size)
    if problem is not None:
        raise DamagedError(f"{storage.url}/{path} {problem}", hint=RESTORE)
    return data


def check_group(storage: Readable, group: Segment) -> None:
    """Check every object of a segment or block.

    Raises:
        DamagedError: names the first that is not as it was written.
    """

    def check(item: tuple[str, ObjectInfo]) -> None:
        check_object(storage, f"{group.group}/{item[0]}", item[1])

    concurrently(check, group.objects.items())


def _fetched(storage: Readable, path: str, info: ObjectInfo, start: int, stop: int) -> bytes:
    whole = (start, stop) == (0, info.size)
    if info.size > MAX_OBJECT:
        raise DamagedError(
            f"{storage.url}/{path} is listed with {info.size:,} bytes, more than any object has", hint=RESTORE
        )
    part = () if whole else (start, stop)
    try:
        data = storage.read(path, *part, most=info.size)
    except NotFoundError as error:
        raise DamagedError(f"{storage.url}/{path} is missing", hint=RESTORE) from error
    ignored_range = not whole and len(data) == info.size  # as some web servers do
    return data[start:stop] if ignored_range else data


def _problem(data: bytes, info: ObjectInfo, start: int, stop: int) -> str | None:
    if len(data) != stop - start:
        return f"has {len(data):,} bytes where {stop - start:,} belong"
    if (start, stop) == (0, info.size) and hashlib.sha256(data).hexdigest() != info.sha256:
        return f"was altered: its sha256 is not {info.sha256}"
    return None


@dataclass(frozen=True, slots=True)
class GroupReader:
    """Reads the arrays of one group through the list of its objects.

    ``metadata`` holds the arrays' ``zarr.json``, as far as known. ``vouched`` is the number of bytes of other
    objects, already read, that bear out the size of the arrays, beside the arrays' own objects.
    """

    storage: Readable
    group: str
    objects: Objects
    metadata: Mapping[str, Json] = field(default_factory=dict)
    vouched: int = 0

    def read(
        self,
        path: str,
        shape: tuple[int | None, ...],
        dtype: str,
        rows: tuple[int, int] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Read an array, or a range of its rows, by whole objects; into ``out``, if given.

        A length of the shape may be None, for any.

        Raises:
            DamagedError: an object is missing, of another length or altered, or the array is not as expected.
        """
        part = slice(None) if rows is None else slice(*rows)

        def take(array: zarr.Array[Any]) -> Any:
            if out is None:
                return array[part]
            array.get_basic_selection(
                (part, ...), out=NDBuffer(cast("Any", out))
            )  # NumPy's own type lacks what it asks
            return out

        return np.asarray(self._decoded(path, take, (shape, dtype), rows))

    def attributes(self, path: str) -> dict[str, Any]:
        """Return an array's attributes."""
        return dict(self._stated(path).attributes)

    def _decoded(
        self,
        path: str,
        take: Callable[[zarr.Array[Any]], Any],
        expected: tuple[tuple[int | None, ...], str],
        rows: tuple[int, int] | None,
    ) -> Any:
        array = self._stated(path)
        shape, dtype = expected
        fits = len(shape) == len(array.shape) and all(
            wanted in {None, n} for wanted, n in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(dtype):
            raise DamagedError(
                f"{array.place} is {array.dtype} {array.shape}, expected {dtype} {shape}", hint=RESTORE
            )
        array.require_held(path, self.objects, self.vouched, rows)
        try:
            return take(array.opened(CheckedStore(self.storage, self.group, self.objects), path))
        except MemdbError:
            raise
        except (ValueError, KeyError, TypeError, RuntimeError, FileNotFoundError, OverflowError) as error:
            raise DamagedError(f"{array.place} cannot be decoded: {error}", hint=RESTORE) from error
        except MemoryError as error:
            raise DamagedError(f"{array.place} asks for more memory than there is", hint=RESTORE) from error

    def _stated(self, path: str) -> Stated:
        """Return an array's parsed ``zarr.json``: the known one if its hash is listed, else the stored."""
        place, name = f"{self.storage.url}/{self.group}/{path}", f"{path}/{GROUP_METADATA}"
        info = self.objects.get(name)
        if info is None:
            raise DamagedError(f"{place} is not on the list of its group's objects", hint=RESTORE)
        with contextlib.suppress(KeyError, ValueError):
            known = canonical_json(self.metadata[path])
            if hashlib.sha256(known).hexdigest() == info.sha256:
                return stated(self.metadata[path], place)
        data = read_listed(self.storage, f"{self.group}/{name}", info)
        return stated(parse_json(data, f"{place}/{GROUP_METADATA}"), place)


class CheckedStore(Store):
    """A read-only Zarr store over one group whose objects, sizes and hashes are known beforehand.

    Zarr silently reads an absent chunk as zeros. Here an object on the list that is absent, or has another
    length or sha256, raises; one that is not on the list does not exist. ``known`` are objects that need no
    request. A shard whose index is requested is fetched whole, once, and serves the ranges that follow.
    """

    supports_writes: ClassVar[bool] = False
    supports_deletes: ClassVar[bool] = False
    supports_listing: ClassVar[bool] = True

    def __init__(
        self,
        storage: Readable,
        group: str,
        objects: Objects,
        known: Mapping[str, bytes] | None = None,
        *,
        read_only: bool = True,
    ) -> None:
        if not read_only:
            raise ValueError("what is committed never changes: this store is read-only")
        super().__init__(read_only=True)
        self._storage = storage
        self._group = group
        self._objects = objects
        self._known = known or {}
        self._shards: dict[str, bytes] = {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CheckedStore)
            and (self._storage.url, self._group) == (other._storage.url, other._group)
            and self._objects == other._objects
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"CheckedStore({self._storage.url!r}, {self._group!r}, {len(self._objects)} objects)"

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or a range of it; None if the list does not have it."""
        if not self._is_open:
            await self._open()
        info = self._objects.get(key)
        if info is None and key.rsplit("/", 1)[-1].startswith("c."):  # a chunk: Zarr would read zeros
            raise DamagedError(
                f"{self._storage.url}/{self._group}/{key} is not on the list of its group's objects",
                hint="restore the store from a copy",
            )
        if info is None:
            return None
        start, stop = _bounds(byte_range, info.size)
        known = self._known.get(key)
        if known is not None and hashlib.sha256(known).hexdigest() == info.sha256:
            return prototype.buffer.from_bytes(known[start:stop])
        path = f"{self._group}/{key}"
        if isinstance(byte_range, SuffixByteRequest) and key not in self._shards:
            self._shards[key] = await asyncio.to_thread(read_object, self._storage, path, info)
        if key in self._shards:
            return prototype.buffer.from_bytes(self._shards[key][start:stop])
        data = await asyncio.to_thread(read_object, self._storage, path, info, start, stop)
        return prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several ranges, fetched concurrently."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether an object is on the list."""
        return key in self._objects

    async def getsize(self, key: str) -> int:
        """Return an object's size as listed."""
        if key not in self._objects:
            raise FileNotFoundError(key)
        return self._objects[key].size

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refuse: what is committed never changes."""
        self._check_writable()

    async def delete(self, key: str) -> None:  # noqa: ARG002
        """Refuse: what is committed never changes."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Yield every object."""
        for key in self._objects:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the objects whose names start with the prefix."""
        for key in self._objects:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in sorted({k[len(folder) :].split("/")[0] for k in self._objects if k.startswith(folder)}):
            yield name


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    match byte_range:
        case RangeByteRequest(start, end):
            return min(start, size), max(min(start, size), min(end, size))
        case OffsetByteRequest(offset):
            return min(offset, size), size
        case SuffixByteRequest(suffix):
            return max(0, size - suffix), size
        case None:
            return 0, size
        case _:
            raise TypeError(f"Unexpected byte_range, got {byte_range}")
