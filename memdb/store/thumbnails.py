"""Small pictures of the examples in a published copy: written there by its owner, read a few at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, NotFoundError
from memdb.format import layout
from memdb.format.documents import Json, group_metadata, parse_group_metadata
from memdb.format.manifest import ObjectInfo
from memdb.format.published import ASK_AGAIN, DerivedGroup, ThumbnailsInfo
from memdb.storage.protocol import concurrently
from memdb.store.encoding import ChunkEncoder, array_metadata, describe
from memdb.store.read_arrays import GroupReader, read_listed
from memdb.store.read_documents import StoreLike
from memdb.store.store import Store

CHUNK_BYTES = 256 << 10  # of pixels: what one picture costs to read, before it is compressed
MAX_SIDE = 256  # of a stranger's picture
DOCUMENT = f"{layout.THUMBNAILS}/{layout.GROUP_METADATA}"


class Pictures(Protocol):
    """Pictures of a set's examples."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Examples, height, width, channels."""
        ...

    def rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return some of them, uint8 [examples, height, width, channels]."""
        ...


def write_thumbnails(
    store: StoreLike, pictures: Mapping[str, Pictures], advance: Callable[[int], None]
) -> ObjectInfo:
    """Write pictures, then the document that describes them; return its size and sha256.

    ``advance`` is called with the number of pictures just written.
    """
    objects: dict[str, ObjectInfo] = {}
    metadata: dict[str, Json] = {}
    for name, those in pictures.items():
        rows = max(1, CHUNK_BYTES // math.prod(those.shape[1:]))
        encoder = ChunkEncoder(name, those.shape, "uint8", min(rows, those.shape[0]))
        _write(store, encoder.metadata)
        objects |= describe(encoder.metadata)
        metadata |= array_metadata(encoder.metadata)
        for start in range(0, those.shape[0], rows):
            values = those.rows(start, min(start + rows, those.shape[0]))
            chunk = {encoder.name(start): encoder.encode(start, values)}
            _write(store, chunk)
            objects |= describe(chunk)
            advance(len(values))
    info = ThumbnailsInfo(store.manifest.store_id, DerivedGroup(objects, metadata))
    data = group_metadata(info.to_document())
    store.storage.write_all({DOCUMENT: data})
    return describe({"": data})[""]


def _write(store: StoreLike, objects: Mapping[str, bytes]) -> None:
    store.storage.write_all({f"{layout.THUMBNAILS}/{path}": data for path, data in objects.items()})


def read_info(store: StoreLike, document: ObjectInfo) -> ThumbnailsInfo:
    """Read the document that describes a copy's pictures.

    Raises:
        DamagedError: it is missing, was altered, or belongs to another store.
    """
    place = f"{store.url}/{DOCUMENT}"
    data = read_listed(store.storage, DOCUMENT, document)
    info = ThumbnailsInfo.from_document(parse_group_metadata(data, place), place)
    if info.store_id != store.manifest.store_id:
        raise DamagedError(f"{place} belongs to another store", hint=ASK_AGAIN)
    return info


def objects_of(info: ThumbnailsInfo) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield every object of the pictures with its path in the store."""
    for name, item in info.group.objects.items():
        yield f"{layout.THUMBNAILS}/{name}", item


def read_thumbnails(store: Store, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Return the pictures of some examples, uint8 [rows, height, width, channels]; 1 channel, or RGB.

    Raises:
        NotFoundError: there are no pictures, or no such set or example.
        DamagedError: an object is missing, altered or not a picture.
    """
    document = store.published.thumbnails if store.published else None
    if document is None:
        raise NotFoundError(
            f"{store.url} has no pictures of its examples",
            hint="its owner can add them: `memdb publish DEST --include bits --include thumbnails`",
        )
    n_examples = store.manifest.set_named(set_name).n_examples
    for row in rows:
        if not 0 <= row < n_examples:
            raise NotFoundError(
                f"there is no {set_name} example {row}", hint=f"there are {n_examples:,}, from 0"
            )
    info = read_info(store, document)
    shape = _shape_of(info, set_name, n_examples, store.url)
    reader = GroupReader(store.storage, layout.THUMBNAILS, info.group.objects, info.group.metadata)
    if not rows:
        return np.empty((0, *shape[1:]), dtype=np.uint8)
    return np.concatenate(
        concurrently(lambda row: reader.read(set_name, shape, "uint8", (row, row + 1)), rows)
    )


def _shape_of(info: ThumbnailsInfo, set_name: str, n_examples: int, url: str) -> tuple[int, int, int, int]:
    """Return the shape of a set's pictures, after looking how large they and their chunks are."""
    match info.group.metadata.get(set_name):
        case {
            "shape": [int(n), int(height), int(width), int(channels)],
            "chunk_grid": {"configuration": {"chunk_shape": [int(rows), *others]}},
        } if (
            n == n_examples
            and all(0 < side <= MAX_SIDE for side in (height, width))
            and channels in {1, 3}
            and others == [height, width, channels]
            and 0 < rows <= max(1, CHUNK_BYTES // (height * width * channels))
        ):
            return n, height, width, channels
        case _:
            raise DamagedError(
                f"{url}/{layout.THUMBNAILS}/{set_name} is not an array of pictures", hint=ASK_AGAIN
            )
