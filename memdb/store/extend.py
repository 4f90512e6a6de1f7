"""A store that extends another: its first base snapshot, and moving on to a newer one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from memdb.errors import AlreadyExistsError, InvalidInputError, MismatchError, NotFoundError
from memdb.format import layout
from memdb.format.base import Base
from memdb.format.documents import plain_document
from memdb.format.manifest import Manifest
from memdb.format.snapshot_record import BaseUpdate
from memdb.storage.protocol import create_once
from memdb.storage.urls import protocol_of
from memdb.store.access import Access
from memdb.store.examples import ExampleTable, read_example_table
from memdb.store.load_snapshot import load_snapshot, newest_number
from memdb.store.open_base import BaseStore, followable, open_base, snapshot_of
from memdb.store.open_published import read_published
from memdb.store.read_documents import newest_base_update, read_base_update, read_manifest
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store

DRAWN_HERE = "exact"  # the subsets that training draws


@dataclass(frozen=True)
class InspectedBase:
    """A store that can be extended: its manifest, its newest snapshot as a base, and its examples."""

    manifest: Manifest
    base: Base
    tables: Mapping[str, ExampleTable]


def inspect_base(url: str, from_url: str, access: Access) -> InspectedBase:
    """Open a store that is to be extended, with its newest snapshot as the base snapshot.

    Raises:
        NotFoundError: no store is there, or none with a snapshot.
        InvalidInputError: its address may not be in a manifest, or training does not draw such subsets.
        DamagedError: its examples are not what its fingerprints say.
    """
    protocol_of(url)  # what the user wrote is at fault where it is malformed
    address = followable(url, from_url)
    storage = access.open_base(address)
    manifest = read_manifest(storage)
    base = BaseStore(storage, manifest)
    if manifest.subset_scheme != DRAWN_HERE:
        raise InvalidInputError(
            f"the subsets of {url} are {manifest.subset_scheme}; those of models trained here would not be",
            hint="extend a store that memdb trained",
        )
    snapshot = _newest(base, url, access)
    tables = {info.name: read_example_table(base, info.name) for info in manifest.sets}
    for info in manifest.sets:
        if tables[info.name].info(info.name) != info:
            raise MismatchError(
                f"the {info.name} set of {url} is not what its fingerprint says",
                hint="ask for an intact copy",
            )
    return InspectedBase(manifest, _base_at(address, manifest, snapshot), tables)


def n_beyond(base: Snapshot) -> int:
    """Return how many models of its own a base has gained since the base snapshot."""
    counted = base.record.n_models if base.record else 0
    return load_snapshot(base).n_models - counted


def update(store: Store, url: str | None = None) -> BaseUpdate | None:
    """Move on to the newest snapshot of the base, at a new address if given; None if it is current.

    Raises:
        InvalidInputError: the store has no base, or the address may not be followed.
        NotFoundError: nothing is there.
        MismatchError: another store is there, or an older copy.
        AlreadyExistsError: another update was faster.
    """
    number = newest_base_update(store)
    before = read_base_update(store, number).base if number else store.manifest.base
    if before is None:
        raise InvalidInputError(
            f"{store.url} extends no other store", hint="`memdb init --extend URL` makes one that does"
        )
    sought = Base(url or before.url, before.store_id, before.snapshot, before.n_models, before.models_sha256)
    access = store.access
    if url is not None:
        protocol_of(url)
        access = access.naming(url)
    base = open_base(store, sought, access)
    newest = _newest(base, sought.url, access)
    after = _base_at(followable(sought.url, store.url), base.manifest, newest)
    _require_successor(after, before, store.url)
    if after == before:
        return None
    base_update = BaseUpdate(number=number + 1, store_id=store.manifest.store_id, base=after)
    try:
        create_once(store.storage, layout.base(base_update.number), plain_document(base_update.to_document()))
    except AlreadyExistsError as error:
        raise AlreadyExistsError(
            f"{store.url} was updated by another process just now", hint="see `memdb info`"
        ) from error
    access.remember(store.manifest.store_id, after.url)
    return base_update


def _require_successor(after: Base, before: Base, store_url: str) -> None:
    """Refuse an older copy of a base, or one whose snapshot of the same number has other models."""
    if after.snapshot < before.snapshot:
        raise MismatchError(
            f"{after.url} is an older copy: its newest snapshot is {after.snapshot}, and {store_url} "
            f"already uses {before.snapshot}",
            hint="name a copy that is up to date",
        )
    if after.snapshot == before.snapshot and after.models_sha256 != before.models_sha256:
        raise MismatchError(
            f"snapshot {after.snapshot} of {after.url} has other models than the one that {store_url} uses",
            hint="two copies of the base went different ways: name the right one, or `memdb merge` them",
        )


def _newest(store: BaseStore, url: str, access: Access) -> Snapshot:
    published = read_published(store.storage)
    number = published.snapshot.number if published else newest_number(store.storage)
    if number is None:
        raise NotFoundError(
            f"{url} has no snapshot, so its models may change at any time",
            hint=f"number them with `memdb compact --store {url}`, or ask its owner to",
        )
    return snapshot_of(store, number, access)


def _base_at(url: str, manifest: Manifest, snapshot: Snapshot) -> Base:
    number = snapshot.record.number if snapshot.record else 0
    return Base(url, manifest.store_id, number, snapshot.n_models, snapshot.models_sha256)
