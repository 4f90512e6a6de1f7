"""Verify every object against its size and hash, and every number against the bits that it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

from memdb.errors import NotFoundError
from memdb.format import layout
from memdb.format.segment import Segment
from memdb.format.snapshot_record import SnapshotRecord
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
from memdb.store.store import Store

FOLDERS = {"block": layout.block, "segment": layout.segment}
Reads = Sequence[tuple[str, Callable[[], Segment | None]]]  # by id; None is nothing to check


def verify(store: Store, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Report:
    """Read all of a store that is not a published copy, and compare it with what was written.

    ``progress`` is called with the number of steps done and the total.

    Raises:
        StorageError: the storage failed.
    """
    report, store = Report(), store.direct()
    _groups(store, report)
    records, broken = _snapshots(store, report)
    aside = _retractions(store, report)
    _base_updates(store, report)
    segments = _ids_in(store, layout.SEGMENTS, aside)
    finished = _ids_in(store, layout.BLOCKS, aside)
    newest = records[-1] if records and not broken else None
    blocks = _reads_of_blocks(store, newest, finished if broken else ())  # broken: any may be needed
    total = len(store.manifest.sets) + len(blocks) + len(segments) + 1
    steps = iter(range(total))

    def begin_step() -> None:
        progress(next(steps), total)

    _data_and_scores(store, report, begin_step)
    models: list[str] = []
    sources: set[str] = set()
    for block in _readable(store, "block", blocks, report, begin_step):
        models += block.model_ids
        sources |= {source for source, _ in block.sources}
    if newest and not any(damage.kind == "block" for damage in report.damages):
        check_models(store.url, newest, models, report)
    reads: Reads = [(name, partial(read_segment, store, name)) for name in segments]
    sources |= {item.segment_id for item in _readable(store, "segment", reads, report, begin_step)}
    if not broken:
        named = {info.block_id for record in records for info in record.blocks}
        lost = lost_blocks(store, set(finished) - named, (sources, set(models)), aside)
        _lost(store.url, newest.number + 1 if newest else 1, lost, report)
    progress(total, total)
    return report


def _groups(store: Store, report: Report) -> None:
    """Check that what every store has is there."""
    for group in store.manifest.groups:
        where = f"{store.url}/{group}/{layout.GROUP_METADATA}"
        report.tried("group", group, where, partial(require_group, store.storage, group))


def _ids_in(store: Store, folder: str, aside: AbstractSet[str]) -> list[str]:
    """Return the ids of the segments or blocks in a folder, but for those that were set aside."""
    return [name for name in store.storage.names(folder) if layout.is_segment_id(name) and name not in aside]


def _reads_of_blocks(store: Store, newest: SnapshotRecord | None, others: Iterable[str]) -> Reads:
    """Return what reads the blocks that the newest snapshot names, and others by their ids."""
    named = [(info.block_id, partial(read_block, store, info)) for info in (newest.blocks if newest else ())]
    return [*named, *((name, partial(_finished_block, store, name)) for name in others)]


def _data_and_scores(store: Store, report: Report, begin_step: Callable[[], None]) -> None:
    """Check the names and labels of examples, and the scores that were imported."""
    for info in store.manifest.sets:
        begin_step()
        check_dataset(store, info.name, report)
    begin_step()
    where = f"{store.url}/{layout.SCORES}"
    check_scores(store, report.tried("scores", "", where, store.score_tables) or [], report)


def _readable(
    store: Store, kind: str, reads: Reads, report: Report, begin_step: Callable[[], None]
) -> Iterator[Segment]:
    """Check segments, or blocks, and report their damages; yield those whose document can be read."""
    for name, read in reads:
        begin_step()
        segment = report.tried(kind, name, f"{store.url}/{FOLDERS[kind](name)}", read)
        if segment:
            check_segment(store, segment, kind, report)
            yield segment


def _finished_block(store: Store, name: str) -> Segment | None:
    """Read a block whether or not a snapshot names it; None if it was never finished."""
    try:
        return find_block(store, name)[1]
    except NotFoundError:
        return None


def _retractions(store: Store, report: Report) -> set[str]:
    """Check the retractions; return the segments and blocks that were set aside."""
    aside: set[str] = set()
    names = [name.removesuffix(".json") for name in store.storage.names(layout.RETRACTIONS)]
    for identifier in filter(layout.is_segment_id, names):
        where = f"{store.url}/{layout.retraction(identifier)}"
        read = partial(read_retraction, store, identifier)
        retraction = report.tried("retraction", identifier, where, read)
        aside |= set(retraction.segments) if retraction else set()
    return aside


def _base_updates(store: Store, report: Report) -> None:
    """Check the records of which base snapshot is used; the base itself is another store."""
    numbers = snapshot_numbers(store.storage.names(layout.BASES)) if store.manifest.base else []
    for number in range(1, max(numbers, default=0) + 1):
        where = f"{store.url}/{layout.base(number)}"
        report.tried("base", str(number), where, partial(read_base_update, store, number))


def _lost(url: str, number: int, blocks: Iterable[Segment], report: Report) -> None:
    """Report a lost snapshot, as evidenced by blocks with models that nothing else holds."""
    place = f"{url}/{layout.snapshot(number)}"
    for block in blocks:
        ids = block.model_ids
        problem = f"is lost: {block.group} has models that nothing else has"
        report.damages.append(Damage("snapshot", str(number), place, problem, ids))


def _snapshots(store: Store, report: Report) -> tuple[list[SnapshotRecord], bool]:
    """Return the records that are intact, in order, and whether the newest is not."""
    numbers = snapshot_numbers(store.storage.names(layout.SNAPSHOTS))
    last = numbers[-1] if numbers else 0
    records = []
    for number in range(1, last + 1):
        place = f"{store.url}/{layout.snapshot(number)}"
        read = partial(read_record, store, number)
        record = report.tried("snapshot", str(number), place, read)
        records += [record] if record else []
    return records, bool(numbers) and (not records or records[-1].number != last)
