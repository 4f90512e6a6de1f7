"""Cleaning up: what no reader and no writer can need any more is removed, after a grace period.

That is: what a killed or stalled writer left, segments that a block took in, blocks that a fuller one
replaced. Times are the storage's own; clocks of writers and readers play no part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from memdb import layout
from memdb.commits import SnapshotRecord
from memdb.errors import Damaged, InvalidInput, NotFound, StorageFailed, WrongFormat
from memdb.manifest import Manifest
from memdb.store.ledger import is_listed, read_block, read_record, require_listing, snapshot_numbers
from memdb.store.reading import check_group
from memdb.store.storage import Found, Storage, concurrently
from memdb.store.timing import GRACE, storage_time

LEFTOVER, TAKEN_IN, REPLACED, UNNAMED = "never committed", "in a block", "replaced", "named by no snapshot"
TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class Garbage:
    """Objects that may go together: of one segment or block, or one temporary file. Sizes are bytes."""

    path: str
    reason: str
    objects: tuple[str, ...]
    size: int


def garbage(
    storage: Storage, manifest: Manifest, grace: timedelta = GRACE, *, alone: bool = False
) -> list[Garbage]:
    """Return what may be removed now, oldest first.

    Raises:
        InvalidInput: a grace period that is shorter than a writer may take, unless nobody else is there.
        Damaged: a block lacks an object: what it took in must stay.
    """
    if grace < GRACE and not alone:
        raise InvalidInput(
            f"a grace period of {grace} is shorter than the {GRACE} that writers and readers may take",
            hint="leave --grace out, or make sure that nobody else uses this store and say so with --alone",
        )
    history = _history(storage, manifest)  # first: what it names is there by the time all is listed
    found = storage.find("")
    for group in layout.GROUPS:
        names = [item.path.removeprefix(f"{group}/") for item in found if item.path.startswith(f"{group}/")]
        require_listing(storage, group, names)
    newest = history[-1][0] if history else None
    if newest:
        _require_blocks(storage, manifest, newest, found)
    limit = storage_time(storage) - grace
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for item in found:
        folder, _, rest = item.path.partition("/")
        identifier = rest.partition("/")[0]
        if folder in {layout.SEGMENTS, layout.BLOCKS} and layout.is_segment_id(identifier):
            groups[folder, identifier].append(item)
    doomed = []
    for (folder, identifier), objects in sorted(groups.items()):
        reason = _reason(history, folder, identifier, objects, limit)
        if reason:
            doomed.append(_gathered(f"{folder}/{identifier}", reason, objects))
    gone = {name for item in doomed for name in item.objects}
    for item in found:
        temporary = item.path.rsplit("/", 1)[-1].startswith(".") and item.path.endswith(TEMPORARY)
        probe = item.path.startswith(f"{layout.PROBES}/")
        if (temporary or probe) and item.path not in gone and item.modified <= limit:
            doomed.append(_gathered(item.path, LEFTOVER, [item]))
    return doomed


def remove(storage: Storage, manifest: Manifest, doomed: Sequence[Garbage]) -> Iterator[Garbage]:
    """Remove garbage piece by piece and yield what went.

    Before the only other copy of models goes, the blocks that have them are read and checked.

    Raises:
        Damaged: a block is not intact: what it took in stays.
    """
    _require_intact(storage, manifest, {item.path for item in doomed if item.reason in {TAKEN_IN, REPLACED}})
    for item in doomed:
        document = f"{item.path}/{layout.GROUP_METADATA}"
        if item.reason == LEFTOVER and item.path not in item.objects and _exists(storage, document):
            continue  # its writer was only slow, and has committed it
        if document in item.objects:
            storage.remove([document])  # first: half a segment must not look like one
        storage.remove([name for name in item.objects if name != document])
        yield item


def _require_intact(storage: Storage, manifest: Manifest, going: set[str]) -> None:
    """Check the blocks that took in these segments, or that came after these blocks."""
    if not going:
        return
    history = _history(storage, manifest)
    newest = history[-1][0].blocks
    segments = {path.removeprefix(f"{layout.SEGMENTS}/") for path in going}
    checked: set[str] = set()
    for path in going:
        identifier = path.removeprefix(f"{layout.BLOCKS}/")
        position = _last_naming(history, identifier)
        if position is not None:
            stayed = {info.block_id for info in history[position][0].blocks}
            checked |= {info.block_id for info in newest} - stayed
    for info in newest:
        block = read_block(storage, manifest, info)
        if info.block_id in checked or not segments.isdisjoint(source for source, _ in block.sources):
            check_group(storage, block)


def _history(storage: Storage, manifest: Manifest) -> list[tuple[SnapshotRecord, datetime]]:
    """Return every snapshot's record with the time it was created, in order."""
    times = {item.path: item.modified for item in storage.find(layout.SNAPSHOTS)}
    names = [path.rsplit("/", 1)[-1] for path in times]
    require_listing(storage, layout.SNAPSHOTS, names)
    numbers = snapshot_numbers(names)
    beyond = layout.snapshot(len(numbers) + 1)
    if numbers != list(range(1, len(numbers) + 1)) or _exists(storage, beyond):
        raise StorageFailed(
            f"the snapshots of {storage.url} are listed as {numbers}, which are not all", hint="run it again"
        )

    def read(number: int) -> SnapshotRecord | None:
        try:
            return read_record(storage, manifest, number)
        except (Damaged, WrongFormat):
            if number == numbers[-1]:
                raise
            return None  # what an old one said of the newest's parts can be spared

    records = [record for record in concurrently(read, numbers) if record is not None]
    return [(record, times[layout.snapshot(record.number)]) for record in records]


def _last_naming(history: Sequence[tuple[SnapshotRecord, datetime]], block: str) -> int | None:
    """Return the position of the last snapshot that names a block."""
    naming = [
        position
        for position, (record, _) in enumerate(history)
        if any(info.block_id == block for info in record.blocks)
    ]
    return naming[-1] if naming else None


def _require_blocks(
    storage: Storage, manifest: Manifest, newest: SnapshotRecord, found: Sequence[Found]
) -> None:
    """Refuse to clean a store whose blocks lack something: what they took in may be needed."""
    sizes = {item.path: item.size for item in found}
    for block in concurrently(lambda info: read_block(storage, manifest, info), newest.blocks):
        for name, info in block.objects.items():
            if sizes.get(f"{block.group}/{name}") != info.size:
                raise Damaged(
                    f"{storage.url}/{block.group}/{name} is missing or cut: nothing was removed",
                    hint="run `memdb verify --repair`",
                )


def _reason(
    history: Sequence[tuple[SnapshotRecord, datetime]],
    folder: str,
    identifier: str,
    objects: Sequence[Found],
    limit: datetime,
) -> str | None:
    """Return why a segment or block may go, None where it must stay."""
    if any(identifier in record.set_aside for record, _ in history):
        return None
    if folder == layout.SEGMENTS:
        reason, since = _end_of_segment(history, identifier, objects)
    else:
        reason, since = _end_of_block(history, identifier, objects)
    return reason if since is not None and since <= limit else None


def _end_of_segment(
    history: Sequence[tuple[SnapshotRecord, datetime]], identifier: str, objects: Sequence[Found]
) -> tuple[str, datetime | None]:
    """Return why and since when nobody needs a segment; None where it is needed."""
    if history and identifier in history[-1][0].segments:
        return TAKEN_IN, next(when for record, when in history if identifier in record.segments)
    document = f"{layout.segment(identifier)}/{layout.GROUP_METADATA}"
    committed = any(item.path == document for item in objects)
    return LEFTOVER, None if committed else _newest(objects)


def _end_of_block(
    history: Sequence[tuple[SnapshotRecord, datetime]], identifier: str, objects: Sequence[Found]
) -> tuple[str, datetime | None]:
    """Return why and since when nobody needs a block; None where it is needed."""
    last = _last_naming(history, identifier)
    if last is None:
        return UNNAMED, _newest(objects)
    return REPLACED, None if last == len(history) - 1 else history[last + 1][1]


def _newest(objects: Sequence[Found]) -> datetime:
    return max(item.modified for item in objects)


def _gathered(path: str, reason: str, objects: Sequence[Found]) -> Garbage:
    return Garbage(path, reason, tuple(item.path for item in objects), sum(item.size for item in objects))


def _exists(storage: Storage, path: str) -> bool:
    try:
        storage.read(path)
    except NotFound:
        return is_listed(storage, path)
    return True
