"""Repair: set damaged segments and blocks aside, never delete them, so that the rest can be used."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memdb.errors import AlreadyExistsError, DamagedError, NotFoundError, StorageError, WrongFormatError
from memdb.format import layout
from memdb.format.documents import group_metadata, plain_document
from memdb.format.segment import Segment, sha256_of_models
from memdb.format.snapshot_record import BlockInfo, Retraction, SnapshotRecord
from memdb.storage.protocol import concurrently, create_once
from memdb.store.maintenance.compact import ATTEMPTS, rewrite
from memdb.store.maintenance.retract import write_retraction
from memdb.store.maintenance.verify_report import Damage, Report
from memdb.store.read_arrays import check_group
from memdb.store.read_documents import (
    find_block,
    read_block,
    read_record,
    read_retractions,
    read_segment,
    snapshot_numbers,
)
from memdb.store.store import Store

REASON = "damaged; set aside by memdb verify --repair: {problem}"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was set aside, by path, and the damage that only a copy of the store can mend."""

    set_aside: tuple[str, ...]
    snapshot: int | None  # the number of the snapshot written in place of a damaged one
    left: tuple[Damage, ...]


def repair(store: Store, report: Report) -> Repair:
    """Set aside what a verification found damaged.

    A record says that damaged segments and blocks must not be read; they stay where they are. Documents of
    groups are rewritten. If a block, or the newest snapshot, is damaged or lost, a new snapshot names the
    intact blocks. The models of damaged blocks are read from their segments again or, if not all of these are
    usable, from a copy of the block without its damaged arrays, as long as those are optional.

    Raises:
        StorageError: the storage failed, or other compactors won every race; what was set aside stays so.
    """
    store = store.direct()
    groups = [damage.identifier for damage in report.damages if damage.kind == "group"]
    store.storage.write_all({f"{name}/{layout.GROUP_METADATA}": group_metadata() for name in groups})
    set_aside = {
        damage.identifier: damage for damage in report.damages if damage.kind in {"segment", "block"}
    }
    for identifier, damage in set_aside.items():
        write_retraction(store, REASON.format(problem=damage.problem), segments=(identifier,))
    numbers = snapshot_numbers(store.storage.names(layout.SNAPSHOTS))
    last = numbers[-1] if numbers else 0
    snapshots = [
        damage for damage in report.damages if damage.kind == "snapshot" and int(damage.identifier) >= last
    ]
    number = None
    if snapshots or any(damage.kind == "block" for damage in report.damages):
        number = _write_next(store, report)
    mended = {("group", name) for name in groups}
    mended |= {(damage.kind, identifier) for identifier, damage in set_aside.items()}
    mended |= {(damage.kind, damage.identifier) for damage in snapshots}
    return Repair(
        tuple(f"{damage.kind}s/{identifier}" for identifier, damage in set_aside.items()),
        number,
        tuple(damage for damage in report.damages if (damage.kind, damage.identifier) not in mended),
    )


def _write_next(store: Store, report: Report) -> int:
    for _ in range(ATTEMPTS):
        numbers = snapshot_numbers(store.storage.names(layout.SNAPSHOTS))
        record = _rebuilt(store, numbers[-1] if numbers else 0, report)
        with contextlib.suppress(
            AlreadyExistsError
        ):  # a compaction was faster: begin again from its snapshot
            create_once(store.storage, layout.snapshot(record.number), plain_document(record.to_document()))
            return record.number
    raise StorageError(
        f"{store.url}: others compacted it {ATTEMPTS} times in the meantime", hint="run it again later"
    )


def _rebuilt(store: Store, last: int, report: Report) -> SnapshotRecord:
    """Return the record of the next snapshot, which names only intact blocks."""
    try:
        before = read_record(store, last) if last else None
        broken = False
    except (DamagedError, WrongFormatError):
        before, broken = None, True
    usable = _usable_segments(store, report)
    blocks: list[tuple[BlockInfo, Segment]] = []
    for info in _candidates(store, before, report, everything=broken or before is None):
        kept = _mended(store, info, report, usable)
        blocks += [kept] if kept else []
    blocks = blocks if before else _fewest(blocks)
    ids = {identifier for _, block in blocks for identifier in block.model_ids}
    retractions = _readable_retractions(store)
    retracted = {name for item in retractions for name in item.models} | set(
        before.retracted if before else ()
    )
    retracted &= ids
    aside = {name for item in retractions for name in item.segments} | set(before.set_aside if before else ())
    return SnapshotRecord(
        number=last + 1,
        store_id=store.manifest.store_id,
        n_models=len(ids - retracted),
        models_sha256=sha256_of_models(ids - retracted),
        n_repeats=before.n_repeats if before else 0,
        blocks=tuple(info for info, _ in blocks),
        segments=tuple(sorted(name for name, models in usable.items() if models <= ids)),
        retracted=tuple(sorted(retracted)),
        set_aside=tuple(sorted(aside)),
        base=store.base,
    )


def _usable_segments(store: Store, report: Report) -> dict[str, set[str]]:
    """Return the segments that can be read, with the ids of their models."""
    damaged = {damage.identifier for damage in report.damages if damage.kind == "segment"}
    aside = {name for item in _readable_retractions(store) for name in item.segments}
    names = [
        n
        for n in store.storage.names(layout.SEGMENTS)
        if layout.is_segment_id(n) and n not in damaged | aside
    ]

    def models(name: str) -> set[str] | None:
        try:
            segment = read_segment(store, name)
        except (DamagedError, WrongFormatError):
            return None
        return set(segment.model_ids) if segment else None

    read = zip(names, concurrently(models, names), strict=True)
    return {name: ids for name, ids in read if ids is not None}


def _readable_retractions(store: Store) -> list[Retraction]:
    readable = []
    for name in store.storage.names(layout.RETRACTIONS):
        with contextlib.suppress(DamagedError, WrongFormatError):  # only a copy can mend it
            readable += read_retractions(store, [name])
    return readable


def _candidates(
    store: Store, before: SnapshotRecord | None, report: Report, *, everything: bool
) -> list[BlockInfo]:
    """Return the blocks that the next snapshot may name: all of them if the last one was lost."""
    named = list(before.blocks) if before else []
    lost = any(damage.kind == "snapshot" and damage.models for damage in report.damages)
    if not everything and not lost:
        return named
    others = set(store.storage.names(layout.BLOCKS)) - {info.block_id for info in named}
    aside = set(before.set_aside) if before else set()
    readable = []
    for name in sorted(filter(layout.is_segment_id, others - aside)):
        with contextlib.suppress(DamagedError, WrongFormatError, NotFoundError):
            readable.append(find_block(store, name)[0])
    return named + readable


def _mended(
    store: Store, info: BlockInfo, report: Report, usable: Mapping[str, set[str]]
) -> tuple[BlockInfo, Segment] | None:
    """Return a block if it is intact, else a copy of what is left of it; None if its segments replace it."""
    problems = [
        damage for damage in report.damages if (damage.kind, damage.identifier) == ("block", info.block_id)
    ]
    try:
        block = read_block(store, info)
        if not problems:
            check_group(store.storage, block)
            return info, block
    except (DamagedError, WrongFormatError):
        return None
    elsewhere: set[str] = set().union(*(usable.get(source, set()) for source, _ in block.sources))
    if set(block.model_ids) <= elsewhere:
        return None
    place = f"{store.url}/{block.group}/"
    names = [damage.place.removeprefix(place) for damage in problems]
    if any(name not in block.objects for name in names):
        return None  # not an object but what the bits say is wrong
    broken = {
        path
        for path in block.metadata
        for name in names
        if name.startswith(f"{path}/") and name != f"{path}/{layout.GROUP_METADATA}"
    }
    bits = {path for path, (outcome, _) in store.manifest.arrays().items() if outcome.kind == "bit"}
    if broken & (bits | {layout.MASK}):
        return None
    left = {path: value for path, value in block.metadata.items() if path not in broken}
    return rewrite(store, replace(block, metadata=left))


def _fewest(blocks: Sequence[tuple[BlockInfo, Segment]]) -> list[tuple[BlockInfo, Segment]]:
    """Return the fewest blocks that hold all models of these, chosen greedily, in order of commit."""
    chosen: list[tuple[BlockInfo, Segment]] = []
    seen: set[str] = set()
    for info, block in sorted(blocks, key=lambda item: -item[0].n_models):
        ids = set(block.model_ids)
        if not ids <= seen:
            chosen.append((info, block))
            seen |= ids
    return sorted(chosen, key=lambda item: item[1].sources[0][0])
