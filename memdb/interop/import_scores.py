"""Import published scores into a store, as a score table beside its models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.documents import now, own_version
from memdb.format.manifest import CORRECT
from memdb.format.score_table import ScoreTable, is_table_name
from memdb.interop.import_runs import (
    About,
    class_names_of,
    example_tables,
    new_manifest,
    require_same_examples,
)
from memdb.interop.score_formats import ScoreFile, require_scores
from memdb.storage.protocol import Storage
from memdb.store import Store
from memdb.store.score_tables import add_scores, sizes_with

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
    sizes = _sizes(existing, published, about, given_sizes)
    _require_ids(published, sizes)
    created = existing is None
    labels: Mapping[str, NDArray[Any]] = {}
    if existing is None:
        tables = example_tables(sizes, published.names, about, place)
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
    return ImportedScores(store, table, created, added, published.notes)


def _stem(path: Path) -> str:
    """Return a name for the scores of a file, made of its own."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-_")[:100] or "scores"


def _sizes(
    existing: Store | None, published: ScoreFile, about: About, given: Mapping[str, int]
) -> dict[str, int]:
    """Return each set's number of examples, from the store or the data set, the options and the file."""
    known: dict[str, int] = {}
    if existing is not None:
        known = sizes_with(existing.manifest, existing.score_tables())
    elif about.data is not None:
        known = {name: len(examples) for name, examples in about.data.sets.items()}
    sizes = {**known, **given, **published.sizes}
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
                hint="check n_train and n_test, or the data set",
                parameter=("n_train", "n_test"),
            )
