"""Score tables in a store: written once, numbered, listed, read a test example at a time."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from memdb.errors import AlreadyExistsError, DamagedError, InvalidInputError, MemdbError, StorageError
from memdb.format import layout
from memdb.format.documents import group_metadata, parse_plain_document, plain_document
from memdb.format.manifest import Manifest, ObjectInfo
from memdb.format.score_table import INFLUENCE, LABEL, MAX_TABLES, MEMORIZATION, OFFSET, TRAIN_ID, ScoreTable
from memdb.storage.protocol import Storage, concurrently, create_once
from memdb.store.encoding import ArrayData, array_metadata, describe, encode_group
from memdb.store.examples import Examples, read_examples, texts_of, unlabelled
from memdb.store.grace import Stopwatch
from memdb.store.read_arrays import GroupReader, check_object, read_listed
from memdb.store.read_documents import StoreLike, means_absent, read_document

AT_ONCE = 8  # objects of a few MB in memory
RESTORE = "restore the store from a copy, or import the table into another store"


@dataclass(frozen=True)
class Scores:
    """Scores themselves: of every training example (NaN: none), and of pairs in any order."""

    memorization: NDArray[np.float64]  # [train]
    train_id: NDArray[np.int32]  # [pairs]
    test_id: NDArray[np.int32]  # [pairs]
    influence: NDArray[np.floating]  # [pairs]
    labels: Mapping[str, NDArray[np.integer]] = field(default_factory=dict)  # by set, if the store has none
    class_names: Sequence[str] = ()

    @property
    def are_ordered(self) -> bool:
        """Whether pairs stand in the order in which they are stored, each once."""
        test, train = self.test_id, self.train_id
        later = (test[1:] > test[:-1]) | ((test[1:] == test[:-1]) & (train[1:] > train[:-1]))
        return bool(later.all())

    def to_arrays(self, n_test: int) -> dict[str, ArrayData]:
        """Return the arrays to store: pairs by test example, then by training example."""
        arrays = {MEMORIZATION: ArrayData(self.memorization.astype(np.float64, copy=False))}
        for name, values in self.labels.items():
            classes = {"class_names": list(self.class_names)}
            arrays[LABEL.format(set=name)] = ArrayData(values.astype(np.int32), classes)
        if len(self.influence):
            order = slice(None) if self.are_ordered else np.lexsort((self.train_id, self.test_id))
            arrays |= {
                OFFSET: ArrayData(
                    np.searchsorted(self.test_id[order], np.arange(n_test + 1)).astype(np.int64)
                ),
                TRAIN_ID: ArrayData(self.train_id[order].astype(np.int32, copy=False)),
                INFLUENCE: ArrayData(self.influence[order]),
            }
        return arrays


def add_scores(
    store: StoreLike, scores: Scores, described: ScoreTable, n_test: int
) -> tuple[ScoreTable, bool]:
    """Add a score table; return it, and whether it is new: equal scores are stored once.

    ``described`` holds the name, source and counts; number, id and objects are filled in here. There are
    ``n_test`` test examples.

    Raises:
        AlreadyExistsError: another table has its name.
        StorageError: the storage failed; nothing that a reader sees was written.
    """
    objects = encode_group(scores.to_arrays(n_test))
    table = replace(described, objects=describe(objects), metadata=array_metadata(objects))

    def write(group: str) -> None:
        store.storage.write_all({f"{group}/{name}": data for name, data in objects.items()})

    return add_table(store, table, write)


def copy_scores(source: Storage, table: ScoreTable, store: StoreLike) -> tuple[ScoreTable, bool]:
    """Add a score table of another store of the same examples; see `add_scores`.

    Raises:
        DamagedError: an object is missing or altered at the source.
    """

    def write(group: str) -> None:
        def copy(item: tuple[str, ObjectInfo]) -> None:
            data = check_object(source, f"{table.group}/{item[0]}", item[1])
            store.storage.write_all({f"{group}/{item[0]}": data})

        concurrently(copy, table.objects.items(), AT_ONCE)

    return add_table(store, replace(table, store_id=store.manifest.store_id), write)


def add_table(store: StoreLike, table: ScoreTable, write: Callable[[str], None]) -> tuple[ScoreTable, bool]:
    """Add a table; ``write`` writes its arrays into the group that it is called with; see `add_scores`."""
    table = replace(table, table_id=layout.segment_id(datetime.now(UTC), secrets.token_bytes(6)))
    written, watch = False, Stopwatch()
    while True:
        tables = list_score_tables(store)
        same = next((item for item in tables if item.content == table.content), None)
        if same is not None:
            return same, False
        if any(item.name == table.name for item in tables):
            raise AlreadyExistsError(
                f"{store.url} has other scores named {table.name}",
                hint="give these another scores_name",
                parameter="scores_name",
            )
        if not written:
            create_once(store.storage, f"{layout.SCORES}/{layout.GROUP_METADATA}", group_metadata())
            write(table.group)
            store.storage.write_all({f"{table.group}/{layout.GROUP_METADATA}": group_metadata()})
            written = True
            if watch.stalled():
                raise StorageError(
                    f"{store.url} took so long to write that cleaning up may have begun", hint="try again"
                )
        table = replace(table, number=len(tables) + 1)
        with contextlib.suppress(AlreadyExistsError):  # another import was quicker: take the next number
            create_once(store.storage, layout.score_table(table.number), plain_document(table.to_document()))
            return table, True


def list_score_tables(store: StoreLike) -> list[ScoreTable]:
    """Return the score tables of a store by their numbers, which have no gaps.

    Raises:
        DamagedError: a document was altered, is missing or belongs to another store.
    """
    if store.storage.can_list:
        listed = [layout.snapshot_number(name) for name in store.storage.names(layout.SCORES)]
        numbers = sorted(number for number in listed if number is not None)
        if numbers != list(range(1, len(numbers) + 1)):
            raise DamagedError(f"{store.url}/{layout.SCORES} lacks a table: it has {numbers}", hint=RESTORE)
        return concurrently(lambda number: _read_table(store, number), numbers)
    tables: list[ScoreTable] = []
    try:
        while len(tables) < MAX_TABLES:
            tables.append(_read_table(store, len(tables) + 1))
    except MemdbError as error:
        if not means_absent(store.storage, error):
            raise
    return tables


def read_score_tables(store: StoreLike, documents: Sequence[ObjectInfo]) -> list[ScoreTable]:
    """Return the score tables that a published copy names.

    Raises:
        DamagedError: a document is missing, was altered or belongs to another store.
    """
    numbered = enumerate(documents, 1)
    return concurrently(lambda item: _read_table(store, *item), numbered)


def _read_table(store: StoreLike, number: int, document: ObjectInfo | None = None) -> ScoreTable:
    def parse(data: bytes, place: str) -> ScoreTable:
        table = ScoreTable.from_document(parse_plain_document(data, place), place)
        if (table.number, table.store_id) != (number, store.manifest.store_id):
            raise DamagedError(f"{place} belongs to another store", hint="remove what was copied in by hand")
        return table

    path = layout.score_table(number)
    if document is None:
        return read_document(store.storage, path, parse)[0]
    return parse(read_listed(store.storage, path, document), f"{store.url}/{path}")


def sizes_with(manifest: Manifest, tables: Sequence[ScoreTable]) -> dict[str, int]:
    """Return how many examples each set has, by a store's manifest and its score tables.

    A store that was made for memorization alone says nothing of test examples: pairs that came later do.
    """
    sizes = {item.name: item.n_examples for item in manifest.sets}
    stated = next((table.n_test for table in tables if table.n_test is not None), None)
    return sizes if stated is None else {layout.TEST: stated, **sizes}


def examples_with(
    store: StoreLike, tables: Sequence[ScoreTable], set_name: str, own: Examples | None = None
) -> Examples:
    """Return what is known of a set's examples: by the store or, if it was made without labels, by a table.

    ``own`` is what the store says of them, if it was read before.
    """
    own = read_examples(store, set_name) if own is None else own
    if own.are_labelled:
        return own
    sizes = {layout.TEST: 0, **sizes_with(store.manifest, tables)}
    for table in tables:
        held = StoredScores(store.storage, table, sizes[layout.TRAIN], sizes[layout.TEST]).labels(set_name)
        if held is not None:
            return replace(own, labels=held.labels, class_names=held.class_names) if len(own) else held
    return own if len(own) else unlabelled(sizes.get(set_name, 0))


@dataclass(frozen=True)
class StoredScores:
    """A score table's numbers, read when asked for."""

    storage: Storage
    table: ScoreTable
    n_train: int
    n_test: int

    @cached_property
    def memorization(self) -> NDArray[np.float64]:
        """The score of every training example, [train]; NaN where there is none."""
        return self._reader.read(MEMORIZATION, (self.n_train,), "float64")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where the pairs of each test example begin, [test + 1]."""
        if not self.table.n_influence:
            return np.zeros(self.n_test + 1, dtype=np.int64)
        offsets = self._reader.read(OFFSET, (self.n_test + 1,), "int64")
        if offsets[0] != 0 or offsets[-1] != self.table.n_influence or (np.diff(offsets) < 0).any():
            raise DamagedError(
                f"{self.storage.url}/{self.table.group}: offsets that do not fit", hint=RESTORE
            )
        return offsets

    def pairs(
        self, test_id: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Return the training ids, test ids and influences of all pairs, or of one test example's."""
        return self.pairs_of(0, self.n_test) if test_id is None else self.pairs_of(test_id, test_id + 1)

    def bands(self, n_pairs: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of test examples, each of at most ``n_pairs`` pairs or of a single test example."""
        first = 0
        while first < self.n_test:
            most = int(self.offsets[first]) + n_pairs
            last = max(first + 1, int(np.searchsorted(self.offsets, most, side="right")) - 1)
            yield first, min(last, self.n_test)
            first = min(last, self.n_test)

    def pairs_of(
        self, first: int, last: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Return the same of a range of test examples."""
        start, stop = int(self.offsets[first]), int(self.offsets[last])
        if start == stop:
            nothing = np.empty(0, dtype=np.int32)
            return nothing, nothing, np.empty(0)
        n_pairs = self.table.n_influence
        train = self._reader.read(TRAIN_ID, (n_pairs,), "int32", (start, stop))
        influence = self._reader.read(INFLUENCE, (n_pairs,), self._dtype, (start, stop))
        if train.min() < 0 or train.max() >= self.n_train:
            raise DamagedError(f"{self.storage.url}/{self.table.group}: ids out of range", hint=RESTORE)
        counts = np.diff(self.offsets[first : last + 1])
        test = np.repeat(np.arange(first, last, dtype=np.int32), counts)
        return train, test, influence.astype(np.float64)

    def labels(self, set_name: str) -> Examples | None:
        """Return the labels of a set that came with these scores; keys are the examples' numbers.

        None if they came without: a store that was made with labels has them itself.
        """
        path = LABEL.format(set=set_name)
        if path not in self.table.metadata:
            return None
        n_examples = {layout.TRAIN: self.n_train, layout.TEST: self.n_test}[set_name]
        labels = self._reader.read(path, (n_examples,), "int32")
        classes = self._reader.attributes(path).get("class_names", [])
        return Examples.from_keys([str(row) for row in range(n_examples)], labels, texts_of(classes))

    @property
    def _reader(self) -> GroupReader:
        return GroupReader(self.storage, self.table.group, self.table.objects, self.table.metadata)

    @property
    def _dtype(self) -> str:
        metadata = self.table.metadata.get(INFLUENCE)
        kind = metadata.get("data_type") if isinstance(metadata, Mapping) else None
        if kind not in {"float32", "float64"}:
            raise InvalidInputError(f"{self.storage.url}/{self.table.group} has influences of type {kind}")
        return str(kind)
