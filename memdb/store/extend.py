"""A store that extends another: which snapshot it takes in at first, and moving to a newer one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from memdb.environment import own_version
from memdb.errors import AlreadyExistsError, InvalidInputError, MismatchError, NotFoundError
from memdb.format import layout
from memdb.format.documents import plain_document
from memdb.format.manifest import Base, Manifest
from memdb.format.snapshot_record import Pin
from memdb.storage.protocol import Storage, create_once
from memdb.storage.urls import protocol_of
from memdb.store.base import Following, followable, open_base, snapshot_of
from memdb.store.examples import ExampleTable, read_example_table
from memdb.store.load_snapshot import load_snapshot, newest_number
from memdb.store.open_published import read_published
from memdb.store.read_documents import newest_pin, read_manifest, read_pin
from memdb.store.snapshot import Snapshot

DRAWN_HERE = "exact"  # the subsets that training draws


@dataclass(frozen=True)
class Extended:
    """A base that was looked at: what it is, what there is to take in, its examples."""

    manifest: Manifest
    base: Base
    tables: Mapping[str, ExampleTable]


def look_at(url: str, from_url: str, following: Following) -> Extended:
    """Look at a store that is to be extended, and pin its newest snapshot.

    Raises:
        NotFoundError: no store is there, or none with a snapshot.
        InvalidInputError: its address cannot be in a manifest, or its subsets are none that training draws.
        DamagedError: its examples are not what its fingerprints say.
    """
    protocol_of(url)  # what the user wrote is at fault where it is malformed
    place = followable(url, from_url)
    storage = following.open(place)
    manifest = read_manifest(storage)
    if manifest.subset_scheme != DRAWN_HERE:
        raise InvalidInputError(
            f"the subsets of {url} are {manifest.subset_scheme}; those of models trained here would not be",
            hint="extend a store that memdb trained",
        )
    snapshot = _newest(storage, manifest, url, following)
    tables = {info.name: read_example_table(storage, manifest, info.name) for info in manifest.sets}
    for info in manifest.sets:
        if tables[info.name].info(info.name) != info:
            raise MismatchError(
                f"the {info.name} set of {url} is not what its fingerprint says",
                hint="ask for an intact copy",
            )
    return Extended(manifest, _pinned(place, manifest, snapshot), tables)


def n_beyond(base: Snapshot) -> int:
    """Return how many models a base got, of its own, since the snapshot that is taken in."""
    counted = base.record.n_models if base.record else 0
    return load_snapshot(base.storage, base.manifest).n_models - counted


def update(storage: Storage, manifest: Manifest, following: Following, url: str | None = None) -> Pin | None:
    """Take in the newest snapshot of the base, at another address if one is given; None where it was.

    Raises:
        InvalidInputError: the store extends none, or the address may not be followed.
        NotFoundError: nothing is there.
        MismatchError: another store is there, or an older copy.
        AlreadyExistsError: another update was faster.
    """
    number = newest_pin(storage, manifest)
    before = read_pin(storage, manifest, number).base if number else manifest.base
    if before is None:
        raise InvalidInputError(
            f"{storage.url} extends no other store", hint="`memdb init --extend URL` makes one that does"
        )
    sought = Base(url or before.url, before.store_id, before.snapshot, before.n_models, before.models_sha256)
    if url is not None:
        protocol_of(url)
        following = following.naming(url)
    place, found = open_base(storage, manifest, sought, following)
    newest = _newest(place, found, sought.url, following)
    after = _pinned(followable(sought.url, storage.url), found, newest)
    if after.snapshot < before.snapshot:
        raise MismatchError(
            f"{sought.url} is an older copy: its newest snapshot is {after.snapshot}, and {storage.url} has "
            f"taken in {before.snapshot}",
            hint="name a copy that is up to date",
        )
    if after.snapshot == before.snapshot and after.models_sha256 != before.models_sha256:
        raise MismatchError(
            f"snapshot {after.snapshot} of {sought.url} has other models than {storage.url} took in",
            hint="two copies of the base went different ways: name the right one, or `memdb merge` them",
        )
    if after == before:
        return None
    pin = Pin(
        number=number + 1,
        store_id=manifest.store_id,
        pinned_at=datetime.now(UTC).isoformat(timespec="seconds"),
        memdb_version=own_version(),
        base=after,
    )
    try:
        create_once(storage, layout.base(pin.number), plain_document(pin.to_document()))
    except AlreadyExistsError as error:
        raise AlreadyExistsError(
            f"{storage.url} was updated by another process just now", hint="see `memdb info`"
        ) from error
    following.remember(manifest.store_id, after.url)
    return pin


def _newest(storage: Storage, manifest: Manifest, url: str, following: Following) -> Snapshot:
    published = read_published(storage)
    number = published.snapshot.number if published else newest_number(storage)
    if number is None:
        raise NotFoundError(
            f"{url} has no snapshot: which models it has may be another matter tomorrow",
            hint=f"number them with `memdb compact --store {url}`, or ask its owner to",
        )
    return snapshot_of(storage, manifest, number, following)


def _pinned(url: str, manifest: Manifest, snapshot: Snapshot) -> Base:
    number = snapshot.record.number if snapshot.record else 0
    return Base(url, manifest.store_id, number, snapshot.n_models, snapshot.models_sha256)
