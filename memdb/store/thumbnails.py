"""Small pictures of the examples in a published copy as arrays, and reading them in whichever form it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, NotFoundError
from memdb.format import layout
from memdb.format.documents import Json
from memdb.format.manifest import ObjectInfo
from memdb.format.published import ASK_AGAIN, ListedGroup
from memdb.render.sheets import has_pillow
from memdb.storage.protocol import concurrently
from memdb.store import published_sheets
from memdb.store.encoding import ChunkEncoder, array_metadata
from memdb.store.listed_groups import read_document, write_document, write_objects
from memdb.store.published_sheets import PublishedSheets
from memdb.store.read_arrays import GroupReader
from memdb.store.read_documents import StoreLike
from memdb.store.store import Store

CHUNK_BYTES = 256 << 10  # of pixels: what one picture costs to read, before it is compressed
MAX_SIDE = 256  # of a stranger's picture


class Pictures(published_sheets.Shown, Protocol):
    """Pictures of a set's examples, which can be had in either form."""

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
        objects |= write_objects(store, layout.THUMBNAILS, encoder.metadata)
        metadata |= array_metadata(encoder.metadata)
        for start in range(0, those.shape[0], rows):
            values = those.rows(start, min(start + rows, those.shape[0]))
            chunk = {encoder.name(start): encoder.encode(start, values)}
            objects |= write_objects(store, layout.THUMBNAILS, chunk)
            advance(len(values))
    return write_document(store, layout.THUMBNAILS, objects, metadata)


def read_thumbnails(store: Store, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Return the pictures of some examples, uint8 [rows, height, width, channels]; 1 channel, or RGB.

    Raises:
        NotFoundError: there are no pictures, no such set or example, or no Pillow to decode sheets with.
        DamagedError: an object is missing, altered or not a picture.
    """
    shown = read_shown(store, set_name, rows)
    if isinstance(shown, list):
        raise NotFoundError(
            f"{store.url} shows its examples as words, not as pictures",
            hint=f'they are in `db.contents()("{set_name}", 0)`',
        )
    return shown


def read_shown(store: Store, set_name: str, rows: Sequence[int]) -> NDArray[np.uint8] | list[str]:
    """Return the same, or the words of examples that are not pictures.

    Raises:
        NotFoundError, DamagedError: likewise.
    """
    published = store.published
    if published is None or (published.thumbnails or published.sheets) is None:
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
    if published.thumbnails is None or (published.sheets is not None and has_pillow()):
        chosen: NDArray[np.uint8] | list[str] = PublishedSheets.of(store, set_name).chosen(rows)
        return chosen
    info = read_document(store, layout.THUMBNAILS, published.thumbnails)
    shape = _shape_of(info, set_name, n_examples, store.url)
    reader = GroupReader(store.storage, layout.THUMBNAILS, info.group.objects, info.group.metadata)
    if not rows:
        return np.empty((0, *shape[1:]), dtype=np.uint8)
    return np.concatenate(
        concurrently(lambda row: reader.read(set_name, shape, "uint8", (row, row + 1)), rows)
    )


def _shape_of(info: ListedGroup, set_name: str, n_examples: int, url: str) -> tuple[int, int, int, int]:
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
