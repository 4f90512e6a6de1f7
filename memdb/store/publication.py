"""Reading a published copy: its root document, and the snapshots that this names."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import overload

from memdb import layout
from memdb.commits import Segment, SnapshotRecord
from memdb.documents import parse_plain_document
from memdb.errors import Damaged, MemdbError, NotFound, StorageFailed, WrongFormat
from memdb.manifest import Manifest
from memdb.published import ASK_AGAIN, Published
from memdb.store.ledger import FORBIDDEN, parse_record, read_block
from memdb.store.reading import read_document
from memdb.store.retries import status_of
from memdb.store.snapshot import Snapshot
from memdb.store.storage import Storage, concurrently


def read_published(storage: Storage) -> Published | None:
    """Read the root document of a published copy; None where there is none, as in a store that grows.

    Raises:
        Damaged: it was altered.
        StorageFailed: the storage did not answer.
    """
    place = f"{storage.url}/{layout.PUBLISHED}"
    try:
        return Published.from_document(parse_plain_document(storage.read(layout.PUBLISHED), place), place)
    except NotFound:
        return None
    except WrongFormat:
        if storage.can_list:
            raise
        return None  # some servers have a page for what is not there
    except StorageFailed as error:
        if _is_forbidden(error) and _forbids_what_is_absent(storage):
            return None
        raise


def _is_forbidden(error: StorageFailed) -> bool:
    return error.__cause__ is not None and status_of(error.__cause__) == FORBIDDEN


def _forbids_what_is_absent(storage: Storage) -> bool:
    """Tell whether "forbidden" is what a storage says of absent objects: buckets do to who may not list."""
    try:
        storage.read(f"absent-{secrets.token_hex(8)}.json")
    except MemdbError as error:
        return isinstance(error, StorageFailed) and _is_forbidden(error)
    return False


def published_snapshot(
    storage: Storage, manifest: Manifest, published: Published, number: int | None = None
) -> Snapshot:
    """Return a snapshot of a published copy, the newest where no number is given.

    Its blocks are all there for ever; their documents, which are long, are read when something needs them.

    Raises:
        NotFound: no snapshot has that number.
        Damaged: its document is missing, was altered, or belongs to another store.
    """
    known = {item.number: item for item in published.snapshots}
    item = published.snapshot if number is None else known.get(number)
    if item is None:
        numbers = ", ".join(map(str, sorted(known)))
        raise NotFound(f"{storage.url} has no snapshot {number}", hint=f"it has {numbers}")
    place = f"{storage.url}/{item.path}"
    record = parse_record(manifest, item.number, read_document(storage, item.path, item.document), place)
    if (record.n_models, record.models_sha256) != (item.n_models, item.models_sha256):
        raise Damaged(f"{place} has other models than {layout.PUBLISHED} says", hint=ASK_AGAIN)
    _require_possible(record, manifest, place)
    blocks = _Unread(lambda: concurrently(lambda info: read_block(storage, manifest, info), record.blocks))
    return Snapshot(storage, manifest, blocks, record, is_published=True)


def _require_possible(record: SnapshotRecord, manifest: Manifest, place: str) -> None:
    """Refuse lists of more training examples, or of more models, than there are."""
    n_train, derived = manifest.train.n_examples, record.derived
    if derived is None:
        return
    n_ranked = sum(times for _, times in derived.n_in)
    if max(n_ranked, derived.listed) > n_train or any(n > record.n_models for n, _ in derived.n_in):
        raise Damaged(f"{place} lists more than its {n_train:,} training examples can give", hint=ASK_AGAIN)


class _Unread(Sequence[Segment]):
    """Blocks whose documents are read when one of them is asked for."""

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
