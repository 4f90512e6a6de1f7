"""Import published scores into a store, as a score table beside its models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MismatchError
from memdb.format import layout
from memdb.format.documents import now, own_version
from memdb.format.manifest import CORRECT
from memdb.format.score_table import ScoreTable, is_table_name
from memdb.interop.import_runs import (
    About,
    class_names_of,
    example_tables,
    new_manifest,
    of_all_sets,
    require_same_examples,
)
from memdb.interop.score_formats import ScoreFile, require_scores
from memdb.storage.protocol import Storage
from memdb.store import Store
from memdb.store.examples import Examples
from memdb.store.score_tables import add_scores, examples_with, sizes_with

FRACTION = 0.7  # of the published scores


@dataclass(frozen=True)
class ImportedScores:
    """The result of an import of scores."""

    store: Store
    table: ScoreTable
    created: bool
    added: bool
    notes: tuple[str, ...] = ()


def import_scores(
    storage: Storage,
    existing: Store | None,
    published: ScoreFile,
    about: About,
    name: str | None,
    given_sizes: Mapping[str, int],
) -> ImportedScores:
    """Add published scores to a store of the same examples, or to a new one.

    ``given_sizes`` says how many examples there are if neither the file, a data set nor the store does.

    Raises:
        InvalidInputError: an invalid name or invalid scores, ids beyond the examples, or unknown sizes.
        MismatchError: the store is of other examples.
        AlreadyExistsError: other scores of that name are there.
    """
    place = published.place
    table_name = name if name is not None else _stem(Path(place))
    if not is_table_name(table_name):
        raise InvalidInputError(
            f"scores cannot be named {table_name!r}",
            hint="use scores_name with letters, digits, . _ and -",
            parameter="scores_name",
        )
    require_scores(published)
    known = known_examples(existing, about)
    published = resolved(published, known)
    published = turned(
        published, {name: len(examples) for name, examples in known.items()} | dict(given_sizes)
    )
    sizes = _sizes(known, published, given_sizes)
    _require_ids(published, sizes)
    created = existing is None
    labels: Mapping[str, NDArray[Any]] = {}
    notes = published.notes
    if existing is None:
        names, more = of_all_sets(published.names, sizes, about)
        notes = (*notes, *more)
        tables = example_tables(sizes, names, about, place)
        manifest = new_manifest(tables, (CORRECT,), about, about.subset_fraction or FRACTION)
        store = Store.create(storage, manifest, tables)
    else:
        store = existing
        labels = require_same_examples(store, sizes, published.names, about, place)
    memorization = published.scores.memorization
    if published.memorized is not None:
        memorization = np.full(sizes[layout.TRAIN], np.nan)
        memorization[published.memorized] = published.scores.memorization
    described = ScoreTable(
        number=1,
        table_id="",
        store_id=store.manifest.store_id,
        name=table_name,
        source=Path(place).name,
        coverage=published.coverage,
        n_memorization=int((~np.isnan(memorization)).sum()),
        n_influence=len(published.scores.influence),
        imported_at=now(),
        memdb_version=own_version(),
        objects={},
    )
    influence = published.scores.influence
    influence = influence.astype(np.result_type(influence, np.float32), copy=False)  # float32 at least
    scores = replace(
        published.scores,
        memorization=memorization,
        influence=influence,
        labels=labels,
        class_names=class_names_of(published.names, about),
    )
    table, added = add_scores(store, scores, described, sizes.get(layout.TEST, 0))
    return ImportedScores(store, table, created, added, notes)


def _stem(path: Path) -> str:
    """Return a name for the scores of a file, made of its own."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-_")[:100] or "scores"


def known_examples(existing: Store | None, about: About) -> dict[str, Examples]:
    """Return what the store, or else the data set, says of the examples, by set."""
    if existing is not None:
        tables = existing.score_tables()
        held = sizes_with(existing.manifest, tables)
        return {name: examples_with(existing, tables, name) for name in held}
    return {} if about.data is None else {name: table.examples for name, table in about.data.tables.items()}


def resolved(published: ScoreFile, known: Mapping[str, Examples]) -> ScoreFile:
    """Return scores of examples that are named by keys as scores of the ids that these are known by.

    In a new store, the examples are those that the file names, in its order.

    Raises:
        InvalidInputError: an example is named twice.
        MismatchError: a key that no example has.
    """
    scores, sizes = published.scores, dict(published.sizes)
    names, memorized = published.names, published.memorized
    for name, keys in published.keyed.items():
        ids = _ids_of(published.place, name, keys, known.get(name), are_listed=not len(scores.train_id))
        is_same = np.array_equal(ids, np.arange(len(ids)))
        kept = {part: values for part, values in names.keys.items() if part != name}
        labels = names.labels if is_same else {k: v for k, v in names.labels.items() if k != name}
        names = replace(names, keys=kept if name in known else {**kept, name: keys}, labels=labels)
        sizes[name] = len(known[name]) if name in known else len(keys)
        if name == layout.TEST:
            scores = replace(scores, test_id=ids[scores.test_id])
            continue
        scores = replace(scores, train_id=ids[scores.train_id])
        if memorized is not None:
            memorized = ids[memorized]
    return replace(published, scores=scores, sizes=sizes, names=names, memorized=memorized, keyed={})


def _ids_of(
    place: str, name: str, keys: Sequence[str], known: Examples | None, *, are_listed: bool
) -> NDArray[np.int32]:
    """Return the ids of the examples that have these keys: their own order where no keys are known.

    Keys that ``are_listed`` name an example each, in order; the order of those of pairs says nothing.

    Raises:
        InvalidInputError: a key that is listed twice.
        MismatchError: a key that no example has.
    """
    own = np.arange(len(keys), dtype=np.int32)
    if known is None:
        return own
    if len(set(keys)) < len(keys):
        twice, _ = Counter(keys).most_common(1)[0]
        raise InvalidInputError(f"{place} names {name} example {twice!r} twice", hint="give one score each")
    rows = {key: row for row, key in enumerate(known.keys)}
    missing = next((key for key in keys if key not in rows), None)
    if missing is not None and are_listed and known.are_numbered and len(known) == len(keys):
        return own
    if missing is not None:
        raise MismatchError(
            f"{place} names {name} example {missing!r}, and no example has that key",
            hint="name the data set that the keys are of, or give ids: train_id, test_id",
        )
    return np.array([rows[key] for key in keys], dtype=np.int32)


def turned(published: ScoreFile, known: Mapping[str, int]) -> ScoreFile:
    """Return scores with their sides exchanged where known sizes say that these were taken for each other."""
    sizes = {layout.TRAIN: published.sizes.get(layout.TEST), layout.TEST: published.sizes.get(layout.TRAIN)}
    fits = all(published.sizes.get(name) == n for name, n in known.items())
    if not published.are_turnable or fits or any(sizes.get(name) != n for name, n in known.items()):
        return published
    scores = published.scores
    return replace(
        published,
        scores=replace(scores, train_id=scores.test_id, test_id=scores.train_id),
        sizes={name: n for name, n in sizes.items() if n is not None},
        notes=(f"The influence of {published.place} is [train, test].", *published.notes[1:]),
    )


def _sizes(known: Mapping[str, Examples], published: ScoreFile, given: Mapping[str, int]) -> dict[str, int]:
    """Return each set's number of examples, from the store or the data set, the options and the file.

    Raises:
        InvalidInputError: a set's number is not known, or the file has another than the options say.
    """
    for name, n in given.items():
        if published.sizes.get(name, n) != n:
            raise InvalidInputError(
                f"{published.place} is of {published.sizes[name]:,} {name} examples, not of {n:,}",
                hint=f"omit n_{name}",
                parameter=f"n_{name}",
            )
    sizes = {**{name: len(examples) for name, examples in known.items()}, **given, **published.sizes}
    needed = (layout.TRAIN, layout.TEST) if len(published.scores.influence) else (layout.TRAIN,)
    missing = [name for name in needed if name not in sizes]
    if missing:
        raise InvalidInputError(
            f"{published.place} does not say how many {' and '.join(missing)} examples there are",
            hint="say so: n_train=50000 n_test=10000, or dataset=NAME data_root=DIR",
            parameter=("n_train", "n_test", "dataset", "data_root"),
        )
    return sizes


def _require_ids(published: ScoreFile, sizes: Mapping[str, int]) -> None:
    scores = published.scores
    n_scores, n_train = len(scores.memorization), sizes[layout.TRAIN]
    if published.memorized is None and n_scores != n_train:
        raise InvalidInputError(
            f"{published.place} has memorization of {n_scores:,} training examples; there are {n_train:,}",
            hint="say which examples they are, or give NaN for the others",
        )
    memorized = np.empty(0, dtype=np.int32) if published.memorized is None else published.memorized
    train_ids = np.concatenate([scores.train_id, memorized])
    for name, ids in ((layout.TRAIN, train_ids), (layout.TEST, scores.test_id)):
        top = int(ids.max(initial=-1))
        if name in sizes and top >= sizes[name]:
            raise InvalidInputError(
                f"{published.place} names {name} example {top:,}, and there are {sizes[name]:,}",
                hint="check n_train and n_test, or the data set; ids count from 0",
                parameter=("n_train", "n_test"),
            )
