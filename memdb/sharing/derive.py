"""What a published copy keeps besides models, so that small questions take a few small objects."""

from __future__ import annotations

import hashlib
import io
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import MemdbError
from memdb.format import layout
from memdb.format.documents import Json, group_metadata, parse_group_metadata, sealed
from memdb.format.manifest import ObjectInfo
from memdb.format.published import Derived, DerivedGroup, ModelFacts
from memdb.query.intervals import IntervalSpec
from memdb.query.questions import ModelAnswers
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.sharing.tables import LISTED, counts_of, kept_pairs, pairs_table, z_of_lists
from memdb.store.encoding import ChunkEncoder, array_metadata, describe
from memdb.store.published_arrays import COUNTED, PAIR_ROWS, PAIRS, SCORE_COLUMNS, SCORES
from memdb.store.resumable import ResumableStorage
from memdb.store.stated import MAX_CHUNK

if TYPE_CHECKING:
    from memdb.sharing.top_influence import Listing

ROWS_FOR = 6.0  # a chunk of n rows and a list of n_test / n names cost a reader least near sqrt(n_test / 6)
VERSION = 1  # of what is derived: a copy that was cut off goes on only with the same
TABLE_LEVEL = 0.95
THREADS, AHEAD = 2, 3  # that find lists, and how many jobs may be begun before their rows are written
CHUNKS = 4  # of a job: statements and fits of many lists at once take less time

Chunk = tuple[NDArray[np.int32], NDArray[np.float64]]  # the pairs and scores of some test examples


def rows_of_a_chunk(n_test: int) -> int:
    """Return how many test examples' pairs are an object."""
    return max(1, math.ceil(math.sqrt(n_test / ROWS_FOR)))


def derive(
    relations: Relations, target: ResumableStorage, number: int, advance: Callable[[int], None]
) -> Derived:
    """Write what is derived from a snapshot, if missing; return what the snapshot's document says of it.

    ``advance`` is called with numbers of test examples done.
    """
    counts = {name: counts_of(relations, name) for name in COUNTED}
    stats = _stats(target, number, counts)
    has_tests = counts[layout.TEST].shape[1] > 0
    listed = min(LISTED, counts[layout.TRAIN].shape[1]) if has_tests else 0
    strong = DerivedGroup()
    tables: dict[str, ObjectInfo] = {}
    if has_tests:
        strong, tables = _Lists(relations, target, number, counts, listed).write(advance)
    tables["memorization.parquet"] = _memorization_table(relations, target, number)
    examples = relations.examples
    n_in = counts[layout.TRAIN][1]
    scored = n_in[(n_in > 0) & (n_in < relations.snapshot.n_models)]
    return Derived(
        stats=stats,
        top_influence=strong,
        tables=tables,
        models=_model_facts(relations),
        class_names={name: examples[name].class_names for name in COUNTED},
        numbered=tuple(
            name for name in COUNTED if examples[name].keys == [str(n) for n in range(len(examples[name]))]
        ),
        listed=listed,
        n_in=tuple(
            (int(n), int(times)) for n, times in zip(*np.unique(scored, return_counts=True), strict=True)
        ),
    )


def _model_facts(relations: Relations) -> ModelFacts:
    row = relations.ask(template("info_models.sql"), models=True).to_pylist()[0]
    row["diverged"] = tuple(row["diverged"])
    return ModelFacts(**{name: row[name] for name in ModelFacts.__dataclass_fields__})


def _stats(target: ResumableStorage, number: int, counts: dict[str, NDArray[np.int32]]) -> DerivedGroup:
    folder = f"{layout.STATS}/{number}"
    objects = {layout.GROUP_METADATA: group_metadata()}
    for name, values in counts.items():
        if not values.shape[1]:  # a store of imported models may have no test examples
            continue
        attributes = {"rows": list(COUNTED[name])}
        encoder = ChunkEncoder(name, values.shape, "int32", len(values), attributes, "shuffle")
        objects |= encoder.metadata | {encoder.name(0): encoder.encode(0, values)}
    target.write_all({f"{folder}/{name}": data for name, data in objects.items()})
    return DerivedGroup(describe(objects), array_metadata(objects))


def _memorization_table(relations: Relations, target: ResumableStorage, number: int) -> ObjectInfo:
    found = ModelAnswers(relations).scores(
        "memorization", {"train_id": None}, IntervalSpec("anytime", TABLE_LEVEL)
    )
    keys = relations.ask("SELECT key, class_name FROM train_examples ORDER BY id", models=True)
    for name in ("class_name", "key"):
        found = found.add_column(1, name, keys.column(name))
    data = _parquet(found, {"interval": "anytime", "level": str(TABLE_LEVEL)}, relations)
    target.write_all({f"{layout.TABLES}/{number}/memorization.parquet": data})
    return ObjectInfo(len(data), hashlib.sha256(data).hexdigest())


def _parquet(rows: pa.Table, facts: dict[str, str], relations: Relations) -> bytes:
    buffer = io.BytesIO()
    _Parquet(buffer, facts, relations).write_all([rows])
    return buffer.getvalue()


class _Parquet:
    """Writes tables into one Parquet file whose metadata says what the numbers are of."""

    def __init__(self, buffer: io.BytesIO, facts: dict[str, str], relations: Relations) -> None:
        said = {
            "outcome": relations.outcome,
            "n_models": str(relations.snapshot.n_models),
            "models_sha256": relations.snapshot.models_sha256,
            **facts,
        }
        self._buffer = buffer
        self._said = {f"memdb.{name}".encode(): value.encode() for name, value in said.items()}

    def write_all(self, parts: Any) -> None:
        import pyarrow.parquet as pq  # noqa: PLC0415 - only this needs it

        writer = None
        for rows in parts:
            shaped = rows.replace_schema_metadata(self._said)
            writer = writer or pq.ParquetWriter(self._buffer, shaped.schema, compression="zstd")
            writer.write_table(shaped)
        if writer is not None:
            writer.close()


class _Lists:
    """Finds the strongest pairs of every test example, a chunk at a time; chunks that are there are kept."""

    def __init__(
        self,
        relations: Relations,
        target: ResumableStorage,
        number: int,
        counts: Mapping[str, NDArray[np.int32]],
        listed: int,
    ) -> None:
        from memdb.sharing.top_influence import Lists  # noqa: PLC0415 - imports what only this needs

        self._relations, self._target, self._listed = relations, target, listed
        self._lists = Lists(relations, counts, listed)
        self._folder = f"{layout.TOP_INFLUENCE}/{number}"
        self._number = number
        n_test = relations.snapshot.manifest.set_named(layout.TEST).n_examples
        self._n_test, self._step = n_test, rows_of_a_chunk(n_test)
        attributes = ({"rows": list(PAIR_ROWS)}, {"columns": list(SCORE_COLUMNS)})
        shapes = (n_test, len(PAIR_ROWS), listed), (n_test, listed, len(SCORE_COLUMNS))
        self._pairs = ChunkEncoder(PAIRS, shapes[0], "int32", self._step, attributes[0])
        self._scores = ChunkEncoder(SCORES, shapes[1], "float64", self._step, attributes[1])
        self._found: dict[str, ObjectInfo] = {}
        self._encoding = threading.Lock()  # encoders take one chunk at a time

    def write(self, advance: Callable[[int], None]) -> tuple[DerivedGroup, dict[str, ObjectInfo]]:
        """Write the lists and their table; return what the snapshot's document says of them."""
        begun = self._is_begun()
        metadata = {**self._pairs.metadata, **self._scores.metadata}
        group = group_metadata(sealed(self._claim()))
        if not begun:
            self._target.put_all({f"{self._folder}/{layout.GROUP_METADATA}": group})
        self._target.write_all({f"{self._folder}/{name}": data for name, data in metadata.items()})
        buffer = io.BytesIO()
        facts = {"interval": "selected", "level": str(TABLE_LEVEL), "listed": str(self._listed)}
        _Parquet(buffer, facts, self._relations).write_all(self._tables(advance, begun))
        data, name = buffer.getvalue(), "top_influence.parquet"
        self._target.write_all({f"{layout.TABLES}/{self._number}/{name}": data})
        objects = {**describe({layout.GROUP_METADATA: group, **metadata}), **self._found}
        tables = {name: ObjectInfo(len(data), hashlib.sha256(data).hexdigest())}
        return DerivedGroup(objects, array_metadata(metadata)), tables

    def _claim(self) -> dict[str, Json]:
        """Return what tells whether chunks that are there already are those of these models."""
        return {
            "derived": VERSION,
            "listed": self._listed,
            "models_sha256": self._relations.snapshot.models_sha256,
            "store_id": self._relations.snapshot.manifest.store_id,
        }

    def _is_begun(self) -> bool:
        path = f"{self._folder}/{layout.GROUP_METADATA}"
        try:
            found = parse_group_metadata(self._target.read(path), path)
        except MemdbError:
            return False
        return found == sealed(self._claim())

    def _tables(self, advance: Callable[[int], None], begun: bool) -> Iterator[pa.Table]:  # noqa: FBT001
        chunks = list(range(0, self._n_test, self._step))
        jobs = [chunks[at : at + CHUNKS] for at in range(0, len(chunks), CHUNKS)]
        z = z_of_lists(self._relations, self._listed)
        pool = ThreadPoolExecutor(THREADS)
        try:
            running = [pool.submit(self._rows_of, job, begun) for job in jobs[:AHEAD]]
            for number, job in enumerate(jobs):
                kept = running.pop(0).result()
                running += [pool.submit(self._rows_of, ahead, begun) for ahead in jobs[number + AHEAD :][:1]]
                yield pairs_table(kept, z)
                advance(min(job[-1] + self._step, self._n_test) - job[0])
        finally:
            pool.shutdown(cancel_futures=True)

    def _rows_of(self, starts: list[int], begun: bool) -> pa.Table:  # noqa: FBT001
        """Return the pairs of some chunks that the table has; write those chunks that are missing."""
        found: dict[int, Chunk] = {}
        with self._encoding:
            for start in starts if begun else ():
                kept = self._kept(start)
                if kept is not None:
                    found[start] = kept
        if missing := [start for start in starts if start not in found]:
            found |= self._made(missing)
        n_models = self._relations.snapshot.n_models
        return pa.concat_tables([kept_pairs(*found[start], start, n_models) for start in starts])

    def _kept(self, start: int) -> Chunk | None:
        """Return a chunk that is there already, intact."""
        found = []
        for encoder in (self._pairs, self._scores):
            name = encoder.name(start)
            try:
                data = self._target.read(f"{self._folder}/{name}", most=MAX_CHUNK)
            except MemdbError:
                return None
            values = encoder.decode(start, data)
            if values is None:
                return None
            self._found |= describe({name: data})
            found.append(values)
        return found[0], found[1]

    def _made(self, starts: list[int]) -> dict[int, Chunk]:
        """Find and write the lists of some chunks."""
        tests = [range(start, min(start + self._step, self._n_test)) for start in starts]
        lists = self._lists.of([test_id for some in tests for test_id in some])
        found = {
            start: _stacked(list(islice(lists, len(some)))) for start, some in zip(starts, tests, strict=True)
        }
        with self._encoding:
            for start, (pairs, scores) in found.items():
                objects = {
                    self._pairs.name(start): self._pairs.encode(start, pairs),
                    self._scores.name(start): self._scores.encode(start, scores),
                }
                self._target.put_all({f"{self._folder}/{name}": data for name, data in objects.items()})
                self._found |= describe(objects)
        return found


def _stacked(lists: list[Listing]) -> Chunk:
    return np.stack([item.pairs for item in lists]), np.stack([item.scores for item in lists])
