"""How a user reaches a store and those it extends: drivers' options, a cache, and which bases are trusted."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import EllipsisType
from typing import Any, TypeAlias

from memdb.format.documents import canonical_json
from memdb.storage.cache import Cache, default_folder
from memdb.storage.protocol import Storage
from memdb.storage.urls import open_storage

Options: TypeAlias = Mapping[str, Any] | Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Access:
    """How a store and its bases are reached.

    The address of a base was chosen by whoever created the store that names it: it is followed only if this
    user trusts it, which is remembered beside the default folder of cached objects.

    Attributes:
        options: for the store's fsspec driver.
        base_options: for that of a base, or a function from its URL to them.
        cache: where objects of remote stores are kept; None for nowhere.
        trust_base: follow any base, and remember it.
        named_base: the address of a base that the user has just given.
    """

    options: Mapping[str, Any] | None = field(default=None, repr=False)  # which may hold secrets
    base_options: Options | None = field(default=None, repr=False)
    cache: Cache | None = None
    trust_base: bool = False
    named_base: str | None = None

    @classmethod
    def of_user(
        cls,
        options: Mapping[str, Any] | None,
        base_options: Options | None,
        cache: Cache | EllipsisType | None,
        *,
        trust_base: bool,
    ) -> Access:
        """Return access with the user's own cache in place of ``...``."""
        kept = Cache.of_user(default_folder()) if cache is ... else cache
        return cls(options, base_options, kept, trust_base)

    def open(self, place: str | Path | Storage) -> Storage:
        """Return the storage at a path or URL, or the given storage itself."""
        if isinstance(place, str | Path):
            return open_storage(str(place), self.options, self.cache)
        return place

    def open_base(self, url: str) -> Storage:
        """Return the storage of a base."""
        options = self.base_options(url) if callable(self.base_options) else self.base_options
        return open_storage(url, options, self.cache)

    def naming(self, url: str) -> Access:
        """Return access that also trusts a base's address which the user has just given."""
        return replace(self, named_base=url)

    def trusts(self, store_id: str, url: str) -> bool:
        """Tell whether a store's base at an address may be followed."""
        if self.trust_base:
            self.remember(store_id, url)
        return self.trust_base or url == self.named_base or _entry(store_id, url).is_file()

    def remember(self, store_id: str, url: str) -> None:
        """Trust this base from now on; if saving that fails, the user is asked again."""
        path = _entry(store_id, url)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(canonical_json({"store_id": store_id, "base": url}))


PLAIN = Access()


def _entry(store_id: str, url: str) -> Path:
    name = hashlib.sha256(f"{store_id} {url}".encode()).hexdigest()
    return default_folder().parent / "bases" / f"{name}.json"
