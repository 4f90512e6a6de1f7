"""Small pictures of the examples in a published copy, or words, 64 to an object: what a page, too, can show.

Neighbours in a list are neighbours on a sheet, so that a screen of a list takes one or two objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, NotFoundError
from memdb.format import layout
from memdb.format.documents import Json
from memdb.format.manifest import ObjectInfo
from memdb.format.published import ASK_AGAIN
from memdb.render.sheets import (
    LONGEST_WORDS,
    TILES,
    Shape,
    ShownOf,
    require_pillow,
    sheets,
    shown_of,
    suffix,
    tiles_of,
    words_of,
)  # fmt: skip
from memdb.storage.protocol import Storage, concurrently
from memdb.store.encoding import ChunkEncoder, array_metadata
from memdb.store.listed_groups import read_document, write_document, write_objects
from memdb.store.read_arrays import GroupReader, read_object
from memdb.store.read_documents import StoreLike
from memdb.store.store import Store

MAX_SIDE = 256  # of a stranger's picture
HELD_BYTES = 256 << 20  # of pixels of one set
AT_ONCE = 8  # sheets that are written together
ORDER = "order"
SHAPE = ("height", "width", "channels")
AS_WORDS = {"words": True}  # attributes of the order of sheets that have no pictures


class Shown(Protocol):
    """How a set's examples are shown."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Examples and, of pictures, height, width and channels."""
        ...

    def chosen(self, rows: Sequence[int]) -> Any:
        """Return those of some examples, uint8 [rows, height, width, channels], or a list of texts."""
        ...


def write_sheets(
    store: StoreLike,
    pictures: Mapping[str, Shown],
    orders: Mapping[str, NDArray[np.int32]],
    advance: Callable[[int], None],
) -> ObjectInfo:
    """Write pictures, or words, of each set in the order given, then the document that lists the sheets.

    ``advance`` is called with the number of pictures just written.
    """
    written: dict[str, ObjectInfo] = {}
    metadata: dict[str, Json] = {}
    for name, those in pictures.items():
        order, shape = orders[name], shown_of(those.shape[1:], those.chosen).shape
        attributes = dict(zip(SHAPE, shape, strict=True)) if shape else dict(AS_WORDS)
        encoder = ChunkEncoder(f"{name}/{ORDER}", order.shape, "int32", len(order), attributes, "shuffle")
        array = encoder.metadata | {encoder.name(0): encoder.encode(0, order)}
        written |= write_objects(store, layout.SHEETS, array)
        metadata |= array_metadata(array)
        batch: dict[str, bytes] = {}
        n_written = 0
        for number, sheet in enumerate(sheets(shown_of(shape, those.chosen), order.tolist())):
            batch[_sheet_name(name, number, shape)] = sheet
            n_done = min((number + 1) * TILES, len(order))
            if len(batch) == AT_ONCE or n_done == len(order):
                written |= write_objects(store, layout.SHEETS, batch)
                advance(n_done - n_written)
                batch, n_written = {}, n_done
    return write_document(store, layout.SHEETS, written, metadata)


@dataclass(frozen=True)
class PublishedSheets:
    """The sheets of one set of a published copy.

    Attributes:
        order: the examples, as they lie on the sheets, int32 [pictures].
        shape: height, width, channels of a picture; empty of words.
        objects: each sheet's path in the store, with its size and sha256.
    """

    storage: Storage
    url: str
    order: NDArray[np.int32]
    shape: Shape | tuple[()]
    objects: Sequence[tuple[str, ObjectInfo]]

    @classmethod
    def of(cls, store: Store, set_name: str) -> PublishedSheets:
        """Read what a copy says of its sheets.

        Raises:
            NotFoundError: it has none, or none of this set.
            DamagedError: an object is missing or altered, or what they say cannot be.
        """
        document = store.published.sheets if store.published else None
        info = read_document(store, layout.SHEETS, document) if document else None
        path, place = f"{set_name}/{ORDER}", f"{store.url}/{layout.SHEETS}/{set_name}"
        if info is None or path not in info.group.metadata:
            raise NotFoundError(f"{store.url} has no sheets of its {set_name} examples", hint=ASK_AGAIN)
        n_examples = store.manifest.set_named(set_name).n_examples
        reader = GroupReader(store.storage, layout.SHEETS, info.group.objects, info.group.metadata)
        shape = _shape_of(reader.attributes(path), place)
        order = reader.read(path, (n_examples,), "int32")
        if not np.array_equal(np.sort(order), np.arange(n_examples)):
            raise DamagedError(f"{place}/{ORDER} does not name every example once", hint=ASK_AGAIN)
        names = [_sheet_name(set_name, number, shape) for number in range(-(-n_examples // TILES))]
        missing = [name for name in names if name not in info.group.objects]
        if missing:
            raise DamagedError(f"{place} does not list {missing[0]}", hint=ASK_AGAIN)
        listed = [(f"{layout.SHEETS}/{name}", info.group.objects[name]) for name in names]
        return cls(store.storage, store.url, order, shape, listed)

    def as_shown(self) -> ShownOf:
        """Return them as pages take them: sheets that were decoded are held for a while."""
        n_bytes = math.prod(self.shape) if self.shape else LONGEST_WORDS
        tiles = lru_cache(maxsize=max(1, HELD_BYTES // (TILES * n_bytes)))(self._tiles)
        rows = partial(self.chosen, tiles=tiles)
        if self.shape:
            return shown_of(self.shape, rows, self.order, self.sheet)
        words = shown_of((), rows)
        # written anew: what a stranger calls words may be anything
        return shown_of((), rows, self.order, lambda number: words.encoded(tiles(number), TILES))

    def sheet(self, number: int) -> bytes:
        """Return a sheet as it is stored.

        Raises:
            DamagedError: it is missing or altered.
        """
        return read_object(self.storage, *self.objects[number])

    def chosen(self, rows: Sequence[int], tiles: Callable[[int], Any] | None = None) -> Any:
        """Return the pictures of some examples, uint8 [rows, *shape], or a list of words.

        ``tiles`` returns those on a sheet.

        Raises:
            NotFoundError: Pillow is not installed, and these are pictures.
            DamagedError: a sheet is missing, altered or not one.
        """
        if self.shape:
            require_pillow()
        places = np.empty(len(self.order), dtype=np.int64)
        places[self.order] = np.arange(len(self.order))
        numbers, at = np.divmod(places[list(rows)], TILES)
        wanted = sorted(set(numbers.tolist()))
        decoded = dict(zip(wanted, concurrently(tiles or self._tiles, wanted), strict=True))
        found = [decoded[number][tile] for number, tile in zip(numbers.tolist(), at.tolist(), strict=True)]
        return np.array(found, dtype=np.uint8).reshape(len(rows), *self.shape) if self.shape else found

    def _tiles(self, number: int) -> NDArray[np.uint8] | list[str]:
        n_here = min(TILES, len(self.order) - number * TILES)
        try:
            sheet = self.sheet(number)
            return tiles_of(sheet, self.shape) if self.shape else words_of(sheet, n_here)
        except (ValueError, RecursionError) as error:
            place, kind = f"{self.url}/{self.objects[number][0]}", "pictures" if self.shape else "words"
            raise DamagedError(f"{place} is not a sheet of {kind}: {error}", hint=ASK_AGAIN) from error


def _sheet_name(set_name: str, number: int, shape: Shape | tuple[()]) -> str:
    return f"{set_name}/{number}.{suffix(shape)}"


def _shape_of(attributes: Mapping[str, object], place: str) -> Shape | tuple[()]:
    if attributes == AS_WORDS:
        return ()
    match [attributes.get(name) for name in SHAPE]:
        case [int(height), int(width), int(channels)] if (
            0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and channels in {1, 3}
        ):
            return height, width, channels
        case _:
            raise DamagedError(f"{place} says no size of its pictures", hint=ASK_AGAIN)
