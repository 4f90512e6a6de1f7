"""All snapshots of a store together: what was named when, and what the newest one needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from memdb.errors import DamagedError, NotFoundError, StorageError, WrongFormatError
from memdb.format import layout
from memdb.format.segment import Segment
from memdb.format.snapshot_record import BlockInfo, SnapshotRecord
from memdb.storage.protocol import Storage, concurrently
from memdb.store.read_documents import (
    find_block,
    is_listed,
    read_record,
    read_retractions,
    require_listing,
    snapshot_numbers,
)
from memdb.store.store import Store

ATTEMPTS = 5  # listings that a compaction made outdated


@dataclass(frozen=True)
class History:
    """What the snapshots of a store name; times are those of their files."""

    newest: SnapshotRecord | None
    compacted: dict[str, datetime]  # segments that the newest snapshot replaces with blocks, since when
    named: AbstractSet[str]  # blocks of the newest snapshot
    replaced: dict[str, datetime]  # blocks that the newest snapshot no longer names, since when
    companions: dict[str, AbstractSet[str]]  # of a replaced block: those of the last snapshot that named it
    set_aside: AbstractSet[str]

    @property
    def blocks(self) -> tuple[BlockInfo, ...]:
        """The blocks of the newest snapshot."""
        return self.newest.blocks if self.newest else ()

    def came_after(self, block: str) -> set[str]:
        """Return the current blocks that no snapshot named together with a replaced block."""
        if block not in self.companions:
            return set()
        return {info.block_id for info in self.blocks} - self.companions[block]

    def lost(self, store: Store, blocks: Sequence[Segment], paths: AbstractSet[str]) -> Iterator[Segment]:
        """Yield finished blocks that no snapshot names though they hold models that nothing else holds.

        ``blocks`` are the current ones, ``paths`` all objects of the store. Such a block was named by a
        snapshot whose file is gone: the sources of a killed compactor's block stay where they are until
        current blocks hold their models.
        """
        there = {source for block in blocks for source, _ in block.sources}
        finished: dict[str, set[str]] = {layout.SEGMENTS: set(), layout.BLOCKS: set()}
        for path in paths:
            match path.split("/"):
                case [folder, identifier, layout.GROUP_METADATA] if folder in finished:
                    finished[folder].add(identifier)
        candidates = finished[layout.BLOCKS] - self.named - self.replaced.keys() - self.set_aside
        models = {identifier for block in blocks for identifier in block.model_ids}
        sources = there | finished[layout.SEGMENTS] - self.set_aside
        return lost_blocks(store, candidates, (sources, models), self.set_aside)


def lost_blocks(
    store: Store,
    candidates: Iterable[str],
    there: tuple[AbstractSet[str], AbstractSet[str]],
    set_aside: AbstractSet[str],
) -> Iterator[Segment]:
    """Yield the finished candidates with a model that is nowhere else; ``there``: known segments and models.

    A block may be newer than the listing of segments, so its own are looked up once more.
    """
    segments, models = there
    for identifier in sorted(candidates):
        try:
            _, block = find_block(store, identifier)
        except (DamagedError, WrongFormatError, NotFoundError):
            continue
        pairs = zip(block.origins, block.model_ids, strict=True)
        missing = {origin for origin, identifier in pairs if identifier not in models} - segments
        if any(name in set_aside or not _is_committed(store.storage, name) for name in missing):
            yield block


def _is_committed(storage: Storage, segment: str) -> bool:
    return is_listed(storage, f"{layout.segment(segment)}/{layout.GROUP_METADATA}")


def read_history(store: Store) -> History:
    """Read every snapshot's record; damaged or lost older ones are skipped.

    Raises:
        DamagedError: the newest was altered.
        StorageError: the listing is incomplete, or changes whenever it is read.
    """
    for _ in range(ATTEMPTS):
        times = {item.path: item.modified for item in store.storage.find(layout.SNAPSHOTS)}
        names = [path.rsplit("/", 1)[-1] for path in times]
        require_listing(store.storage, layout.SNAPSHOTS, names)
        numbers = snapshot_numbers(names)
        if not is_listed(store.storage, layout.snapshot(numbers[-1] + 1 if numbers else 1)):
            break
    else:
        raise StorageError(
            f"{store.url} is compacted faster than its snapshots are read", hint="run it again later"
        )

    def read(number: int) -> SnapshotRecord | None:
        try:
            return read_record(store, number)
        except (DamagedError, WrongFormatError):
            if number == numbers[-1]:
                raise
            return None

    records = [record for record in concurrently(read, numbers) if record is not None]
    dated = [(record, times[layout.snapshot(record.number)]) for record in records]
    retractions = read_retractions(store, store.storage.names(layout.RETRACTIONS))
    set_aside = {name for item in retractions for name in item.segments}
    return _history_of(dated, set_aside.union(*(record.set_aside for record in records)))


def _history_of(dated: Sequence[tuple[SnapshotRecord, datetime]], set_aside: AbstractSet[str]) -> History:
    """Go through the snapshots in order and note since when segments are compacted and blocks replaced."""
    compacted: dict[str, datetime] = {}
    named: AbstractSet[str] = frozenset()
    replaced: dict[str, datetime] = {}
    companions: dict[str, AbstractSet[str]] = {}
    for record, when in dated:
        compacted = {name: compacted.get(name, when) for name in record.segments}
        blocks = {info.block_id for info in record.blocks}
        for name in named - blocks:
            replaced[name] = when
        for name in blocks:
            replaced.pop(name, None)
            companions[name] = blocks
        named = blocks
    newest = dated[-1][0] if dated else None
    gone = {name: companions[name] for name in replaced}
    return History(newest, compacted, named, replaced, gone, set_aside)
