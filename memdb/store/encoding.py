"""Encode Zarr arrays as bytes: a segment's all at once, a block's band by band."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from memdb.format.documents import Json, canonical_json
from memdb.format.layout import GROUP_METADATA
from memdb.format.manifest import ObjectInfo

CHUNK_BYTES = 4 << 20  # of segments: read whole or not at all
CHUNKS_AT_ONCE = 4  # compressed side by side, and in memory twice
MASK_CHUNK_BYTES = 2 << 20  # of blocks: read whole, several at once
INNER_CHUNK_BYTES = 128 << 10  # what reading one row of a block costs
SHARD_BYTES = 16 << 20
BLOCK_MODELS = 1024  # of a full block
GZIP_LEVEL = 9
COUNTS_LEVEL = 6  # of Blosc: 2 % larger than 9, and twenty times as fast


@dataclass(frozen=True, slots=True)
class ArrayData:
    """Values to store under a path, with their attributes. Real numbers are compressed, bits are not."""

    values: NDArray[Any]
    attributes: Mapping[str, Any] | None = None


def encode_group(arrays: Mapping[str, ArrayData]) -> dict[str, bytes]:
    """Return every object of a Zarr v3 group with these arrays, except for the group's own metadata.

    Groups between it and the arrays are included. Checksums are crc32c in every chunk: zstd and raw bytes
    do not notice a flipped bit. Chunks of zeros are written like any other: an absent chunk reads as zeros.
    """
    objects: dict[str, bytes] = {}
    for path, data in arrays.items():
        values = np.ascontiguousarray(data.values)
        attributes = canonical_json(dict(data.attributes or {}))
        objects |= _whole_array(path, values.shape, values.dtype.str, attributes).encode(values)
    return dict(sorted(objects.items()))


class _WholeArray:
    """Encodes arrays of one shape and type, whose metadata is the same each time."""

    def __init__(self, path: str, shape: tuple[int, ...], dtype: str, attributes: bytes) -> None:
        self._memory: dict[str, Buffer] = {}
        self._lock = threading.Lock()
        kind = np.dtype(dtype)
        rows = _rows_of(CHUNK_BYTES, shape, kind)
        self._array = _create(self._memory, path, shape, kind, rows, None, json.loads(attributes))
        self._metadata = _taken(self._memory)
        self._rows = rows * CHUNKS_AT_ONCE

    def encode(self, values: NDArray[Any]) -> dict[str, bytes]:
        objects = dict(self._metadata)
        with self._lock:
            for start in range(0, len(values), self._rows):
                self._array[start : start + self._rows] = values[start : start + self._rows]
                objects |= _taken(self._memory)
        return objects


_whole_array = lru_cache(maxsize=32)(_WholeArray)


def array_metadata(objects: Mapping[str, bytes]) -> dict[str, Json]:
    """Return the metadata of a group's arrays by path."""
    found: dict[str, Json] = {}
    for name, data in objects.items():
        if name.endswith(f"/{GROUP_METADATA}"):
            document = json.loads(data)
            if document["node_type"] == "array":
                found[name.removesuffix(f"/{GROUP_METADATA}")] = document
    return found


def describe(objects: Mapping[str, bytes]) -> dict[str, ObjectInfo]:
    """Return the size and sha256 of every object."""
    return {name: ObjectInfo(len(data), hashlib.sha256(data).hexdigest()) for name, data in objects.items()}


class BandEncoder:
    """Encodes an array of a block a few rows at a time, so that it is never in memory whole.

    An array that is read whole, the mask, has plain chunks; others are sharded, so that a few rows are a
    few ranges.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, int],
        dtype: str,
        *,
        sharded: bool,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._memory: dict[str, Buffer] = {}
        kind = np.dtype(dtype)
        chunk = _rows_of(INNER_CHUNK_BYTES if sharded else MASK_CHUNK_BYTES, shape, kind)
        chunk_bytes = max(1, chunk * shape[1] * kind.itemsize)
        self._rows = (
            chunk * max(1, min(SHARD_BYTES // chunk_bytes, -(-shape[0] // chunk))) if sharded else chunk
        )
        self._array = _create(
            self._memory, path, shape, kind, chunk, self._rows if sharded else None, attributes
        )
        self.metadata = _taken(self._memory)

    def bands(self, max_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield row ranges of whole objects and at most ``max_bytes``, or of one larger object."""
        n_rows, n_columns = self._array.shape
        row_bytes = n_columns * self._array.dtype.itemsize
        step = max(1, max_bytes // max(1, row_bytes * self._rows)) * self._rows
        for start in range(0, n_rows, step):
            yield start, min(n_rows, start + step)

    def encode(self, start: int, values: NDArray[Any]) -> Iterator[dict[str, bytes]]:
        """Yield the objects of the rows from ``start`` on, which must hold whole ones."""
        for offset in range(0, len(values), self._rows):
            part = values[offset : offset + self._rows]
            self._array[start + offset : start + offset + len(part)] = part
            yield _taken(self._memory)


class ChunkEncoder:
    """Encodes an array of counts, scores or pixels chunk by chunk, each ``chunk_rows`` rows and one object.

    Counts are integers, which compress better shuffled; whether by bytes or by bits was measured for each
    array. Pixels are compressed like real numbers.
    """

    def __init__(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: str,
        chunk_rows: int,
        attributes: Mapping[str, Any] | None = None,
        shuffle: Literal["shuffle", "bitshuffle"] = "bitshuffle",
    ) -> None:
        self._memory: dict[str, Buffer] = {}
        self._path, self._chunk_rows = path, chunk_rows
        kind = np.dtype(dtype)
        counts = [BloscCodec(cname="zstd", clevel=COUNTS_LEVEL, shuffle=shuffle), Crc32cCodec()]
        self._array = _create(
            self._memory, path, shape, kind, chunk_rows, None, attributes,
            counts if kind.kind == "i" else [ZstdCodec(level=9), Crc32cCodec()] if kind == np.uint8 else None,
        )  # fmt: skip
        self.metadata = _taken(self._memory)

    def name(self, start: int) -> str:
        """Return the name of the object that the row ``start`` begins."""
        return f"{self._path}/c.{start // self._chunk_rows}{'.0' * (self._array.ndim - 1)}"

    def encode(self, start: int, values: NDArray[Any]) -> bytes:
        """Return the object of the rows from ``start`` on: a whole chunk of them, or the last ones."""
        self._array[start : start + len(values)] = values
        return _taken(self._memory)[self.name(start)]

    def decode(self, start: int, data: bytes) -> NDArray[Any] | None:
        """Return the values in an object that was written before; None if it cannot be decoded."""
        self._memory[self.name(start)] = default_buffer_prototype().buffer.from_bytes(data)
        stop = min(start + self._chunk_rows, self._array.shape[0])
        try:
            return np.asarray(self._array[start:stop])
        except (ValueError, RuntimeError):
            return None
        finally:
            self._memory.clear()


def _rows_of(n_bytes: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return the rows of a chunk of at most ``n_bytes``, all chunks alike: the last one is padded."""
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    most = max(1, min(shape[0], n_bytes // max(1, row_bytes)))
    return -(-shape[0] // -(-shape[0] // most))


def _create(  # noqa: PLR0913, PLR0917 - all that Zarr asks
    memory: dict[str, Buffer],
    path: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunk_rows: int,
    shard_rows: int | None,
    attributes: Mapping[str, Any] | None = None,
    compressors: list[Any] | None = None,
) -> zarr.Array[Any]:
    return zarr.create_array(
        MemoryStore(memory),
        name=path,
        shape=shape,
        chunks=(chunk_rows, *shape[1:]),
        shards=None if shard_rows is None else (shard_rows, *shape[1:]),
        dtype=dtype,
        compressors=compressors
        or ([Crc32cCodec()] if dtype == np.uint8 else [ZstdCodec(level=3), Crc32cCodec()]),
        filters=None,
        fill_value=0,
        attributes=dict(attributes or {}),
        chunk_key_encoding={"name": "default", "separator": "."},  # a folder less to fsync for each axis
        zarr_format=3,
        config={"write_empty_chunks": True},
    )


def _taken(memory: dict[str, Buffer]) -> dict[str, bytes]:
    """Take the objects out of memory; metadata as canonical JSON, which can be rebuilt from its values."""
    memory.pop(GROUP_METADATA, None)
    objects = {name: memory.pop(name).to_bytes() for name in sorted(memory)}  # never all of it twice
    return {
        name: canonical_json(json.loads(data)) if name.endswith(GROUP_METADATA) else data
        for name, data in objects.items()
    }


class BrowserArray:
    """An array that browsers decode by themselves: chunks of little-endian numbers, packed with gzip.

    The crc32 of gzip notices what was flipped where a browser has no sha256. Equal numbers have equal bytes.
    """

    def __init__(self, path: str, shape: tuple[int, ...], dtype: str, chunk_rows: int) -> None:
        memory: dict[str, Buffer] = {}
        self._chunk = (max(1, chunk_rows), *shape[1:])
        self._path, self._dtype = path, np.dtype(dtype)
        _create(memory, path, shape, self._dtype, self._chunk[0], None, None, [GzipCodec(level=GZIP_LEVEL)])
        self.metadata = _taken(memory)

    def encode(self, number: int, values: NDArray[Any]) -> dict[str, bytes]:
        """Return a chunk by its name; the last one is padded with zeros."""
        chunk = np.zeros(self._chunk, dtype=self._dtype)
        chunk[: len(values)] = values
        name = f"{self._path}/c.{number}{'.0' * (len(self._chunk) - 1)}"
        return {name: gzip.compress(chunk.tobytes(), GZIP_LEVEL, mtime=0)}
