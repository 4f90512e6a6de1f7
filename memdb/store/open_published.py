"""Reading a published copy: its root document, and the snapshots that this names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import overload

from memdb.errors import DamagedError, MemdbError, NotFoundError
from memdb.format import layout
from memdb.format.documents import group_metadata, parse_plain_document
from memdb.format.manifest import Manifest
from memdb.format.published import ASK_AGAIN, Published
from memdb.format.segment import Segment
from memdb.format.snapshot_record import SnapshotRecord
from memdb.storage.protocol import Storage, concurrently
from memdb.store.read_arrays import read_listed
from memdb.store.read_documents import StoreLike, means_absent, parse_record, read_block, read_document
from memdb.store.snapshot import Snapshot


def read_published(storage: Storage) -> Published | None:
    """Read the root document of a published copy; None if there is none, as in a store that grows.

    Raises:
        DamagedError: it was altered, or is missing from what is a published copy.
        WrongFormatError: something else is there.
        StorageError: the storage did not answer.
    """
    published = find_published(storage)
    if published is None and _is_copy(storage):
        raise DamagedError(
            f"{storage.url} is a published copy without its {layout.PUBLISHED}, which names the newest",
            hint="publish or pull to it again, which goes on where it was, or ask its owner to",
        )
    return published


def find_published(storage: Storage) -> Published | None:
    """Do the same where a copy may be the beginning of one."""

    def parse(data: bytes, place: str) -> Published:
        return Published.from_document(parse_plain_document(data, place), place)

    try:
        return read_document(storage.direct(), layout.PUBLISHED, parse)[0]  # the one that changes
    except MemdbError as error:
        if means_absent(storage, error):
            return None
        raise


def _is_copy(storage: Storage) -> bool:
    """Tell whether a group is there that every published copy has, and no store that grows."""
    try:
        return storage.read(f"{layout.STATS}/{layout.GROUP_METADATA}") == group_metadata()
    except MemdbError as error:
        if means_absent(storage, error):
            return False
        raise


def is_of_a_copy(record: SnapshotRecord) -> bool:
    """Tell the snapshots of published copies from those of stores that grow, which are never empty."""
    return record.derived is not None or record.n_models == 0


def published_snapshot(store: StoreLike, published: Published, number: int | None = None) -> Snapshot:
    """Return a snapshot of a published copy, by default the newest.

    Its blocks are never removed. Their documents, which are long, are read when they are needed.

    Raises:
        NotFoundError: no snapshot has that number.
        DamagedError: its document is missing, was altered, or belongs to another store.
    """
    known = {item.number: item for item in published.snapshots}
    item = published.snapshot if number is None else known.get(number)
    if item is None:
        numbers = ", ".join(map(str, sorted(known)))
        raise NotFoundError(f"{store.url} has no snapshot {number}", hint=f"it has {numbers}")
    place = f"{store.url}/{item.path}"
    data = read_listed(store.storage, item.path, item.document)
    record = parse_record(store.manifest, item.number, data, place)
    if (record.n_models, record.models_sha256) != (item.n_models, item.models_sha256):
        raise DamagedError(f"{place} has other models than {layout.PUBLISHED} says", hint=ASK_AGAIN)
    _require_possible(record, store.manifest, place)
    blocks = _Unread(lambda: concurrently(lambda info: read_block(store, info), record.blocks))
    return Snapshot(store.storage, store.manifest, blocks, record, is_published=True)


def _require_possible(record: SnapshotRecord, manifest: Manifest, place: str) -> None:
    """Refuse lists of more training examples, or of more models, than there are."""
    n_train, derived = manifest.train.n_examples, record.derived
    if derived is None:
        return
    n_ranked = sum(times for _, times in derived.n_in)
    if max(n_ranked, derived.listed) > n_train or any(n > record.n_models for n, _ in derived.n_in):
        raise DamagedError(
            f"{place} lists more than its {n_train:,} training examples can give", hint=ASK_AGAIN
        )


class _Unread(Sequence[Segment]):
    """Blocks whose documents are read when the first of them is needed."""

    def __init__(self, read: Callable[[], Sequence[Segment]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._blocks: Sequence[Segment] | None = None

    def _known(self) -> Sequence[Segment]:
        with self._lock:
            if self._blocks is None:
                self._blocks = self._read()
            return self._blocks

    @overload
    def __getitem__(self, index: int) -> Segment: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Segment]: ...
    def __getitem__(self, index: int | slice) -> Segment | Sequence[Segment]:
        return self._known()[index]

    def __len__(self) -> int:
        return len(self._known())
