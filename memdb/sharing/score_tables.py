"""Imported scores in a published copy: copied as they are, named by the root document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from memdb.errors import AlreadyExistsError
from memdb.format import layout
from memdb.format.documents import group_metadata
from memdb.format.manifest import ObjectInfo
from memdb.format.published import Published
from memdb.format.score_table import ScoreTable
from memdb.sharing.copy_blocks import AT_ONCE
from memdb.storage.protocol import Storage, concurrently
from memdb.store.encoding import describe
from memdb.store.resumable import ResumableStorage, copy_object


def size_of(tables: Iterable[ScoreTable]) -> int:
    """Return how many bytes tables take."""
    return sum(info.size for table in tables for info in table.objects.values())


def documents_of(source: Storage, tables: Sequence[ScoreTable]) -> list[bytes]:
    """Return the documents of a store's tables, as they are there."""
    return concurrently(lambda table: source.read(layout.score_table(table.number)), tables)


def require_same_scores(documents: Sequence[bytes], before: Published | None, url: str) -> None:
    """Refuse a copy that holds other scores than the store that is to be published.

    Raises:
        AlreadyExistsError: names the first that differs.
    """
    there = before.scores if before else ()
    for number, (data, theirs) in enumerate(zip(documents, there, strict=False), 1):
        if describe({"": data})[""] != theirs:
            raise AlreadyExistsError(
                f"{url} holds other imported scores as number {number}",
                hint="publish to a new folder, or from the store that it was published from",
            )


def copy_tables(source: Storage, tables: Sequence[ScoreTable], target: ResumableStorage) -> None:
    """Copy the arrays of tables.

    Raises:
        DamagedError: an object is missing or altered at the source.
    """
    concurrently(lambda item: copy_object(source, item[0], target, *item), list(objects_of(tables)), AT_ONCE)


def name_tables(
    tables: Sequence[ScoreTable], documents: Sequence[bytes], target: ResumableStorage
) -> tuple[ObjectInfo, ...]:
    """Write the documents of tables whose arrays are there; return what the root document says of them."""
    if not tables:
        return ()
    groups = [layout.SCORES, *(table.group for table in tables)]
    target.write_all({f"{group}/{layout.GROUP_METADATA}": group_metadata() for group in groups})
    named = {layout.score_table(n): data for n, data in enumerate(documents, 1)}
    target.write_all(named)
    return tuple(describe(named).values())


def objects_of(tables: Iterable[ScoreTable]) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield every object of tables with its path in the store."""
    for table in tables:
        for name, info in table.objects.items():
            yield f"{table.group}/{name}", info
