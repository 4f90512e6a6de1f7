"""Read the documents that describe what a store holds: snapshots, blocks, segments, retractions."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol, TypeVar

from memdb.errors import (
    DamagedError,
    InvalidInputError,
    MemdbError,
    NotFoundError,
    StorageError,
    WrongFormatError,
)
from memdb.format import layout
from memdb.format.base import MAX_SNAPSHOTS, Base
from memdb.format.documents import group_metadata, parse_group_metadata, parse_json, parse_plain_document
from memdb.format.manifest import Manifest, ObjectInfo
from memdb.format.segment import Segment
from memdb.format.snapshot_record import BaseUpdate, BlockInfo, Retraction, SnapshotRecord
from memdb.storage.protocol import Storage, concurrently
from memdb.storage.retry import status_of
from memdb.store.read_arrays import read_listed
from memdb.store.stated import RESTORE

FORBIDDEN = 403
T = TypeVar("T")


class StoreLike(Protocol):
    """A storage and the manifest of the store in it: a `Store`, or one of its snapshots."""

    @property
    def url(self) -> str:
        """Where the store is, as it was given."""
        ...

    @property
    def storage(self) -> Storage:
        """What holds its objects."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What the store is."""
        ...


def snapshot_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the snapshots among the names of files, sorted."""
    return sorted(number for name in names if (number := layout.snapshot_number(name)) is not None)


def require_listing(storage: Storage, folder: str, names: Iterable[str]) -> None:
    """Refuse a listing that lacks what creation put there: it is incomplete.

    Raises:
        StorageError: something in between answered, or files were removed.
    """
    if layout.GROUP_METADATA not in names:
        raise StorageError(
            f"the listing of {storage.url}/{folder} lacks its {layout.GROUP_METADATA}",
            hint="something in between answered for the storage, or files were removed; try again",
        )


def require_group(storage: Storage, name: str) -> bool:
    """Refuse a group whose own document is not as creation wrote it.

    Raises:
        NotFoundError: it is missing.
        DamagedError: it was altered.
    """
    path = f"{name}/{layout.GROUP_METADATA}"
    if storage.read(path) != group_metadata():
        raise DamagedError(f"{storage.url}/{path} was altered", hint="run `memdb verify --repair`")
    return True


def read_document(storage: Storage, path: str, parse: Callable[[bytes, str], T]) -> tuple[T, bytes]:
    """Read a self-checking document; return it, and its bytes.

    One that is not intact is fetched once more, past all caches: the transfer may have been cut.

    Raises:
        NotFoundError: it does not exist.
        WrongFormatError: it is not such a document.
        DamagedError: it was altered.
    """
    place = f"{storage.url}/{path}"
    data = storage.read(path)
    with contextlib.suppress(
        DamagedError, WrongFormatError
    ):  # whose traceback would hold the first copy in memory
        return parse(data, place), data
    data = storage.direct().read(path)
    return parse(data, place), data


def means_absent(storage: Storage, error: MemdbError) -> bool:
    """Tell whether a failure is how this storage answers for an object that does not exist.

    That may be "forbidden" for those who may not list a bucket, or a web page for every address.
    """
    if isinstance(error, NotFoundError):
        return True
    is_page = isinstance(error, WrongFormatError) and not storage.can_list
    if not is_page and not _is_forbidden(error):
        return False
    try:
        storage.read(f"absent-{secrets.token_hex(8)}.json")
    except MemdbError as other:
        return not is_page and _is_forbidden(other)
    return is_page


def _is_forbidden(error: MemdbError) -> bool:
    return error.__cause__ is not None and status_of(error.__cause__) == FORBIDDEN


def newest_by_asking(storage: Storage, path_of: Callable[[int], str] = layout.snapshot) -> int | None:
    """Find the newest of documents numbered without gaps, such as snapshots, by asking for them.

    Raises:
        DamagedError: there is a gap.
    """

    def is_there(number: int) -> bool:
        for _ in range(2):  # a single "not found" may be a server's bad moment
            try:
                read_document(storage, path_of(number), parse_plain_document)
            except DamagedError:
                return True
            except MemdbError as error:
                if not means_absent(storage, error):
                    raise
                continue
            return True
        return False

    low, high = 0, 1
    while high < MAX_SNAPSHOTS and is_there(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_there(middle) else (low, middle)
    if is_there(low + 2):
        raise DamagedError(
            f"{storage.url}/{path_of(low + 1)} is missing, though {path_of(low + 2)} is there", hint=RESTORE
        )
    return low or None


def read_manifest(storage: Storage) -> Manifest:
    """Read a store's manifest.

    Raises:
        NotFoundError: there is no store.
        WrongFormatError: it is not a store, or one of a newer memdb.
        DamagedError: the manifest was altered.
    """

    def parse(data: bytes, place: str) -> Manifest:
        return Manifest.from_document(parse_group_metadata(data, place), place)

    try:
        return read_document(storage, layout.MANIFEST, parse)[0]
    except NotFoundError as error:
        raise NotFoundError(
            f"no memdb store at {storage.url}",
            hint="create one with `memdb init`, or name another url",
            parameter="url",
        ) from error


def require_outside(storage: Storage) -> None:
    """Refuse a place inside a store: a store that is removed, moved or cleaned would take the other with it.

    Raises:
        InvalidInputError: names the store.
    """
    for folder in storage.above():
        try:
            metadata = parse_json(folder.read(layout.MANIFEST), folder.url)
        except MemdbError:
            continue
        match metadata:
            case {"attributes": {"memdb": {"store_id": str()}}}:
                raise InvalidInputError(
                    f"{storage.url} is inside the store {folder.url}", hint="name a place outside of it"
                )


def base_in_force(store: StoreLike) -> Base | None:
    """Return the base snapshot that a store uses now, None if it extends no other store.

    Raises:
        DamagedError: the record of it was altered, or belongs to another store.
    """
    number = newest_base_update(store)
    return read_base_update(store, number).base if number else store.manifest.base


def newest_base_update(store: StoreLike) -> int:
    """Return the number of the last update of a store's base; 0 if there was none since creation."""
    if store.manifest.base is None:
        return 0
    if not store.storage.can_list:
        return newest_by_asking(store.storage, layout.base) or 0
    names = store.storage.names(layout.BASES)
    require_listing(store.storage, layout.BASES, names)
    return max(snapshot_numbers(names), default=0)


def read_base_update(store: StoreLike, number: int) -> BaseUpdate:
    """Read one update of a store's base.

    Raises:
        DamagedError: it was altered, or belongs to another store.
    """

    def parse(data: bytes, place: str) -> BaseUpdate:
        base_update = BaseUpdate.from_document(parse_plain_document(data, place), place)
        expected = (number, store.manifest.store_id, store.manifest.base and store.manifest.base.store_id)
        _require_ours(place, (base_update.number, base_update.store_id, base_update.base.store_id), expected)
        return base_update

    return _document(store, layout.base(number), parse)


def read_record(store: StoreLike, number: int) -> SnapshotRecord:
    """Read a snapshot's document.

    Raises:
        NotFoundError: no snapshot has that number.
        DamagedError: it was altered, or belongs to another store.
    """
    try:
        parse = partial(parse_record, store.manifest, number)
        return read_document(store.storage, layout.snapshot(number), parse)[0]
    except NotFoundError as error:
        hint = "`memdb info` names the newest"
        raise NotFoundError(f"{store.url} has no snapshot {number}", hint=hint) from error


def parse_record(manifest: Manifest, number: int, data: bytes, place: str) -> SnapshotRecord:
    """Return a snapshot's document from its bytes.

    Raises:
        DamagedError: it was altered, or belongs to another store.
    """
    record = SnapshotRecord.from_document(parse_plain_document(data, place), place)
    _require_ours(place, (record.number, record.store_id), (number, manifest.store_id))
    return record


def read_retractions(store: StoreLike, names: list[str]) -> list[Retraction]:
    """Read the retractions with these file names."""
    identifiers = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    wanted = [identifier for identifier in identifiers if layout.is_segment_id(identifier)]
    return concurrently(lambda identifier: read_retraction(store, identifier), wanted)


def read_retraction(store: StoreLike, identifier: str) -> Retraction:
    """Read one retraction.

    Raises:
        DamagedError: it was altered, or belongs to another store.
    """

    def parse(data: bytes, place: str) -> Retraction:
        retraction = Retraction.from_document(parse_plain_document(data, place), place)
        _require_ours(
            place, (retraction.retraction_id, retraction.store_id), (identifier, store.manifest.store_id)
        )
        return retraction

    return _document(store, layout.retraction(identifier), parse)


def read_segment(store: StoreLike, name: str) -> Segment | None:
    """Read a segment's document; None if it is not committed: its last write is missing.

    Raises:
        DamagedError: it was altered, or belongs to another store or recipe.
    """
    path = f"{layout.segment(name)}/{layout.GROUP_METADATA}"

    def read() -> Segment:
        return _document(store, path, lambda data, place: _parsed(store.manifest, data, place, name))

    try:
        return read()
    except NotFoundError:
        return read() if is_listed(store.storage, path) else None


def is_listed(storage: Storage, path: str) -> bool:
    """Tell by a listing whether an object exists: a single "not found" may be a server's bad moment."""
    folder, _, name = path.rpartition("/")
    return name in storage.names(folder)


def read_block(store: StoreLike, info: BlockInfo) -> Segment:
    """Read the document of a block that a snapshot names.

    Raises:
        DamagedError: it is missing, was altered, or belongs to another store or recipe.
    """
    path = f"{layout.block(info.block_id)}/{layout.GROUP_METADATA}"
    place = f"{store.url}/{path}"
    data = read_listed(store.storage, path, info.document)
    block = _parsed(store.manifest, data, place, info.block_id, checked=True)
    _require_ours(place, (len(block.models), bool(block.sources)), (info.n_models, True))
    return block


def find_block(store: StoreLike, name: str) -> tuple[BlockInfo, Segment]:
    """Read the document of a block whether or not a snapshot names it.

    Raises:
        NotFoundError: it was never finished.
        DamagedError: it was altered, or belongs to another store or recipe.
    """
    path = f"{layout.block(name)}/{layout.GROUP_METADATA}"
    block, data = read_document(
        store.storage, path, lambda found, place: _parsed(store.manifest, found, place, name)
    )
    info = ObjectInfo(len(data), hashlib.sha256(data).hexdigest())
    return BlockInfo(name, len(block.models), info), block


def _parsed(manifest: Manifest, data: bytes, place: str, name: str, *, checked: bool = False) -> Segment:
    segment = Segment.from_document(parse_group_metadata(data, place, checked=checked), place)
    identity = (segment.segment_id, segment.store_id, segment.recipe_fingerprint)
    _require_ours(place, identity, (name, manifest.store_id, manifest.recipe.fingerprint))
    return segment


def _require_ours(place: str, found: tuple[object, ...], expected: tuple[object, ...]) -> None:
    if found != expected:
        raise DamagedError(
            f"{place} belongs to another store: it states {', '.join(map(str, found))}; expected "
            f"{', '.join(map(str, expected))}",
            hint="remove what was copied in by hand",
        )


def _document(store: StoreLike, path: str, parse: Callable[[bytes, str], T]) -> T:
    """Read a self-checking immutable document, from the cache if it was read before."""
    key, place = f"{store.manifest.store_id}/{path}", f"{store.url}/{path}"
    cached = store.storage.cache.find(key) if store.storage.cache else None
    if cached is not None:
        return parse(cached, place)
    parsed, data = read_document(store.storage, path, parse)
    if store.storage.cache:
        store.storage.cache.keep(key, data)
    return parsed
