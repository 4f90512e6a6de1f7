"""Pulling: a published copy, or the bits of any store, copied object by object and checked by sha256."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from memdb.errors import AlreadyExistsError, InvalidInputError, NotEnoughModelsError
from memdb.format import layout
from memdb.format.documents import group_metadata, plain_document
from memdb.format.manifest import ObjectInfo
from memdb.format.sketches import is_sketch
from memdb.format.snapshot_record import SnapshotRecord
from memdb.sharing import score_tables
from memdb.sharing.copy_blocks import AT_ONCE, copy_piece, pieces
from memdb.sharing.destination import COPY_GROUPS, require_destination
from memdb.sharing.page import Page
from memdb.sharing.readme import readme
from memdb.storage.protocol import Storage, concurrently, create_once
from memdb.store.listed_groups import document_of
from memdb.store.listed_groups import objects_of as listed_objects
from memdb.store.open_published import is_of_a_copy, published_snapshot
from memdb.store.read_documents import parse_record, read_block, snapshot_numbers
from memdb.store.resumable import ResumableStorage, copy_object
from memdb.store.store import Store, keeps_put_if_absent

ONLY = ("bits",)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was copied. Sizes are bytes."""

    n_models: int
    n_objects: int
    n_bytes: int


def pull(
    source: Store,
    storage: Storage,
    *,
    only: str | None = None,
    as_of: int | None = None,
    page: Page | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Pulled:
    """Copy a published store, or with ``only="bits"`` the models of a snapshot of any store without the rest.

    Objects there already with the right size and sha256 are left alone, and ``page`` makes the page beside
    the copy anew; ``progress`` is called with the bytes done and their total.

    Raises:
        InvalidInputError: the store was not published, ``only`` is not ``bits``, or the destination is
            read-only.
        AlreadyExistsError: the destination holds something else.
        DamagedError: an object is missing or altered at the source.
    """
    _require_possible(source, only, as_of)
    if not storage.can_write:
        raise InvalidInputError(
            f"{storage.url} is read-only: its protocol has no writes", hint="pull to a folder or a bucket"
        )
    target = ResumableStorage(storage)
    before = require_destination(source, target)
    if only and (before is not None or _is_of_a_copy(source, target)):
        raise AlreadyExistsError(
            f"{storage.url} is a published copy, or the beginning of one",
            hint="pull bits to a place of their own",
        )
    copied = _bits(source, target, as_of, progress) if only else _everything(source, target, page, progress)
    return Pulled(copied, target.n_written, target.n_bytes_written)


def _require_possible(source: Store, only: str | None, as_of: int | None) -> None:
    """Refuse to copy what there is not, or what a whole copy cannot be restricted to."""
    if only is not None and only not in ONLY:
        raise InvalidInputError(
            f"only {only} is not possible",
            hint='use only="bits", or omit it for all',
            parameter="only",
        )
    if only is None and source.published is None:
        raise InvalidInputError(
            f"{source.url} is not a published copy",
            hint='ask its owner to run `memdb publish`, or take the models alone with only="bits"',
            parameter="only",
        )
    if only is None and as_of is not None:
        raise InvalidInputError(
            f"a whole copy holds every snapshot, not {as_of} alone",
            hint='add only="bits", or omit it',
            parameter="only",
        )


def _is_of_a_copy(source: Store, target: ResumableStorage) -> bool:
    """Tell whether a publication left a snapshot here, and nothing else of that name may be written."""
    for number in snapshot_numbers(target.names(layout.SNAPSHOTS)):
        path = layout.snapshot(number)
        if is_of_a_copy(parse_record(source.manifest, number, target.read(path), f"{target.url}/{path}")):
            return True
    return False


def _everything(
    source: Store, target: ResumableStorage, page: Page | None, progress: Callable[[int, int], None]
) -> int:
    published = source.published
    if published is None:
        raise InvalidInputError(f"{source.url} is not a published copy")
    objects = dict(_dataset(source))
    documents = {item.path: item.document for item in published.snapshots}
    for item in published.snapshots:
        record = published_snapshot(source, published, item.number).record
        objects |= _of_snapshot(source, record) if record else {}
    tables = source.score_tables()
    objects |= dict(score_tables.objects_of(tables))
    objects |= dict(listed_objects(source, published))
    documents |= {document_of(folder): info for folder, info in published.groups.items()}
    _copy(source.storage, target, objects, progress)
    score_tables.name_tables(tables, score_tables.documents_of(source.storage, tables), target)
    target.write_all({f"{group}/{layout.GROUP_METADATA}": group_metadata() for group in COPY_GROUPS})
    for path, info in documents.items():
        copy_object(source.storage, path, target, path, info)
    newest = published_snapshot(source, published)
    if newest.record:  # made anew: nothing is copied that no hash vouches for
        target.write_all({layout.README: readme(newest, newest.record, published, tables).encode()})
    if published.site and page:
        target.write_all({layout.PAGE: page.document(source, *published.site)})
    target.write_all({layout.MANIFEST: group_metadata(source.manifest.to_document())})
    target.write_all({layout.PUBLISHED: plain_document(published.to_document())})
    return published.snapshot.n_models


def _dataset(source: Store) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield the objects of the data set; the claim that says which it is comes first."""
    names = sorted(source.manifest.objects, key=lambda name: name != layout.GROUP_METADATA)
    for name in names:
        yield f"{layout.DATASET}/{name}", source.manifest.objects[name]


def _of_snapshot(source: Store, record: SnapshotRecord) -> dict[str, ObjectInfo]:
    """Return every object that a snapshot needs."""
    found: dict[str, ObjectInfo] = {}
    blocks = concurrently(lambda info: read_block(source, info), record.blocks)
    for info, block in zip(record.blocks, blocks, strict=True):
        found |= {f"{block.group}/{name}": item for name, item in block.objects.items()}
        found[f"{block.group}/{layout.GROUP_METADATA}"] = info.document
    for folder, objects in record.derived.groups(record.number).items() if record.derived else ():
        found |= {f"{folder}/{name}": item for name, item in objects.items()}
    return found


def _copy(
    source: Storage,
    target: ResumableStorage,
    objects: dict[str, ObjectInfo],
    progress: Callable[[int, int], None],
) -> None:
    total, lock = sum(info.size for info in objects.values()), threading.Lock()
    done = 0

    def copy(item: tuple[str, ObjectInfo]) -> None:
        nonlocal done
        copy_object(source, item[0], target, item[0], item[1])
        with lock:
            done += item[1].size
            progress(done, total)

    claim = f"{layout.DATASET}/{layout.GROUP_METADATA}"
    first = [item for item in objects.items() if item[0] == claim]
    concurrently(copy, first)
    concurrently(copy, [item for item in objects.items() if item[0] != claim], AT_ONCE)


def _bits(
    source: Store, target: ResumableStorage, as_of: int | None, progress: Callable[[int, int], None]
) -> int:
    snapshot = source.snapshot(as_of)
    if snapshot.n_models == 0:
        raise NotEnoughModelsError(f"{source.url} has no models to pull", hint="ask its owner for some")
    _copy(source.storage, target, dict(_dataset(source)), lambda _done, _total: None)
    target.write_all({f"{group}/{layout.GROUP_METADATA}": group_metadata() for group in layout.GROUPS})
    wanted = pieces(snapshot, lambda path: path.endswith("/logit_confidence") or is_sketch(path))
    total, done = sum(piece.size for piece in wanted), 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        progress(done, total)

    blocks = tuple(copy_piece(snapshot, target, piece, None, advance) for piece in wanted)
    record = SnapshotRecord(
        number=1,
        store_id=source.manifest.store_id,
        n_models=snapshot.n_models,
        models_sha256=snapshot.models_sha256,
        blocks=blocks,
    )
    target.put_all({layout.snapshot(1): plain_document(record.to_document())})
    manifest = replace(source.manifest, put_if_absent=keeps_put_if_absent(target.storage))
    create_once(target.storage, layout.MANIFEST, group_metadata(manifest.to_document()))
    return snapshot.n_models
