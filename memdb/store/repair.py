"""Repair: damaged parts are set aside, never deleted, so that the rest of a store can be used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

from memdb import layout
from memdb.commits import BlockInfo, Segment, SnapshotRecord, sha256_of_models
from memdb.documents import group_metadata, plain_document
from memdb.errors import Damaged, NotFound, WrongFormat
from memdb.manifest import Manifest
from memdb.store.compaction import rewrite
from memdb.store.ledger import find_block, read_block, read_record, read_retractions, snapshot_numbers
from memdb.store.reading import check_group
from memdb.store.retraction import withdraw
from memdb.store.storage import Storage, create_once
from memdb.store.verification import Damage, Report

REASON = "damaged; set aside by memdb verify --repair: {problem}"


@dataclass(frozen=True, slots=True)
class Repair:
    """What was set aside, by path, and the damages that only a copy of the store can mend."""

    set_aside: tuple[str, ...]
    snapshot: int | None  # the number of the snapshot written in place of a damaged one
    left: tuple[Damage, ...]


def repair(storage: Storage, manifest: Manifest, report: Report) -> Repair:
    """Set aside what a verification found damaged.

    Damaged segments get a record that they are not to be read; the documents of groups are written again.
    Where a block or the newest snapshot is damaged, the next snapshot names the blocks that are intact; what
    damaged ones took in is read from its segments again, or, where these have been cleaned up, from a copy of
    the block without damaged arrays that it can do without.

    Raises:
        StorageFailed: the storage refused; what was set aside before stays so.
    """
    segments = {damage.identifier: damage for damage in report.damages if damage.kind == "segment"}
    damaged = {damage.identifier: damage for damage in report.damages if damage.kind in {"segment", "block"}}
    for identifier, damage in damaged.items():
        withdraw(storage, manifest, REASON.format(problem=damage.problem), segments=(identifier,))
    groups = [damage.identifier for damage in report.damages if damage.kind == "group"]
    storage.write_all({f"{name}/{layout.GROUP_METADATA}": group_metadata() for name in groups})
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    newest = str(numbers[-1]) if numbers else ""
    blocks = {damage.identifier for damage in report.damages if damage.kind == "block"}
    broken_snapshot = any(
        (damage.kind, damage.identifier) == ("snapshot", newest) for damage in report.damages
    )
    number = None
    if blocks or broken_snapshot:
        number = numbers[-1] + 1
        record = _rebuilt(storage, manifest, number, blocks, report)
        create_once(storage, layout.snapshot(number), plain_document(record.to_document()))
    mended = {("segment", identifier) for identifier in segments} | {
        ("block", identifier) for identifier in blocks
    }
    mended |= {("group", name) for name in groups}
    mended |= {("snapshot", newest)} if broken_snapshot else set()
    return Repair(
        tuple(layout.segment(name) for name in segments)
        + tuple(layout.block(name) for name in sorted(blocks)),
        number,
        tuple(damage for damage in report.damages if (damage.kind, damage.identifier) not in mended),
    )


def _rebuilt(
    storage: Storage, manifest: Manifest, number: int, damaged: set[str], report: Report
) -> SnapshotRecord:
    """Return the next snapshot's record without the damaged blocks."""
    try:
        before = read_record(storage, manifest, number - 1)
        found, lost = [], set()
        for info in before.blocks:
            if info.block_id not in damaged:
                found.append((info, read_block(storage, manifest, info)))
                continue
            sources = _sources_of(storage, manifest, info.block_id, before)
            copy = (
                None
                if sources <= set(before.segments) & _there(storage)
                else _salvaged(storage, manifest, info, report)
            )
            if copy is None:
                lost |= sources
            else:
                found.append(copy)
        taken_in = tuple(name for name in before.segments if name not in lost)
        n_repeats = before.n_repeats
    except (Damaged, WrongFormat):
        found = _best_blocks(storage, manifest, damaged)
        taken_in = tuple(sorted({source for _, block in found for source, _ in block.sources}))
        n_repeats = 0
    ids = {model.model_id for _, block in found for model in block.models}
    withdrawn = read_retractions(storage, manifest, storage.names(layout.RETRACTIONS))
    retracted = ids.intersection(name for item in withdrawn for name in item.models)
    return SnapshotRecord(
        number=number,
        store_id=manifest.store_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        memdb_version=version("memdb"),
        n_models=len(ids - retracted),
        models_sha256=sha256_of_models(ids - retracted),
        n_repeats=n_repeats,
        blocks=tuple(info for info, _ in found),
        segments=taken_in,
        retracted=tuple(sorted(retracted)),
        set_aside=tuple(sorted({name for item in withdrawn for name in item.segments})),
    )


def _there(storage: Storage) -> set[str]:
    return set(storage.names(layout.SEGMENTS))


def _salvaged(
    storage: Storage, manifest: Manifest, info: BlockInfo, report: Report
) -> tuple[BlockInfo, Segment] | None:
    """Return a copy of a damaged block without the arrays that are damaged; None where bits are."""
    try:
        block = read_block(storage, manifest, info)
    except (Damaged, WrongFormat):
        return None
    place = f"{storage.url}/{block.group}/"
    names = [
        damage.place.removeprefix(place) for damage in report.damages if damage.identifier == info.block_id
    ]
    if any(name not in block.objects for name in names):
        return None  # not an object but what the bits say is wrong
    broken = {
        path
        for path in block.metadata
        for name in names
        if name.startswith(f"{path}/") and name != f"{path}/{layout.GROUP_METADATA}"
    }
    bits = {path for path, (outcome, _) in manifest.arrays().items() if outcome.kind == "bit"}
    if broken & (bits | {layout.MASK}):
        return None
    left = {path: value for path, value in block.metadata.items() if path not in broken}
    return rewrite(storage, manifest, replace(block, metadata=left))


def _sources_of(storage: Storage, manifest: Manifest, name: str, record: SnapshotRecord) -> set[str]:
    """Return the segments that a damaged block took in: all that are in no other block, if it cannot say."""
    try:
        return {source for source, _ in find_block(storage, manifest, name)[1].sources}
    except (Damaged, WrongFormat, NotFound):
        others = {
            source
            for info in record.blocks
            if info.block_id != name
            for source in _sources_or_none(storage, manifest, info)
        }
        return set(record.segments) - others


def _sources_or_none(storage: Storage, manifest: Manifest, info: BlockInfo) -> set[str]:
    try:
        return {source for source, _ in read_block(storage, manifest, info).sources}
    except (Damaged, WrongFormat):
        return set()


def _best_blocks(storage: Storage, manifest: Manifest, damaged: set[str]) -> list[tuple[BlockInfo, Segment]]:
    """Return intact blocks that have all models which any intact block has, the fullest first chosen."""

    def intact(name: str) -> tuple[BlockInfo, Segment] | None:
        try:
            info, block = find_block(storage, manifest, name)
            check_group(storage, block)
        except (Damaged, WrongFormat, NotFound):
            return None
        return info, block

    names = [
        name for name in storage.names(layout.BLOCKS) if layout.is_segment_id(name) and name not in damaged
    ]
    candidates = [found for name in names if (found := intact(name)) is not None]
    chosen: list[tuple[BlockInfo, Segment]] = []
    seen: set[str] = set()
    for info, block in sorted(candidates, key=lambda item: -item[0].n_models):
        ids = {model.model_id for model in block.models}
        if not ids <= seen:
            chosen.append((info, block))
            seen |= ids
    return sorted(chosen, key=lambda item: item[1].sources[0][0])
