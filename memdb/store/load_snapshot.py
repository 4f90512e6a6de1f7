"""How the models of a moment are found: by listing what was committed, or by a numbered snapshot."""

from __future__ import annotations

from memdb.errors import DamagedError, NotFoundError
from memdb.format import layout
from memdb.format.manifest import Manifest
from memdb.storage.protocol import Storage, concurrently
from memdb.store.read_documents import (
    newest_by_asking,
    read_block,
    read_record,
    read_retractions,
    read_segment,
    require_listing,
    snapshot_numbers,
)
from memdb.store.snapshot import Snapshot


def load_snapshot(storage: Storage, manifest: Manifest, as_of: int | None = None) -> Snapshot:
    """Return a store's own models of now, or those of a numbered snapshot.

    Where the storage cannot be listed, as over plain HTTP, these are the models of the newest snapshot.

    Raises:
        DamagedError: a document is missing, was altered, or belongs to another store.
        NotFoundError: no snapshot has that number.
    """
    if as_of is not None or not storage.can_list:
        newest = newest_number(storage)
        number = newest if as_of is None else as_of
        if number is None:
            raise NotFoundError(
                f"{storage.url} has no snapshot, and its protocol has no listing of the models beyond one",
                hint="ask its owner to run `memdb compact`, or copy the store",
            )
        return _snapshot_of(storage, manifest, number, newest)
    folders = (layout.SNAPSHOTS, layout.SEGMENTS, layout.RETRACTIONS)
    snapshots, segments, retractions = concurrently(storage.names, folders)
    for folder, names in zip(folders, (snapshots, segments, retractions), strict=True):
        require_listing(storage, folder, names)
    numbers = snapshot_numbers(snapshots)
    record = read_record(storage, manifest, numbers[-1]) if numbers else None
    withdrawn = read_retractions(storage, manifest, retractions)
    said_retracted = set(record.retracted) if record else set()  # stays so where a file was lost since
    set_aside = set(record.set_aside) if record else set()
    set_aside.update(identifier for item in withdrawn for identifier in item.segments)
    passed_over = set_aside | set(record.segments if record else ())
    names = [name for name in segments if layout.is_segment_id(name) and name not in passed_over]
    blocks = concurrently(lambda info: read_block(storage, manifest, info), record.blocks if record else ())
    loose = concurrently(lambda name: read_segment(storage, manifest, name), names)
    return Snapshot(
        storage,
        manifest,
        (*blocks, *(segment for segment in loose if segment is not None)),
        record,
        frozenset(said_retracted.union(*(item.models for item in withdrawn))),
        frozenset(set_aside),
        tuple(withdrawn),
        tuple(sorted(set(record.segments).intersection(segments))) if record else (),
        newest=numbers[-1] if numbers else None,
    )


def newest_number(storage: Storage) -> int | None:
    """Return the number of the newest snapshot, without reading it where the storage can be listed."""
    if not storage.can_list:
        return newest_by_asking(storage)
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    return numbers[-1] if numbers else None


def _snapshot_of(storage: Storage, manifest: Manifest, number: int, newest: int | None) -> Snapshot:
    """Return the models of a numbered snapshot.

    They are the first ones of the newest, whose blocks no cleaning removes under a reader; only where that
    is not so, after a repair, its own blocks are read, if they are still there.
    """
    record = read_record(storage, manifest, number)
    retracted, set_aside = frozenset(record.retracted), frozenset(record.set_aside)
    n_slots = sum(block.n_models for block in record.blocks)
    if newest is not None and newest > number:
        infos = read_record(storage, manifest, newest).blocks
        blocks = tuple(concurrently(lambda info: read_block(storage, manifest, info), infos))
        found = Snapshot(
            storage, manifest, blocks, record, retracted, set_aside, n_slots=n_slots, newest=newest
        )
        if found.models_sha256 == record.models_sha256:
            return found
    try:
        blocks = tuple(concurrently(lambda info: read_block(storage, manifest, info), record.blocks))
    except DamagedError as error:
        if newest == number:
            raise
        raise DamagedError(
            f"the models of snapshot {number} of {storage.url} are not all there any more",
            hint="a repair moved them; see `memdb verify`, or ask without as_of",
            parameter="as_of",
        ) from error
    return Snapshot(storage, manifest, blocks, record, retracted, set_aside, newest=newest)
