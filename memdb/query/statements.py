"""A user's SQL: which statements are questions, how results are carried, and what DuckDB's errors say."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from memdb.errors import InvalidInputError

QUESTIONS = ("SELECT", "EXPLAIN")  # VALUES, DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB
EXPLAIN_FORMAT = re.compile(r"\(\s*format\s+\w+\s*\)", re.IGNORECASE)
OUT_OF_MEMORY = re.compile(
    "out of memory|bad_?alloc|MemoryError|allocation failure|(failed|unable) to allocate|cannot allocate|"
    "start new thread|resource temporarily unavailable",
    re.IGNORECASE,
)

Kind = Callable[[DuckDBPyType], bool]


def require_question(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what is not one statement that only reads: DuckDB's parser decides, not a pattern.

    Raises:
        InvalidInputError: names what was found.
        duckdb.Error: it does not parse.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the statement is not valid UTF-8 from its character {error.start + 1} on",
            hint="write it in UTF-8",
        ) from error
    kinds = _kinds(connection, sql)
    if kinds == ["EXPLAIN"] and not _explains_a_select(connection, sql):
        kinds = ["EXPLAIN of anything but a SELECT"]
    if len(kinds) != 1 or kinds[0] not in QUESTIONS:
        raise InvalidInputError(
            f"{'; '.join(kinds[:5]) or 'nothing'} is not one question",
            hint="write one SELECT, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN (without ANALYZE)",
        )


def _kinds(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    try:
        return [statement.type.name for statement in connection.extract_statements(sql)]
    except ValueError:  # a kind that DuckDB's Python module has no name for, such as UPDATE EXTENSIONS
        return ["a statement of another kind"]


def _explains_a_select(connection: duckdb.DuckDBPyConnection, sql: str) -> bool:
    """Tell whether what follows EXPLAIN is a SELECT by itself: ANALYZE and a SELECT is not."""
    words = [start for start, kind in duckdb.tokenize(sql) if kind != duckdb.token_type.comment]
    explained = sql.encode()[words[1] :].decode()
    try:
        return _kinds(connection, EXPLAIN_FORMAT.sub("", explained, count=1)) == ["SELECT"]
    except duckdb.Error:
        return False


def out_of_python(kind: DuckDBPyType) -> bool:
    """Tell whether a type has values that Python's own types lack: dates of any year, 24:00, months."""
    return kind.id.startswith(("date", "time", "interval")) or out_of_arrow(kind)


def out_of_parquet(kind: DuckDBPyType) -> bool:
    """Tell whether PyArrow cannot write a type to Parquet."""
    empty = kind.id == "struct" and not kind.children
    return empty or kind.id in {"interval", "union"} or out_of_arrow(kind)


def out_of_arrow(kind: DuckDBPyType) -> bool:
    """Tell whether Arrow carries a type as other values than it has: wrapped around, or as bytes."""
    return kind.id in {"uhugeint", "bignum", "bit", "geometry", "variant"}


def carried(relation: duckdb.DuckDBPyRelation, as_text: Kind = out_of_arrow) -> duckdb.DuckDBPyRelation:
    """Return a relation with values of some types, wherever they are nested, as DuckDB writes them.

    Columns of one name get numbers: rows are also objects, whose names differ.
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
    """Return column names, those that stand twice with a number, as DuckDB gives them in tables."""
    found: dict[str, str] = {}
    for name in names:
        distinct, n = name, 0
        while distinct.lower() in found:
            n += 1
            distinct = f"{name}_{n}"
        found[distinct.lower()] = distinct
    return list(found.values())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextlib.contextmanager
def running(
    connection: duckdb.DuckDBPyConnection, timeout: float | None
) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Yield what runs the parts of one statement, in a read-only transaction and within a time in all.

    They run in a thread: DuckDB looks for Ctrl-C between its tasks only, which may be long. For the same
    reason a statement may run on after its time: only the end of its process is sure to end it.

    Raises:
        TimeoutError: the time is over.
    """
    end = None if timeout is None else time.monotonic() + timeout

    def run(part: Callable[[], Any]) -> Any:
        part_running = pool.submit(part)
        try:
            return part_running.result(None if end is None else end - time.monotonic())
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            raise duckdb.Error(str(error)) from error  # so Arrow hands on what DuckDB raised
        finally:
            if not part_running.done():
                connection.interrupt()
                wait([part_running])

    with ThreadPoolExecutor(1) as pool:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            yield run
        finally:
            with contextlib.suppress(duckdb.Error):  # what went wrong before is what there is to say
                connection.execute("ROLLBACK")


def translated(error: Exception, memory: int) -> InvalidInputError:
    """Return an error of DuckDB, or of Arrow on its behalf, as one sentence."""
    if wants_memory(error):
        return out_of_memory(memory)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("LINE", "^"))]  # not where it points to
    return InvalidInputError(
        "; ".join(kept[: 1 if isinstance(error, duckdb.InternalException) else 3]).rstrip("."),
        hint='`memdb sql "SHOW TABLES"` and `"DESCRIBE influence"` list what is there',
    )


def wants_memory(error: Exception) -> bool:
    """Tell whether an error is about memory, or a thread, that the system refused."""
    return isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)) is not None


def out_of_memory(memory: int) -> InvalidInputError:
    """Return what is said of a statement that was refused memory."""
    return InvalidInputError(
        f"the statement needs more than {memory / 10**9:.3g} GB of memory",
        hint="ask for less at once, write its rows to a file (`memdb sql --output FILE`), or allow more "
        "(`memdb sql --memory SIZE`)",
    )
