"""Bits packed along the model axis, little bit order: bit k of a row is model k; padding bits are 0."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]  # [examples, ceil(models / 8)]
ROWS_AT_ONCE = 1024


def n_bytes(n_models: int) -> int:
    """Return how many bytes one example's bits over ``n_models`` take."""
    return -(-n_models // 8)


def pack(values: NDArray[np.bool_]) -> Packed:
    """Pack bool [models, examples] into uint8 [examples, ceil(models / 8)]."""
    packed = np.empty((values.shape[1], n_bytes(len(values))), dtype=np.uint8)
    for start in range(0, len(packed), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        turned = np.ascontiguousarray(values[:, rows].T)  # twice as fast as to pack a view
        packed[rows] = np.packbits(turned, axis=1, bitorder="little")
    return packed


def unpack(packed: Packed, n_models: int) -> NDArray[np.bool_]:
    """Unpack uint8 [examples, ceil(models / 8)] into bool [models, examples]."""
    return np.unpackbits(packed, axis=1, count=n_models, bitorder="little").T.astype(np.bool_)


def of_models(packed: Packed, positions: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Unpack some models alone into bool [positions, examples]."""
    found = packed[:, positions >> 3] >> (positions & 7).astype(np.uint8) & 1
    return found.T.astype(np.bool_)


def selection(keep: Sequence[bool]) -> Packed:
    """Pack one flag per model into a row of bits to AND with, uint8 [ceil(models / 8)]."""
    return np.packbits(np.asarray(keep, dtype=np.bool_), bitorder="little")


def concatenate(parts: Sequence[tuple[Packed, int]], n_examples: int) -> Packed:
    """Join packed parts, each with its number of models, along the model axis without gaps."""
    n_models = sum(count for _, count in parts)
    return joined_words(parts, n_examples).view(np.uint8)[:, : n_bytes(n_models)]


def joined_words(parts: Sequence[tuple[Packed, int]], n_examples: int) -> NDArray[np.uint64]:
    """Like `concatenate`, but return the rows as `words`, without another copy."""
    n_models = sum(count for _, count in parts)
    packed_words = np.zeros((n_examples, -(-n_models // 64)), dtype=np.uint64)
    joined = packed_words.view(np.uint8)
    start = 0
    for packed, count in parts:
        byte, shift = divmod(start, 8)
        width = packed.shape[1]
        if shift == 0:
            joined[:, byte : byte + width] = packed
        else:
            joined[:, byte : byte + width] |= packed << shift
            carried = min(width, joined.shape[1] - byte - 1)  # the last byte's carry may be padding only
            joined[:, byte + 1 : byte + 1 + carried] |= packed[:, :carried] >> (8 - shift)
        start += count
    return packed_words


def words(packed: Packed) -> NDArray[np.uint64]:
    """View rows as uint64 [examples, ceil(models / 64)], zero-padded: what popcounts run fastest on."""
    rows, width = packed.shape
    padded_width = -(-width // 8) * 8
    if padded_width != width or not packed.flags.c_contiguous:
        padded = np.zeros((rows, padded_width), dtype=np.uint8)
        padded[:, :width] = packed
        packed = padded
    return packed.view(np.uint64)


def count(packed_words: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Count the ones of each row, int32 [examples]."""
    ones = np.bitwise_count(packed_words)
    counts: NDArray[np.int32] = np.einsum("...w->...", ones, dtype=np.int32)  # twice as fast as sum
    return counts


def count_and(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Count the models that have a one in both rows, row by row (one of the two may be a single row)."""
    n_rows = max(len(left) if left.ndim > 1 else 1, len(right) if right.ndim > 1 else 1)
    if n_rows <= ROWS_AT_ONCE:
        return count(left & right)
    counts = np.empty(n_rows, dtype=np.int32)
    for start in range(0, n_rows, ROWS_AT_ONCE):  # few enough that what lies between stays in the cache
        part = slice(start, start + ROWS_AT_ONCE)
        counts[part] = count(
            (left[part] if left.ndim > 1 else left) & (right[part] if right.ndim > 1 else right)
        )
    return counts


def text_of_ids(ids: NDArray[np.int32], n_examples: int) -> str:
    """Return a set of examples as text: one bit each, the first the lowest of its byte; zlib, base64."""
    flags = np.zeros(n_examples, dtype=np.bool_)
    flags[ids] = True
    return base64.b64encode(zlib.compress(np.packbits(flags, bitorder="little").tobytes(), 9)).decode()


def ids_of_text(text: str, n_examples: int) -> NDArray[np.int32] | None:
    """Return the ids, or None if the text is not such a set; it takes no more memory than the set."""
    n_bytes = -(-n_examples // 8)
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), n_bytes + 1)
    except (binascii.Error, ValueError, zlib.error):
        return None
    if len(packed) != n_bytes:
        return None
    flags = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    ids = np.flatnonzero(flags).astype(np.int32)
    return ids if not len(ids) or ids[-1] < n_examples else None
