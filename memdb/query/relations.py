"""The relations of one snapshot in DuckDB: tables of counts, views that count pairs when asked, locks."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType
from duckdb.sqltypes import DOUBLE, INTEGER, DuckDBPyType
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.confidences import Confidences
from memdb.query.example_counts import times_in, totals
from memdb.query.examples import require_examples
from memdb.query.intervals import fixed_z
from memdb.query.lazy import Lazy
from memdb.query.options import MAX_PAIRS
from memdb.query.statements import Kind, carried, require_question, running, translated
from memdb.query.templates import FORMS, require_outcome, template
from memdb.query.udfs import Budget, Words, counter, summer
from memdb.store import Examples, Snapshot
from memdb.store.published_arrays import COUNTED, derived_of, is_numbered, light_examples, read_stats

MEMORY = 4 * 10**9  # bytes of DuckDB's buffers; what functions allocate for themselves it does not count
ROWS_AT_ONCE = 65_536  # of a result that is read in parts

USUAL = {"interval": "anytime", "alpha": 0.05, "fixed_z": fixed_z(0.95)}  # of the views' intervals

LOCKS = """
SET memory_limit = '{memory}B';
SET temp_directory = '';
SET max_temp_directory_size = '0B';
SET secret_directory = '';
SET python_enable_replacements = false;
SET autoinstall_known_extensions = false;
SET autoload_known_extensions = false;
SET enable_external_access = false;
SET lock_configuration = true;
"""


class Relations:
    """One snapshot as DuckDB relations. Bits are read when a question needs them, then kept."""

    def __init__(self, snapshot: Snapshot, outcome: str = "correct") -> None:
        self.snapshot = snapshot
        self.outcome = require_outcome(outcome)
        self.memory = MEMORY
        self._budget = Budget()
        self._known_z: dict[tuple[Any, ...], float | None] = {}
        self._settings: Mapping[str, Any] | None = None  # that the views' multipliers are set to
        self._statement = threading.Lock()
        self._has_models = self._is_built = self._is_named = False

    @cached_property
    def bits(self) -> Mapping[str, Words]:
        """Masks (`layout.MASK`) and outcomes of kind ``bit`` by their paths, [examples, words]."""
        return Lazy(self.snapshot.words)  # not self: the connection's functions would keep it alive

    @property
    def mask(self) -> Words:
        """Subset masks, [train, words]."""
        return self.bits[layout.MASK]

    def correct(self, set_name: str) -> Words:
        """Return the correctness of every model on the examples of a set, [examples, words]."""
        return self.bits[f"{set_name}/correct"]

    @cached_property
    def confidences(self) -> Mapping[str, Confidences]:
        """Confidence of every model on the examples of each set.

        Raises:
            NotFoundError: the store keeps none.
        """
        snapshot = self.snapshot
        return Lazy(lambda name: Confidences(snapshot, name))

    def values(self, set_name: str, row: int) -> NDArray[np.float64]:
        """Return the outcome of every model on one example, [models]: 0 or 1, or p."""
        if self.outcome == "confidence":
            return self.confidences[set_name].of_one(row)
        packed = self.correct(set_name)[row : row + 1].view(np.uint8)
        return bits.unpack(packed, self.snapshot.n_models)[:, 0].astype(np.float64)

    @cached_property
    def examples(self) -> Mapping[str, Examples]:
        """Names and labels of each set."""
        return Lazy(self.snapshot.examples)

    def _rows_of(self, set_name: str) -> Examples:
        """Return a set's examples for its table; their names only where they are known or asked for."""
        stats = self.stats[set_name]
        if stats is None or (self._is_named and not is_numbered(self.snapshot, set_name)):
            return self.examples[set_name]
        return light_examples(self.snapshot, set_name, stats)

    @cached_property
    def stats(self) -> Mapping[str, NDArray[np.int32] | None]:
        """Counts that a published copy keeps of each set's examples (`COUNTED`); None in other stores."""
        return Lazy(partial(read_stats, self.snapshot))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the training set's classes."""
        derived = derived_of(self.snapshot)
        return derived[1].class_names[layout.TRAIN] if derived else self.examples[layout.TRAIN].class_names

    def prefetch(self, *set_names: str) -> None:
        """Begin to read the bits that pairs with examples of these sets are counted from."""
        if self.outcome == "correct" and all(self.snapshot.counted):  # else totals read some of them, too
            for path in (layout.MASK, *(f"{name}/correct" for name in set_names)):
                threading.Thread(target=self._read_quietly, args=(path,), daemon=True).start()

    def _read_quietly(self, path: str) -> None:
        with contextlib.suppress(MemdbError):  # who needs it reads it again and hears of it
            self.bits[path]

    def row_of(self, set_name: str, identifier: int | None, key: str | None, option: str) -> int:
        """Return an example's row from its id or its key.

        Raises:
            InvalidInputError: an id out of range, naming the range.
            NotFoundError: a key that no example has.
        """
        n_examples = require_examples(self.snapshot, set_name)
        if key is not None:
            try:
                return self.examples[set_name].keys.index(key)
            except ValueError as error:
                raise NotFoundError(
                    f"no {set_name} example has the key {key!r}",
                    hint=f"keys look like {self.examples[set_name].keys[0]!r}; "
                    f"the relation {set_name}_examples has all of them",
                ) from error
        if identifier is None or not 0 <= identifier < n_examples:
            raise InvalidInputError(
                f"{option} {identifier} is out of range", hint=f"this store has 0 to {n_examples - 1:,}"
            )
        return identifier

    @property
    def n_classes(self) -> int:
        """How many classes there are: those with a name, else up to the largest label."""
        stats = self.stats[layout.TRAIN]
        labels = self.examples[layout.TRAIN].labels if stats is None else stats[0]
        return len(self.class_names) or int(labels.max()) + 1

    def key_of(self, set_name: str, row: int) -> str:
        """Return the name of an example."""
        return str(row) if is_numbered(self.snapshot, set_name) else self.examples[set_name].keys[row]

    def label_of(self, class_name: str) -> int:
        """Return the label of a class, given by its name or number.

        Raises:
            InvalidInputError: no such class; names some that are there.
        """
        names, n_classes = self.class_names, self.n_classes
        if class_name in names:
            return names.index(class_name)
        if class_name.isdecimal() and int(class_name) < n_classes:
            return int(class_name)
        shown = ", ".join(names[:10]) if names else f"0 to {n_classes - 1}"
        raise InvalidInputError(
            f"no class {class_name!r}", hint=f"classes are {shown}{' ...' * (len(names) > 10)}"
        )

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The locked connection, with the statistics alone: `_build` adds the relations."""
        connection = duckdb.connect()
        weakref.finalize(self, connection.close)  # an open one prints leak warnings at exit
        connection.execute(template("statistics.sql"))
        connection.execute(LOCKS.format(memory=self.memory))
        return connection

    def _build(self) -> None:
        """Make the relations, which reads counts and labels, and names where they stand with these."""
        connection = self.connection
        for name, table in self._tables().items():
            create_table(connection, name, table)
        self._register_functions(connection)
        manifest = self.snapshot.manifest
        sizes = {name: manifest.set_named(name).n_examples for name in (layout.TRAIN, layout.TEST)}
        scored = "SELECT count(*) FROM train_examples WHERE n_in > 0 AND n_out > 0"
        n_scored = connection.sql(scored).fetchall()[0][0]
        self._n_scores = {
            "memorization": n_scored,
            "influence": n_scored * sizes[layout.TEST],
            "train_influence": n_scored * sizes[layout.TRAIN],
        }
        form = FORMS[self.outcome]
        connection.execute(template("relations.sql", **form))
        some = "(SELECT * FROM test_examples WHERE id IN (SELECT unnest(test_ids)))"
        for head, relation, target, targets in (
            ("VIEW influence AS", "influence", layout.TEST, "test_examples"),
            ("VIEW train_influence AS", "train_influence", "target", "train_examples"),
            ("MACRO influence_of(test_ids) AS TABLE", "influence", layout.TEST, some),
        ):
            counted = form["counted"].format(set=layout.TEST if target == layout.TEST else layout.TRAIN)
            names = {"counted": counted, "target": target, "targets": targets, "relation": relation}
            connection.execute(f"CREATE {head} {template('pairs.sql', **{**form, **names})}")
        self._is_built = True

    def _register_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        mask_of = partial(self.bits.__getitem__, layout.MASK)
        for name in (layout.TRAIN, layout.TEST):
            if self.outcome == "confidence":
                function: Callable[..., pa.Array] = summer(
                    mask_of, self.confidences[name], self.snapshot.n_models, self._budget
                )
                returned = DuckDBPyType({"s": DOUBLE, "q": DOUBLE})
            else:
                correct_of = partial(self.bits.__getitem__, f"{name}/correct")
                function, returned = counter(mask_of, correct_of, self._budget), INTEGER
            connection.create_function(
                FORMS[self.outcome]["counted"].format(set=name),
                function,
                [INTEGER, INTEGER],
                returned,
                type=PythonUDFType.ARROW,
            )

    def _set_z(self, connection: duckdb.DuckDBPyConnection, settings: Mapping[str, Any]) -> None:
        """Set the multiplier of each relation's intervals: it is the same in every row."""
        if settings == self._settings:
            return
        given = {**settings, "n_models": self.snapshot.n_models, **self._n_scores}
        names = [
            f"interval_z($interval, $alpha, $fixed_z, $n_models, 1, ${relation})"
            for relation in self._n_scores
        ]
        (found,) = connection.execute(f"SELECT {', '.join(names)}", given).fetchall()
        for relation, z in zip(self._n_scores, found, strict=True):
            connection.execute(f"SET VARIABLE z_{relation} = $z", {"z": z})
        self._settings = dict(settings)

    def interval_z(self, settings: Mapping[str, Any], n_shown: int, n_ranked: int) -> float | None:
        """Return the multiplier of intervals of so many rows shown of so many ranked; None without models."""
        counts = {"n_models": self.snapshot.n_models, "n_shown": n_shown, "n_ranked": n_ranked}
        key = (*sorted(settings.items()), *counts.values())
        with self._statement:
            if key not in self._known_z:  # planning this statement takes milliseconds
                sql = "SELECT interval_z($interval, $alpha, $fixed_z, $n_models, $n_shown, $n_ranked)"
                found = self.connection.execute(sql, {**settings, **counts}).fetchall()
                self._known_z[key] = found[0][0]
            return self._known_z[key]

    def _tables(self) -> dict[str, pa.Table]:
        """Return the tables; what they are made of is read at once, since most of that time is waiting."""
        sets = (layout.TRAIN, layout.TEST)
        with ThreadPoolExecutor(2 * len(sets)) as pool:
            examples = [pool.submit(self._rows_of, name) for name in sets]
            counted = [pool.submit(self.totals, name) for name in sets]
            tables = [
                arrow.table(arrow.of_examples(rows.result()) | counts.result())
                for rows, counts in zip(examples, counted, strict=True)
            ]
        return {"train_examples": tables[0], "test_examples": tables[1]}

    def totals(self, set_name: str) -> dict[str, NDArray[Any]]:
        """Return what the examples' tables hold besides names and labels: counts, or sums of p."""
        snapshot, is_train = self.snapshot, set_name == layout.TRAIN
        if self.outcome == "correct":
            stats = self.stats[set_name]
            found: dict[str, NDArray[Any]] = (
                dict(totals(snapshot, set_name, self.bits.__getitem__))
                if stats is None
                else dict(zip(COUNTED[set_name][1:], stats[1:], strict=True))
            )
        else:
            found = self.confidences[set_name].totals(self.mask if is_train else None)
        if not is_train:
            return found
        n_in = found.pop("n_in") if "n_in" in found else times_in(snapshot)
        return {"n_in": n_in, "n_out": (snapshot.n_models - n_in).astype(np.int32), **found}

    def ask(  # noqa: PLR0913 - the statement, what it sees and how much it may
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        models: bool = False,
        alone: bool = False,
        max_pairs: int = MAX_PAIRS,
        timeout: float | None = None,
    ) -> pa.Table:
        """Run one statement to its end and return its rows.

        ``settings`` are those of the views' intervals, ``tables`` what this one statement can read besides;
        ``models`` makes the relation of that name, and gives examples theirs, which few statements need;
        ``alone`` says that this one needs no relations at all.

        Raises:
            InvalidInputError: SQL that does not parse, bind or run, too many pairs, or too long a wait.
        """
        given = dict(parameters or {})
        with self._statement, self._translating(timeout):
            self._prepare(sql, settings, models=models, alone=alone, max_pairs=max_pairs)
            for name, table in (tables or {}).items():
                self.connection.register(name, table)
            try:
                with running(self.connection, timeout) as run:
                    return run(lambda: carried(self.connection.sql(sql, params=given)).to_arrow_table())
            finally:
                for name in tables or {}:
                    self.connection.unregister(name)

    def stream(
        self,
        sql: str,
        settings: Mapping[str, Any],
        as_text: Kind,
        *,
        max_pairs: int = MAX_PAIRS,
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """Yield the schema of a user's statement, then its rows as record batches, as they are computed.

        Values of the types that ``as_text`` picks are written out by DuckDB. No other question can be asked
        until the last batch was taken, or the iterator was closed.

        Raises:
            InvalidInputError: as for `ask`, at any step.
        """
        with self._statement, self._translating(timeout):
            self._prepare(sql, settings, models=True, max_pairs=max_pairs)
            with running(self.connection, timeout) as run:
                found = run(lambda: carried(self.connection.sql(sql), as_text).to_arrow_reader(ROWS_AT_ONCE))
                with contextlib.closing(found) as reader:
                    yield reader.schema
                    while (batch := run(lambda: next(reader, None))) is not None:
                        yield batch

    def _prepare(
        self,
        sql: str,
        settings: Mapping[str, Any] | None,
        *,
        models: bool = False,
        alone: bool = False,
        max_pairs: int = MAX_PAIRS,
    ) -> None:
        """Make what a statement needs, once it is known to be a question."""
        require_question(self.connection, sql)
        if not alone and not self._is_built:
            self._build()
            settings = settings or USUAL
        if models and not self._has_models:
            self._add_models_and_names()
        if settings is not None:
            self._set_z(self.connection, settings)
        self._budget.left = self._budget.allowed = max_pairs

    def _add_models_and_names(self) -> None:
        create_table(self.connection, "models", arrow.of_models(self.snapshot))
        self._has_models = self._is_named = True
        if any(self.stats[name] is not None for name in (layout.TRAIN, layout.TEST)):
            for name, table in self._tables().items():
                self.connection.execute(f"DROP TABLE {name}")
                create_table(self.connection, name, table)

    @contextlib.contextmanager
    def _translating(self, timeout: float | None) -> Iterator[None]:
        """Say in one sentence what a statement failed for."""
        try:
            yield
        except TimeoutError as error:
            raise InvalidInputError(
                f"the statement ran longer than {timeout:g} seconds", hint="filter it, or raise --timeout"
            ) from error
        except (duckdb.Error, pa.ArrowException, MemoryError) as error:
            if self._budget.left < 0:
                raise InvalidInputError(
                    f"the statement looks at more than {self._budget.allowed:,} pairs",
                    hint="filter by a constant, such as test_id = 42, use influence_of([1, 2, 3]), or raise "
                    "--max-pairs",
                ) from error
            raise translated(error, self.memory) from error

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "connection" in self.__dict__:
            self.connection.close()


def create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Create a table of an Arrow table."""
    connection.register("incoming", table)
    connection.execute(f"CREATE TABLE {name} AS FROM incoming")
    connection.unregister("incoming")
