"""The store that another one extends: whether its address may be followed, and its models.

A manifest names its base by a URL that whoever made the store chose. It is followed only where the user
trusts it, never from a remote store to this machine's disk, and what is found there must be what was
pinned: the same store, data, recipe and subsets, and at the numbered snapshot the same models.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memdb.addresses import shown
from memdb.errors import DamagedError, InvalidInputError, MismatchError, NotFoundError
from memdb.format.documents import canonical_json
from memdb.format.manifest import Base, Manifest
from memdb.storage.cache import Cache
from memdb.storage.protocol import Storage
from memdb.storage.urls import LOCAL, local_path, open_storage, protocol_of
from memdb.store.load_snapshot import load_snapshot
from memdb.store.read_documents import base_in_force, read_manifest
from memdb.store.snapshot import Snapshot

MOST_BASES = 8  # one below the other
MOVED = "`memdb update --base URL` says where it is now"


@dataclass(frozen=True)
class TrustedBases:
    """A folder that remembers which stores' bases the user said to follow."""

    folder: Path

    def __call__(self, store_id: str, url: str) -> bool:
        """Tell whether this store's base at this address was trusted before."""
        return self._path(store_id, url).is_file()

    def remember(self, store_id: str, url: str) -> None:
        """Trust it from now on; where that cannot be written down it is asked for again."""
        path = self._path(store_id, url)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(canonical_json({"store_id": store_id, "base": url}))

    def _path(self, store_id: str, url: str) -> Path:
        return self.folder / f"{hashlib.sha256(f'{store_id} {url}'.encode()).hexdigest()}.json"


@dataclass(frozen=True)
class Following:
    """How bases are reached: which ones are trusted, by store id and URL, and what their drivers are told."""

    trusted: Callable[[str, str], bool]
    options_for: Callable[[str], Mapping[str, Any]] = lambda _url: {}
    cache: Cache | None = None
    remember: Callable[[str, str], None] = lambda _store_id, _url: None

    @classmethod
    def of(
        cls,
        objects: Path,
        *,
        trusted: bool = False,
        options: Mapping[str, Any] | Callable[[str], Mapping[str, Any]] | None = None,
        cache: Cache | None = None,
    ) -> Following:
        """Return how this user follows bases: those that were trusted before, or all, which then are.

        What is remembered lies beside the folder of cached objects.
        """
        known = TrustedBases(objects.parent / "bases")

        def trust(store_id: str, url: str) -> bool:
            if trusted:
                known.remember(store_id, url)
            return trusted or known(store_id, url)

        told = options if callable(options) else lambda _url: options or {}
        return cls(trust, told, cache, known.remember)

    def naming(self, named: str) -> Following:
        """Return the same for an address that the user gave just now."""
        return replace(self, trusted=lambda store_id, url: url == named or self.trusted(store_id, url))

    def open(self, url: str) -> Storage:
        """Return the storage behind a URL."""
        return open_storage(url, self.options_for(url), self.cache)


def followable(url: str, from_url: str) -> str:
    """Return the address of a base as a manifest may have it: that of a local folder whole.

    Raises:
        InvalidInputError: a protocol that is not followed, a password, a folder of this machine in a remote
            store.
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
            f"the address of the base, {shown(url)}, holds a user name, a password or a signature, which "
            "would be written into the store",
            hint="leave it out, and give it to the storage's own tools",
        )
    return url


def with_base(own: Snapshot, following: Following | None, as_of: int | None = None) -> Snapshot:
    """Return a store's models with those of the store that it extends, if it does.

    Raises:
        InvalidInputError: the base is not trusted, may not be followed, or the chain of bases has no end.
        NotFoundError: it is not there any more, or its snapshot is not.
        MismatchError: another store is there.
        DamagedError: the snapshot has other models than it had.
    """
    return _with_base(own, following, as_of, (own.manifest.store_id,))


def _with_base(
    own: Snapshot, following: Following | None, as_of: int | None, above: tuple[str, ...]
) -> Snapshot:
    base = base_in_force(own.storage, own.manifest)
    if base is None:
        return own
    if as_of is not None and own.record is not None and own.record.base is not None:
        base = replace(own.record.base, url=base.url)
    storage, manifest = open_base(own.storage, own.manifest, base, following)
    if manifest.store_id in above:
        raise InvalidInputError(
            f"{own.url} extends itself: its base {base.url} leads back to it",
            hint="restore the base from a copy",
        )
    if len(above) > MOST_BASES:
        raise InvalidInputError(
            f"{own.url} stands on more than {MOST_BASES} stores, each of which extends the next",
            hint="bring them together with `memdb merge`",
        )
    found = snapshot_of(storage, manifest, base.snapshot, following, (*above, manifest.store_id))
    if found.models_sha256 != base.models_sha256:
        raise DamagedError(
            f"snapshot {base.snapshot} of {base.url} has other models than {own.url} was told",
            hint="ask whoever keeps it, or move on with `memdb update`",
        )
    return own.extending(found)


def snapshot_of(
    storage: Storage,
    manifest: Manifest,
    number: int,
    following: Following | None,
    above: tuple[str, ...] = (),
) -> Snapshot:
    """Return the models of a base at a numbered snapshot, those of its own base among them."""
    try:
        own = load_snapshot(storage, manifest, number)
    except NotFoundError as error:
        raise NotFoundError(
            f"{storage.url}, a base, has no snapshot {number} any more",
            hint=f"restore it from a copy; {MOVED}",
        ) from error
    return _with_base(own, following, number, above or (manifest.store_id,))


def open_base(
    storage: Storage, manifest: Manifest, base: Base, following: Following | None
) -> tuple[Storage, Manifest]:
    """Follow the address of a base that is trusted, and see that it is still the same store.

    Raises:
        InvalidInputError: it is not trusted, or may not be followed.
        NotFoundError: nothing is there.
        MismatchError: another store is there.
    """
    url = followable(base.url, storage.url)
    if following is None or not following.trusted(manifest.store_id, base.url):
        raise InvalidInputError(
            f"{storage.url} extends {base.url}, whose models are part of every answer",
            hint="if you know that address, say trust_base=True; it will be remembered",
            parameter="trust_base",
        )
    place = following.open(url)
    try:
        found = read_manifest(place)
    except NotFoundError as error:
        raise NotFoundError(
            f"the base of {storage.url} is not at {base.url} any more", hint=f"restore it; {MOVED}"
        ) from error
    if found.store_id != base.store_id:
        raise MismatchError(
            f"{base.url} holds the store {found.store_id}; {storage.url} extends {base.store_id}", hint=MOVED
        )
    manifest.require_joinable(found, storage.url, base.url)
    return place, found
