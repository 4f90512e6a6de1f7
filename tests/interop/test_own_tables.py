"""Every table that a command writes comes back as what it is, or is refused with a sentence that says what it is."""

from __future__ import annotations

import shlex

import numpy as np
import pyarrow.csv as pa_csv
import pytest
import typer
from support.cases import every
from support.commands import run
from support.stores import N_TEST, N_TRAIN

import memdb
from memdb.cli import commands
from memdb.cli.app import app
from memdb.errors import InvalidInputError
from memdb.interop.formats import read_file
from memdb.interop.own_tables import TABLES, own_table
from memdb.interop.score_formats import ScoreFile

MEMORIZATION, PAIRS = "memorization", "pairs"
ANSWERS = {  # words of a command line, and what its table is
    "info": "says of a store",
    "top-memorized -k 5": MEMORIZATION,
    "top-influence --test-id 0": PAIRS,
    "top-influence --train-id 0": PAIRS,
    "top-influence --target-id 0": "influences on training examples",
    "score --train-id 0": MEMORIZATION,
    "score --train-id 0 --test-id 0": PAIRS,
    "sql 'FROM memorization'": MEMORIZATION,
    "sql 'FROM influence'": PAIRS,
    "sql 'FROM train_influence'": "influences on training examples",
    "sql 'FROM models'": "a list of models",
    "sql 'FROM train_examples'": "a list of examples",
    "sql 'FROM test_examples'": "a list of examples",
    "sql 'SELECT label, avg(memorization) AS memorization FROM memorization GROUP BY label'": "as many classes",
    "plan": "models that are missing",
    "convergence --train-id 0": "after more and more models",
    "convergence --train-id 0 --test-id 0": "after more and more models",
    "reliability --splits 2": "`memdb reliability`",
    "classes": "the classes",
    "class-influence": "classes on classes",
    "pairs --min-influence 0.1": PAIRS,
    "pairs --top 3": PAIRS,
    "compare STORE STORE": "two stores",
    "compare STORE STORE --test-id 0": "two stores",
    "duplicates --by influence": "near-duplicates",
    "membership": "an attack",
    "lds scores.npy --resamples 2": "grades of attribution scores",
    "lds --estimator raw --resamples 2": "grades of estimators",
    "frontier --estimator raw --models 12 -k 5": "`memdb frontier`",
    "show --train-id 0": PAIRS,
    "gallery": MEMORIZATION,
    "export --what ids --drop 'train_id = 2'": "to drop or keep",
    "export --what memorization": MEMORIZATION,
    "export --what pairs --top 3": PAIRS,
}
ELSEWHERE = {"label-errors", "experiment", "report"}  # tried where their stores are; a page is no table


@pytest.mark.parametrize("words", every(4, [(words,) for words in ANSWERS]))
def test_an_answer_comes_back_as_what_it_is_or_is_refused_by_what_it_is(sixty, tmp_path, words):
    np.save(tmp_path / "scores.npy", np.zeros((N_TEST, N_TRAIN)))
    path = tmp_path / "answer.csv"
    command, *more = shlex.split(words.replace("STORE", str(sixty)))
    to = [path] if command == "export" else ["-o", path]
    done = run(command, *to, *more, *([] if command == "compare" else ["--store", sixty]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    what = ANSWERS[words]
    if what not in {MEMORIZATION, PAIRS}:
        with pytest.raises(InvalidInputError, match=what) as refused:
            read_file(path)
        assert refused.value.hint
        return
    scores = read_file(path)
    assert isinstance(scores, ScoreFile)
    table = pa_csv.read_csv(path)
    assert len(scores.scores.influence) == (len(table) if what == PAIRS else 0)
    if what == MEMORIZATION:
        assert scores.memorized is not None or len(table) == N_TRAIN  # ids from 0 on are not all there is
        memorized = np.arange(len(table)) if scores.memorized is None else scores.memorized
        order = np.argsort(table["train_id"])
        assert memorized.tolist() == np.array(table["train_id"])[order].tolist()
        assert scores.scores.memorization.tolist() == np.array(table["memorization"])[order].tolist()


@pytest.mark.parametrize("suffix", [".json", ".ndjson", ".parquet"])
def test_the_suffix_does_not_change_what_an_answer_is(sixty, tmp_path, suffix):
    assert run("classes", "-o", f"classes{suffix}", "--store", sixty, cwd=tmp_path).returncode == 0
    with pytest.raises(InvalidInputError, match=rf"classes\{suffix} holds the classes"):
        read_file(tmp_path / f"classes{suffix}")


def test_every_command_that_writes_a_table_is_tried():
    commands.load()
    root = typer.main.get_command(app)
    writing = {
        name
        for name, command in root.commands.items()
        for one in getattr(command, "commands", {"": command}).values()
        if any(parameter.name == "output" for parameter in one.params)
    }
    assert writing == {words.split()[0] for words in ANSWERS} - {"export"} | ELSEWHERE


def test_a_table_of_ours_beside_runs_is_not_read(sixty, tmp_path):
    (tmp_path / "runs").mkdir()
    with memdb.open(str(sixty)) as db:
        db.export(str(tmp_path / "runs" / "runs.npz"), "models")
        db.export(str(tmp_path / "memorization.csv"))
    (tmp_path / "runs" / "c.csv").write_text("label,difficulty,consistency,memorization\n0,1,.5,.5\n")
    assert read_file(tmp_path / "runs").notes[-1] == "Not read: c.csv."
    with pytest.raises(InvalidInputError, match=r"c\.csv holds the classes"):
        read_file(tmp_path / "runs" / "c.csv")


def test_no_table_of_scores_is_taken_for_another(sixty):
    with memdb.open(str(sixty)) as db:
        for rows in (db.top_memorized(), db.pairs(top=1), db.top_influence(test_id=1), db.memorization()):
            assert own_table(rows.df().columns) is None
    assert len({table.what for table in TABLES}) == len(TABLES)


def test_a_store_is_not_imported_but_merged(sixty, tmp_path):
    with pytest.raises(InvalidInputError, match="a store or another Zarr group") as refused:
        memdb.import_file(sixty, str(tmp_path / "s.zarr"))
    assert "memdb merge" in refused.value.hint
