"""What may lie where a copy is to be published or pulled to."""

from __future__ import annotations

from memdb.errors import AlreadyExistsError, NotFoundError
from memdb.format import layout
from memdb.format.published import Published
from memdb.storage.protocol import Storage
from memdb.store.open_published import find_published, is_of_a_copy
from memdb.store.read_documents import parse_record, read_manifest, require_outside, snapshot_numbers
from memdb.store.resumable import ResumableStorage
from memdb.store.store import Store

COPY_GROUPS = (*layout.GROUPS, layout.STATS, layout.TOP_INFLUENCE)  # of every copy, empty or not
BEGUN = {
    layout.DATASET,
    layout.SCORES,
    layout.THUMBNAILS,
    layout.SHEETS,
    layout.SITE,
    layout.TABLES,
    *COPY_GROUPS,
}
MOVING = {layout.README, layout.PAGE, layout.PUBLISHED, layout.MANIFEST, layout.PROBES}


def require_destination(source: Store, target: ResumableStorage) -> Published | None:
    """Refuse a destination that holds something else; return what was published there before.

    What an interrupted publication of the same store left there is resumed.

    Raises:
        AlreadyExistsError: names what is there.
    """
    require_outside(target)
    names = {name for name in target.names("") if not (name.startswith(".") and name.endswith(".tmp"))}
    others = sorted(names - BEGUN - MOVING)
    hint = "choose a new folder, or one that this store was published to before"
    if others:
        raise AlreadyExistsError(f"{target.url} holds other things, such as {others[0]}", hint=hint)
    claim = f"{layout.DATASET}/{layout.GROUP_METADATA}"
    theirs = _read(target, claim)
    if theirs is not None and theirs != source.storage.read(claim):
        raise AlreadyExistsError(f"{target.url} holds a store of other data", hint=hint)
    if theirs is None and names:
        raise AlreadyExistsError(f"{target.url} holds other things, such as {min(names)}", hint=hint)
    if layout.MANIFEST not in names:
        return None
    there = Store(target, read_manifest(target), published=find_published(target))
    if there.manifest.to_document() != source.manifest.to_document():
        raise AlreadyExistsError(
            f"{target.url} holds another store, {there.manifest.store_id}; this one is "
            f"{source.manifest.store_id}",
            hint=hint,
        )
    if there.published is None and not _is_interrupted(there, target):
        raise AlreadyExistsError(
            f"{target.url} is a store that models are committed to, not a published copy", hint=hint
        )
    return there.published


def _is_interrupted(there: Store, target: ResumableStorage) -> bool:
    """Tell a publication that was cut off before its last write from a store that grows."""
    numbers = snapshot_numbers(target.names(layout.SNAPSHOTS))
    loose = [name for name in target.names(layout.SEGMENTS) if layout.is_segment_id(name)]
    records = (
        parse_record(there.manifest, number, target.read(path), path)
        for number, path in ((number, layout.snapshot(number)) for number in numbers)
    )
    return bool(numbers) and not loose and all(map(is_of_a_copy, records))


def _read(storage: Storage, path: str) -> bytes | None:
    try:
        return storage.read(path)
    except NotFoundError:
        return None
