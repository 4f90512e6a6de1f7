"""Stores made of other stores: one that extends another, and one that several are merged into."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memdb import datasets, recipes
from memdb.create import Options
from memdb.database import Database
from memdb.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from memdb.format.manifest import Manifest, RecipeInfo
from memdb.format.score_table import ScoreTable
from memdb.permission import Names
from memdb.storage import Cache, default_folder, open_storage
from memdb.storage.protocol import Storage
from memdb.store import BaseAccess, Store, require_free
from memdb.store.examples import read_example_table
from memdb.store.extend import inspect_base
from memdb.store.maintenance import merge as merging
from memdb.store.score_tables import copy_scores
from memdb.store.snapshot import Snapshot


def extend(  # noqa: PLR0913 - two places, what may be imported, how they are reached
    url: str,
    base: str,
    *,
    dataset: str | datasets.Dataset | None = None,
    recipe: Any = None,
    seed: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    base_options: Options | None = None,
    trust_base: bool = False,
    cache: Cache | None = None,
) -> Database:
    """Create a store that extends another: that one stays where it is and is only read.

    Questions see the models of both as one; training writes to the new store alone, which has the data set,
    recipe, subset fraction and outcomes of its base and a seed of its own.

    Args:
        url: a path, or a URL that fsspec can write to.
        base: the path or URL of a store with a snapshot; its newest one is taken in.
        dataset: needed where the base names one by ``package.module:attribute``; see `memdb.permission`.
        recipe: likewise.
        seed: of all subset masks; random where not given.
        storage_options: for the fsspec driver of the new store.
        base_options: for that of the base, or a function from its URL to them.
        trust_base: follow the bases of a base that extends another itself.
        cache: where objects of remote bases are kept.

    Raises:
        AlreadyExistsError: something is at this URL.
        NotFoundError: no store is at the base's, or none with a snapshot.
        InvalidInputError: an address that no manifest may have, or code that was not named
            (`UnnamedCodeError`).
    """
    storage = open_storage(url, storage_options)
    require_free(storage)
    base_access = BaseAccess.of(default_folder(), trusted=trust_base, options=base_options, cache=cache)
    found = inspect_base(base, url, base_access)
    names = Names(dataset, recipe)
    names.require_all(found.manifest, base)
    data, bound = names.bound(found.manifest, base)
    if seed == found.manifest.seed:
        raise InvalidInputError(
            f"the seed {seed} is that of {base}: the same models would be trained twice", hint="leave it out"
        )
    manifest = replace(_new(found.manifest, bound), base=found.base, seed=_seed(seed))
    store = Store.create(storage, manifest, found.tables, base_access)
    names.remember_for(store)
    base_access.remember(manifest.store_id, found.base.url)
    return Database(store, data, bound)


@dataclass(frozen=True)
class Merge:
    """What a merge made; numbers of models by source, in the order given."""

    database: Database
    added: tuple[int, ...]
    present: tuple[int, ...]  # that the destination, or a source before, had already
    n_withdrawn: int  # that sources had withdrawn, and the destination had not
    scores: tuple[str, ...]  # names of score tables that the destination did not have
    dropped: tuple[str, ...]  # outcomes that a new store does not keep, since not all models have them


def merge(  # noqa: PLR0913 - the places, what may be imported, how they are reached
    url: str,
    sources: Sequence[Database],
    *,
    dataset: str | datasets.Dataset | None = None,
    recipe: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    following: BaseAccess | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Merge:
    """Bring the models of stores together in one, which is created where there is none.

    A model that stands in several is kept once; one that was withdrawn in any is withdrawn. Imported scores
    come along. A merge that was interrupted goes on when it is called again.

    Args:
        url: a path, or a URL that fsspec can write to.
        sources: opened stores; a new one gets the data, recipe and subset fraction of the first.
        dataset: needed for a new store where the first names code, ``package.module:attribute``: see
            `memdb.permission`.
        recipe: likewise.
        storage_options: for the fsspec driver.
        following: how the store that the destination extends is reached; as for one that this user made,
            where not given.
        progress: hears how many models of how many are there.

    Raises:
        MismatchError: data, recipes, subsets or a model's outcomes differ, naming both; nothing was written.
        InvalidInputError: equal masks under different ids, code that was not named (`UnnamedCodeError`), or a
            destination that is a published copy; nothing was written.
        AlreadyExistsError: different scores have one name; nothing was written.
        StorageError: a storage refused; models that were committed stay.
    """
    if not sources:
        raise InvalidInputError("no store to merge was named", hint="name some: memdb merge A B --store C")
    snapshots = [source.snapshot for source in sources]
    names = Names(dataset, recipe)
    storage = open_storage(url, storage_options)
    tables = [(source.store, table) for source in sources for table in source.store.score_tables()]
    dropped: tuple[str, ...] = ()
    try:
        store = Store.open(storage, following or BaseAccess.of(default_folder()))
    except NotFoundError:
        require_free(storage)
        _require_one_meaning(tables)
        store, dropped = _created(storage, snapshots, names)
    else:
        store.require_growing("merge into")
        if any(source.url == storage.url for source in snapshots):
            raise InvalidInputError(
                f"{url} is both a source and the destination", hint="name another with --store"
            )
        merging.require_mergeable(store.manifest, url, snapshots)
        _require_one_meaning([*((store, table) for table in store.score_tables()), *tables])
        merging.require_distinct([store.snapshot(), *snapshots])
    database = Database(store, *names.bound(store.manifest, url))
    done = merging.merge(store, snapshots, progress)
    copied = (copy_scores(at.storage, table, store) for at, table in tables)
    scores = tuple(table.name for table, is_new in copied if is_new)
    return Merge(database, done.added, done.present, done.n_withdrawn, scores, dropped)


def _require_one_meaning(tables: Sequence[tuple[Store, ScoreTable]]) -> None:
    """Refuse different scores of one name.

    Raises:
        AlreadyExistsError: names them and where they are.
    """
    known: dict[str, tuple[Store, ScoreTable]] = {}
    contents = set()
    for store, table in tables:
        if table.content in contents:
            continue  # kept once, by the name it has first
        contents.add(table.content)
        other, _ = known.setdefault(table.name, (store, table))
        if other is not store:
            raise AlreadyExistsError(
                f"the scores named {table.name} of {store.url} are others than those of {other.url}",
                hint="import one of them under another --scores-name",
            )


def _created(storage: Storage, sources: Sequence[Snapshot], names: Names) -> tuple[Store, tuple[str, ...]]:
    """Create the destination with the data of the first source, once all of them go together."""
    first = sources[0]
    names.require_all(first.manifest, first.url)
    outcomes, dropped = merging.common_outcomes(sources)
    _, bound = names.bound(first.manifest, first.url)
    manifest = replace(_new(first.manifest, bound), outcomes=outcomes)
    merging.require_mergeable(manifest, first.url, sources[1:])
    merging.require_distinct(sources)
    tables = {info.name: read_example_table(first, info.name) for info in manifest.sets}
    store = Store.create(storage, manifest, tables)
    names.remember_for(store)
    return store, dropped


def _new(theirs: Manifest, bound: recipes.BoundRecipe | None) -> Manifest:
    """Return the manifest of a new store of the same data, recipe and subsets."""
    recipe: RecipeInfo = theirs.recipe if bound is None else bound.info
    return Manifest(
        dataset=theirs.dataset,
        sets=theirs.sets,
        outcomes=theirs.outcomes,
        recipe=recipe,
        subset_scheme=theirs.subset_scheme,
        subset_fraction=theirs.subset_fraction,
    )


def _seed(seed: int | None) -> int:
    if seed is not None and not 0 <= seed < 2**64:
        raise InvalidInputError(f"the seed {seed} is out of range", hint="use one from 0 to 2**64 - 1")
    return secrets.randbits(63) if seed is None else seed
