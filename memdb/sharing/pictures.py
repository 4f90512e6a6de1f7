"""How examples look, for a published copy: on sheets, or pictures as arrays where no Pillow encodes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing

from memdb.errors import DamagedError
from memdb.format import layout
from memdb.format.manifest import ObjectInfo
from memdb.format.published import Published
from memdb.query.relations import Relations
from memdb.render.sheets import has_pillow
from memdb.sharing.orders import orders_of
from memdb.sharing.thumbnails import Thumbnails, Words
from memdb.store.listed_groups import read_document
from memdb.store.published_sheets import Shown, write_sheets
from memdb.store.resumable import ResumableStorage
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store
from memdb.store.thumbnails import write_thumbnails

A_PIXEL = 0.15  # bytes on a sheet, for each channel
A_TEXT = 200  # bytes on a sheet


def size_of(pictures: Mapping[str, Shown]) -> int:
    """Return about how many bytes pictures or words will take."""
    if any(isinstance(those, Words) for those in pictures.values()):
        return sum(A_TEXT * those.shape[0] for those in pictures.values())
    n_bytes = sum(math.prod(those.shape) for those in pictures.values())
    return int(n_bytes * A_PIXEL) if has_pillow() else n_bytes


def has_pictures(target: ResumableStorage, store: Store, before: Published) -> bool:
    """Tell by sizes whether all pictures are there, in the form in which they would be written now."""
    folder = layout.SHEETS if has_pillow() or before.sheets else layout.THUMBNAILS
    document = before.groups.get(folder)
    if document is None:
        return False
    try:
        objects = read_document(Store(target, store.manifest), folder, document).group.objects
    except DamagedError:
        return False
    return all(target.has(f"{folder}/{name}", item, checked=True) for name, item in objects.items())


def write_pictures(
    target: ResumableStorage,
    snapshot: Snapshot,
    before: Published | None,
    pictures: Mapping[str, Shown],
    advance: Callable[[int], None],
) -> dict[str, ObjectInfo | None]:
    """Write pictures or words in the order of lists; return the documents of all that the copy then has."""
    store = Store(target, snapshot.manifest)
    found = {"thumbnails": before.thumbnails if before else None, "sheets": before.sheets if before else None}
    if not pictures:
        return found
    those = {name: one for name, one in pictures.items() if isinstance(one, Thumbnails)}
    if those and not has_pillow():
        return {**found, "thumbnails": write_thumbnails(store, those, advance)}
    with closing(Relations(snapshot)) as relations:
        orders = orders_of(relations)
    return {**found, "sheets": write_sheets(store, pictures, orders, advance)}
