"""A user's SQL: which statements may run, how results cross to Arrow, and DuckDB's errors as one sentence.

DuckDB is imported where a statement runs: lists are counted without one.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeAlias

from memdb.errors import InvalidInputError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from duckdb.sqltypes import DuckDBPyType

QUESTIONS = ("SELECT", "EXPLAIN")  # VALUES, DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB
EXPLAIN_FORMAT = re.compile(r"\(\s*format\s+\w+\s*\)", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(
    "out of memory|bad_?alloc|MemoryError|allocation failure|(failed|unable) to allocate|cannot allocate|"
    "start new thread|resource temporarily unavailable",
    re.IGNORECASE,
)
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

Kind: TypeAlias = "Callable[[DuckDBPyType], bool]"


def require_question(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Check that the SQL is one statement that only reads, by DuckDB's parser rather than a pattern.

    Raises:
        InvalidInputError: it is not; names the statements found.
        duckdb.Error: it does not parse.
    """
    _require_utf8(sql, "statement")
    kinds = _kinds(connection, sql)
    if kinds == ["EXPLAIN"] and not _explains_a_select(connection, sql):
        kinds = ["EXPLAIN of anything but a SELECT"]
    if len(kinds) != 1 or kinds[0] not in QUESTIONS:
        raise InvalidInputError(
            f"{'; '.join(kinds[:5]) or 'nothing'} is not one question",
            hint="write one SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN (without ANALYZE)",
        )


def condition_of(text: str) -> str:
    """Return a user's condition as DuckDB's parser reads it: one expression, without comments.

    Raises:
        InvalidInputError: it is anything else.
    """
    import duckdb

    _require_utf8(text, "condition")
    try:
        return str(duckdb.SQLExpression(text))
    except duckdb.Error as error:
        said = str(error).splitlines()[0].split(": ", 1)[-1]
        raise InvalidInputError(
            f"the condition {text!r} is not one expression: {said}",
            hint="write e.g. 'memorization > .5 and q < .1'",
        ) from error


def _require_utf8(sql: str, what: str) -> None:
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the {what} is not valid UTF-8 from its character {error.start + 1} on",
            hint="write it in UTF-8",
        ) from error


def _kinds(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    try:
        return [statement.type.name for statement in connection.extract_statements(sql)]
    except ValueError:  # a type that DuckDB's Python module lacks, such as UPDATE EXTENSIONS
        return ["a statement of another kind"]


def _explains_a_select(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Whether EXPLAIN is followed by a SELECT alone, rather than by ANALYZE and a SELECT."""
    import duckdb

    words = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    explained = sql.encode()[words[1] :].decode()
    try:
        return _kinds(connection, EXPLAIN_FORMAT.sub("", explained, count=1)) == ["SELECT"]
    except duckdb.Error:
        return False


def out_of_python(kind: DuckDBPyType) -> bool:
    """Whether a type has values that Python's types lack: dates of any year, 24:00, months."""
    return kind.id.startswith(("date", "time", "interval")) or out_of_arrow(kind)


def out_of_parquet(kind: DuckDBPyType) -> bool:
    """Whether PyArrow cannot write a type to Parquet."""
    empty = kind.id == "struct" and not kind.children
    return empty or kind.id in {"interval", "union"} or out_of_arrow(kind)


def out_of_arrow(kind: DuckDBPyType) -> bool:
    """Whether Arrow changes the values of a type: they wrap around, or become bytes."""
    return kind.id in {"uhugeint", "bignum", "bit", "geometry", "variant"}


def carried(relation: duckdb.DuckDBPyRelation, as_text: Kind = out_of_arrow) -> duckdb.DuckDBPyRelation:
    """Return a relation with the values of some types formatted by DuckDB, at any depth of nesting.

    Repeated column names are numbered, because a row is also written as a JSON object.
    """
    names = _distinct(relation.columns)
    types = [_type(kind, as_text) for kind in relation.types]
    if names == relation.columns and all(map(str.__eq__, types, map(str, relation.types))):
        return relation
    columns = [
        f"CAST(#{position} AS {kind}) AS {_quoted(name)}"
        for position, (name, kind) in enumerate(zip(names, types, strict=True), start=1)
    ]
    return relation.project(", ".join(columns))


def _type(kind: DuckDBPyType, as_text: Kind) -> str:
    if as_text(kind):
        return "VARCHAR"
    if kind.id not in {"list", "array", "struct", "map", "tuple", "union"}:
        return str(kind)
    from duckdb.sqltypes import DuckDBPyType

    inner = [(name, child) for name, child in kind.children if isinstance(child, DuckDBPyType)]
    types = [_type(child, as_text) for _, child in inner]
    named = ", ".join(f"{_quoted(name)} {of}" for (name, _), of in zip(inner, types, strict=True) if name)
    match kind.id:
        case "list":
            return f"{types[0]}[]"
        case "array":
            return f"{types[0]}[{dict(kind.children)['size']}]"
        case "map" | "tuple":
            return f"{kind.id}({', '.join(types)})"
        case _:  # a union's tag is a child without a name
            return f"{kind.id}({named})" if named else str(kind)


def _distinct(names: Sequence[str]) -> list[str]:
    """Return unique column names, numbering repeated ones as DuckDB does in tables."""
    taken: dict[str, str] = {}
    for name in names:
        distinct, n = name, 0
        while distinct.lower() in taken:
            n += 1
            distinct = f"{name}_{n}"
        taken[distinct.lower()] = distinct
    return list(taken.values())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def reading(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> Iterator[None]:
    """Let statements read further tables."""
    for name, table in tables.items():
        connection.register(name, table)
    try:
        yield
    finally:
        for name in tables:
            connection.unregister(name)


@contextlib.contextmanager
def running(
    connection: duckdb.DuckDBPyConnection, timeout: float | None
) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Yield a function that runs the steps of one statement, in a read-only transaction with one timeout.

    Steps run in a thread, because DuckDB checks for Ctrl-C only between its tasks, which may be long. For the
    same reason a statement may outlast its timeout: only ending the process is certain to end it.

    Raises:
        TimeoutError: the statement ran out of time.
    """
    import duckdb

    end = None if timeout is None else time.monotonic() + timeout

    def run(step: Callable[[], Any]) -> Any:
        running_step = pool.submit(step)
        try:
            return running_step.result(None if end is None else end - time.monotonic())
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise duckdb.Error(str(error)) from error  # Arrow wraps what DuckDB raised
        finally:
            if not running_step.done():
                connection.interrupt()
                wait([running_step])

    with ThreadPoolExecutor(1) as pool:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            yield run
        finally:
            with contextlib.suppress(duckdb.Error):  # the first error is the one to report
                connection.execute("ROLLBACK")


def translated(error: Exception, memory: int) -> InvalidInputError:
    """Return an error of DuckDB, or of Arrow on its behalf, as an InvalidInputError of one sentence."""
    import duckdb

    if wants_memory(error):
        return out_of_memory(memory)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("LINE", "^"))]  # drop the excerpt of the statement
    return InvalidInputError(
        "; ".join(kept[: 1 if isinstance(error, duckdb.InternalException) else 3]).rstrip("."),
        hint='`memdb sql "SHOW TABLES"` and `"DESCRIBE influence"` list what is there',
    )


def wants_memory(error: Exception) -> bool:
    """Whether an error means that the system refused memory or a thread."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def out_of_memory(memory: int) -> InvalidInputError:
    """Return the error of a statement that ran out of memory."""
    return InvalidInputError(
        f"the statement needs more than {memory / 10**9:.3g} GB of memory",
        hint="ask for less at once, write its rows to a file (`memdb sql --output FILE`), or allow more "
        "(`memdb sql --memory SIZE`)",
    )


def create_table(connection: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Create a DuckDB table from an Arrow table."""
    connection.register("incoming", table)
    connection.execute(f"CREATE TABLE {name} AS FROM incoming")
    connection.unregister("incoming")
