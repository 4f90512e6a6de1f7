"""What a user of the package meets first: names, reprs, errors."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from support import ROOT
from support.stores import small_dataset

import memdb
from memdb import environment, errors
from memdb.store import Access


def test_tab_offers_what_is_public_and_nothing_else():
    assert {*dir(memdb)} == {*memdb.__all__, "__version__"}
    assert all(getattr(memdb, name) is not None for name in dir(memdb))


def test_a_database_a_store_and_a_snapshot_say_in_a_line_what_they_are(database):
    assert repr(database) == f"Database({database.url!r})"
    assert (
        repr(database.store)
        == f"Store({database.url!r}, dataset='in-memory', recipe='support.stores:coin_recipe')"
    )
    assert repr(database.snapshot) == (
        f"Snapshot({database.url!r}, n_models=37, models_sha256={database.models_sha256[:12]!r})"
    )
    data = small_dataset()
    assert repr(data) == f"Dataset(train=23, test=11, n_classes={data.n_classes})"
    assert repr(data.train) == "ExampleSet('train', n_examples=23)"
    access = Access({"key": "secret"}, {"key": "secret"}, trust_base=True)
    assert repr(access) == "Access(cache=None, trust_base=True, named_base=None)"


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.NotFoundError, FileNotFoundError),
        (errors.AlreadyExistsError, FileExistsError),
        (errors.InvalidInputError, ValueError),
        (errors.MismatchError, ValueError),
        (errors.UnnamedCodeError, ValueError),
        (errors.WrongFormatError, ValueError),
        (errors.NotEnoughModelsError, ValueError),
        (errors.TrainingError, RuntimeError),
        (errors.StorageError, OSError),
        (errors.DamagedError, OSError),
    ],
)
def test_an_error_is_the_builtin_one_too_and_survives_the_way_to_another_process(error, builtin):
    here = error("no such thing", hint="look elsewhere", parameter="test_id")
    there = pickle.loads(pickle.dumps(here))  # noqa: S301 - our own
    assert isinstance(there, builtin)
    assert isinstance(there, errors.MemdbError)
    assert (str(there), there.hint, there.parameters) == ("no such thing", "look elsewhere", ("test_id",))
    assert there.__notes__ == ["Look elsewhere."]  # which Python shows below a traceback


def test_every_error_ends_in_error():
    found = [
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    assert all(name.endswith("Error") for name in found)


def test_nobody_is_told_to_install_the_package_of_another_project():
    wrong = re.compile(r"pip install[^`\n]*[ '\"]memdb(?!-scores)[\[ '\"`]")
    files = [
        p
        for name in ("memdb", "docs", "examples", "scripts")
        for p in (ROOT / name).rglob("*")
        if p.is_file()
    ]
    texts = {
        path: path.read_text(errors="replace")
        for path in [*files, ROOT / "README.md"]
        if path.suffix != ".pyc"
    }
    assert [str(path) for path, text in texts.items() if wrong.search(text)] == []
    assert wrong.search("pip install memdb`")
    assert wrong.search("pip install 'memdb[train]'")


def test_the_version_is_known_with_any_metadata_and_without(monkeypatch, tmp_path):
    assert environment.installed_version() == memdb.__version__ != "0+unknown"
    monkeypatch.setattr(environment, "CLONE", tmp_path / "pyproject.toml")
    monkeypatch.setattr(environment, "DISTRIBUTION", "memdb-scores-that-nobody-installed")
    assert environment.installed_version() == "0+unknown"
    monkeypatch.setattr(environment, "DISTRIBUTION", "numpy")
    assert environment.installed_version() == np.__version__
