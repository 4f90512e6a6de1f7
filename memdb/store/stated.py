"""What an array's own ``zarr.json`` states, and codecs that decode into no more than a chunk.

The creator of a store chose both the statement and the bytes. So only what memdb writes is accepted, the
stated sizes are compared with those of the objects before memory is allocated, and a compressed chunk is
decoded into memory of its known size: zstd and blosc would allocate as much as the chunk itself asks for.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numcodecs import blosc, zstd
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from memdb.errors import DamagedError
from memdb.format.manifest import DTYPES, Objects

CODECS = ("bytes", "crc32c", "zstd", "blosc", "sharding_indexed")
CHAINS = (("bytes", "crc32c"), ("bytes", "zstd", "crc32c"), ("bytes", "blosc", "crc32c"))
MAX_CHUNK = (
    256 << 20
)  # bytes that a stranger's chunk may become; ours are 16 MiB, or one row where that is longer
MAX_INNER = 4096  # chunks of a shard; ours have at most 256
MAX_SWELLING = 100  # bytes in memory for each byte of the objects, where that matters; ours swell less
CHUNK_MATTERS, ARRAY_MATTERS = 16 << 20, 32 << 20  # bytes
CODED = 1024  # bytes that encoding may add to a chunk
RESTORE = "restore it from a copy of the store; `memdb verify` lists all that is damaged"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOSC_HEADER = struct.Struct("<4xI8x")  # of which the size in memory


@dataclass(frozen=True)
class Stated:
    """An array as its ``zarr.json`` states it, restricted to what memdb writes.

    ``inner`` is the shape of the chunks inside a shard, where the array has shards.
    """

    place: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    inner: tuple[int, ...] | None
    chain: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def require_held(self, path: str, objects: Objects, vouched: int, rows: tuple[int, int] | None) -> None:
        """Refuse an array that its listed objects are too small to hold.

        Args:
            path: of the array in its group.
            objects: of the group.
            vouched: bytes of other objects, already read, that bear out the size of this array.
            rows: the range of rows to read; None for all.

        Raises:
            DamagedError: says what does not fit.
        """
        sizes = [info.size for name, info in objects.items() if name.startswith(f"{path}/c.")]
        largest, total = max(sizes, default=0), sum(sizes)
        n_chunks = math.prod(-(-n // step) for n, step in zip(self.shape, self.chunk, strict=True))
        n_inner = 1 if self.inner is None else math.prod(self.chunk) // math.prod(self.inner)
        chunk_bytes = math.prod(self.chunk) * self.dtype.itemsize
        whole = rows is None or chunk_bytes > CHUNK_MATTERS
        n_rows = self.shape[0] if whole or rows is None else rows[1] - rows[0]
        n_bytes = n_rows * math.prod(self.shape[1:]) * self.dtype.itemsize
        problems = {
            f"has {n_chunks:,} chunks, of which {len(sizes):,} are listed": n_chunks > len(sizes),
            f"has shards of {n_inner:,} chunks, which memdb never writes": n_inner > MAX_INNER,
            f"has an object of {largest:,} bytes for chunks of {chunk_bytes:,}": largest
            > chunk_bytes + chunk_bytes // 64 + n_inner * CODED,
            f"takes {n_bytes:,} bytes, and its objects have {total:,}": n_bytes
            > max(ARRAY_MATTERS, MAX_SWELLING * (total + vouched)),
        }
        for problem in (said for said, is_so in problems.items() if is_so):
            raise DamagedError(f"{self.place} {problem}", hint=RESTORE)

    def opened(self, store: Store, path: str) -> zarr.Array[Any]:
        """Return the array, to be read from a store."""
        metadata = _metadata(self.shape, self.dtype.name, self.chunk, self.inner, self.chain)
        return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=StorePath(store, path)))


def stated(metadata: Any, place: str) -> Stated:
    """Parse what an array's ``zarr.json`` holds.

    Raises:
        DamagedError: it is not what memdb writes.
    """
    match metadata:
        case {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(shape),
            "data_type": str(dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": list(codecs),
        } if (
            dtype in DTYPES and _are_sizes(shape, 0) and _are_sizes(chunk, 1) and len(shape) == len(chunk) > 0
        ):
            inner, chain = _codecs_of(codecs, tuple(chunk), place)
            attributes = metadata.get("attributes")
            found = Stated(place, tuple(shape), np.dtype(dtype), tuple(chunk), inner, chain,
                           attributes if isinstance(attributes, dict) else {})  # fmt: skip
        case _:
            raise DamagedError(f"{place} is not an array as memdb writes it", hint=RESTORE)
    largest = math.prod(found.chunk) * found.dtype.itemsize
    if largest > MAX_CHUNK:
        raise DamagedError(f"{place} has chunks of {largest:,} bytes, which memdb never writes", hint=RESTORE)
    return found


def _are_sizes(values: list[Any], least: int) -> bool:
    return all(type(n) is int and least <= n < 2**63 for n in values)


def _codecs_of(
    codecs: list[Any], chunk: tuple[int, ...], place: str
) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the shape of a shard's inner chunks, if there are shards, and the codecs of a chunk by name."""
    names = tuple(str(codec.get("name")) if isinstance(codec, dict) else "" for codec in codecs)
    for name in names:
        if name not in CODECS:
            raise DamagedError(f"{place} is encoded with {name[:60]}, which memdb never writes", hint=RESTORE)
    if names in CHAINS:
        return None, names
    match codecs:
        case [{"configuration": {"chunk_shape": list(inner), "codecs": list(codes)} as sharding}] if (
            names == ("sharding_indexed",)
            and _are_sizes(inner, 1)
            and len(inner) == len(chunk)
            and not any(n % m for n, m in zip(chunk, inner, strict=True))
            and sharding.get("index_location", "end") == "end"
        ):
            index = sharding.get("index_codecs")
            below, chain = _codecs_of(codes, chunk, place)
            if below is None and isinstance(index, list) and _codecs_of(index, chunk, place)[1] == CHAINS[0]:
                return tuple(inner), chain
    order = " ".join(names)[:60]
    raise DamagedError(f"{place} has codecs in an order that memdb never writes: {order}", hint=RESTORE)


@lru_cache(maxsize=64)
def _metadata(
    shape: tuple[int, ...],
    dtype: str,
    chunk: tuple[int, ...],
    inner: tuple[int, ...] | None,
    chain: tuple[str, ...],
) -> ArrayV3Metadata:
    """Return the metadata as Zarr's own class, with the bounded codecs below."""
    kinds = {"bytes": BytesCodec, "zstd": Zstd, "blosc": Blosc, "crc32c": Crc32cCodec}
    codecs: list[Any] = [kinds[name]() for name in chain]
    if inner is not None:
        codecs = [ShardingCodec(chunk_shape=inner, codecs=codecs, index_codecs=[BytesCodec(), Crc32cCodec()])]
    document: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": codecs,
        "attributes": {},
    }
    return ArrayV3Metadata.from_dict(document)


class Zstd(ZstdCodec):
    """Decodes a chunk into memory of its known size: the size that a frame states may be anything."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        data = chunk_bytes.as_numpy_array()
        return _decoded(data, _size_in_frame(data[:18].tobytes()), chunk_spec, zstd.decompress)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


class Blosc(BloscCodec):
    """Decodes a chunk into memory of its known size, which its header must state."""

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        data = chunk_bytes.as_numpy_array()
        header = data[: BLOSC_HEADER.size].tobytes()
        size = BLOSC_HEADER.unpack(header)[0] if len(header) == BLOSC_HEADER.size else None
        return _decoded(data, size, chunk_spec, blosc.decompress)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


def _decoded(data: NDArray[Any], size: int | None, spec: ArraySpec, decompress: Any) -> Buffer:
    expected = math.prod(spec.shape) * spec.dtype.to_native_dtype().itemsize
    if size != expected:
        says = "does not say what it becomes" if size is None else f"becomes {size:,} bytes"
        raise ValueError(f"a chunk of {expected:,} bytes {says}")
    values = np.empty(expected, dtype=np.uint8)
    decompress(data, values)  # raises if there is more
    return spec.prototype.buffer.from_array_like(values)


def _size_in_frame(beginning: bytes) -> int | None:
    """Return the decompressed size that a zstd frame states (RFC 8878, 3.1.1.1)."""
    if len(beginning) < 6 or beginning[:4] != ZSTD_MAGIC:
        return None
    descriptor = beginning[4]
    is_single = descriptor >> 5 & 1
    start = 5 + (1 - is_single) + (0, 1, 2, 4)[descriptor & 3]
    width = (is_single, 2, 4, 8)[descriptor >> 6]
    if not width or len(beginning) < start + width:
        return None
    return int.from_bytes(beginning[start : start + width], "little") + (256 if width == 2 else 0)
