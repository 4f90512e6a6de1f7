"""Verification of a published copy: all that its root document names, and what is derived against the blocks.

Nothing is listed, so that it works over plain HTTP, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from memdb.errors import DamagedError
from memdb.format import layout
from memdb.format.published import Published
from memdb.format.segment import Segment
from memdb.format.snapshot_record import BlockInfo
from memdb.store.listed_groups import document_of, read_document
from memdb.store.maintenance.verify_part import check_dataset, check_models, check_scores, check_segment
from memdb.store.maintenance.verify_report import Damage, Report
from memdb.store.open_published import published_snapshot
from memdb.store.published_arrays import COUNTED, read_stats
from memdb.store.read_documents import read_block
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store


def verify_copy(store: Store, published: Published, progress: Callable[[int, int], None]) -> Report:
    """Read all of a published copy, older snapshots included, and compare it with what was written.

    ``progress`` is called with the number of steps done and the total.

    Raises:
        StorageError: the storage failed.
    """
    report, store = Report(), store.direct()
    snapshots = list(_snapshots(store, published, report))
    infos = {info.block_id: info for snapshot in snapshots for info in _blocks_of(snapshot)}
    total = len(store.manifest.sets) + len(infos) + len(snapshots) + 1
    steps = iter(range(total))
    for item in store.manifest.sets:
        progress(next(steps), total)
        check_dataset(store, item.name, report)
    progress(next(steps), total)
    where = f"{store.url}/{layout.SCORES}"
    check_scores(store, report.tried("scores", "", where, store.score_tables) or [], report)
    _check_listed(store, published, report)
    intact: dict[str, Segment] = {}
    for info in infos.values():
        progress(next(steps), total)
        block = _block(store, info, report)
        intact |= {info.block_id: block} if block else {}
    for snapshot in snapshots:
        progress(next(steps), total)
        is_whole = all(info.block_id in intact for info in _blocks_of(snapshot))
        _check_snapshot(snapshot, report, is_whole=is_whole)
    progress(total, total)
    return report


def _check_listed(store: Store, published: Published, report: Report) -> None:
    for folder, document in published.groups.items():
        kind, _, number = folder.partition("/")
        read = partial(read_document, store, folder, document)
        info = report.tried(kind, number, f"{store.url}/{document_of(folder)}", read)
        _, problems = report.objects(store.storage, folder, info.group.objects if info else {})
        report.damages += [Damage(kind, number, where, said) for where, said in problems.items()]


def _snapshots(store: Store, published: Published, report: Report) -> Iterator[Snapshot]:
    for item in published.snapshots:
        read = partial(published_snapshot, store, published, item.number)
        record = report.tried("snapshot", str(item.number), f"{store.url}/{item.path}", read)
        if record:
            yield record


def _blocks_of(snapshot: Snapshot) -> tuple[BlockInfo, ...]:
    return snapshot.record.blocks if snapshot.record else ()


def _block(store: Store, info: BlockInfo, report: Report) -> Segment | None:
    """Return a block that is intact."""
    where = f"{store.url}/{layout.block(info.block_id)}"
    block = report.tried("block", info.block_id, where, partial(read_block, store, info))
    n_before = len(report.damages)
    if block:
        check_segment(store, block, "block", report)
    return block if len(report.damages) == n_before else None


def _check_snapshot(snapshot: Snapshot, report: Report, *, is_whole: bool) -> None:
    """Check what a snapshot names besides blocks and, if the blocks are intact, its counts against them."""
    record = snapshot.record
    if record is None:
        return
    problems: dict[str, str] = {}
    for folder, objects in record.derived.groups(record.number).items() if record.derived else ():
        _, altered = report.objects(snapshot.storage, folder, objects)
        problems |= altered
    if is_whole:
        model_ids = [identifier for block in snapshot.segments for identifier in block.model_ids]
        check_models(snapshot.url, record, model_ids, report)
        if not problems:
            problems = dict(_untrue_stats(snapshot))
    for place, problem in problems.items():
        kind = place.removeprefix(f"{snapshot.url}/").partition("/")[0]
        report.damages.append(Damage(kind, str(record.number), place, problem))


def _untrue_stats(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield the counts of examples that differ from the blocks' totals, and the labels that differ."""
    if not all(snapshot.counted):
        return
    for name, rows in COUNTED.items():
        if not snapshot.manifest.set_named(name).n_examples:
            continue
        place = f"{snapshot.url}/{layout.STATS}/{snapshot.record.number if snapshot.record else 0}/{name}"
        try:
            stats = read_stats(snapshot, name)
        except DamagedError as error:
            yield place, str(error)
            continue
        counted = {**snapshot.stored_counts(name), "label": snapshot.examples(name).labels}
        wrong = [row for row, values in zip(rows, () if stats is None else stats, strict=False)
                 if (counted[row] != values).any()]  # fmt: skip
        if wrong:
            yield place, f"{' and '.join(wrong)} are not what the blocks add up to"
