"""Answers without some models: as if they had never been, and said so everywhere."""

from __future__ import annotations

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from support.cases import every
from support.stores import coin_recipe, small_dataset
from typer.testing import CliRunner

import memdb
from memdb.cli import application
from memdb.errors import InvalidInputError

ASKED = [
    lambda db: db.top_memorized(9),
    lambda db: db.top_influence(test_id=3),
    lambda db: db.score(3, test_id=2, outcome="confidence"),
    lambda db: db.sql("SELECT * FROM models ORDER BY model_id"),
    lambda db: db.info().project("n_models, n_scored, mean_half_width, train_accuracy"),
]


def ids(db):
    return [model.model_id for _, model in db.snapshot.models]


def run(*arguments):
    done = CliRunner().invoke(application(), arguments)
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
@pytest.mark.parametrize("compacted", every(2, [True, False]))
def test_answers_without_models_are_those_of_a_store_that_retracted_them(database, compacted):
    if compacted:
        database.compact()
        database.train(seeds=range(40, 45), dataset=small_dataset(), recipe=coin_recipe)
    dropped = [ids(database)[position] for position in (3, 8, -1)]
    with memdb.open(database.url, exclude=[name[:10] for name in dropped]) as without:
        found = [ask(without).fetchall() for ask in ASKED]
        assert without.snapshot.number is None
        sha256 = without.models_sha256
        with pytest.raises(InvalidInputError, match="cannot compact without some models"):
            without.compact()
    assert [ask(database).fetchall() for ask in ASKED] != found
    database.retract(dropped, "a test")
    assert [ask(database).fetchall() for ask in ASKED] == found
    assert database.models_sha256 == sha256


@pytest.mark.parametrize("name", ["ab", "ffffffffffffffff", ""])
def test_models_that_are_not_there_cannot_be_left_out(database, name):
    with memdb.open(database.url, exclude=[name]) as without, pytest.raises(InvalidInputError) as caught:
        without.top_memorized()
    assert caught.value.hint


@pytest.mark.slow
def test_every_format_says_what_was_left_out(database, tmp_path):
    one, two = ids(database)[:2]
    asked = ["top-memorized", "-k", "2", "--store", database.url, "--exclude", one[:8], "--exclude", two]
    shown = run(*asked)
    assert "35 models \u00b7 2 excluded" in " ".join(shown.stdout.split())
    assert "excludes 2 models" in shown.stderr
    assert "biases every score" in " ".join(shown.stderr.split())
    document = json.loads(run(*asked, "--format", "json").stdout)
    assert (document["n_models"], document["n_excluded"], document["excluded"]) == (35, 2, sorted([one, two]))
    rows = list(csv.DictReader(io.StringIO(run(*asked, "--format", "csv").stdout)))
    assert [row["n_excluded"] for row in rows] == ["2", "2"]
    run(*asked, "--output", str(tmp_path / "o.parquet"))
    assert pq.read_table(tmp_path / "o.parquet").column("n_excluded").to_pylist() == [2, 2]
    for command in (["info"], ["score", "--train-id", "3"]):
        assert "excluded" in run(*command, *asked[3:]).stdout
    plain = json.loads(run(*asked[:5], "--format", "json").stdout)
    assert "n_excluded" not in plain


def test_info_names_the_models_that_diverged_and_they_can_be_left_out(tmp_path):
    def guessing(data, masks, seeds, run):
        found = coin_recipe(data, masks, seeds, run)
        found["train/correct"][seeds == 2] = False
        return found

    with memdb.init(str(tmp_path / "s.zarr"), small_dataset(), guessing, seed=7, recipe_version="1") as db:
        db.train(seeds=range(8))
        (diverged,) = [model.model_id for _, model in db.snapshot.models if model.diverged]
        assert db.info().project("diverged").fetchall() == [([diverged],)]
        shown = run("info", "--store", db.url)
        assert f"1 model, counted like all others: {diverged[:8]}" in " ".join(shown.stdout.split())
        with memdb.open(db.url, exclude=["diverged"]) as without:
            assert without.n_models == 7
            assert without.info().project("n_diverged, diverged").fetchall() == [(0, [])]
