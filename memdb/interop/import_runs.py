"""Import runs into a store: all are checked before any is committed, and none is committed twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, MismatchError
from memdb.format import layout
from memdb.format.documents import now, own_version
from memdb.format.manifest import CORRECT, Manifest, Outcome, RecipeInfo
from memdb.format.segment import ModelInfo
from memdb.interop.described import Names
from memdb.interop.run_formats import Outcomes, Runs
from memdb.interop.survey import Survey, batches, drawn_fraction, mask_hashes, require_fraction, survey
from memdb.storage.protocol import Storage
from memdb.store import Examples, ExampleTable, Store
from memdb.store.examples import UNKNOWN, unlabelled
from memdb.store.score_tables import examples_with, sizes_with
from memdb.wording import count

SCHEME = "imported"
Observe = Callable[[int, int], None]


@dataclass(frozen=True)
class About:
    """What the user says about runs or scores beyond what their file says; None if nothing.

    ``name`` and ``recipe`` tell data sets and recipes apart that memdb cannot load: equal names are the
    user's word that they are the same.
    """

    data: Dataset | None = None
    name: str | None = None
    recipe: str | None = None
    subset_fraction: float | None = None
    outcomes: Sequence[str] | None = None  # names of those to keep; None for all


@dataclass(frozen=True)
class Imported:
    """The result of an import of runs."""

    store: Store
    kind: str
    created: bool
    n_models: int  # in the file
    n_added: int
    notes: tuple[str, ...] = ()


def import_runs(
    storage: Storage,
    existing: Store | None,
    runs: Runs,
    about: About,
    progress: Observe = lambda _d, _t: None,
) -> Imported:
    """Add runs to a store of imported models, or to a new one.

    Raises:
        InvalidInputError: the runs are invalid, or do not belong together.
        MismatchError: they have other data, another recipe or subset fraction than the store.
        StorageError: a batch could not be committed; another import adds what is missing.
    """
    kept = _kept(runs, about)
    left_out: tuple[str, ...] = ()
    total = 2 * runs.n_models
    surveyed = survey(runs, lambda done, _: progress(done, total))
    n_train = runs.sizes[layout.TRAIN]
    if existing is None:
        fraction = about.subset_fraction or drawn_fraction(surveyed.sizes, n_train)
        require_fraction(surveyed.sizes, n_train, fraction, runs.place)
        names, left_out = of_all_sets(runs.names, runs.sizes, about)
        tables = example_tables(runs.sizes, names, about, runs.place)
        store = Store.create(storage, new_manifest(tables, kept, about, fraction), tables)
        known: set[str] = set()
    else:
        store = existing
        known = _require_fitting(store, runs, kept, surveyed, about)
    added = 0
    wanted = {f"{name}/{outcome.name}" for outcome in kept for name in outcome.sets}
    wanted &= store.manifest.arrays().keys()
    for start, masks, outcomes in batches(runs):
        fresh = {surveyed.model_ids[start + row]: row for row in reversed(range(len(masks)))}  # a run once
        new = sorted(row for identifier, row in fresh.items() if identifier not in known)
        if new:
            chosen = {path: values[new] for path, values in outcomes.items() if path in wanted}
            ids = [surveyed.model_ids[start + row] for row in new]
            known.update(ids)
            store.commit(_models(ids, masks[new], chosen), masks[new], chosen)
            added += len(new)
        progress(runs.n_models + start + len(masks), total)
    notes = (*_notes(runs, kept, store), *runs.notes, *left_out)
    return Imported(store, runs.kind, existing is None, runs.n_models, added, notes)


def _kept(runs: Runs, about: About) -> tuple[Outcome, ...]:
    """Return the outcomes to keep."""
    names = [outcome.name for outcome in runs.outcomes]
    wanted = names if about.outcomes is None else list(about.outcomes)
    unknown = [name for name in wanted if name not in names]
    if unknown or "correct" not in wanted:
        raise InvalidInputError(
            f"cannot keep the outcomes {', '.join(wanted)} of {runs.place}",
            hint=f"name correct, and any of {', '.join(names)}",
        )
    return tuple(outcome for outcome in runs.outcomes if outcome.name in wanted)


def _notes(runs: Runs, kept: tuple[Outcome, ...], store: Store) -> tuple[str, ...]:
    notes = [
        f"correct is {item.definition}."
        for item in kept
        if item.name == CORRECT.name and item.definition != CORRECT.definition
    ]
    held = {outcome.name for outcome in store.manifest.outcomes}
    left_out = [outcome.name for outcome in kept if outcome.name not in held]
    if left_out:
        notes.append(f"{store.url} was made without {', '.join(left_out)}, which is not imported.")
    n_train = runs.sizes[layout.TRAIN]
    if runs.n_models > n_train:
        notes.append(
            f"These are {count(runs.n_models, 'model')} of {n_train:,} training examples. If it is the "
            f"other way "
            "round, turn the arrays: axis 0 is models."
        )
    if not any(layout.TRAIN in outcome.sets for outcome in kept):
        notes.append("There are no outcomes on training examples: all questions are about test examples.")
    if layout.TEST not in runs.sizes:
        notes.append("There are no test examples: all questions are about training examples.")
    return tuple(notes)


def _models(ids: Sequence[str], masks: NDArray[np.bool_], outcomes: Outcomes) -> list[ModelInfo]:
    trained_at = now()
    train = outcomes.get(f"{layout.TRAIN}/correct")
    test = outcomes.get(f"{layout.TEST}/correct")
    return [
        ModelInfo(
            model_id=identifier,
            seed=0,  # they were drawn elsewhere
            subset_size=int(mask.sum()),
            seconds=0.0,
            trained_at=trained_at,
            train_accuracy=None if train is None else float(train[row][mask].mean()),
            out_accuracy=None if train is None else float(train[row][~mask].mean()),
            test_accuracy=None if test is None else float(test[row].mean()),
            diverged=False,
            device=SCHEME,
            host="",
            versions={"memdb": own_version(), "numpy": np.__version__},
        )
        for row, (identifier, mask) in enumerate(zip(ids, masks, strict=True))
    ]


def new_manifest(
    tables: Mapping[str, ExampleTable], outcomes: Sequence[Outcome], about: About, fraction: float
) -> Manifest:
    """Return the manifest of a store for imported models."""
    return Manifest(
        dataset=about.name or SCHEME,
        sets=tuple(table.info(name) for name, table in tables.items()),
        outcomes=tuple(replace(o, sets=tuple(n for n in o.sets if n in tables)) for o in outcomes),
        recipe=_recipe(about),
        subset_scheme=SCHEME,
        subset_fraction=float(fraction),
    )


def _recipe(about: About) -> RecipeInfo:
    return RecipeInfo(about.recipe or SCHEME, "0", {})


def of_all_sets(names: Names, sizes: Mapping[str, int], about: About) -> tuple[Names, tuple[str, ...]]:
    """Return names with labels of all sets or of none, and a note if any are omitted."""
    if about.data is not None or not names.labels or set(sizes) <= set(names.labels):
        return names, ()
    note = f"Labels of the {' and '.join(names.labels)} set alone are not imported: give those of both sets."
    return replace(names, labels={}, class_names=()), (note,)


def example_tables(
    sizes: Mapping[str, int], names: Names, about: About, place: str
) -> dict[str, ExampleTable]:
    """Return what a store keeps of its examples: those of a data set at hand, or what the file says of them.

    Content that is not at hand is hashed by the data set's name and the example's number.

    Raises:
        InvalidInputError: labels or keys are invalid.
        MismatchError: the data set has other sizes or labels.
    """
    if about.data is not None:
        tables = {name: about.data.tables[name] for name in sizes}
        for name, table in tables.items():
            _require_examples(name, table.examples, sizes[name], names, place, about.name or "the data set")
        return tables
    if names.class_names and any(int(v.max()) >= len(names.class_names) for v in names.labels.values()):
        raise InvalidInputError(f"{place} has labels beyond its {len(names.class_names)} class names")
    return {name: _unseen(name, n_examples, names, about) for name, n_examples in sizes.items()}


def _unseen(name: str, n_examples: int, names: Names, about: About) -> ExampleTable:
    labels = names.labels.get(name)
    classes: Sequence[str] = names.class_names
    if labels is None:
        labels, classes = np.zeros(n_examples, dtype=np.int32), [UNKNOWN]
    _require_labels(name, labels)
    keys = names.keys.get(name) or [str(row) for row in range(n_examples)]
    dataset = about.name or SCHEME
    digests = b"".join(
        hashlib.sha256(f"memdb-unseen-1\0{dataset}\0{name}\0{row}".encode()).digest()[:16]
        for row in range(n_examples)
    )
    return ExampleTable(
        Examples.from_keys(keys, labels.astype(np.int32), classes),
        np.frombuffer(digests, dtype=np.uint8).reshape(n_examples, 16),
    )


def _require_labels(name: str, labels: NDArray[Any]) -> None:
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise InvalidInputError(
            f"the {name} set has the label {labels.min() if labels.min() < 0 else labels.max()}",
            hint="give labels from 0 on",
        )


def _require_examples(
    name: str, examples: Examples, n_examples: int, names: Names, place: str, other: str
) -> None:
    """Refuse a file whose examples are not those that it is said to be of.

    Examples of which a store knows nothing contradict no labels and no keys.
    """
    if len(examples) != n_examples:
        raise MismatchError(
            f"{place} is of {n_examples:,} {name} examples, {other} has {len(examples):,}",
            hint="name the data set that the runs are of, and check the order of axes: models first",
        )
    labels, keys = names.labels_by(name, examples.class_names), names.keys.get(name)
    if labels is not None and examples.are_labelled and not np.array_equal(labels, examples.labels):
        row = int(np.flatnonzero(labels != examples.labels)[0])
        given, known = str(names.labels[name][row]), str(examples.labels[row])
        if name in names.in_words:
            given = repr(names.class_names[int(given)])
            known = repr(examples.class_names[int(known)]) if examples.class_names else known
        raise MismatchError(
            f"{place} gives {name} example {row} the label {given}, {other} {known}",
            hint="the examples must stand in the same order",
        )
    if keys is not None and not examples.are_numbered and list(keys) != examples.keys:
        raise MismatchError(
            f"{place} has other keys of {name} examples than {other}", hint="check their order"
        )


def require_same_examples(
    store: Store, sizes: Mapping[str, int], names: Names, about: About, place: str
) -> dict[str, NDArray[Any]]:
    """Refuse to add to a store what is of other examples; return the labels that it does not have.

    A set that only one of the two has is nothing that they differ in.

    Raises:
        MismatchError: names both values.
    """
    tables = store.score_tables()
    held = sizes_with(store.manifest, tables)
    known = {name: examples_with(store, tables, name) for name in held}
    given = names
    if about.data is not None:
        theirs = {name: table for name, table in about.data.tables.items() if name in sizes}
        if all(known[name].are_labelled for name in theirs if name in known):
            ours = tuple(table.info(name) for name, table in theirs.items())
            store.manifest.require_same(ours, store.manifest.recipe, store.url)
        given = names_with(names, {name: table.examples.labels for name, table in theirs.items()})
    if about.name is not None and store.manifest.dataset not in {about.name, SCHEME}:
        raise MismatchError(
            f"{store.url} is of the data set {store.manifest.dataset}, not {about.name}",
            hint="omit name, or import into another store",
            parameter="name",
        )
    for name in sorted(held.keys() & sizes.keys()):
        _require_examples(name, known[name], sizes[name], given, place, store.url)
    new = {k: v for k, v in given.labels.items() if not known.get(k, unlabelled(0)).are_labelled}
    for name, labels in new.items():
        _require_labels(name, labels)
    return new


def _require_fitting(
    store: Store, runs: Runs, kept: Sequence[Outcome], found: Survey, about: About
) -> set[str]:
    """Refuse runs that are not of a store's kind; return the ids of the models that it has."""
    manifest = store.manifest
    if manifest.subset_scheme != SCHEME:
        raise MismatchError(
            f"{store.url} holds models that memdb trained ({manifest.recipe})",
            hint="import into a store of its own, and put the two side by side with `memdb compare`",
        )
    for name in sorted({info.name for info in manifest.sets} ^ set(runs.sizes)):
        raise MismatchError(
            f"{runs.place} is of {runs.sizes.get(name, 0):,} {name} examples, {store.url} has "
            f"{manifest.set_named(name).n_examples:,}",
            hint="import runs of other sets of examples into a store of their own",
        )
    require_same_examples(store, runs.sizes, runs.names, about, runs.place)
    if about.recipe is not None and about.recipe != manifest.recipe.name:
        raise MismatchError(
            f"{store.url} holds models of the recipe {manifest.recipe.name}, not {about.recipe}",
            hint="import each recipe into a store of its own",
        )
    if about.subset_fraction not in {None, manifest.subset_fraction}:
        raise MismatchError(
            f"{store.url} holds subsets of {manifest.subset_fraction:g}, not of {about.subset_fraction:g}",
            hint="import each fraction into a store of its own",
        )
    for outcome in manifest.outcomes:
        same = next((item for item in kept if item.name == outcome.name), None)
        if same is not None and same.definition != outcome.definition:
            raise MismatchError(
                f"{outcome.name} of {store.url} is {outcome.definition!r}; that of {runs.place} is "
                f"{same.definition!r}",
                hint="outcomes of two definitions are never pooled: import into another store",
            )
    given = {f"{name}/{outcome.name}" for outcome in kept for name in outcome.sets}
    lacking = [p for p, (o, _) in manifest.arrays().items() if o.kind == "bit" and p not in given]
    if lacking:
        raise MismatchError(
            f"{store.url} keeps {', '.join(lacking)} of every model, and {runs.place} has none",
            hint="import runs of other outcomes into a store of their own",
        )
    require_fraction(found.sizes, runs.sizes[layout.TRAIN], manifest.subset_fraction, runs.place)
    snapshot = store.snapshot()
    theirs = mask_hashes(snapshot)
    for place, (identifier, key) in enumerate(zip(found.model_ids, found.masks, strict=True)):
        if theirs.get(key, identifier) != identifier:
            raise InvalidInputError(
                f"model {place} of {runs.place} has the subset of model {theirs[key][:8]} of {store.url} and "
                "other outcomes",
                hint="scores and intervals count runs of different subsets, once each: omit it",
            )
    return {model.model_id for part in snapshot.segments for model in part.models}


def class_names_of(names: Names, about: About) -> Sequence[str]:
    """Return the names of classes, as the data set or the file has them."""
    if about.data is not None:
        return about.data.tables[layout.TRAIN].examples.class_names
    return names.class_names


def names_with(names: Names, labels: Mapping[str, NDArray[Any]]) -> Names:
    """Return names with labels that the user gave apart from the file."""
    return replace(names, labels={**names.labels, **labels}, in_words=names.in_words - labels.keys())
