"""Load a snapshot: by listing what was committed, or by number."""

from __future__ import annotations

from memdb.errors import DamagedError, NotFoundError
from memdb.format import layout
from memdb.storage.protocol import Storage, concurrently
from memdb.store.read_documents import (
    StoreLike,
    newest_by_asking,
    read_block,
    read_record,
    read_retractions,
    read_segment,
    require_listing,
    snapshot_numbers,
)
from memdb.store.snapshot import Snapshot


def load_snapshot(store: StoreLike, as_of: int | None = None) -> Snapshot:
    """Return a store's own models, those of now or of a numbered snapshot.

    If the storage cannot be listed, as over plain HTTP, now means the newest snapshot.

    Raises:
        DamagedError: a document is missing, was altered, or belongs to another store.
        NotFoundError: no snapshot has that number.
    """
    if as_of is not None or not store.storage.can_list:
        return _numbered(store, as_of)
    folders = (layout.SNAPSHOTS, layout.SEGMENTS, layout.RETRACTIONS)
    snapshots, segments, retraction_names = concurrently(store.storage.names, folders)
    for folder, names in zip(folders, (snapshots, segments, retraction_names), strict=True):
        require_listing(store.storage, folder, names)
    numbers = snapshot_numbers(snapshots)
    record = read_record(store, numbers[-1]) if numbers else None
    retractions = read_retractions(store, retraction_names)
    retracted = set(record.retracted) if record else set()  # stays so if its file was lost since
    set_aside = set(record.set_aside) if record else set()
    set_aside.update(identifier for item in retractions for identifier in item.segments)
    passed_over = set_aside | set(record.segments if record else ())
    names = [name for name in segments if layout.is_segment_id(name) and name not in passed_over]
    blocks = concurrently(lambda info: read_block(store, info), record.blocks if record else ())
    loose = concurrently(lambda name: read_segment(store, name), names)
    return Snapshot(
        store.storage,
        store.manifest,
        (*blocks, *(segment for segment in loose if segment is not None)),
        record,
        frozenset(retracted.union(*(item.models for item in retractions))),
        frozenset(set_aside),
        tuple(retractions),
        tuple(sorted(set(record.segments).intersection(segments))) if record else (),
        newest=numbers[-1] if numbers else None,
    )


def newest_number(storage: Storage) -> int | None:
    """Return the number of the newest snapshot, from a listing if the storage has listings."""
    if not storage.can_list:
        return newest_by_asking(storage)
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    return numbers[-1] if numbers else None


def _numbered(store: StoreLike, as_of: int | None) -> Snapshot:
    """Return a numbered snapshot; the newest by default."""
    newest = newest_number(store.storage)
    number = newest if as_of is None else as_of
    if number is None:
        raise NotFoundError(
            f"{store.url} has no snapshot, and its protocol cannot list the models beyond one",
            hint="ask its owner to run `memdb compact`, or copy the store",
        )
    return _snapshot_of(store, number, newest)


def _snapshot_of(store: StoreLike, number: int, newest: int | None) -> Snapshot:
    """Return the models of a numbered snapshot.

    They are the first models of the newest snapshot, whose blocks garbage collection never removes. Only if
    they are not, after a repair, are the snapshot's own blocks read, if they still exist.
    """
    record = read_record(store, number)
    retracted, set_aside = frozenset(record.retracted), frozenset(record.set_aside)
    n_slots = sum(block.n_models for block in record.blocks)
    if newest is not None and newest > number:
        infos = read_record(store, newest).blocks
        blocks = tuple(concurrently(lambda info: read_block(store, info), infos))
        snapshot = Snapshot(
            store.storage,
            store.manifest,
            blocks,
            record,
            retracted,
            set_aside,
            n_slots=n_slots,
            newest=newest,
        )
        if snapshot.models_sha256 == record.models_sha256:
            return snapshot
    try:
        blocks = tuple(concurrently(lambda info: read_block(store, info), record.blocks))
    except DamagedError as error:
        if newest == number:
            raise
        raise DamagedError(
            f"the models of snapshot {number} of {store.url} are not all there any more",
            hint="a repair moved them; see `memdb verify`, or ask without as_of",
            parameter="as_of",
        ) from error
    return Snapshot(store.storage, store.manifest, blocks, record, retracted, set_aside, newest=newest)
