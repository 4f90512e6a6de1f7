"""The command as its users run it, judged by what it prints and by its exit code."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from http.server import SimpleHTTPRequestHandler

import pytest
from support.cases import every
from support.commands import MEMDB, run, serve, serve_folder, spawn

import memdb
from memdb.errors import NotFoundError
from memdb.render.answer import LIST_FACTS, ROW_FACTS


@pytest.fixture(scope="session")
def small(trained):
    return trained.parent


def answer(small, *arguments):
    done = run(*arguments, "--store", "store.zarr", "--format", "json", cwd=small)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_answer_is_one_json_document_with_its_provenance(small, trained):
    found = answer(small, "top-influence", "--test-id", 4, "-k", 3)
    with memdb.open(str(trained)) as db:
        rows = db.top_influence(test_id=4, k=3)
        expected = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
        of_list = {name: [row.pop(name) for row in expected].pop() for name in LIST_FACTS}
        expected = [in_full(row, {}) for row in expected]
        assert found == {
            "store": "store.zarr", "snapshot": None, "models_sha256": db.models_sha256, "n_models": 37,
            "level": 0.95, "interval": "selected", "outcome": "correct", **of_list, "rows": expected,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("command", "verb", "arguments"),
    every(2, [
        (["top-memorized", "-k", "4", "--class", "cat"], "top_memorized", {"k": 4, "class_name": "cat"}),
        (["top-memorized", "--interval", "fixed", "--level", "0.8"], "top_memorized", {"interval": "fixed", "level": 0.8}),
        (["top-influence", "--train-id", "3", "--direction", "both"], "top_influence", {"train_id": 3, "direction": "both"}),
        (["top-influence", "--target-key", "train/5.png", "--same-class"], "top_influence", {"target_id": 5, "same_class": True}),
        (["score", "--train-id", "7"], "score", {"train_id": 7}),
        (["score", "--train-key", "train/7.png", "--test-key", "4"], "score", {"train_id": 7, "test_id": 4}),
        (["score", "--train-id", "7", "--target-id", "1", "--interval", "simultaneous"], "score", {"train_id": 7, "target_id": 1, "interval": "simultaneous"}),
        (["sql", "SELECT * FROM influence WHERE test_id = 2 ORDER BY influence DESC, train_id LIMIT 3"], "sql", {"statement": "SELECT * FROM influence WHERE test_id = 2 ORDER BY influence DESC, train_id LIMIT 3"}),
        (["sql", "FROM models ORDER BY seed", "-k", "2"], "sql", {"statement": "FROM models ORDER BY seed", "k": 2}),
        (["info", "--interval", "fixed"], "info", {"interval": "fixed"}),
    ]),
)  # fmt: skip
def test_a_command_gives_the_rows_of_the_method_of_its_name(small, trained, command, verb, arguments):
    with memdb.open(str(trained)) as db:
        rows = getattr(db, verb)(**arguments)
        expected = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    found = answer(small, *command)
    assert [in_full(row, found) for row in found["rows"]] == [in_full(row, {}) for row in expected]
    assert all(
        row.get(name, found[name]) == found[name] for row in expected for name in ROW_FACTS if name in found
    )


def in_full(row, document):
    """Return a row with what a document says once of its list, and without what it says of all rows."""
    of_list = {name: document[name] for name in LIST_FACTS if name in document}
    return {name: value for name, value in (row | of_list).items() if name not in ROW_FACTS[:4]}


def test_rows_for_programs_carry_what_they_need_to_be_read_alone(small, tmp_path):
    document = answer(small, "top-memorized", "-k", 3)
    facts = {name: document[name] for name in ROW_FACTS}
    done = run("top-memorized", "-k", 3, "-s", "store.zarr", "-f", "ndjson", cwd=small)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {**row, **facts} for row in document["rows"]
    ]
    done = run("top-memorized", "-k", 3, "-s", "store.zarr", "-f", "csv", cwd=small)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [float(row["memorization"]) for row in rows] == [row["memorization"] for row in document["rows"]]
    assert rows[0]["interval"] == "selected"
    for suffix in ("json", "ndjson", "csv", "parquet"):
        path = tmp_path / f"out.{suffix}"
        done = run("top-memorized", "-k", 3, "-s", "store.zarr", "-o", path, cwd=small)
        assert (done.returncode, done.stdout) == (0, "")
        assert path.exists()
    assert json.loads((tmp_path / "out.json").read_text()) == document
    import pyarrow as pa
    import pyarrow.parquet as pq

    written = pq.read_table(tmp_path / "out.parquet")
    assert written.to_pylist() == [{**row, **facts} for row in document["rows"]]
    assert written.schema.field("key").type == pa.string()  # as `memdb sql` writes it
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.csv", "out.json", "out.ndjson", "out.parquet"]


@pytest.mark.parametrize(
    "command",
    every(2, [
        ["info"], ["top-memorized"], ["top-influence", "--test-id", "4"], ["top-influence", "--train-id", "4"],
        ["top-influence", "--target-id", "4"], ["score", "--train-id", "2"], ["score", "--train-id", "2", "--test-id", "3"],
    ]),
)  # fmt: skip
def test_tables_fit_into_80_columns_and_stay_whole(small, command):
    done = run(*command, "-s", "store.zarr", cwd=small)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "…" not in done.stdout
    assert "37" in done.stdout


@pytest.mark.slow
def test_the_installed_command_is_this_one(small):
    arguments = ("top-influence", "--test-id", "4", "-s", "store.zarr")
    installed, here = spawn(*arguments, cwd=small), run(*arguments, cwd=small)
    assert (installed.returncode, installed.stdout, installed.stderr) == (0, here.stdout, here.stderr)


def test_the_environment_names_a_store_and_the_option_wins(small, tmp_path):
    assert run("info", cwd=tmp_path, MEMDB_STORE=str(small / "store.zarr")).returncode == 0
    done = run("info", "-s", "other.zarr", cwd=tmp_path, MEMDB_STORE=str(small / "store.zarr"))
    assert "no memdb store at other.zarr" in done.stderr


REFUSED = [
    (["top-memorized", "-s", "nowhere"], "no memdb store at nowhere"),
    (["top-memorized", "-s", "conftest.py"], "no memdb store at conftest.py"),
    (["info", "-s", "http://127.0.0.1:9/store"], "cannot read http://127.0.0.1:9/store/zarr.json"),
    (["info", "-s", "ftpx://a/b"], "ftpx://a/b is not an address that memdb can read"),
    (["top-influence", "--test-id", "11"], "--test-id 11 is out of range. This store has 0 to 10."),
    (["top-influence", "--test-id", "-1"], "--test-id -1 is out of range"),
    (["top-influence"], "name exactly one example"),
    (["top-influence", "--test-key", "x"], "no test example has the key 'x'"),
    (["score", "--train-id", "400"], "--train-id 400 is out of range"),
    (["top-memorized", "-k", "0"], "-k 0 is not a number from 1"),
    (["top-memorized", "--class", "dog"], "no class 'dog'. Classes are ant, bee, cat."),
    (["top-memorized", "--level", "95"], "the level 95 is not between 0 and 1"),
    (["top-memorized", "--interval", "wald"], "unknown interval 'wald'"),
    (["top-memorized", "-f", "yaml"], "unknown format 'yaml'"),
    (["top-memorized", "-o", "x.yaml"], "--output x.yaml"),
    (["top-memorized", "-o", "no/such/folder/x.csv"], "cannot write no/such/folder/x.csv"),
    (["sql", "SELECT nothing FROM influence"], 'Referenced column "nothing" not found'),
    (["sql", "SELECT sum(influence) FROM influence", "--max-pairs", "9"], "more than 9 pairs"),
    (["sql", "COPY models TO 'x.csv'"], "COPY is not one question"),
    (["train", "--add", "0"], "--add 0 is not a number from 1"),
    (["train", "--add", "-5"], "--add -5"),
    (["train", "--add", "1", "-s", "nowhere"], "no memdb store at nowhere"),
    (["train", "--add", "1"], "made of arrays in memory"),
    (["init", "-s", "new", "--dataset", "cifar11"], "unknown data set 'cifar11'"),
    (["init", "-s", "new", "--dataset", "mnist"], "--data-root DIR"),
    (["init", "-s", "new", "--dataset", "no.such:thing"], "cannot be imported"),
    (["init", "-s", "new", "--recipe", "transformer"], "unknown recipe 'transformer'"),
    (["init", "-s", "new", "-p", "width=3"], "mlp has no option 'width'"),
    (["init", "-s", "new", "-p", "epochs"], "'epochs' is not name=value"),
    (["init", "-s", "new", "--subset-fraction", "1.5"], "the subset fraction 1.5 is not between 0 and 1"),
    (["init", "-s", "new", "--subset-fraction", "0.0001"], "puts 0 of them in every subset"),
    (["init", "-s", "new", "--outcomes", "loss"], "cannot keep the outcomes loss"),
    (["init", "-s", "new", "--seed", "-1"], "the seed -1 is out of range"),
    (["init"], "is already a store, or another Zarr group"),
]


@pytest.mark.parametrize(
    ("command", "says"), REFUSED, ids=lambda v: " ".join(v)[:50] if isinstance(v, list) else ""
)
def test_what_cannot_be_is_one_line_that_says_why_and_what_next(small, command, says):
    before = sorted(str(p) for p in small.rglob("*"))
    done = run(*command, cwd=small, MEMDB_STORE="store.zarr")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    assert says in line
    assert line.count(". ") >= 1, "no next step"
    assert sorted(str(p) for p in small.rglob("*")) == before


@pytest.mark.parametrize(
    "command", [["top-memorised"], ["info", "--colour"], ["top-memorized", "-k", "many"], ["sql"]]
)
def test_wrong_usage_exits_with_2(small, command):
    done = run(*command, cwd=small)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback_when_asked_for(small):
    with pytest.raises(NotFoundError):
        run("info", "-s", "nowhere", cwd=small, MEMDB_TRACEBACK="1")


def test_a_store_of_a_newer_format_says_to_upgrade(tmp_path):
    from memdb.format.documents import group_metadata, sealed

    (tmp_path / "new.zarr").mkdir()
    (tmp_path / "new.zarr" / "zarr.json").write_bytes(group_metadata(sealed({"format": 2})))
    done = run("info", "-s", "new.zarr", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "format 2; this memdb reads format 1. Upgrade" in done.stderr


def test_a_server_that_answers_with_pages_is_no_store(tmp_path):
    class Pages(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    with serve(Pages) as url:
        done = run("info", "-s", url, cwd=tmp_path)
    assert done.returncode == 1
    assert f"{url}/zarr.json is a web page, not a memdb document" in done.stderr


def test_a_store_on_a_web_server_is_asked_by_its_newest_snapshot(small, tmp_path):
    shutil.copytree(small / "store.zarr", tmp_path / "store.zarr")
    here = ["--format", "csv"]
    with serve_folder(tmp_path) as url:
        before = run("top-memorized", "-s", f"{url}/store.zarr", *here, cwd=tmp_path)
        run("compact", "-s", "store.zarr", cwd=tmp_path)
        after = run("top-memorized", "-s", f"{url}/store.zarr", *here, cwd=tmp_path)
    assert (before.returncode, before.stderr.count("\n")) == (1, 1)
    assert "has no snapshot, and its protocol cannot list" in before.stderr
    assert after.stdout == run("top-memorized", "-s", "store.zarr", *here, cwd=tmp_path).stdout


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(small):
    done = subprocess.run(
        f"{MEMDB} sql 'FROM influence' -s store.zarr -f csv | head -n 1",
        shell=True, cwd=small, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("train_id,test_id")
    assert done.stderr == ""


def test_names_that_would_move_the_cursor_are_shown_harmless(tmp_path):
    from support.stores import coin_recipe, small_dataset

    data = small_dataset()
    hostile = memdb.Dataset(
        data.train.array, data.train.labels, data.test.array, data.test.labels, ["\x1b[31mred", "[bold]b", "c\nd"],
        train_keys=[f"\x1b]0;{row}\x07" for row in range(23)],
    )  # fmt: skip
    with memdb.init(str(tmp_path / "s.zarr"), hostile, coin_recipe) as db:
        db.train(seeds=range(10))
    for command in (
        ["top-memorized"],
        ["score", "--train-id", "1"],
        ["sql", "SELECT key, class_name FROM train_examples"],
    ):
        done = run(*command, "-s", "s.zarr", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
    assert "[bold]b" in done.stdout


def test_the_demo_keeps_to_its_digits(small):
    done = run("demo", "-s", "store.zarr", cwd=small)
    assert done.returncode == 1
    assert "is a store of in-memory, not the demo's digits" in done.stderr


def test_the_commands_to_go_on_with_carry_what_was_given(tmp_path):
    done = run(
        "init", "--data-root", "my data", "-s", "a b.zarr", "-d", "support.stores:make_data", cwd=tmp_path
    )
    assert "Next: memdb train --add 100 --data-root 'my data' --store 'a b.zarr'" in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        '{"attributes":{"memdb":{"self_sha256":"","a":NaN}}}',
        '{"attributes":{"memdb":{"self_sha256":"\\ud800"}}}',
        "[" * 100_000,
    ],
)
def test_a_strange_document_is_no_store(tmp_path, text):
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text(text)
    done = run("info", "-s", "s.zarr", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not a memdb document" in done.stderr
