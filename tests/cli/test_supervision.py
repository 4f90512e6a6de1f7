"""`memdb sql` runs what a stranger sent: in bounded time and memory, with nothing left behind, and in one sentence."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cases import every
from support.commands import MEMDB, run

from memdb.errors import InvalidInputError
from memdb.query import questions
from memdb.query.intervals import IntervalSpec

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")

GB = 10**9
ENDLESS = "SELECT length(lpad('x', 2000000000, 'y'))"  # one function call, which DuckDB cannot interrupt
OTHER_SYSTEM = (
    "import sys; sys.argv[0] = 'memdb'\nfrom memdb.cli import program, supervision\n"
    "supervision.IS_LINUX = False\nsys.exit(program())"
)


@pytest.fixture
def folder(trained, tmp_path):
    """A folder of the user's with a store in it."""
    shutil.copytree(trained, tmp_path / "memdb.zarr")
    return tmp_path


def started(folder, *arguments, command=(MEMDB,), name="sql"):
    return subprocess.Popen(
        [*command, name, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def ended(process):
    """Exit code, stdout and stderr of a command."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def refused(folder, *arguments, command=(MEMDB,)):
    """The one sentence that a refused statement gets; it leaves nothing in the user's folder."""
    before = sorted(folder.rglob("*"))
    code, out, err = ended(started(folder, *arguments, command=command))
    assert (code, out) == (1, "")
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
    return err


def at_work(process):
    """The process that does a command's work, once its limits hold and it prints no longer what libraries say."""
    while True:
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        if found.stdout and Path(f"/proc/{int(found.stdout)}/fd/2").readlink() == Path(os.devnull):
            return int(found.stdout)
        time.sleep(0.05)


@pytest.mark.parametrize(
    "statement",
    every(
        4,
        [
            "SELECT len(range(1000000000))",
            "SELECT list_cosine_similarity(range(200000000)::DOUBLE[], range(200000000)::DOUBLE[])",
            "SELECT max(l) FROM (SELECT list(range) OVER (ORDER BY range) l FROM range(100000))",
            "SELECT repeat('x', 1900000000)",
        ],
    ),
)
def test_a_statement_that_needs_too_much_memory_is_refused_it(folder, statement):
    assert "needs more than 1 GB of memory" in refused(folder, statement, "--memory", "1GB", "-f", "json")


@pytest.mark.slow
def test_all_memory_is_counted_whoever_takes_it(folder):
    watched = (  # by a small process: what its parent had before `exec` counts as a process's own
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)"
    )
    command = (sys.executable, "-c", watched, MEMDB)
    statement = "SELECT len(range(100000000))"
    code, out, _ = ended(started(folder, statement, "--memory", "700MB", "-f", "csv", command=command))
    assert code == 1
    assert int(out) * 1024 < 0.75 * GB


@pytest.mark.slow
def test_a_statement_ends_at_its_time_whatever_it_does(folder):
    began = time.monotonic()
    assert "ran longer than 1.5 seconds" in refused(folder, ENDLESS, "--timeout", "1.5")
    assert time.monotonic() - began < 15  # 85 seconds where DuckDB is asked to end it


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGALRM, 1, "Error: the condition ran longer than 600 seconds."),
        (signal.SIGINT, 130, "Interrupted; nothing was changed."),
    ],
)
def test_a_condition_is_ended_as_a_statement_is(folder, number, code, says):
    before = sorted(folder.rglob("*"))
    process = started(folder, "ids.csv", "--keep=pg_sleep(60) IS NULL", name="export")
    os.kill(at_work(process), number)
    found, out, err = ended(process)
    assert (found, out) == (code, "")
    assert err.startswith(says)
    assert len(err.splitlines()) == 1
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", every(2, ["rows.csv", "rows.parquet"]))
def test_a_file_is_whole_or_not_there(folder, name):
    assert "ran longer than 0.8 seconds" in refused(
        folder, "FROM range(100000000000)", "--timeout", "0.8", "--memory", "1GB", "-o", name
    )


@pytest.mark.slow
def test_time_is_not_counted_while_a_reader_waits(folder):
    with started(folder, "FROM range(20000)", "-f", "csv", "--timeout", "4") as process:
        assert process.stdout.readline().startswith("range,")
        time.sleep(4)
        assert sum(1 for _ in process.stdout) == 20_000
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "says"),
    every(
        3,
        [
            (signal.SIGSEGV, "SIGSEGV"),
            (signal.SIGABRT, "SIGABRT"),
            (signal.SIGKILL, "more than is free here"),
        ],
    ),
)
def test_what_ends_a_process_is_said_in_a_sentence(folder, number, says):
    process = started(folder, ENDLESS, "--timeout", "60")
    os.kill(at_work(process), number)
    code, out, err = ended(process)
    assert (code, out) == (1, "")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code", "says"),
    every(
        3,
        [
            (signal.SIGINT, 130, "Interrupted; nothing was changed.\n"),
            (signal.SIGTERM, 128 + signal.SIGTERM, ""),
            (signal.SIGKILL, -signal.SIGKILL, ""),
        ],
    ),
)
def test_a_command_takes_its_statement_with_it(folder, number, code, says):
    process = started(folder, ENDLESS, "--timeout", "60")
    at_work(process)
    process.send_signal(number)
    began = time.monotonic()
    assert ended(process) == (code, "", says)  # the pipes are closed by the last process that has them
    assert time.monotonic() - began < 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    every(
        2,
        [
            (
                ("SELECT len(range(400000000))", "--memory", "700MB"),
                "more than 0.7 GB of memory, or more than is",
            ),
            ((ENDLESS, "--timeout", "1.5"), "ran longer than 1.5 seconds"),
        ],
    ),
)
def test_limits_hold_where_the_kernel_has_none_for_memory(folder, arguments, says):
    assert says in refused(folder, *arguments, command=(sys.executable, "-c", OTHER_SYSTEM))


@pytest.mark.slow
def test_an_answer_is_the_same_from_a_process_of_its_own(folder):
    arguments = ("FROM influence ORDER BY ALL", "-f", "json")
    expected = run("sql", *arguments, cwd=folder).stdout
    for command in ((MEMDB,), (sys.executable, "-c", OTHER_SYSTEM)):
        assert ended(started(folder, *arguments, command=command)) == (0, expected, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT length(regexp_replace(repeat('a',20000000),'a',repeat('b',90),'g'))",
        "SELECT histogram(range) FROM range(300000000)",
        "SELECT string_agg(range) FROM range(2000000000)",
        "WITH RECURSIVE t(a) AS (SELECT 'xxxxxxxxxxxx' UNION ALL SELECT a || a FROM t) SELECT max(length(a)) FROM t",
        "SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(2000000000))",
        "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
    ],
)
def test_more_statements_that_know_no_bounds(folder, statement):
    began = time.monotonic()
    refused(folder, statement, "--memory", "1GB", "--timeout", "20")
    assert time.monotonic() - began < 60


VALUES = [  # of DuckDB, and what JSON says
    ("'-infinity'::DATE", "-infinity"),
    ("'infinity'::TIMESTAMP", "infinity"),
    ("'1000000-01-01'::DATE", "1000000-01-01"),
    ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)"),
    ("'290000-01-01'::TIMESTAMP", "290000-01-01 00:00:00"),
    ("TIMESTAMP_NS '2020-01-01 00:00:00.123456789'", "2020-01-01 00:00:00.123456789"),
    ("'24:00:00'::TIME", "24:00:00"),
    ("INTERVAL 3 MONTH", "3 months"),
    ("'101'::BIT", "101"),
    ("'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::UUID", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
    ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
    ("1.50::DECIMAL(9, 2)", 1.5),
    ("'\\xAA'::BLOB", "aa"),
    ("'b'::ENUM('a', 'b')", "b"),
    ("[DATE '2020-01-01', '-infinity'::DATE]", ["2020-01-01", "-infinity"]),
    ("{'a b': [1], 'b': ['24:00:00'::TIME]}", {"a b": [1], "b": ["24:00:00"]}),
    ("MAP {'k': '-infinity'::DATE}", [["k", "-infinity"]]),
    ("[1, 2]::INTEGER[2]", [1, 2]),
    ("union_value(d := '1000000-01-01'::DATE)", "1000000-01-01"),
    ("'nan'::DOUBLE", None),
    ("['inf'::DOUBLE, '-inf'::FLOAT]", [None, None]),
    ("NULL", None),
    ("chr(0)", "\0"),
    ("current_setting('secret_directory')", ""),
    ("current_setting('temp_directory')", ""),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[value for value, _ in VALUES])
def test_values_that_python_has_no_type_for_are_written_out(asked, value, expected, tmp_path):
    from memdb.cli.output import Answer

    def batches():
        return questions.sql_batches(asked.relations(), f"SELECT {value} AS v", IntervalSpec("anytime", 0.95))

    assert json.loads(Answer(batches(), {}).text("json"))["rows"] == [{"v": expected}]
    assert json.loads(Answer(batches(), {}).text("ndjson")) == {"v": expected}
    assert len(list(csv.DictReader(io.StringIO(Answer(batches(), {}).text("csv"))))) == 1
    assert asked.sql(f"SELECT {value} AS v").to_arrow_table().num_rows == 1


@pytest.mark.parametrize(
    "options",
    every(2, [["-f", "table"], ["-f", "ndjson"], ["-f", "json"], ["-f", "csv"], ["-o", "x.parquet"]]),
)
@pytest.mark.parametrize(
    "statement",
    [
        "FROM test_all_types()",
        "EXPLAIN SELECT 'analyze'",
        "SELECT 1 AS a, 2 AS a, 3 AS A",
        "FROM models LIMIT 0",
    ],
)
def test_every_type_has_a_place_in_every_format(folder, statement, options):
    done = run("sql", statement, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    if options[0] == "-o":
        assert pq.read_table(folder / "x.parquet").num_columns > 1
    elif options[1] == "csv":
        assert len({len(row) for row in csv.reader(io.StringIO(done.stdout))}) == 1


def test_columns_of_one_name_are_told_apart(asked):
    assert asked.sql("SELECT 1 AS a, 2 AS A, 3 AS a_1").columns == ["a", "A_1", "a_1_1"]


def test_parquet_keeps_dates_as_dates(folder):
    run("sql", "SELECT DATE '2020-01-02' AS day", "-o", "x.parquet", cwd=folder)
    assert pq.read_table(folder / "x.parquet")["day"].to_pylist() == [dt.date(2020, 1, 2)]


@pytest.mark.slow
def test_a_table_shows_the_first_of_what_is_too_much(folder):
    shown = run("sql", "SELECT range AS n, repeat('x', 5000) AS text FROM range(2500)", cwd=folder).stdout
    assert "1,500 more rows" in shown
    assert shown.count("x") < 1001 * 1000
    columns = ", ".join(f"{n} AS c{n}" for n in range(130))
    assert "30 more columns" in " ".join(
        run("sql", f"SELECT {columns}", cwd=folder, COLUMNS="2000").stdout.split()
    )


def test_rows_are_read_while_they_are_computed(asked):
    choice = IntervalSpec("anytime", 0.95)
    many = questions.sql_batches(asked.relations(), "FROM range(10000000000)", choice)
    assert next(many).num_rows > 1000
    del many
    first = questions.sql_batches(asked.relations(), "FROM range(10000000000)", choice, k=70_000)
    assert sum(batch.num_rows for batch in first) == 70_000
    assert asked.sql("SELECT 1").fetchall() == [(1,)]
    wrong = questions.sql_batches(
        asked.relations(),
        "SELECT CASE WHEN range = 900000 THEN error('late') ELSE 'x' END FROM range(1000000)",
        choice,
    )
    with pytest.raises(InvalidInputError, match="late"):
        list(wrong)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE EXTENSIONS", "a statement of another kind is not one question"),
        ("IMPORT DATABASE 'x'", "is not one question"),
        ("PRAGMA version", "PRAGMA is not one question"),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN of anything but a SELECT"),
        ("EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN of anything but a SELECT"),
        ("/* é */ EXPLAIN /* */ ANALYSE SELECT 1", "EXPLAIN of anything but a SELECT"),
        ("EXPLAIN DELETE FROM models", "EXPLAIN of anything but a SELECT"),
        ("PREPARE p AS SELECT 1", "PREPARE is not one question"),
        ("EXECUTE p", "EXECUTE is not one question"),
        ("SELECT ?", "Values were not provided"),
        ("CHECKPOINT", "CALL is not one question"),
        ("/* nothing */", "nothing is not one question"),
        (";", "nothing is not one question"),
        ("SELECT \udcff", "not valid UTF-8 from its character 8"),
        ("\0", "syntax error"),
        ("FROM enable_logging()", "the configuration has been locked"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_a_sentence(asked, statement, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        asked.sql(statement)
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "statement",
    ["EXPLAIN SELECT 'analyze'", "/* é */ EXPLAIN (FORMAT json) FROM models", "SHOW TABLES", "VALUES (1);"],
)
def test_what_only_reads_is_a_question(asked, statement):
    assert asked.sql(statement).fetchall()


@pytest.mark.parametrize("seconds", [1e300, float("inf"), 1e-300])
def test_any_time_above_zero_is_a_limit(seconds):
    assert 0 < questions.require_timeout(seconds) < 1e7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--timeout", "0"], "--timeout 0 is not above 0"),
        (["--timeout", "-1"], "--timeout -1 is not above 0"),
        (["--memory", "5MB"], "--memory 5MB is less than the 500 MB"),
        (["--memory", "much"], "--memory 'much' is not a size"),
    ],
)
def test_limits_that_are_none_are_refused(folder, options, says):
    done = run("sql", "SELECT 1", *options, cwd=folder)
    assert done.returncode == 1
    assert says in done.stderr


def test_arrow_says_the_same_of_memory_as_duckdb(asked):
    from memdb.query.statements import translated

    for error in (
        pa.ArrowMemoryError("malloc of size 9 failed"),
        MemoryError(),
        RuntimeError("can't start new thread"),
    ):
        assert str(translated(error, 2 * GB)) == "the statement needs more than 2 GB of memory"
