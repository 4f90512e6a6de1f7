"""Cleaning up: what no reader and no writer can need any more is removed, after a grace period.

That is: what a killed or stalled writer left, imported scores among it, segments that a block took in, blocks
that a fuller one replaced. Times are the storage's own; clocks of writers and readers play no part. What
stays is decided by what is there, never by what a cache remembers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from memdb.errors import DamagedError, InvalidInputError, NotFoundError
from memdb.format import layout
from memdb.format.manifest import Manifest
from memdb.storage.protocol import Found, Storage, concurrently
from memdb.store.grace import GRACE, storage_time
from memdb.store.maintenance.history import History, read_history
from memdb.store.read_arrays import check_group
from memdb.store.read_documents import is_listed, read_block, require_listing
from memdb.store.score_tables import list_score_tables

LEFTOVER, TAKEN_IN, REPLACED, UNNAMED = "never committed", "in a block", "replaced", "named by no snapshot"
UNTABLED = "scores of an import that was cut off"
TEMPORARY = ".tmp"
AT_ONCE = 64  # places that go between two looks at whether they still may


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
        InvalidInputError: a grace period that is shorter than a writer may take, unless nobody else is there.
        DamagedError: a block lacks an object, or a snapshot was lost: what seems superfluous may be needed.
        StorageError: the storage refused, or its listings are not its own.
    """
    if grace < GRACE and not alone:
        raise InvalidInputError(
            f"a grace period of {grace} is shorter than the {GRACE} that writers and readers may take",
            hint="leave grace out, or make sure that nobody else uses this store and say so with alone=True",
            parameter=("grace", "alone"),
        )
    place = storage.direct()
    history = read_history(place, manifest)  # first: what it names is there by the time all is listed
    found = place.find("")
    for group in manifest.groups:
        names = [item.path.removeprefix(f"{group}/") for item in found if item.path.startswith(f"{group}/")]
        require_listing(place, group, names)
    _require_whole(place, manifest, history, found)
    groups = (item.path.partition("/")[0] for item in found)
    tables = _named_tables(place, manifest) if layout.SCORES in groups else frozenset()
    candidates = [(item, since) for item, since in _candidates(history, tables, found) if since is not None]
    if not candidates:
        return []
    limit = storage_time(place) - grace
    return [item for item, since in candidates if since <= limit]


def remove(storage: Storage, manifest: Manifest, doomed: Sequence[Garbage]) -> Iterator[Garbage]:
    """Remove garbage and yield what went; what came to be needed since it was found stays.

    Before the only other copy of models goes, the blocks that have them are read and checked.

    Raises:
        DamagedError: a block is not intact: what it took in stays.
        StorageError: the storage refused; what was yielded is gone, the rest can go another time.
    """
    place = storage.direct()
    checked: set[str] = set()
    for start in range(0, len(doomed), AT_ONCE):
        history = read_history(place, manifest)
        asked = doomed[start : start + AT_ONCE]
        has_scores = any(item.reason == UNTABLED for item in asked)
        tables = _named_tables(place, manifest) if has_scores else frozenset()
        going = [item for item in asked if _still(place, history, tables, item)]
        _require_intact(place, manifest, history, {item.path for item in going}, checked)
        documents = [name for item in going for name in item.objects if name == _document(item.path)]
        place.remove(documents)  # first: half a segment must not look like one
        place.remove([name for item in going for name in item.objects if name not in documents])
        yield from going


def _document(group: str) -> str:
    return f"{group}/{layout.GROUP_METADATA}"


def _named_tables(storage: Storage, manifest: Manifest) -> AbstractSet[str]:
    """Return the ids of the score tables that the store has."""
    return {table.table_id for table in list_score_tables(storage, manifest)}


def _candidates(
    history: History, tables: AbstractSet[str], found: Sequence[Found]
) -> Iterator[tuple[Garbage, datetime | None]]:
    """Yield everything that is not needed for ever, with the time since when; None where it is needed."""
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
    """Return why and since when nobody needs a segment, block or score table; None where it is needed."""
    newest = max(item.modified for item in objects)
    if folder == layout.SCORES:
        return UNTABLED, None if identifier in tables else newest
    if identifier in history.set_aside:
        return "", None
    if folder == layout.BLOCKS:
        if identifier in history.replaced:
            return REPLACED, history.replaced[identifier]
        return UNNAMED, None if identifier in history.named else newest
    if identifier in history.taken_in:
        return TAKEN_IN, history.taken_in[identifier]
    committed = any(item.path == _document(f"{folder}/{identifier}") for item in objects)
    return LEFTOVER, None if committed else newest


def _still(storage: Storage, history: History, tables: AbstractSet[str], item: Garbage) -> bool:
    """Tell whether garbage is garbage still: a slow writer, a compaction or a repair may have claimed it."""
    identifier = item.path.rsplit("/", 1)[-1]
    match item.reason:
        case r if r == TAKEN_IN:
            return identifier in history.taken_in and identifier not in history.set_aside
        case r if r in {REPLACED, UNNAMED}:
            return identifier not in history.named and identifier not in history.set_aside
        case r if r == UNTABLED:
            return identifier not in tables
        case _:
            return item.path in item.objects or not _exists(storage, _document(item.path))


def _require_whole(storage: Storage, manifest: Manifest, history: History, found: Sequence[Found]) -> None:
    """Refuse to clean a store that lacks something: what seems superfluous may be the only copy."""
    sizes = {item.path: item.size for item in found}
    blocks = concurrently(lambda info: read_block(storage, manifest, info), history.blocks)
    for block in blocks:
        for name, info in block.objects.items():
            if sizes.get(f"{block.group}/{name}") != info.size:
                raise DamagedError(
                    f"{storage.url}/{block.group}/{name} is missing or cut: nothing was removed",
                    hint="run `memdb verify --repair`",
                )
    lost = next(history.lost(storage, manifest, blocks, set(sizes)), None)
    if lost is not None:
        raise DamagedError(
            f"{storage.url}/{lost.group} has models that no snapshot names and no segment has: a snapshot "
            "was lost, and nothing was removed",
            hint="run `memdb verify --repair`",
        )


def _require_intact(
    storage: Storage, manifest: Manifest, history: History, going: set[str], checked: set[str]
) -> None:
    """Check the blocks that took in these segments, or that came after these blocks, each once."""
    segments = {path.removeprefix(f"{layout.SEGMENTS}/") for path in going}
    wanted: set[str] = set()
    for path in going:
        wanted |= history.came_after(path.removeprefix(f"{layout.BLOCKS}/"))
    for info in history.blocks:
        if info.block_id in checked:
            continue
        block = read_block(storage, manifest, info)
        if info.block_id in wanted or not segments.isdisjoint(source for source, _ in block.sources):
            check_group(storage, block)
            checked.add(info.block_id)


def _gathered(path: str, reason: str, objects: Sequence[Found]) -> Garbage:
    return Garbage(path, reason, tuple(item.path for item in objects), sum(item.size for item in objects))


def _exists(storage: Storage, path: str) -> bool:
    try:
        storage.read(path)
    except NotFoundError:
        return is_listed(storage, path)
    return True
