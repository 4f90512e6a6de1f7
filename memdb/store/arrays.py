"""Zarr arrays: built in memory before they are uploaded, read through a list of what must be there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore

from memdb.errors import Damaged, NotFound
from memdb.layout import GROUP_METADATA
from memdb.manifest import ObjectInfo, Objects
from memdb.store.storage import Storage

CHUNK_BYTES = 4 << 20  # bits are read whole or by a few rows: neither many requests nor large ones


@dataclass(frozen=True, slots=True)
class ArrayData:
    """Values to store under a path, with their attributes; real numbers are compressed, bits are not."""

    values: NDArray[Any]
    attributes: Mapping[str, Any] | None = None


def encode_group(arrays: Mapping[str, ArrayData]) -> dict[str, bytes]:
    """Return every object of a Zarr v3 group that holds these arrays, but for the group's own metadata.

    Groups between it and the arrays are included. Checksums are crc32c in every chunk: zstd and raw bytes
    do not notice a flipped bit. Chunks of zeros are written like any other: an absent chunk reads as zeros.
    """
    memory = MemoryStore()
    group = zarr.create_group(memory, zarr_format=3)
    for path, data in arrays.items():
        values = np.ascontiguousarray(data.values)
        row_bytes = max(1, values.nbytes // max(1, values.shape[0]))
        rows = max(1, min(values.shape[0], CHUNK_BYTES // row_bytes))
        is_bits_or_hash = values.dtype == np.uint8
        array = group.create_array(
            path,
            shape=values.shape,
            chunks=(rows, *values.shape[1:]),
            dtype=values.dtype,
            compressors=[Crc32cCodec()] if is_bits_or_hash else [ZstdCodec(level=3), Crc32cCodec()],
            filters=None,
            fill_value=0,
            attributes=dict(data.attributes or {}),
            config={"write_empty_chunks": True},
        )
        array[...] = values
    return {
        name: buffer.to_bytes()
        for name, buffer in sorted(memory._store_dict.items())  # noqa: SLF001 - no public way to the bytes
        if name != GROUP_METADATA
    }


def describe(objects: Mapping[str, bytes]) -> dict[str, ObjectInfo]:
    """Return the size and sha256 of every object."""
    return {name: ObjectInfo(len(data), hashlib.sha256(data).hexdigest()) for name, data in objects.items()}


@dataclass(frozen=True, slots=True)
class GroupReader:
    """Reads the arrays of one group through the list of its objects."""

    storage: Storage
    group: str
    objects: Objects

    def read(self, path: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Read one whole array.

        Raises:
            Damaged: an object is missing, of another length or altered, or the array is not as expected.
        """
        return np.asarray(self._decoded(path, lambda array: array[...], shape, dtype))

    def attributes(self, path: str) -> dict[str, Any]:
        """Return an array's attributes."""
        return dict(self._decoded(path, lambda array: array.attrs.asdict()))

    def _decoded(
        self,
        path: str,
        take: Callable[[zarr.Array[Any]], Any],
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
    ) -> Any:
        place = f"{self.storage.url}/{self.group}/{path}"
        restore = "restore it from a copy of the store"
        store = CheckedStore(self.storage, self.group, self.objects)
        try:
            array = zarr.open_array(store, path=path, mode="r", zarr_format=3)
            if shape is not None and (array.shape, array.dtype) != (shape, np.dtype(dtype)):
                raise Damaged(
                    f"{place} is {array.dtype} {array.shape}, expected {dtype} {shape}", hint=restore
                )
            return take(array)
        except (ValueError, KeyError, TypeError, RuntimeError, FileNotFoundError) as error:
            raise Damaged(f"{place} cannot be decoded: {error}", hint=restore) from error


class CheckedStore(Store):
    """A read-only Zarr store over one group whose objects, sizes and hashes are known beforehand.

    Zarr reads an absent chunk as zeros without a word. Here an object on the list that is absent, has
    another length or another sha256 raises; one that is not on the list does not exist.
    """

    supports_writes: ClassVar[bool] = False
    supports_deletes: ClassVar[bool] = False
    supports_listing: ClassVar[bool] = True

    def __init__(self, storage: Storage, group: str, objects: Objects) -> None:
        super().__init__(read_only=True)
        self._storage = storage
        self._group = group
        self._objects = objects

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CheckedStore)
            and (self._storage.url, self._group) == (other._storage.url, other._group)
            and self._objects == other._objects
        )

    __hash__ = None  # type: ignore[assignment]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or a range of it; None where the list does not have it."""
        info = self._objects.get(key)
        if info is None and "c" in key.split("/"):  # a chunk: Zarr would read zeros
            raise Damaged(
                f"{self._storage.url}/{self._group}/{key} is not on the list of its group's objects",
                hint="restore the store from a copy",
            )
        if info is None:
            return None
        data = await asyncio.to_thread(self._read, key, info, byte_range)
        return prototype.buffer.from_bytes(data)

    def _read(self, key: str, info: ObjectInfo, byte_range: ByteRequest | None) -> bytes:
        path = f"{self._group}/{key}"
        start, stop = _bounds(byte_range, info.size)
        whole = (start, stop) == (0, info.size)
        try:
            data = self._storage.read(path) if whole else self._storage.read(path, start, stop)
        except NotFound as error:
            raise Damaged(
                f"{self._storage.url}/{path} is missing", hint="restore it from a copy of the store"
            ) from error
        if len(data) != stop - start:
            raise Damaged(
                f"{self._storage.url}/{path} has {len(data):,} bytes where {stop - start:,} belong",
                hint="restore it from a copy of the store",
            )
        if whole and hashlib.sha256(data).hexdigest() != info.sha256:
            raise Damaged(
                f"{self._storage.url}/{path} was altered: its sha256 is not {info.sha256}",
                hint="restore it from a copy of the store",
            )
        return data

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several ranges, fetched concurrently."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Tell whether the list has it."""
        return key in self._objects

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002
        """Refuse: what is committed never changes."""
        raise ValueError(f"{key}: this store is read-only")

    async def delete(self, key: str) -> None:
        """Refuse: what is committed never changes."""
        raise ValueError(f"{key}: this store is read-only")

    async def list(self) -> AsyncIterator[str]:
        """Yield every object."""
        for key in self._objects:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the objects whose names start so."""
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
            return min(start, size), min(end, size)
        case OffsetByteRequest(offset):
            return min(offset, size), size
        case SuffixByteRequest(suffix):
            return max(0, size - suffix), size
        case _:
            return 0, size
