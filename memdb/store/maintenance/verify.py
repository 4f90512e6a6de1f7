"""Verification: every object against its size and hash, every number against the bits it was counted from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from memdb.errors import NotFoundError
from memdb.format import layout
from memdb.format.manifest import Manifest
from memdb.format.segment import Segment
from memdb.format.snapshot_record import SnapshotRecord
from memdb.storage.protocol import Storage
from memdb.store.maintenance.history import lost_blocks
from memdb.store.maintenance.verify_part import check_dataset, check_models, check_scores, check_segment
from memdb.store.maintenance.verify_report import Damage, Report
from memdb.store.read_documents import (
    find_block,
    read_base_update,
    read_block,
    read_record,
    read_retraction,
    read_segment,
    require_group,
    snapshot_numbers,
)
from memdb.store.score_tables import list_score_tables


def verify(
    storage: Storage, manifest: Manifest, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Report:
    """Read all of a store and compare it with what was written; ``progress`` hears how many parts are done.

    A published copy is for `verify_copy`.

    Raises:
        StorageError: the storage did not answer.
    """
    report, place = Report(), storage.direct()
    for group in manifest.groups:
        where = f"{place.url}/{group}/{layout.GROUP_METADATA}"
        report.tried("group", group, where, partial(require_group, place, group))
    records, broken = _snapshots(place, manifest, report)
    aside = _retractions(place, manifest, report)
    _base_updates(place, manifest, report)
    segments = [n for n in place.names(layout.SEGMENTS) if layout.is_segment_id(n) and n not in aside]
    finished = [n for n in place.names(layout.BLOCKS) if layout.is_segment_id(n) and n not in aside]
    newest = records[-1] if records and not broken else None
    blocks: list[tuple[str, Callable[[], Segment | None]]] = [
        (info.block_id, partial(read_block, place, manifest, info))
        for info in (newest.blocks if newest else ())
    ]
    if broken:  # any of them may be needed
        blocks = [(name, partial(_finished_block, place, manifest, name)) for name in finished]
    total = len(manifest.sets) + len(blocks) + len(segments) + 1
    steps = iter(range(total))
    for info in manifest.sets:
        progress(next(steps), total)
        check_dataset(place, manifest, info.name, report)
    progress(next(steps), total)
    where = f"{place.url}/{layout.SCORES}"
    read_tables = partial(list_score_tables, place, manifest)
    check_scores(place, report.tried("scores", "", where, read_tables) or [], report)
    every: list[str] = []
    sources: set[str] = set()
    for name, read in blocks:
        progress(next(steps), total)
        block = report.tried("block", name, f"{place.url}/{layout.block(name)}", read)
        if block:
            check_segment(place, manifest, block, "block", report)
            every += [model.model_id for model in block.models]
            sources |= {source for source, _ in block.sources}
    if newest and not any(damage.kind == "block" for damage in report.damages):
        check_models(place.url, newest, every, report)
    for name in segments:
        progress(next(steps), total)
        where = f"{place.url}/{layout.segment(name)}"
        segment = report.tried("segment", name, where, partial(read_segment, place, manifest, name))
        if segment:
            sources.add(name)
            check_segment(place, manifest, segment, "segment", report)
    if not broken:
        named = {info.block_id for record in records for info in record.blocks}
        lost = lost_blocks(place, manifest, set(finished) - named, (sources, set(every)), aside)
        _lost(place.url, newest.number + 1 if newest else 1, lost, report)
    progress(total, total)
    return report


def _finished_block(storage: Storage, manifest: Manifest, name: str) -> Segment | None:
    """Read a block that no snapshot need name; None where it was never finished."""
    try:
        return find_block(storage, manifest, name)[1]
    except NotFoundError:
        return None


def _retractions(storage: Storage, manifest: Manifest, report: Report) -> set[str]:
    """Check the records of withdrawals; return what was set aside."""
    aside: set[str] = set()
    names = [name.removesuffix(".json") for name in storage.names(layout.RETRACTIONS)]
    for identifier in filter(layout.is_segment_id, names):
        where = f"{storage.url}/{layout.retraction(identifier)}"
        read = partial(read_retraction, storage, manifest, identifier)
        found = report.tried("retraction", identifier, where, read)
        aside |= set(found.segments) if found else set()
    return aside


def _base_updates(storage: Storage, manifest: Manifest, report: Report) -> None:
    """Check what says which snapshot of its base the store takes in; the base itself is another store."""
    numbers = snapshot_numbers(storage.names(layout.BASES)) if manifest.base else []
    for number in range(1, max(numbers, default=0) + 1):
        where = f"{storage.url}/{layout.base(number)}"
        report.tried("base", str(number), where, partial(read_base_update, storage, manifest, number))


def _lost(url: str, number: int, blocks: Iterable[Segment], report: Report) -> None:
    """Report a snapshot that is gone, told by blocks that have models which nothing else has."""
    place = f"{url}/{layout.snapshot(number)}"
    for block in blocks:
        ids = tuple(model.model_id for model in block.models)
        problem = f"is lost: {block.group} has models that nothing else has"
        report.damages.append(Damage("snapshot", str(number), place, problem, ids))


def _snapshots(storage: Storage, manifest: Manifest, report: Report) -> tuple[list[SnapshotRecord], bool]:
    """Return the records that are intact, in order, and whether the newest is not."""
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    last = numbers[-1] if numbers else 0
    records = []
    for number in range(1, last + 1):
        place = f"{storage.url}/{layout.snapshot(number)}"
        read = partial(read_record, storage, manifest, number)
        record = report.tried("snapshot", str(number), place, read)
        records += [record] if record else []
    return records, bool(numbers) and (not records or records[-1].number != last)
