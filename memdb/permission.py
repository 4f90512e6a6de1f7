"""Decide which code named by a store may run: what its user named, or created the store with.

A manifest names a recipe and a data set. A `package.module:attribute` among them is code that the store's
creator chose, so it is imported only if this user created the store here, or names that very code. What was
named is remembered below the user's home and never in a store: by the store's address and id, the import path
and, for a recipe, its options. A copy, or another store at the same address, is not trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memdb.errors import InvalidInputError, MismatchError, UnnamedCodeError
from memdb.format.documents import canonical_json, fingerprint
from memdb.format.manifest import Manifest
from memdb.storage import whereabouts
from memdb.store import Store

if TYPE_CHECKING:
    from memdb.datasets import Dataset
    from memdb.recipes import BoundRecipe

KINDS = {"recipe": "recipe", "dataset": "data set"}


@dataclass(frozen=True)
class Names:
    """The data set and the recipe as the user says them: by name, as objects, or not at all."""

    dataset: str | Dataset | None = None
    recipe: Any = None

    @property
    def _data(self) -> Dataset | None:
        """The data set, if it was given as an object."""
        return None if isinstance(self.dataset, str) else self.dataset

    def require_for(self, store: Store, purpose: str, kinds: Collection[str] = KINDS) -> None:
        """Refuse what a store names and the user has not, now or before; remember what is named now.

        Args:
            store: one that the user wants to use.
            purpose: what would import the code, for the message.
            kinds: of `recipe` and `dataset`, those that are about to be used.

        Raises:
            UnnamedCodeError: names the code.
            MismatchError: the data set is an object, and another.
            InvalidInputError: a recipe that has a built-in name and is said to be found elsewhere.
        """
        if self._data is not None:
            store.manifest.require_same(self._data.of(store.manifest).infos, store.manifest.recipe, store.url)
        named = {kind: path for kind, path in store.manifest.imports.items() if kind in kinds}
        lacking = {
            kind: path
            for kind, path in named.items()
            if getattr(self, kind) is None and not _is_remembered(store, kind, path)
        }
        _require_none(lacking, store.url, purpose)
        if "recipe" in kinds:
            self._require_one_recipe(store.manifest, store.url)
        for kind, path in named.items():
            if getattr(self, kind) == path:
                _remember(store, kind, path)

    def require_all(self, manifest: Manifest, url: str) -> None:
        """Refuse to take over into a new store what the user does not name, whatever was named before.

        Raises:
            UnnamedCodeError: names the code.
            MismatchError: the user names another data set or recipe.
        """
        stated = {"dataset": manifest.dataset, "recipe": manifest.recipe.import_path or manifest.recipe.name}
        for kind, theirs in stated.items():
            said = getattr(self, kind)
            if isinstance(said, str) and said != theirs:
                raise MismatchError(
                    f"{url} has the {KINDS[kind]} {theirs}, not {said}",
                    hint=f"omit --{kind}, or say {theirs}",
                )
        lacking = {kind: path for kind, path in manifest.imports.items() if getattr(self, kind) is None}
        _require_none(lacking, url, "training")
        self._require_one_recipe(manifest, url)

    def bound(self, manifest: Manifest, url: str) -> tuple[Dataset | None, BoundRecipe | None]:
        """Return the objects among them, which must be the manifest's."""
        from memdb import recipes  # which no question needs

        data = None if self._data is None else self._data.of(manifest)
        recipe = None if self.recipe is None or isinstance(self.recipe, str) else recipes.bind(self.recipe)
        sets = manifest.sets if data is None else data.infos
        manifest.require_same(sets, manifest.recipe if recipe is None else recipe.info, url)
        return data, recipe

    def _require_one_recipe(self, manifest: Manifest, url: str) -> None:
        """Refuse to follow a built-in recipe's name to other code, even where that was named."""
        from memdb import recipes

        name, path = manifest.recipe.name, manifest.recipe.import_path
        is_followed = self.recipe is None or (isinstance(self.recipe, str) and self.recipe == path)
        if is_followed and path is not None and recipes.is_built_in(name):
            raise InvalidInputError(
                f"{url} calls its recipe {name}, which is built in, and has it imported from {path}",
                hint="no store that memdb makes does so: ask it, but do not train it",
            )

    def remember_for(self, store: Store) -> None:
        """Remember, of a store that was created just now, the code that its user gave; forget what was there.

        A data set given as an object says nothing about the name that a base has for it.
        """
        forget(store.url)
        for kind, path in store.manifest.imports.items():
            said = getattr(self, kind)
            if said == path or (kind == "recipe" and said is not None):
                _remember(store, kind, path)


def forget(url: str) -> None:
    """Forget all code that was named for the store at a place: another store is written there."""
    folder = _folder(url)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _require_none(lacking: dict[str, str], url: str, purpose: str) -> None:
    if lacking:
        shown = " and ".join(f"the {KINDS[kind]} {path}" for kind, path in lacking.items())
        said = ", ".join(f"{kind}={path!r}" for kind, path in lacking.items())
        raise UnnamedCodeError(
            f"{url} names {shown}, which {purpose} would import",
            hint=f"if you know that code, say so: {said}",
            named=lacking,
        )


def _is_remembered(store: Store, kind: str, path: str) -> bool:
    entry = _entry(store, kind, path)
    return entry is not None and entry[0].is_file()


def _remember(store: Store, kind: str, path: str) -> None:
    """Write it down; if that fails, it is asked for again."""
    entry = _entry(store, kind, path)
    if entry is not None:
        with contextlib.suppress(OSError):
            entry[0].parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            entry[0].write_bytes(entry[1])


def _entry(store: Store, kind: str, path: str) -> tuple[Path, bytes] | None:
    folder = _folder(store.url)
    manifest = store.manifest
    identity = {
        "store_id": manifest.store_id,
        kind: path,
        "fingerprint": manifest.recipe.fingerprint if kind == "recipe" else "",
    }
    return None if folder is None else (folder / f"{fingerprint(identity)}.json", canonical_json(identity))


def _folder(url: str) -> Path | None:
    """Return where it is remembered what was named for the store at a place; None for who has no home."""
    try:
        home = Path.home()
    except RuntimeError:  # a temporary folder would be shared with other users
        return None
    if not home.is_absolute():  # relative to the working folder, which another user may have filled
        return None
    return home / ".cache" / "memdb" / "code" / hashlib.sha256(whereabouts(url).encode()).hexdigest()[:32]
