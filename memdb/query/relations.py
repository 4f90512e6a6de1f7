"""A snapshot as relations in a locked-down DuckDB: tables of counts, views that count pairs on demand."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MemdbError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.confidences import Confidences
from memdb.query.example_counts import times_in, totals
from memdb.query.examples import keeps_own, label_of, require_examples, require_labels, row_of_key
from memdb.query.intervals import IntervalSpec
from memdb.query.lazy import Lazy
from memdb.query.options import MEMORY, OWN_LIMITS, StatementLimits
from memdb.query.outcomes import OUTCOMES, require_outcome
from memdb.query.statements import (
    LOCKS,
    Kind,
    carried,
    create_table,
    reading,
    require_question,
    running,
    translated,
)
from memdb.query.templates import template
from memdb.query.udfs import Budget, Words, counter, summer
from memdb.store import Examples, Snapshot
from memdb.store.examples import UNKNOWN
from memdb.store.published_arrays import (
    COUNTED,
    derived_of,
    is_numbered,
    light_examples,
    named_examples,
    read_stats,
)

if TYPE_CHECKING:
    import duckdb

ROWS_AT_ONCE = 65_536  # rows of a record batch of a streamed result
USUAL = IntervalSpec("anytime")  # of the views


class Relations:
    """One snapshot as DuckDB relations. Bits are read when a question first needs them, then cached."""

    def __init__(self, snapshot: Snapshot, outcome: str = "correct") -> None:
        snapshot.manifest.require_random(snapshot.url)
        self.snapshot = snapshot
        self.outcome = require_outcome(outcome)
        self.memory = MEMORY
        self.read_alone: dict[tuple[str, int], Words] = {}  # rows of `bits`, by path and row
        self._budget = Budget()
        self._known_totals: dict[str, dict[str, Any]] = {}
        self._interval: IntervalSpec | None = None  # whose multipliers the views have now
        self._statement = threading.Lock()
        self._has_models = self._is_built = self._is_named = False

    @cached_property
    def bits(self) -> Mapping[str, Words]:
        """Masks (`layout.MASK`) and outcomes of kind ``bit`` by path, uint64 [examples, words]."""
        return Lazy(self.snapshot.words)  # not self, which the functions of the connection would keep alive

    @property
    def mask(self) -> Words:
        """The subset masks, uint64 [train, words]."""
        return self.bits[layout.MASK]

    def correct(self, set_name: str) -> Words:
        """Return which models are correct on the examples of a set, uint64 [examples, words]."""
        return self.bits[f"{set_name}/correct"]

    @cached_property
    def confidences(self) -> Mapping[str, Confidences]:
        """The confidences of all models on the examples of each set.

        Raises:
            NotFoundError: the store does not keep logit confidences.
        """
        snapshot = self.snapshot
        return Lazy(lambda name: Confidences(snapshot, name))

    def values(self, set_name: str, row: int) -> NDArray[np.float64]:
        """Return the outcome of every model on one example, float64 [models]: 0 or 1, or p."""
        if self.outcome == "confidence":
            return self.confidences[set_name].of_one(row)
        packed = self.correct(set_name)[row : row + 1].view(np.uint8)
        return bits.unpack(packed, self.snapshot.n_models)[:, 0].astype(np.float64)

    @cached_property
    def examples(self) -> Mapping[str, Examples]:
        """The keys and labels of each set."""
        return Lazy(self._examples_of)

    def _examples_of(self, set_name: str) -> Examples:
        stats = self.stats[set_name]
        if stats is None:
            return self.snapshot.examples(set_name)
        return named_examples(self.snapshot, set_name, stats)

    def _rows_of(self, set_name: str) -> Examples:
        """Return the examples of a set for its table, with keys only if they are needed or cost nothing."""
        stats = self.stats[set_name]
        if stats is None or (self._is_named and not is_numbered(self.snapshot, set_name)):
            return self.examples[set_name]
        return light_examples(self.snapshot, set_name, stats)

    def labels(self, set_name: str) -> NDArray[np.int32]:
        """Return the label of each example of a set."""
        stats = self.stats[set_name]
        return self.examples[set_name].labels if stats is None else stats[0]

    @cached_property
    def stats(self) -> Mapping[str, NDArray[np.int32] | None]:
        """The counts per example that a published copy stores (`COUNTED`); None in other stores."""
        return Lazy(partial(read_stats, self.snapshot))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the training set's classes."""
        derived = derived_of(self.snapshot)
        return derived[1].class_names[layout.TRAIN] if derived else self.examples[layout.TRAIN].class_names

    def prefetch(self, *set_names: str) -> None:
        """Begin to read the bits that pairs with examples of these sets are counted from."""
        if self.outcome == "correct" and all(self.snapshot.counted):  # else totals read some of them, too
            paths = (layout.MASK, *(f"{name}/correct" for name in set_names))
            for path in (path for path in paths if path not in self.bits):
                threading.Thread(target=self._read_quietly, args=(path,), daemon=True).start()

    def _read_quietly(self, path: str) -> None:
        with contextlib.suppress(MemdbError):  # the question that needs the bits reads them again, and raises
            self.bits[path]

    def row_of(self, set_name: str, identifier: int | None, key: str | None, parameter: str) -> int:
        """Return an example's row from its id or its key.

        Raises:
            InvalidInputError: an id out of range.
            NotFoundError: no example has this key.
        """
        n_examples = require_examples(self.snapshot, set_name)
        if key is not None:
            return row_of_key(self.examples[set_name].keys, set_name, key)
        if identifier is None or not 0 <= identifier < n_examples:
            raise InvalidInputError(
                f"{parameter} {identifier} is out of range",
                hint=f"this store has 0 to {n_examples - 1:,}",
                parameter=parameter,
            )
        return identifier

    @property
    def are_labelled(self) -> bool:
        """Whether the classes of examples are known."""
        return self.class_names != (UNKNOWN,)

    @property
    def n_classes(self) -> int:
        """The number of classes: those with a name, or else up to the largest label."""
        return len(self.class_names) or int(self.labels(layout.TRAIN).max()) + 1

    def key_of(self, set_name: str, row: int) -> str:
        """Return the key of an example."""
        return str(row) if is_numbered(self.snapshot, set_name) else self.examples[set_name].key(row)

    def label_of(self, class_name: str) -> int:
        """Return the label of a class from its name or number.

        Raises:
            InvalidInputError: no such class; the hint lists some.
        """
        require_labels(self.snapshot, are_labelled=self.are_labelled)
        return label_of(class_name, self.class_names, self.n_classes)

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The locked connection, with the statistics macros only: `_build` adds the relations."""
        import duckdb

        connection = duckdb.connect()
        weakref.finalize(self, connection.close)  # an open one prints leak warnings at exit
        connection.execute(template("statistics.sql"))
        connection.execute(LOCKS.format(memory=self.memory))
        return connection

    def _build(self) -> None:
        """Create the relations, which reads counts and labels, and keys where they are stored with labels."""
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
        form = OUTCOMES[self.outcome].sql
        connection.execute(template("relations.sql", **form))
        chosen = "(SELECT * FROM test_examples WHERE id IN (SELECT unnest(test_ids)))"
        for head, relation, target, targets in (
            ("VIEW influence AS", "influence", layout.TEST, "test_examples"),
            ("VIEW train_influence AS", "train_influence", "target", "train_examples"),
            ("MACRO influence_of(test_ids) AS TABLE", "influence", layout.TEST, chosen),
        ):
            counted = form["counted"].format(set=layout.TEST if target == layout.TEST else layout.TRAIN)
            body = self._pairs_sql(relation, counted=counted, target=target, targets=targets)
            connection.execute(f"CREATE {head} {body}")
        self._is_built = True

    def _pairs_sql(self, relation: str, **names: str) -> str:
        return template("pairs.sql", **{**OUTCOMES[self.outcome].sql, **names, "relation": relation})

    def _register_functions(self, connection: duckdb.DuckDBPyConnection) -> None:
        from duckdb.func import PythonUDFType
        from duckdb.sqltypes import DOUBLE, INTEGER, DuckDBPyType

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
            called = OUTCOMES[self.outcome].sql["counted"].format(set=name)
            kind = PythonUDFType.ARROW
            connection.create_function(called, function, [INTEGER, INTEGER], returned, type=kind)

    def _set_z(self, connection: duckdb.DuckDBPyConnection, interval: IntervalSpec) -> None:
        """Set the multiplier of the intervals of each relation, which is the same in every row."""
        if interval == self._interval:
            return
        given = {**interval.parameters(), "n_models": self.snapshot.n_models, **self._n_scores}
        names = [
            f"interval_z($interval, $alpha, $fixed_z, $n_models, 1, ${relation})"
            for relation in self._n_scores
        ]
        (multipliers,) = connection.execute(f"SELECT {', '.join(names)}", given).fetchall()
        for relation, z in zip(self._n_scores, multipliers, strict=True):
            connection.execute(f"SET VARIABLE z_{relation} = $z", {"z": z})
        self._interval = interval

    def _tables(self) -> dict[str, pa.Table]:
        """Return the tables of examples; their contents are read concurrently, since most time is latency."""
        sets = (layout.TRAIN, layout.TEST)
        with ThreadPoolExecutor(2 * len(sets)) as pool:
            examples = [pool.submit(self._rows_of, name) for name in sets]
            counted = [pool.submit(self.totals, name) for name in sets]
            tables = [
                arrow.table({**arrow.of_examples(rows.result()), **counts.result()})
                for rows, counts in zip(examples, counted, strict=True)
            ]
        return {"train_examples": tables[0], "test_examples": tables[1]}

    def totals(self, set_name: str) -> Mapping[str, Any]:
        """Return the columns of a table of examples besides keys and labels: counts, or sums of p."""
        if set_name not in self._known_totals:
            self._known_totals[set_name] = self._count(set_name)
        return self._known_totals[set_name]

    def _count(self, set_name: str) -> dict[str, Any]:
        snapshot, is_train = self.snapshot, set_name == layout.TRAIN
        if is_train and self.outcome == "correct" and not keeps_own(snapshot):
            n_in = times_in(snapshot)
            unknown = arrow.column(np.zeros_like(n_in), np.zeros(len(n_in), dtype=np.bool_))
            return {"n_in": n_in, "n_out": snapshot.n_models - n_in, "n_correct": unknown, "k_in": unknown}
        if self.outcome != "correct":
            columns: dict[str, Any] = self.confidences[set_name].totals(self.mask if is_train else None)
        elif (stats := self.stats[set_name]) is None:
            columns = dict(totals(snapshot, set_name, self.bits.__getitem__))
        else:
            columns = dict(zip(COUNTED[set_name][1:], stats[1:], strict=True))
        if not is_train:
            return columns
        n_in = columns.pop("n_in") if "n_in" in columns else times_in(snapshot)
        return {"n_in": n_in, "n_out": (snapshot.n_models - n_in).astype(np.int32), **columns}

    def ask(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        interval: IntervalSpec | None = None,
        tables: Mapping[str, pa.Table] | None = None,
        models: bool = False,
        limits: StatementLimits = OWN_LIMITS,
    ) -> pa.Table:
        """Run one statement and return all its rows.

        Args:
            sql: the statement.
            parameters: values of its ``$name`` parameters.
            interval: of the scores in the views; by default that of the statement before.
            tables: further tables that this statement can read.
            models: create the relation ``models`` and the names of examples, which few statements need.
            limits: how much the statement may do.

        Raises:
            InvalidInputError: SQL that does not parse, bind or run, too many pairs, or a timeout.
        """
        given = dict(parameters or {})
        with self._statement, self._translating(limits.timeout):
            self._prepare(sql, interval, models=models, max_pairs=limits.max_pairs)
            with reading(self.connection, tables or {}), running(self.connection, limits.timeout) as run:
                return run(lambda: carried(self.connection.sql(sql, params=given)).to_arrow_table())

    def compute(self, sql: str, tables: Mapping[str, pa.Table], **given: Any) -> pa.Table:
        """Return what one of memdb's own statements makes of these tables, the only ones that it reads."""
        with self._statement, self._translating(None), reading(self.connection, tables):
            return self.connection.sql(sql, params=given).to_arrow_table()

    def stream(
        self,
        sql: str,
        interval: IntervalSpec,
        as_text: Kind,
        limits: StatementLimits = OWN_LIMITS,
    ) -> Iterator[Any]:
        """Yield the schema of a user's statement, then record batches as they are computed.

        DuckDB formats values of the types for which ``as_text`` is true. No other statement can run until the
        iterator is exhausted or closed.

        Raises:
            InvalidInputError: as for `ask`, at any step.
        """
        with self._statement, self._translating(limits.timeout):
            self._prepare(sql, interval, models=True, max_pairs=limits.max_pairs)
            with running(self.connection, limits.timeout) as run:
                batches = run(
                    lambda: carried(self.connection.sql(sql), as_text).to_arrow_reader(ROWS_AT_ONCE)
                )
                with contextlib.closing(batches) as reader:
                    yield reader.schema
                    while (batch := run(lambda: next(reader, None))) is not None:
                        yield batch

    def _prepare(
        self,
        sql: str,
        interval: IntervalSpec | None,
        *,
        models: bool,
        max_pairs: int,
    ) -> None:
        """Check that a statement only reads, and create the relations that it needs."""
        require_question(self.connection, sql)
        if not self._is_built:
            self._build()
            interval = interval or USUAL
        if models and not self._has_models:
            self._add_models_and_names()
        if interval is not None:
            self._set_z(self.connection, interval)
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
        """Turn errors of a statement into an InvalidInputError of one sentence."""
        import duckdb

        try:
            yield
        except TimeoutError as error:
            raise InvalidInputError(
                f"the statement ran longer than {timeout:g} seconds",
                hint="filter it, or raise timeout",
                parameter="timeout",
            ) from error
        except (duckdb.Error, pa.ArrowException, MemoryError) as error:
            if self._budget.left < 0:
                raise InvalidInputError(
                    f"the statement looks at more than {self._budget.allowed:,} pairs",
                    hint="filter by a constant, such as test_id = 340, use influence_of([1, 2, 3]), or raise "
                    "max_pairs",
                    parameter="max_pairs",
                ) from error
            raise translated(error, self.memory) from error

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "connection" in self.__dict__:
            self.connection.close()
