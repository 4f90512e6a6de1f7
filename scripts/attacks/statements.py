"""Untrusted SQL: the resources it may use, what it may reach, and what a query of one's own costs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attacks.harness import Place, case, make

LIMITS = "--timeout 10 --memory 1GB"
GREEDY = {
    "a list of 8 GB": "SELECT len(range(1000000000))",
    "two lists of 1.6 GB": "SELECT list_cosine_similarity(range(200000000)::DOUBLE[], range(200000000)::DOUBLE[])",
    "one call that does not end": "SELECT length(lpad('x', 2000000000, 'y'))",
    "one call that grows": "SELECT length(regexp_replace(repeat('a', 20000000), 'a', repeat('b', 90), 'g'))",
    "what would spill": "SELECT max(l) FROM (SELECT list(range) OVER (ORDER BY range) l FROM range(100000))",
    "recursion without end": "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
    "recursion that doubles": "WITH RECURSIVE t(a) AS (SELECT 'x' UNION ALL SELECT a || a FROM t) SELECT count(*) FROM t",
    "a cell of 1.9 GB": "SELECT repeat('x', 1900000000)",
    "200 million rows": "FROM range(200000000)",
    "a set of 2 billion": "SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(2000000000))",
    "a sort of 2 billion": "SELECT max(h) FROM (SELECT hash(range) h FROM range(2000000000) ORDER BY h LIMIT 1000000000)",
    "a cross join": "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE hash(a.range) = hash(b.range + 1)",
    "a string of strings": "SELECT length(string_agg(repeat('x', 1000000), '')) FROM range(100000)",
    "JSON without end": "SELECT length(to_json(list(repeat('x', 100000)))) FROM range(1000000)",
    "a map of 100 million": "SELECT cardinality(map(range(100000000), range(100000000)))",
    "aggregates of lists": "SELECT list_sort(list(hash(range))) FROM range(300000000)",
    "a bit string of 4 GB": "SELECT bit_count(repeat('1', 1900000000)::BIT)",
    "parentheses, 60,000 deep": "SELECT " + "(" * 60_000 + "1" + ")" * 60_000,
    "a pattern that backtracks": "SELECT regexp_matches(repeat('a', 10000000), '(a*)*b')",
    "columns, 40,000": "SELECT " + ", ".join(["1"] * 40_000),
}
REACHING = {
    "a file": "SELECT * FROM read_text('{thesis}')",
    "a file by its name": "SELECT * FROM '{thesis}'",
    "a folder": "SELECT * FROM glob('/**')",
    "a file written": "COPY (SELECT 1) TO 'PWNED'",
    "a database written": "ATTACH 'PWNED'",
    "a database exported": "EXPORT DATABASE 'PWNED'",
    "a database imported": "IMPORT DATABASE '{thesis}'",
    "an extension": "INSTALL httpfs",
    "extensions": "UPDATE EXTENSIONS",
    "an extension loaded": "LOAD httpfs",
    "a setting": "SET memory_limit = '100GB'",
    "a setting undone": "RESET memory_limit",
    "a pragma": "PRAGMA memory_limit = '100GB'",
    "two statements": "SELECT 1; SELECT 2",
    "a macro": "CREATE MACRO a() AS 1",
    "a call": "CALL pragma_version()",
    "analyze": "EXPLAIN ANALYZE SELECT 1",
    "a program's environment": "SELECT getenv('HOME')",
    "a query in a string": "SELECT * FROM query('COPY (SELECT 1) TO ''PWNED''')",
    "an object of Python": "SELECT * FROM store",
}
VALUES = {
    "every type": ("SELECT * FROM test_all_types()", ""),
    "a date before all": ("SELECT '-infinity'::DATE d", "-infinity"),
    "a late date": ("SELECT '1000000-01-01'::DATE d", "1000000-01-01"),
    "midnight at the end": ("SELECT '24:00:00'::TIME t", "24:00:00"),
    "bits": ("SELECT '101'::BIT b", "101"),
    "explained": ("EXPLAIN SELECT 'analyze'", "analyze"),
}
OWN = "SELECT * FROM influence WHERE test_id = {} ORDER BY influence DESC LIMIT 20"

for _name, _statement in GREEDY.items():

    @case("sql", _name, exits=(0, 1), seconds=30, most=1300)
    def _(place: Place, statement: str = _statement) -> list[str]:
        return ["memdb", "sql", statement, *LIMITS.split(), "--store", str(place.store)]


for _name, _statement in REACHING.items():

    @case("sql", f"reaches for {_name}", exits=(0,) if False else (1,), seconds=30)
    def _(place: Place, statement: str = _statement) -> list[str]:
        return ["memdb", "sql", statement.format(thesis=place.thesis), "--store", str(place.store)]


for _name, (_statement, _said) in VALUES.items():
    for _format in ("table", "json", "csv", "ndjson"):

        @case("sql", f"{_name} as {_format}", exits=(0,), seconds=30, says=_said)
        def _(place: Place, statement: str = _statement, kind: str = _format) -> list[str]:
            return ["memdb", "sql", statement, "--format", kind, "--store", str(place.store)]

    @case("sql", f"{_name} as Parquet", exits=(0,), seconds=30, leaves=True)
    def _(place: Place, statement: str = _statement) -> list[str]:
        return ["memdb", "sql", statement, "--output", "rows.parquet", "--store", str(place.store)]


@case("sql", "a statement that is no UTF-8", seconds=30, exits=(1, 2))
def _(place: Place) -> list[str]:
    return ["sh", "-c", f"memdb sql \"$(printf 'SELECT \\377')\" --store {place.store}"]


def compare_own(versions: list[str], store: str, rounds: int) -> None:
    """Print the CPU seconds of an ordinary question with each version, by turns, and the ratio to the first."""
    with tempfile.TemporaryDirectory() as name:
        if not store:
            make(Path(name))
            store = f"{name}/store"
        taken = [[_seconds(version, store, turn) for version in versions] for turn in range(rounds + 1)][1:]
    for position, version in enumerate(versions):
        for kind, clock in enumerate(("wall", "CPU")):
            seconds = statistics.median(turn[position][kind] for turn in taken)
            ratio = statistics.median(turn[position][kind] / turn[0][kind] for turn in taken)
            print(
                f"own question {seconds:6.3f} s {clock:4}  {ratio:.3f} times the first  {version or 'this version'}"
            )


def _seconds(version: str, store: str, turn: int) -> tuple[float, float]:
    program = (
        f"import sys; sys.path[:1] = {[version] if version else []}; from memdb.cli import program; program()"
    )
    command = [sys.executable, "-c", program, "sql", OWN.format(turn % 10), "--store", store]
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - began, used.ru_utime + used.ru_stime
