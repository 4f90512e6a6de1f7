"""The page beside a published copy: what publishing and pulling need of the one who makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from memdb.format import layout
from memdb.format.manifest import ObjectInfo
from memdb.format.published import Published
from memdb.format.segment import Segment
from memdb.format.snapshot_record import SnapshotRecord
from memdb.query.relations import Relations
from memdb.store.read_documents import StoreLike, read_block
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store


class Page(Protocol):
    """A page beside the copy."""

    def write(
        self,
        relations: Relations,
        copy: Store,
        record: SnapshotRecord,
        blocks: Sequence[Segment],
        progress: Callable[[int, int], None],
    ) -> ObjectInfo:
        """Write what it reads of a snapshot; return the document of `layout.site` that lists it."""
        ...

    def document(self, store: StoreLike, number: int, site: ObjectInfo) -> bytes:
        """Return the page itself."""
        ...


def with_page(
    page: Page,
    published: Published,
    copy: Store,
    snapshot: Snapshot,
    record: SnapshotRecord,
    progress: Callable[[int, int], None],
) -> Published:
    """Write a page and what it reads into a copy; return what the root document says then."""
    blocks = [read_block(copy, info) for info in record.blocks]
    with closing(Relations(snapshot)) as relations:
        document = page.write(relations, copy, record, blocks, progress)
    copy.storage.write_all({layout.PAGE: page.document(copy, record.number, document)})
    return replace(published, site=(record.number, document))
