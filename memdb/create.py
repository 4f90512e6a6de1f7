"""Create, open, import and pull stores. Each function imports what it needs when it is called."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from memdb.database import IN_MEMORY, Database, View
from memdb.errors import InvalidInputError, NotFoundError
from memdb.format.kept import Kept
from memdb.format.manifest import OUTCOMES, Manifest, Outcome
from memdb.format.sketches import DEFAULT_SIZE, SKETCH, Projection, SketchPlan, require_no_size
from memdb.permission import Names, forget
from memdb.storage import Cache
from memdb.storage.protocol import Storage
from memdb.store import Access, Store, require_free
from memdb.store.access import Options

if TYPE_CHECKING:
    from memdb.datasets import Dataset
    from memdb.interop.formats import Format
    from memdb.interop.ids import Given
    from memdb.interop.import_runs import Imported
    from memdb.interop.import_scores import ImportedScores
    from memdb.sharing.pull import Pulled


def init(  # noqa: PLR0913 - a store is fixed by many choices; all have defaults
    url: str | Path | Storage = "memdb.zarr",
    dataset: str | Dataset = "digits",
    recipe: str | Any = "mlp",
    *,
    data_root: str | None = None,
    download: bool = False,
    recipe_options: Mapping[str, Any] | None = None,
    recipe_version: str | None = None,
    subset_fraction: float = 0.7,
    outcomes: Sequence[str | Outcome] = ("correct", "logit_confidence"),
    seed: int | None = None,
    sketches: int | None = None,
    sketch_size: int | None = None,
    only_ids: Given | None = None,
    without_ids: Given | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Database:
    """Create a store of a data set and a recipe, without models.

    Args:
        url: a path, a URL that fsspec can write to, or anything that fits `Storage`.
        dataset: a built-in name, ``package.module:attribute``, or a `Dataset` of your own.
        recipe: a built-in name, ``package.module:attribute``, or anything that fits `Recipe`.
        data_root: the folder that holds the data, where the data set needs one. It is not stored.
        download: let torchvision fetch what is missing.
        recipe_options: by name; the others get their defaults.
        recipe_version: for a recipe that has none of its own, or has several.
        subset_fraction: share of the training set in a subset.
        outcomes: what to keep: ``correct`` always, and any of ``logit_confidence``, ``cumulative_loss``,
            ``first_learned`` and ``prediction``, or an `Outcome` of your own that the recipe returns.
        seed: of all subset masks; random by default.
        sketches: keep gradient sketches of this many models, the first ones.
        sketch_size: numbers per example of a sketch; by default 512.
        only_ids: make the store of these training examples alone: their ids or keys, or a file that lists
            them, such as `Database.export` writes. They keep their keys, and get ids of their own.
        without_ids: likewise, of all others.
        storage_options: for the fsspec driver.

    Raises:
        AlreadyExistsError: something is at this URL.
        InvalidInputError: unknown names, options or values.
        NotFoundError: the data is not in ``data_root``.
    """
    from memdb import datasets, recipes
    from memdb.format import subsets
    from memdb.interop.ids import named, part_of

    kept = _outcomes_of(outcomes)
    if not 0 <= (seed := secrets.randbits(63) if seed is None else seed) < 2**64:
        raise InvalidInputError(f"the seed {seed} is out of range", hint="use one from 0 to 2**64 - 1")
    if not 0 < subset_fraction < 1:
        subsets.subset_size(2, subset_fraction)
    name = dataset if isinstance(dataset, str) else IN_MEMORY
    bound = (
        recipes.resolve(recipe, recipe_options or {}, recipe_version, name)
        if isinstance(recipe, str)
        else recipes.bind(recipe, options=recipe_options, version=recipe_version)
    )
    plan = _sketch_plan(seed, sketches, sketch_size)
    bound.require_outcomes([outcome.name for outcome in kept] + ([SKETCH] if plan else []))
    recipes.require_name_of_its_own(bound)
    storage = Access(storage_options).open(url)
    require_free(storage)
    only, without = named(only_ids, "only_ids"), named(without_ids, "without_ids")  # before waiting for data
    data = datasets.load(dataset, data_root, download=download) if isinstance(dataset, str) else dataset
    part = None
    if only is not None or without is not None:
        rows = part_of(data, name, only, without)
        part, data = Kept.of(rows, len(data.train)), data.only(rows)
    subsets.subset_size(len(data.train), subset_fraction)
    tables = data.tables
    manifest = Manifest(
        seed=seed,
        dataset=name,
        sets=data.infos,
        outcomes=kept,
        recipe=bound.info,
        subset_scheme="exact",
        subset_fraction=float(subset_fraction),
        sketches=plan,
        kept=part,
    )
    store = Store.create(storage, manifest, tables)
    Names(dataset, recipe).remember_for(store)
    return Database(store, data, bound)


def open(  # noqa: A001, PLR0913 - where, which moment and answers, and how to get there; all have defaults
    url: str | Path | Storage = "memdb.zarr",
    *,
    as_of: int | None = None,
    exclude: Sequence[str] = (),
    scores: str | None = None,
    assume: tuple[int, float] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cache: Cache | EllipsisType | None = ...,
    trust_base: bool = False,
    base_options: Options | None = None,
) -> Database:
    """Open the store at a path or URL.

    Args:
        url: a path, a URL that fsspec can read, or anything that fits `Storage`.
        as_of: the number of a snapshot: answers are of its models, whatever was added or retracted since.
        exclude: models to exclude from all answers, by id or unambiguous prefix, or ``diverged``.
            Excluding models because of what they predict biases every score.
        scores: the name of imported scores to answer from instead of models.
        assume: how many models of which subset fraction to assume behind them, for approximate intervals.
        storage_options: for the fsspec driver.
        cache: where objects of remote stores are kept, and what takes long to compute for predictions of
            large stores, local or not; None for nowhere. By default ``$MEMDB_CACHE_DIR`` and
            ``$MEMDB_CACHE_SIZE`` decide, or else it is below the user's home.
        trust_base: follow the address of the store that this one extends, now and from now on. Not needed
            for a store that this user made.
        base_options: for the fsspec driver of the base, or a function from its URL to them.

    Raises:
        NotFoundError: nothing is there, or no snapshot of that number.
        WrongFormatError: something else is there, or a store of a newer memdb.
        StorageError: the storage did not answer.
    """
    access = Access.of_user(storage_options, base_options, cache, trust_base=trust_base)
    return open_with(url, access, View(as_of, tuple(exclude), scores, assume))


def open_with(
    url: str | Path | Storage, access: Access, view: View, kind: type[Database] = Database
) -> Database:
    """Open a store as `open` does, given how it is reached and what its answers are to be of."""
    return kind(Store.open(access.open(url), access), view=view)


def import_file(  # noqa: PLR0913 - where from, where to, and what a file does not say; all but one have defaults
    path: str | Path | Sequence[str | Path],
    url: str = "memdb.zarr",
    *,
    dataset: str | Dataset | None = None,
    data_root: str | None = None,
    name: str | None = None,
    recipe: str | None = None,
    subset_fraction: float | None = None,
    outcomes: Sequence[str] | None = None,
    labels: str | Path | None = None,
    scores_name: str | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
    formats: Sequence[Format] = (),
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Imported | ImportedScores:
    """Import existing runs or published scores into a store, which is created if absent.

    Formats are recognized by the names of arrays: docs/importing.md lists them. What `Database.export` writes
    is among them.

    Args:
        path: an .npz, .npy, CSV or Parquet file, a folder of them, or several that belong together.
        url: of the store.
        dataset: the data set, if it can be loaded: the store takes its labels, names and fingerprint.
        data_root: the folder that holds it.
        name: what to call a data set that is not loaded. Equal names say that data is the same.
        recipe: what to call how the models were trained, likewise.
        subset_fraction: that masks were drawn with; by default the roundest that explains their sizes.
        outcomes: names of those to keep; all by default.
        labels: a .npy file of the training examples' labels, for files that have none.
        scores_name: of a score table; the file's name by default.
        n_train: how many training examples there are, for scores that do not say.
        n_test: how many test examples, likewise.
        formats: formats of your own, tried first: see `memdb.interop.formats`.
        storage_options: for the fsspec driver.
        progress: called with the number of models done and their total, both passes counted.

    Raises:
        InvalidInputError: a file is unreadable or has unexpected contents; nothing was written.
        MismatchError: the store is of other data, another recipe or subset fraction.
        AlreadyExistsError: something else is at this URL, or other scores have this name.
    """
    from memdb import datasets
    from memdb.format import subsets
    from memdb.interop.formats import read_file
    from memdb.interop.import_runs import About, import_runs
    from memdb.interop.import_scores import import_scores
    from memdb.interop.run_formats import Runs

    storage = Access(storage_options).open(url)
    try:
        existing: Store | None = Store.open(storage)
    except NotFoundError:
        existing = None
        require_free(storage)
    if existing is not None:
        existing.require_growing("import into")
    if subset_fraction is not None and not 0 < subset_fraction < 1:
        subsets.subset_size(2, subset_fraction)
    one = isinstance(path, str | Path)
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(item) for item in path]
    if not paths:
        raise InvalidInputError("no file is named", hint="name at least one", parameter="path")
    given_labels = None if labels is None else Path(labels)
    content = read_file(paths[0] if one else paths, given_labels, formats)
    data = datasets.load(dataset, data_root) if isinstance(dataset, str) else dataset
    data = data if data is None or existing is None else data.of(existing.manifest)
    called = dataset if isinstance(dataset, str) else name or (None if data is None else IN_MEMORY)
    about = About(data, called, recipe, subset_fraction, outcomes)
    done: Imported | ImportedScores
    if isinstance(content, Runs):
        _require_none(f"{path} holds models", scores_name=scores_name, n_train=n_train, n_test=n_test)
        done = import_runs(storage, existing, content, about, progress)
    else:
        _require_none(f"{path} holds scores", labels=labels, outcomes=outcomes)
        sizes = {part: n for part, n in (("train", n_train), ("test", n_test)) if n is not None}
        done = import_scores(storage, existing, content, about, scores_name, sizes)
    if existing is None:
        Names(dataset).remember_for(done.store)
    return done


def _require_none(content: str, **others: object) -> None:
    """Refuse parameters that describe other content than a file's."""
    ignored = [name for name, value in others.items() if value is not None]
    if ignored:
        raise InvalidInputError(
            f"{content}, which {ignored[0]} does not describe", hint="omit it", parameter=ignored[0]
        )


def pull(  # noqa: PLR0913 - from where, to where, what of it, and who watches
    url: str,
    destination: str,
    *,
    only: str | None = None,
    as_of: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Pulled:
    """Copy a published store, or the bits alone of any; every object is checked by its sha256.

    What is there already is left alone, so that an interrupted copy can be resumed.

    Args:
        url: a path, or a URL that fsspec can read.
        destination: a path, or a URL that fsspec can write to.
        only: ``bits`` for a store of its own with the models of one snapshot, without confidences and
            derived tables; by default all of a published copy.
        as_of: with ``only``, the number of a snapshot.
        storage_options: for the fsspec driver of ``url``.
        destination_options: for that of ``destination``.
        progress: called with the number of bytes done and their total.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: the store was not published, or a value is invalid.
        AlreadyExistsError: the destination holds something else.
        StorageError: a storage did not answer, or an object is not intact.
    """
    from memdb.look.site import SitePage
    from memdb.sharing import pull as pulling

    source = Store.open(Access(storage_options).open(url))
    target = Access(destination_options).open(destination)
    forget(destination)  # what is copied was not made here, whatever stood there before
    return pulling.pull(source, target, only=only, as_of=as_of, page=SitePage(), progress=progress)


def _outcomes_of(given: Sequence[str | Outcome]) -> tuple[Outcome, ...]:
    known = [OUTCOMES.get(item) if isinstance(item, str) else item for item in given]
    chosen = tuple(outcome for outcome in known if outcome is not None)
    names = [outcome.name for outcome in chosen]
    if len(chosen) < len(given) or "correct" not in names or len({*names, SKETCH}) != len(names) + 1:
        raise InvalidInputError(
            f"cannot keep the outcomes {', '.join(map(str, given))}",
            hint=f"name correct, and any of {', '.join(OUTCOMES)}, or give an `Outcome` of your own",
        )
    return chosen


def _sketch_plan(seed: int, n_models: int | None, size: int | None) -> SketchPlan | None:
    if n_models is None:
        require_no_size(size, "sketches")
        return None
    return SketchPlan(n_models, Projection.of_store(seed, DEFAULT_SIZE if size is None else size))
