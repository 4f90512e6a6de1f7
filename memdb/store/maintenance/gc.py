"""Garbage collection: remove what no reader or writer can need any more, after a grace period.

That is: what killed or stalled writers left behind, cut-off imports of scores included, compacted segments,
and replaced blocks. Times are by the storage's own clock, never by that of a writer or reader, and every
decision is made on what the storage holds now, never on what is cached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from memdb.errors import DamagedError, InvalidInputError, NotFoundError
from memdb.format import layout
from memdb.storage.protocol import Found, Storage, concurrently
from memdb.store.grace import GRACE, storage_time
from memdb.store.maintenance.history import History, read_history
from memdb.store.read_arrays import check_group
from memdb.store.read_documents import is_listed, read_block, require_listing
from memdb.store.store import Store

LEFTOVER, COMPACTED, REPLACED, UNNAMED = "never committed", "in a block", "replaced", "named by no snapshot"
UNTABLED = "scores of an import that was cut off"
TEMPORARY = ".tmp"
AT_ONCE = 64  # items removed between two checks that they are still garbage


@dataclass(frozen=True, slots=True)
class Garbage:
    """Objects that can be removed together: of one segment or block, or a temporary file. Sizes are bytes."""

    path: str
    reason: str
    objects: tuple[str, ...]
    size: int


def garbage(store: Store, grace: timedelta = GRACE, *, alone: bool = False) -> list[Garbage]:
    """Return what can be removed now.

    Raises:
        InvalidInputError: a grace period shorter than a writer may take, without ``alone``.
        DamagedError: a block lacks an object or a snapshot was lost: apparent garbage may be needed.
        StorageError: the storage failed, or its listing is incomplete.
    """
    if grace < GRACE and not alone:
        raise InvalidInputError(
            f"a grace period of {grace} is shorter than the {GRACE} that writers and readers may take",
            hint="omit grace, or make sure that nothing else uses this store and pass alone=True",
            parameter=("grace", "alone"),
        )
    store = store.direct()
    history = read_history(store)  # first: what it names is there by the time all is listed
    listing = store.storage.find("")
    for group in store.manifest.groups:
        names = [item.path.removeprefix(f"{group}/") for item in listing if item.path.startswith(f"{group}/")]
        require_listing(store.storage, group, names)
    _require_whole(store, history, listing)
    groups = (item.path.partition("/")[0] for item in listing)
    tables = _named_tables(store) if layout.SCORES in groups else frozenset()
    candidates = [(item, since) for item, since in _candidates(history, tables, listing) if since is not None]
    if not candidates:
        return []
    limit = storage_time(store.storage) - grace
    return [item for item, since in candidates if since <= limit]


def remove(store: Store, doomed: Sequence[Garbage]) -> Iterator[Garbage]:
    """Remove garbage and yield what was removed; whatever is needed again since it was found stays.

    Before segments or replaced blocks are removed, the blocks that hold their models are read and checked.

    Raises:
        DamagedError: a block is not intact; the segments compacted into it stay.
        StorageError: the storage failed; what was yielded is gone, the rest can be removed later.
    """
    store = store.direct()
    checked: set[str] = set()
    for start in range(0, len(doomed), AT_ONCE):
        history = read_history(store)
        asked = doomed[start : start + AT_ONCE]
        has_scores = any(item.reason == UNTABLED for item in asked)
        tables = _named_tables(store) if has_scores else frozenset()
        going = [item for item in asked if _still(store.storage, history, tables, item)]
        _require_intact(store, history, {item.path for item in going}, checked)
        documents = [name for item in going for name in item.objects if name == _document(item.path)]
        store.storage.remove(documents)  # first: half a segment must not look like a whole one
        store.storage.remove([name for item in going for name in item.objects if name not in documents])
        yield from going


def _document(group: str) -> str:
    return f"{group}/{layout.GROUP_METADATA}"


def _named_tables(store: Store) -> AbstractSet[str]:
    """Return the ids of the score tables that the store has."""
    return {table.table_id for table in store.score_tables()}


def _candidates(
    history: History, tables: AbstractSet[str], found: Sequence[Found]
) -> Iterator[tuple[Garbage, datetime | None]]:
    """Yield everything that may become garbage, with the time since when it is; None while it is needed."""
    groups: dict[tuple[str, str], list[Found]] = defaultdict(list)
    for item in found:
        folder, _, rest = item.path.partition("/")
        identifier = rest.partition("/")[0]
        if folder in {layout.SEGMENTS, layout.BLOCKS, layout.SCORES} and layout.is_segment_id(identifier):
            groups[folder, identifier].append(item)
        elif _is_passing(item.path):
            yield _gathered(item.path, LEFTOVER, [item]), item.modified
    for (folder, identifier), objects in sorted(groups.items()):
        path = f"{folder}/{identifier}"
        reason, since = _end_of(history, tables, folder, identifier, objects)
        yield _gathered(path, reason, objects), since
        for item in objects if since is None else ():
            if _is_passing(item.path):
                yield _gathered(item.path, LEFTOVER, [item]), item.modified


def _is_passing(path: str) -> bool:
    """Tell whether a file is a temporary one or a probe."""
    temporary = path.rsplit("/", 1)[-1].startswith(".") and path.endswith(TEMPORARY)
    return temporary or path.startswith(f"{layout.PROBES}/")


def _end_of(
    history: History, tables: AbstractSet[str], folder: str, identifier: str, objects: Sequence[Found]
) -> tuple[str, datetime | None]:
    """Return why a segment, block or score table is garbage and since when; None while it is needed."""
    newest = max(item.modified for item in objects)
    if folder == layout.SCORES:
        return UNTABLED, None if identifier in tables else newest
    if identifier in history.set_aside:
        return "", None
    if folder == layout.BLOCKS:
        if identifier in history.replaced:
            return REPLACED, history.replaced[identifier]
        return UNNAMED, None if identifier in history.named else newest
    if identifier in history.compacted:
        return COMPACTED, history.compacted[identifier]
    committed = any(item.path == _document(f"{folder}/{identifier}") for item in objects)
    return LEFTOVER, None if committed else newest


def _still(storage: Storage, history: History, tables: AbstractSet[str], item: Garbage) -> bool:
    """Tell whether an item is still garbage: a slow writer, a compaction or a repair may have claimed it."""
    identifier = item.path.rsplit("/", 1)[-1]
    match item.reason:
        case r if r == COMPACTED:
            return identifier in history.compacted and identifier not in history.set_aside
        case r if r in {REPLACED, UNNAMED}:
            return identifier not in history.named and identifier not in history.set_aside
        case r if r == UNTABLED:
            return identifier not in tables
        case _:
            return item.path in item.objects or not _exists(storage, _document(item.path))


def _require_whole(store: Store, history: History, found: Sequence[Found]) -> None:
    """Refuse to clean a store in which something is missing: apparent garbage may be the only copy."""
    sizes = {item.path: item.size for item in found}
    blocks = concurrently(lambda info: read_block(store, info), history.blocks)
    for block in blocks:
        for name, info in block.objects.items():
            if sizes.get(f"{block.group}/{name}") != info.size:
                raise DamagedError(
                    f"{store.url}/{block.group}/{name} is missing or cut: nothing was removed",
                    hint="run `memdb verify --repair`",
                )
    lost = next(history.lost(store, blocks, set(sizes)), None)
    if lost is not None:
        raise DamagedError(
            f"{store.url}/{lost.group} has models that no snapshot names and no segment has: a snapshot "
            "was lost, and nothing was removed",
            hint="run `memdb verify --repair`",
        )


def _require_intact(store: Store, history: History, going: set[str], checked: set[str]) -> None:
    """Check the blocks that replaced these segments or blocks, each once."""
    segments = {path.removeprefix(f"{layout.SEGMENTS}/") for path in going}
    wanted: set[str] = set()
    for path in going:
        wanted |= history.came_after(path.removeprefix(f"{layout.BLOCKS}/"))
    for info in history.blocks:
        if info.block_id in checked:
            continue
        block = read_block(store, info)
        if info.block_id in wanted or not segments.isdisjoint(source for source, _ in block.sources):
            check_group(store.storage, block)
            checked.add(info.block_id)


def _gathered(path: str, reason: str, objects: Sequence[Found]) -> Garbage:
    return Garbage(path, reason, tuple(item.path for item in objects), sum(item.size for item in objects))


def _exists(storage: Storage, path: str) -> bool:
    try:
        storage.read(path)
    except NotFoundError:
        return is_listed(storage, path)
    return True
