"""Stores of format 1 answer for ever as they did when they were made, and today's code goes on with them.

What is asked, and how an answer is written down, is in `support/format_1.py`.
"""

from __future__ import annotations

import re
import shutil

import pytest
from support import format_1
from support.format_1 import (
    COMMANDS,
    METHODS,
    answer,
    answers_of_methods,
    comparable,
    is_quick,
    kept,
    questions,
    training,
)

import memdb

ASKED = [
    pytest.param(name, line, command, marks=[] if is_quick(line) else pytest.mark.slow, id=line)
    for name in COMMANDS
    for line, command in questions()[name].items()
]
OPENED = [*{f"{name} {options}": (name, options) for name, options, _, _ in METHODS}.values()]
DO_OTHER_THINGS = {
    "update", "merge", "compact", "gc", "retract", "cache", "init", "train", "demo", "import", "publish", "pull",
    "report", "view", "show", "gallery", "experiment",
    "label-errors",  # asks for an outcome that stores of these tests have not
}  # fmt: skip


@pytest.fixture(scope="session")
def stores(tmp_path_factory):
    """The folder of all stores; asking leaves them as they were."""
    folder = tmp_path_factory.mktemp("format-1")
    format_1.unpack(folder)
    before = contents(folder)
    yield folder
    assert contents(folder) == before


@pytest.fixture
def copies(stores, tmp_path):
    """Copies of all stores, to do with as one likes."""
    for name in COMMANDS:
        shutil.copytree(stores / f"{name}.zarr", tmp_path / f"{name}.zarr")
    return tmp_path


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*.zarr/**/*") if path.is_file()}


def same_scores(name, folder):
    """Tell whether a store gives the answers from Python that depend on its models alone, as it did."""
    found = answers_of_methods(name, {}, folder)
    asked = [line for line in found if "info" not in line]
    assert len(asked) >= 5
    return all(comparable(line, found[line]) == comparable(line, kept("python")[line]) for line in asked)


@pytest.mark.parametrize(("name", "line", "command"), ASKED)
def test_a_store_of_format_1_answers_as_it_did(stores, name, line, command):
    assert comparable(line, answer(command, stores)) == comparable(line, kept(name)[line])


@pytest.mark.parametrize(("name", "options"), OPENED, ids=str)
def test_a_store_of_format_1_answers_from_python_as_it_did(stores, name, options):
    for line, found in answers_of_methods(name, options, stores).items():
        assert comparable(line, found) == comparable(line, kept("python")[line]), line


@pytest.mark.parametrize("name", questions())
def test_every_answer_that_is_kept_is_asked_for(name):
    assert list(kept(name)) == list(questions()[name])


def test_every_command_that_answers_is_asked(stores):
    listed = format_1.run("--help", stores).split("Commands:")[1]
    commands = set(re.findall(r"^  ([a-z-]+) ", listed, flags=re.MULTILINE))
    asked = {command.split()[0] for name in COMMANDS.values() for command in name}
    assert commands == asked | DO_OTHER_THINGS


@pytest.mark.slow
def test_compaction_and_its_garbage_leave_answers_as_they_were(copies):
    with memdb.open(str(copies / "trained.zarr")) as db:
        record = db.compact().record
        assert (record.number, record.n_models) == (4, 52)
        assert same_scores("trained", copies)
        assert db.gc(grace=format_1.NO_TIME, alone=True)
        assert db.verify()[0].damages == []
    assert same_scores("trained", copies)


def test_models_are_added_and_retracted(copies):
    with memdb.open(str(copies / "trained.zarr")) as db:
        n_models = db.n_models
        assert db.train(seeds=[3, 13, 100, 101], **training()) == 2
        gone = [model.model_id for _, model in db.snapshot.models if model.seed in {5, 100}]
        assert len(gone) == 2
        db.retract(gone, "a broken node")
        assert db.n_models == n_models
        assert db.compact() is not None
        assert db.verify()[0].damages == []


def test_an_extension_goes_on_with_its_base(copies):
    with memdb.open(str(copies / "trained.zarr")) as base:
        base.compact()
    with memdb.open(str(copies / "extension.zarr"), trust_base=True) as db:
        own = db.n_models - 41
        assert db.update(str(copies / "trained.zarr")).base.n_models == 52
        assert db.train(seeds=range(20), **training()) > 0
        assert db.n_models == 52 + 20
        assert own < 20
        assert db.compact().record.n_models == 20


@pytest.mark.slow
def test_a_published_copy_is_the_same_again_and_takes_in_what_is_new(copies):
    with memdb.open(str(copies / "trained.zarr")) as db:
        db.publish(str(copies / "anew.zarr"))
        table = "top-influence --test-id 4 -k 3 -s {}.zarr -f csv"
        assert answer(table.format("anew"), copies) == answer(table.format("trained"), copies)
        assert not db.publish(str(copies / "published.zarr")).is_new
        db.train(seeds=[100], **training())
        again = db.publish(str(copies / "published.zarr"))
        assert (again.is_new, again.snapshot.number) == (True, 3)
    with memdb.open(str(copies / "published.zarr")) as copy, memdb.open(str(copies / "anew.zarr")) as anew:
        assert copy.verify()[0].damages == []
        assert anew.verify()[0].damages == []
        assert copy.thumbnails("train", [0]).shape == (1, 8, 8, 1)
        assert copy.n_models == anew.n_models + 1


def test_a_pulled_copy_answers_as_the_published_one(copies):
    memdb.pull(str(copies / "published.zarr"), str(copies / "pulled.zarr"))
    shutil.rmtree(copies / "published.zarr")
    (copies / "pulled.zarr").rename(copies / "published.zarr")
    assert same_scores("published", copies)


def test_stores_are_merged(copies):
    opened = [memdb.open(str(copies / f"{name}.zarr")) for name in ("trained", "merged")]
    done = memdb.merge(str(copies / "all.zarr"), opened)
    assert (done.added, done.present, done.scores) == ((52, 11), (0, 52), ("theirs", "classwise"))
    assert done.dropped == ("logit_confidence", "cumulative_loss", "first_learned")
    into = memdb.merge(str(copies / "merged.zarr"), opened[:1])
    assert into.present == (52,)
    assert into.database.verify()[0].damages == []
