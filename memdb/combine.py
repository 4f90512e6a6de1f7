"""Make stores from other stores: extend one, or merge several."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any

from memdb import datasets, recipes
from memdb.database import Database
from memdb.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from memdb.format.manifest import Manifest, RecipeInfo
from memdb.format.score_table import ScoreTable
from memdb.format.sketches import MAX_MODELS, SketchPlan
from memdb.permission import Names
from memdb.storage import Cache
from memdb.storage.protocol import Storage
from memdb.store import Access, Store, require_free
from memdb.store.access import Options
from memdb.store.examples import read_example_table
from memdb.store.extend import inspect_base
from memdb.store.maintenance import merge as merging
from memdb.store.read_sketches import all_sketched
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
    cache: Cache | EllipsisType | None = ...,
) -> Database:
    """Create a store that extends another, its base, which stays where it is and is only read.

    Questions see the models of both as one; training writes to the new store alone, which has the data set,
    recipe, subset fraction and outcomes of its base and a seed of its own.

    Args:
        url: a path, or a URL that fsspec can write to.
        base: the path or URL of a store with a snapshot; the newest one becomes the base snapshot.
        dataset: needed if the base names one by ``package.module:attribute``; see `memdb.permission`.
        recipe: likewise.
        seed: of all subset masks; random by default.
        storage_options: for the fsspec driver of the new store.
        base_options: for that of the base, or a function from its URL to them.
        trust_base: follow the bases of a base that extends another itself.
        cache: where objects of remote bases are kept: see `memdb.open`.

    Raises:
        AlreadyExistsError: something is at this URL.
        NotFoundError: there is no store at ``base``, or it has no snapshot.
        InvalidInputError: an address that no manifest may hold, or code that was not named
            (`UnnamedCodeError`).
    """
    access = Access.of_user(storage_options, base_options, cache, trust_base=trust_base)
    return extend_with(url, base, Names(dataset, recipe), access, seed)


def extend_with(url: str, base: str, names: Names, access: Access, seed: int | None = None) -> Database:
    """Extend a store as `extend` does, given what is named and how both stores are reached."""
    storage = access.open(url)
    require_free(storage)
    inspected = inspect_base(base, url, access)
    theirs = inspected.manifest
    names.require_all(theirs, base)
    data, bound = names.bound(theirs, base)
    if seed == theirs.seed:
        raise InvalidInputError(
            f"the seed {seed} is that of {base}: the same models would be trained twice", hint="omit it"
        )
    manifest = replace(_new(theirs, bound), base=inspected.base, seed=_seed(seed))
    store = Store.create(storage, manifest, inspected.tables, access)
    names.remember_for(store)
    access.remember(manifest.store_id, inspected.base.url)
    return Database(store, data, bound)


@dataclass(frozen=True)
class Merge:
    """The result of a merge; numbers of models are by source, in the order given."""

    database: Database
    added: tuple[int, ...]
    present: tuple[int, ...]  # already in the destination, or in an earlier source
    n_retracted: int  # retracted in sources, and not in the destination before
    scores: tuple[str, ...]  # names of score tables that the destination did not have
    dropped: tuple[str, ...]  # outcomes that a new store does not keep, because some models lack them
    n_unsketched: int = 0  # models whose gradient sketches are by another projection, and were not taken


def merge(
    url: str,
    sources: Sequence[Database],
    *,
    dataset: str | datasets.Dataset | None = None,
    recipe: Any = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Merge:
    """Merge the models of several stores into one, which is created if absent.

    A model that several stores have is kept once; one that any of them retracted is retracted. Imported
    scores are copied too. An interrupted merge goes on when it is called again.

    Args:
        url: a path, or a URL that fsspec can write to.
        sources: opened stores; a new one gets the data, recipe and subset fraction of the first.
        dataset: needed for a new store if the first source names code, ``package.module:attribute``: see
            `memdb.permission`.
        recipe: likewise.
        storage_options: for the fsspec driver.
        progress: called with the number of models committed and their total.

    Raises:
        MismatchError: data, recipes, subsets or a model's outcomes differ, naming both; nothing was written.
        InvalidInputError: equal masks under different ids, code that was not named (`UnnamedCodeError`), or a
            destination that is a published copy; nothing was written.
        AlreadyExistsError: different scores have one name; nothing was written.
        StorageError: a storage refused; models that were committed stay.
    """
    return merge_with(url, sources, Names(dataset, recipe), Access(storage_options), progress)


def merge_with(
    url: str,
    sources: Sequence[Database],
    names: Names,
    access: Access,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Merge:
    """Merge stores as `merge` does, given what is named and how the destination is reached."""
    if not sources:
        raise InvalidInputError("no store to merge was named", hint="name some: `memdb merge A B --store C`")
    snapshots = [source.snapshot for source in sources]
    storage = access.open(url)
    tables = [(source.store, table) for source in sources for table in source.store.score_tables()]
    dropped: tuple[str, ...] = ()
    try:
        store = Store.open(storage, access)
    except NotFoundError:
        require_free(storage)
        _require_one_meaning(tables)
        store, dropped = _created(storage, snapshots, names)
    else:
        store.require_growing("merge into")
        if any(source.url == storage.url for source in snapshots):
            raise InvalidInputError(
                f"{url} is both a source and the destination", hint="name another url", parameter="url"
            )
        merging.require_mergeable(store.manifest, url, snapshots)
        _require_one_meaning([*((store, table) for table in store.score_tables()), *tables])
        merging.require_distinct([store.snapshot(), *snapshots])
    database = Database(store, *names.bound(store.manifest, url))
    done = merging.merge(store, snapshots, progress)
    copied = (copy_scores(at.storage, table, store) for at, table in tables)
    scores = tuple(table.name for table, is_new in copied if is_new)
    return Merge(database, done.added, done.present, done.n_retracted, scores, dropped, done.n_unsketched)


def _require_one_meaning(tables: Sequence[tuple[Store, ScoreTable]]) -> None:
    """Refuse different scores with the same name.

    Raises:
        AlreadyExistsError: names the scores and both stores.
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
                hint="import one of them under another scores_name",
                parameter="scores_name",
            )


def _created(storage: Storage, sources: Sequence[Snapshot], names: Names) -> tuple[Store, tuple[str, ...]]:
    """Create the destination with the first source's data, after checking that all sources fit together."""
    first = sources[0]
    names.require_all(first.manifest, first.url)
    outcomes, dropped = merging.common_outcomes(sources)
    _, bound = names.bound(first.manifest, first.url)
    manifest = replace(_new(first.manifest, bound), outcomes=outcomes, sketches=_sketched_alike(sources))
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
        sketches=theirs.sketches,
        kept=theirs.kept,
    )


def _sketched_alike(sources: Sequence[Snapshot]) -> SketchPlan | None:
    """Return the sketches that a merged store has: those by the projection of the first that has any."""
    projection = merging.common_projection(sources)
    alike = {
        source.models[one.model][1].model_id
        for source in sources
        for one in all_sketched(source)
        if one.projection == projection
    }
    return SketchPlan(min(len(alike), MAX_MODELS), projection) if projection and alike else None


def _seed(seed: int | None) -> int:
    if seed is not None and not 0 <= seed < 2**64:
        raise InvalidInputError(f"the seed {seed} is out of range", hint="use one from 0 to 2**64 - 1")
    return secrets.randbits(63) if seed is None else seed
