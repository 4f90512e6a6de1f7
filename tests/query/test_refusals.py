"""What a question or a user's own SQL may not do, and what stops it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from memdb.errors import InvalidInputError, MemdbError, NotFoundError


@pytest.mark.parametrize(
    "statement",
    [
        "COPY models TO 'out.csv'", "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('*')", "ATTACH 'x.db'", "INSTALL httpfs", "LOAD httpfs", "SET memory_limit = '1TB'",
        "SET enable_external_access = true", "PRAGMA threads=64", "CREATE TABLE t (a INT)", "DROP VIEW influence",
        "EXPORT DATABASE 'x'", "SELECT 1; SELECT 2", "SELECT getenv('HOME')", "", "   ", "selec 1",
        "SELECT nothing FROM influence", "SELECT * FROM nowhere", "SELECT * FROM table_of_python",
        "EXPLAIN ANALYZE DELETE FROM train_examples", "WITH d AS (DELETE FROM models RETURNING *) FROM d",
        "EXPLAIN ANALYZE SET VARIABLE n_scored = 1", "INSERT INTO models SELECT * FROM models", "RESET ALL", "CALL pragma_version()", "FROM read_text('/etc/passwd')",
    ],
)  # fmt: skip
def test_a_users_statement_cannot_leave_the_relations(asked, statement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table_of_python = asked.sql("SELECT 1 AS a").to_arrow_table()
    assert table_of_python.num_rows == 1
    with pytest.raises(MemdbError) as caught:
        asked.sql(statement)
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
    assert len(asked.sql("FROM influence WHERE test_id = 1").fetchall()) == 23


def test_too_many_pairs_stop_a_statement(asked):
    with pytest.raises(InvalidInputError, match="more than 100 pairs") as caught:
        asked.sql("SELECT sum(influence) FROM influence", max_pairs=100)
    assert "influence_of([1, 2, 3])" in caught.value.hint
    assert asked.sql("SELECT count(influence) FROM influence", max_pairs=253).fetchall() == [(253,)]
    assert asked.sql("SELECT count(*) FROM influence", max_pairs=1).fetchall() == [(253,)]  # nothing to count


def test_too_long_a_statement_is_stopped(asked):
    with pytest.raises(InvalidInputError, match=r"longer than 0.2 seconds"):
        asked.sql("SELECT count(*) FROM range(100000000000) a, range(1000000) b", timeout=0.2)
    assert asked.sql("SELECT 1").fetchall() == [(1,)]


def test_ctrl_c_ends_a_statement(asked):
    asked.sql("SELECT 1")  # the signal is to find DuckDB at work, not its connection being made
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        asked.sql("SELECT count(*) FROM range(100000000000) a, range(1000000) b", timeout=6)
    timer.join()
    assert asked.sql("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda db: db.top_influence(test_id=11), InvalidInputError, "test_id 11 is out of range"),
        (lambda db: db.top_influence(test_id=-1), InvalidInputError, "test_id -1 is out of range"),
        (lambda db: db.score(23), InvalidInputError, "train_id 23 is out of range"),
        (lambda db: db.score(2, test_id=2, target_id=3), InvalidInputError, "exactly one example, more than one"),
        (lambda db: db.score(), InvalidInputError, "exactly one example, none"),
        (lambda db: db.top_influence(), InvalidInputError, "exactly one example, none"),
        (lambda db: db.top_influence(test_id=1, test_key="1"), InvalidInputError, "exactly one example, more than one"),
        (lambda db: db.top_influence(test_key="x"), NotFoundError, "no test example has the key 'x'"),
        (lambda db: db.top_influence(test_id=1, direction="up"), InvalidInputError, "unknown direction 'up'"),
        (lambda db: db.top_memorized(0), InvalidInputError, "k 0"),
        (lambda db: db.top_memorized(2**40), InvalidInputError, "k 1099511627776"),
        (lambda db: db.top_memorized(class_name="dog"), InvalidInputError, "no class 'dog'"),
        (lambda db: db.top_memorized(level=95), InvalidInputError, "the level 95"),
        (lambda db: db.top_memorized(level=0.2), InvalidInputError, "the level 0.2 is below 0.5"),
        (lambda db: db.top_memorized(interval="wald"), InvalidInputError, "unknown interval 'wald'"),
        (lambda db: db.score(1, interval="selected"), InvalidInputError, "'selected' is for ranked lists"),
        (lambda db: db.sql("SELECT 1", max_pairs=0), InvalidInputError, "max_pairs 0"),
        (lambda db: db.sql("SELECT 1", k=0), InvalidInputError, "k 0"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_names_the_value_and_the_next_step(asked, ask, error, says):
    with pytest.raises(error, match=says.replace("(", r"\(")) as caught:
        ask(asked)
    assert caught.value.hint


def test_out_of_range_names_the_range(asked):
    with pytest.raises(InvalidInputError) as caught:
        asked.top_influence(test_id=99)
    assert "0 to 10" in caught.value.hint


def test_counting_functions_refuse_ids_that_no_example_has(asked):
    assert asked.sql(
        "SELECT k_in_test(3, 2) = (SELECT k_in FROM influence WHERE train_id = 3 AND test_id = 2)"
    ).fetchall() == [(True,)]
    for ids in ("-1, 2", "23, 2", "3, 11", "3, -1"):
        with pytest.raises(InvalidInputError, match="no example has one of the ids"):
            asked.sql(f"SELECT k_in_test({ids})")
