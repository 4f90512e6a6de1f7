"""What predictions rest on, kept on disk from one process to the next, beside the objects of remote stores.

Whitened sketches, sums of confidences and the calibration take seconds of a large store, and are functions of
immutable objects: they are kept under the sha256 of these, so that a commit or a retraction, which changes
what counts, finds other keys. What is missing or not intact is computed again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.storage.local import LocalStorage
from memdb.store import Snapshot

VERSION = 4  # of how these are computed
WORTH_KEEPING = 1 << 24  # entries of sketches, or confidences: below, computing takes no second

Arrays = Sequence[NDArray[Any]]


class Keeper:
    """Keeps what is computed from a snapshot, if the user has a cache."""

    def __init__(self, snapshot: Snapshot) -> None:
        storage = snapshot.storage
        self._cache = storage.derived if isinstance(storage, LocalStorage) else storage.cache
        self._snapshot = snapshot

    def arrays(
        self, name: str, size: int, sources: Iterable[str | bytes], compute: Callable[[], Arrays]
    ) -> Arrays:
        """Return the arrays kept under a name and what they are computed from; compute what is not there.

        Args:
            name: of what is computed.
            size: how many numbers it is computed from; few are not worth a file.
            sources: identify these, and all else that the result depends on.
            compute: returns the arrays.
        """
        if self._cache is None or size < WORTH_KEEPING:
            return compute()
        key = _key(name, sources)
        data = self._cache.find(key)
        if data is not None:
            return list(_unpacked(data))
        computed = compute()
        if self._cache.takes(sum(array.nbytes for array in computed)):  # packing takes as much memory again
            self._cache.keep(key, _packed(computed))
        return computed

    def objects(self, *paths: str) -> Iterator[str]:
        """Yield what identifies the stored arrays at these paths, and which of the models count."""
        for selection in self._snapshot.selections:
            segment = selection.segment
            yield f"{segment.store_id} {segment.segment_id} {''.join(map(str, map(int, selection.keep)))}"
            for name, info in segment.objects.items():
                if name.startswith(tuple(f"{path}/" for path in paths)):
                    yield f"{name} {info.sha256}"


def _key(name: str, sources: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        part = source if isinstance(source, bytes) else source.encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return f"informed/{VERSION}/{name}/{digest.hexdigest()}"


def _packed(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    for array in arrays:
        np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> Iterator[NDArray[Any]]:
    file = io.BytesIO(data)
    while file.tell() < len(data):
        yield np.load(file, allow_pickle=False)
