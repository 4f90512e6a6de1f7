"""The store that another one extends: whether its address may be followed, and its models.

A manifest names its base by a URL that the creator of the store chose. It is followed only if the user
trusts it, never from a remote store to this machine's disk, and must lead to the same store, data, recipe
and subsets as before, and at the numbered snapshot to the same models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from memdb.addresses import shown
from memdb.errors import DamagedError, InvalidInputError, MismatchError, NotFoundError
from memdb.format.base import Base
from memdb.format.manifest import Manifest
from memdb.storage.protocol import Storage
from memdb.storage.urls import LOCAL, local_path, protocol_of
from memdb.store.access import Access
from memdb.store.load_snapshot import load_snapshot
from memdb.store.read_documents import StoreLike, base_in_force, read_manifest
from memdb.store.snapshot import Snapshot

MOST_BASES = 8  # in a chain
MOVED = "`memdb update --base URL` says where it is now"


class BaseStore(NamedTuple):
    """The store that another one extends; it is only read."""

    storage: Storage
    manifest: Manifest

    @property
    def url(self) -> str:
        """Where it is, as it was given."""
        return self.storage.url


def followable(url: str, from_url: str) -> str:
    """Return the address of a base as a manifest may state it; that of a local folder becomes absolute.

    Raises:
        InvalidInputError: a protocol that is not supported, a password, or a local folder as the base of a
            remote store.
    """
    try:
        protocol = protocol_of(url)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"{from_url} names its base as {shown(url)}: such addresses are not followed",
            hint="copy that store to a folder, a bucket or a web server",
        ) from error
    if protocol in LOCAL:
        if protocol_of(from_url) not in {*LOCAL, "memory"}:
            raise InvalidInputError(
                f"{from_url} names a folder of a local disk as its base, {url}; a remote store cannot",
                hint="put the base where everybody can read it, and extend it there",
            )
        return str(local_path(url))
    if shown(url) != url:
        raise InvalidInputError(
            f"the address of the base, {shown(url)}, contains a user name, a password or a signature, "
            "which would be written into the store",
            hint="omit it, and give it to the storage's own tools",
        )
    return url


def with_base(own: Snapshot, access: Access, as_of: int | None = None) -> Snapshot:
    """Return a store's models together with those of its base, if it extends one.

    Raises:
        InvalidInputError: the base is not trusted, may not be followed, or the chain of bases is a cycle.
        NotFoundError: the base, or its snapshot, no longer exists.
        MismatchError: another store is there.
        DamagedError: the snapshot has other models than it had.
    """
    return _with_base(own, access, as_of, (own.manifest.store_id,))


def _with_base(own: Snapshot, access: Access, as_of: int | None, above: tuple[str, ...]) -> Snapshot:
    base = base_in_force(own)
    if base is None:
        return own
    if as_of is not None and own.record is not None and own.record.base is not None:
        base = replace(own.record.base, url=base.url)
    store = open_base(own, base, access)
    if store.manifest.store_id in above:
        raise InvalidInputError(
            f"{own.url} extends itself: its base {base.url} leads back to it",
            hint="restore the base from a copy",
        )
    if len(above) > MOST_BASES:
        raise InvalidInputError(
            f"{own.url} has a chain of more than {MOST_BASES} bases",
            hint="combine them with `memdb merge`",
        )
    below = snapshot_of(store, base.snapshot, access, (*above, store.manifest.store_id))
    if below.models_sha256 != base.models_sha256:
        raise DamagedError(
            f"snapshot {base.snapshot} of {base.url} has other models than when {own.url} was set to use it",
            hint="ask its owner, or move on with `memdb update`",
        )
    return own.extending(below)


def snapshot_of(
    store: StoreLike,
    number: int,
    access: Access,
    above: tuple[str, ...] = (),
) -> Snapshot:
    """Return the models of a base at a numbered snapshot, including those of its own base."""
    try:
        own = load_snapshot(store, number)
    except NotFoundError as error:
        raise NotFoundError(
            f"{store.url}, a base, has no snapshot {number} any more",
            hint=f"restore it from a copy; {MOVED}",
        ) from error
    return _with_base(own, access, number, above or (store.manifest.store_id,))


def open_base(store: StoreLike, base: Base, access: Access) -> BaseStore:
    """Open a trusted base and check that it is still the same store.

    Raises:
        InvalidInputError: it is not trusted, or may not be followed.
        NotFoundError: nothing is there.
        MismatchError: another store is there.
    """
    url = followable(base.url, store.url)
    if not access.trusts(store.manifest.store_id, base.url):
        raise InvalidInputError(
            f"{store.url} extends {base.url}, whose models are part of every answer",
            hint="if you trust that address, pass trust_base=True; it will be remembered",
            parameter="trust_base",
        )
    storage = access.open_base(url)
    try:
        manifest = read_manifest(storage)
    except NotFoundError as error:
        raise NotFoundError(
            f"the base of {store.url} is not at {base.url} any more", hint=f"restore it; {MOVED}"
        ) from error
    if manifest.store_id != base.store_id:
        raise MismatchError(
            f"{base.url} holds the store {manifest.store_id}; {store.url} extends {base.store_id}", hint=MOVED
        )
    store.manifest.require_joinable(manifest, store.url, base.url)
    return BaseStore(storage, manifest)
