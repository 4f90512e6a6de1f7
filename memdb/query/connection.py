"""The relations of one snapshot in DuckDB: tables of counts, views that count pairs when asked, locks."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from statistics import NormalDist
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType
from duckdb.sqltypes import INTEGER
from numpy.typing import NDArray

from memdb import bits, layout
from memdb.errors import InvalidInput, NotFound
from memdb.store import Examples, Snapshot

INTERVALS = ("fixed", "anytime", "selected", "simultaneous")
MAX_PAIRS = 100_000_000
MEMORY_LIMIT = "4GB"
QUESTIONS = {"SELECT", "EXPLAIN", "PRAGMA"}  # DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB
Words = NDArray[np.uint64]  # [examples, ceil(models / 64)]

LOCKS = """
SET memory_limit = '{memory_limit}';
SET python_enable_replacements = false;
SET autoinstall_known_extensions = false;
SET autoload_known_extensions = false;
SET enable_external_access = false;
SET lock_configuration = true;
"""


def schema(name: str) -> str:
    """Return a file of the contract."""
    return files("memdb.schemas").joinpath(name).read_text(encoding="utf-8")


def pairs_sql(target: str, targets: str, counts: str) -> str:
    """Return the query over (training example, target) pairs for one kind of target."""
    filled = schema("pairs.sql").replace(":targets", targets).replace(":target", target)
    return filled.replace(":counts", counts)


def fixed_z(level: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf(1 - (1 - level) / 2)


def require_level(level: float) -> float:
    """Refuse levels that are no probability.

    Raises:
        InvalidInput: outside (0, 1), so near 1 that no interval has it, or below 0.5, where the
            anytime multiplier is not defined.
    """
    if not 0 < level < 1 or 1 - (1 - level) / 2 >= 1:
        raise InvalidInput(f"the level {level:g} is not between 0 and 1", hint="use e.g. --level 0.95")
    if level < 0.5:
        raise InvalidInput(f"the level {level:g} is below 0.5", hint="use e.g. --level 0.95")
    return level


def require_interval(interval: str, allowed: tuple[str, ...] = INTERVALS) -> str:
    """Refuse kinds of interval that do not exist, or do not suit the question.

    Raises:
        InvalidInput: names the kinds that do.
    """
    if interval not in INTERVALS:
        raise InvalidInput(f"unknown interval {interval!r}", hint=f"use one of {', '.join(allowed)}")
    if interval not in allowed:
        raise InvalidInput(
            f"the interval {interval!r} is for ranked lists: here nothing is chosen by its rank",
            hint=f"use one of {', '.join(allowed)}",
        )
    return interval


class Relations:
    """One snapshot as DuckDB relations. Bits are read when a question needs them, then kept."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._budget = _Budget()
        self._statement = threading.Lock()

    @cached_property
    def mask(self) -> Words:
        """Subset masks, [train, words]."""
        return bits.words(self.snapshot.mask())

    @cached_property
    def correct(self) -> Mapping[str, Words]:
        """Correctness of every model on the examples of each set, [examples, words]."""
        return _Lazy(lambda name: bits.words(self.snapshot.outcome_bits(f"{name}/correct")))

    @cached_property
    def examples(self) -> Mapping[str, Examples]:
        """Names and labels of each set."""
        return _Lazy(self.snapshot.examples)

    def row_of(self, set_name: str, identifier: int | None, key: str | None, option: str) -> int:
        """Return an example's row from its id or its key.

        Raises:
            InvalidInput: an id out of range, naming the range.
            NotFound: a key that no example has.
        """
        n_examples = self.snapshot.manifest.set_named(set_name).n_examples
        if key is not None:
            try:
                return self.examples[set_name].keys.index(key)
            except ValueError as error:
                raise NotFound(
                    f"no {set_name} example has the key {key!r}",
                    hint=f"keys look like {self.examples[set_name].keys[0]!r}; "
                    f"the relation {set_name}_examples has all of them",
                ) from error
        if identifier is None or not 0 <= identifier < n_examples:
            raise InvalidInput(
                f"{option} {identifier} is out of range", hint=f"this store has 0 to {n_examples - 1:,}"
            )
        return identifier

    def label_of(self, class_name: str) -> int:
        """Return the label of a class, given by its name or number.

        Raises:
            InvalidInput: no such class; names some that are there.
        """
        names = self.examples[layout.TRAIN].class_names
        if class_name in names:
            return names.index(class_name)
        n_classes = int(self.examples[layout.TRAIN].labels.max()) + 1
        if class_name.isdecimal() and int(class_name) < n_classes:
            return int(class_name)
        shown = ", ".join(names[:10]) if names else f"0 to {n_classes - 1}"
        raise InvalidInput(
            f"no class {class_name!r}", hint=f"classes are {shown}{' ...' * (len(names) > 10)}"
        )

    @cached_property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The locked connection; building it reads masks and correctness."""
        connection = duckdb.connect()
        weakref.finalize(self, connection.close)  # an open one prints leak warnings at exit
        for name, table in self._tables().items():
            connection.register("incoming", table)
            connection.execute(f"CREATE TABLE {name} AS FROM incoming")
            connection.unregister("incoming")
        for name in (layout.TRAIN, layout.TEST):
            connection.create_function(
                f"k_in_{name}",
                _counter(self.mask, self.correct[name], self._budget),
                [INTEGER, INTEGER],
                INTEGER,
                type=PythonUDFType.ARROW,
            )
        connection.execute(schema("statistics.sql"))
        sizes = {item.name: item.n_examples for item in self.snapshot.manifest.sets}
        self._set_variables(connection, {"n_test": sizes[layout.TEST]})
        scored = "SELECT count(*) FROM train_examples WHERE n_in > 0 AND n_out > 0"
        n_scored = connection.sql(scored).fetchall()[0][0]
        self._set_variables(connection, {"n_target": sizes[layout.TRAIN], "n_scored": n_scored})
        self._set_variables(connection, {"interval": "anytime", "alpha": 0.05, "fixed_z": fixed_z(0.95)})
        connection.execute(schema("relations.sql"))
        on_test = pairs_sql("test", "test_examples", "k_in_test")
        on_train = pairs_sql("target", "train_examples", "k_in_train")
        some = "(SELECT * FROM test_examples WHERE id IN (SELECT unnest(test_ids)))"
        connection.execute(f"CREATE VIEW influence AS {on_test}")
        connection.execute(f"CREATE VIEW train_influence AS {on_train}")
        listed = pairs_sql("test", some, "k_in_test")
        connection.execute(f"CREATE MACRO influence_of(test_ids) AS TABLE {listed}")
        connection.execute(LOCKS.format(memory_limit=MEMORY_LIMIT))
        return connection

    @staticmethod
    def _set_variables(connection: duckdb.DuckDBPyConnection, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            connection.execute(f"SET VARIABLE {name} = $value", {"value": value})

    def _tables(self) -> dict[str, pa.Table]:
        mask = self.mask
        correct = {name: self.correct[name] for name in (layout.TRAIN, layout.TEST)}
        n_in = bits.count(mask)
        n_out = (self.snapshot.n_models - n_in).astype(np.int32)
        k_in = bits.count_and(mask, correct[layout.TRAIN])
        train = _example_columns(self.examples[layout.TRAIN], bits.count(correct[layout.TRAIN]))
        test = _example_columns(self.examples[layout.TEST], bits.count(correct[layout.TEST]))
        own = {"n_in": n_in, "n_out": n_out, "n_correct": train.pop("n_correct"), "k_in": k_in}
        return {
            "models": _models_table(self.snapshot),
            "train_examples": pa.table(train | own),
            "test_examples": pa.table(test),
        }

    def ask(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        max_pairs: int = MAX_PAIRS,
        timeout: float | None = None,
    ) -> pa.Table:
        """Run one statement to its end and return its rows; settings are those of the views' intervals.

        Raises:
            InvalidInput: SQL that does not parse, bind or run, too many pairs, or too long a wait.
        """
        self._require_question(sql)
        with self._statement:
            self._set_variables(self.connection, settings or {})
            self._budget.left = self._budget.allowed = max_pairs
            try:
                return self._run(sql, dict(parameters or {}), timeout)
            except TimeoutError as error:
                raise InvalidInput(
                    f"the statement ran longer than {timeout:g} seconds", hint="filter it, or raise --timeout"
                ) from error
            except duckdb.Error as error:
                raise self._translated(error) from error

    def _run(self, sql: str, parameters: dict[str, Any], timeout: float | None) -> pa.Table:
        """Run a statement in a thread: DuckDB looks for Ctrl-C between its tasks only, which may be long."""
        connection = self.connection
        with ThreadPoolExecutor(1) as pool:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            running = pool.submit(lambda: connection.sql(sql, params=parameters).to_arrow_table())
            try:
                return running.result(timeout)
            except BaseException:
                if not running.done():
                    connection.interrupt()
                raise
            finally:
                wait([running])
                connection.execute("ROLLBACK")

    def _require_question(self, sql: str) -> None:
        try:
            kinds = [statement.type.name for statement in self.connection.extract_statements(sql)]
        except duckdb.Error as error:
            raise self._translated(error) from error
        runs_what_it_explains = kinds == ["EXPLAIN"] and re.search(r"\banaly[sz]e\b", sql, re.IGNORECASE)
        if len(kinds) != 1 or kinds[0] not in QUESTIONS or runs_what_it_explains:
            raise InvalidInput(
                f"{'; '.join(kinds) or 'nothing'} is not one question",
                hint="write one SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
            )

    def _translated(self, error: duckdb.Error) -> InvalidInput:
        if self._budget.left < 0:
            return InvalidInput(
                f"the statement looks at more than {self._budget.allowed:,} pairs",
                hint="filter by a constant, such as test_id = 42, use influence_of([1, 2, 3]), or raise "
                "--max-pairs",
            )
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        kept = [line for line in lines if not line.startswith(("LINE", "^"))]
        return InvalidInput(
            "; ".join(kept[:3]),
            hint='`memdb sql "SHOW TABLES"` and `"DESCRIBE influence"` list what is there',
        )

    def close(self) -> None:
        """Close the connection, if one was opened."""
        if "connection" in self.__dict__:
            self.connection.close()


@dataclass
class _Budget:
    """How many pairs a statement may count, and how many are left of them."""

    allowed: int = MAX_PAIRS
    left: int = MAX_PAIRS


def _counter(mask: Words, correct: Words, budget: _Budget) -> Callable[[Any, Any], pa.Array]:
    """Return the Arrow function that counts pairs; it must not know the `Relations`, or nothing is freed."""

    def count_pairs(train_ids: Any, target_ids: Any) -> pa.Array:
        trains, targets = np.asarray(train_ids), np.asarray(target_ids)
        for ids, rows in ((trains, mask), (targets, correct)):
            if ids.min() < 0 or ids.max() >= len(rows):
                raise InvalidInput(f"no example has one of the ids {ids.min()} to {ids.max()}")
        budget.left -= len(trains)
        if budget.left < 0:
            raise InvalidInput("too many pairs")
        if (targets == targets[0]).all():
            first = int(trains[0])
            contiguous = (np.diff(trains) == 1).all()
            rows = mask[first : first + len(trains)] if contiguous else mask[trains]
            return pa.array(bits.count_and(rows, correct[int(targets[0])]))
        if (trains == trains[0]).all():
            return pa.array(bits.count_and(correct[targets], mask[int(trains[0])]))
        return pa.array(bits.count_and(mask[trains], correct[targets]))

    return count_pairs


class _Lazy(Mapping[str, Any]):
    """A mapping that makes each value when it is first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._made: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._made:
            self._made[key] = self._make(key)
        return self._made[key]

    def __iter__(self) -> Any:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def _example_columns(examples: Examples, n_correct: NDArray[np.int32]) -> dict[str, Any]:
    keys = pa.LargeStringArray.from_buffers(
        len(examples), pa.py_buffer(examples.key_offsets), pa.py_buffer(examples.key_bytes)
    )
    names = pa.array(examples.class_names, pa.string())
    known = examples.labels < len(names)
    class_names = (
        names.take(pa.array(np.where(known, examples.labels, 0), mask=~known)) if len(names) else None
    )
    return {
        "id": np.arange(len(examples), dtype=np.int32),
        "key": keys,
        "label": examples.labels,
        "class_name": pa.nulls(len(examples), pa.string()) if class_names is None else class_names,
        "n_correct": n_correct,
    }


def _models_table(snapshot: Snapshot) -> pa.Table:
    columns = {
        "model_id": pa.string(), "segment": pa.string(), "seed": pa.uint64(), "subset_size": pa.int32(),
        "train_accuracy": pa.float64(), "out_accuracy": pa.float64(), "test_accuracy": pa.float64(),
        "seconds": pa.float64(), "trained_at": pa.string(), "diverged": pa.bool_(), "device": pa.string(),
        "host": pa.string(),
    }  # fmt: skip
    rows = [
        {name: segment if name == "segment" else getattr(model, name) for name in columns}
        for segment, model in snapshot.models_by_commit
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(columns))
