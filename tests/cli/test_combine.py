"""init --extend, update and merge, as they are typed."""

from __future__ import annotations

import json
import shutil

import pytest
from support.commands import run

import memdb

CODE = "support.stores:coin_recipe"


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """A folder with a store in a snapshot, and another store of the same data; asking leaves it as it is."""
    folder = tmp_path_factory.mktemp("combine")
    shutil.copytree(trained, folder / "a.zarr")
    with memdb.open(str(folder / "a.zarr")) as a:
        a.compact()
        with memdb.merge(str(folder / "b.zarr"), [a], recipe=CODE).database as b:
            b.retract([b.snapshot.models[0][1].model_id], "a broken node")
    return folder


@pytest.fixture
def here(place, tmp_path):
    """The same, to do with as one likes."""
    return shutil.copytree(place, tmp_path / "here")


def test_extending_from_creation_to_update(here):
    refused = run("init", "--extend", "a.zarr", cwd=here)
    assert (refused.returncode, f"--recipe {CODE}" in refused.stderr) == (1, True)
    made = run("init", "--extend", "a.zarr", "--recipe", CODE, cwd=here)
    assert made.returncode == 0, made.stderr
    assert "It extends a.zarr: 37 models, those of its snapshot 1." in made.stderr
    shown = run("info", cwd=here).stdout
    assert "37, 37 of the base, the others in 0 blocks and 0 segments" in shown
    same = [
        run("top-influence", "--test-id", 4, "--format", "csv", *at, cwd=here)
        for at in ([], ["-s", "a.zarr"])
    ]
    assert same[0].stdout == same[1].stdout
    base = memdb.open(str(here / "a.zarr"))
    base.retract([base.snapshot.models[0][1].model_id], "a broken node")
    base.compact()
    assert "snapshot 2: move on to it with `memdb update`" in run("info", cwd=here).stdout
    assert "now uses snapshot 2 of" in run("update", cwd=here).stderr
    assert "Nothing newer" in run("update", cwd=here).stderr
    assert json.loads(run("info", "--format", "json", cwd=here).stdout)["rows"][0]["n_base_models"] == 36
    checked = run("verify", cwd=here).stderr
    assert "The store that it extends was not looked at: memdb verify --store" in checked
    assert "memdb.zarr is intact" in checked


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init", "--extend", "nowhere.zarr"], "no memdb store at"),
        (["init", "--extend", "a.zarr", "--subset-fraction", "0.5"], "--subset-fraction is fixed by the store"),
        (["init", "--extend", "a.zarr", "-p", "epochs=3"], "--recipe-option is fixed by the store"),
        (["init", "--extend", "ftp://host/a.zarr"], "is not an address that memdb can read"),
        (["init", "--extend", "https://me:secret@host/a"], "https://***@host/a, contains a user name, a password"),
        (["update", "-s", "a.zarr"], "a.zarr extends no other store"),
        (["merge", "a.zarr", "a.zarr", "-s", "a.zarr"], "a.zarr is both a source and the destination"),
        (["merge", "a.zarr", "nowhere.zarr"], "no memdb store at"),
        (["merge", "a.zarr"], f"names the recipe {CODE}, which training would import"),
        (["merge", "a.zarr", "--anonymous"], "memdb.zarr is a path, which takes no endpoint"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(place, arguments, says):
    done = run(*arguments, cwd=place)
    assert (done.returncode, done.stdout, says in done.stderr) == (1, "", True), done.stderr
    assert (
        "secret" not in done.stderr.replace("me:secret@host/a", "")
        or "contains a user name" not in done.stderr
    )
    assert sorted(path.name for path in place.iterdir()) == ["a.zarr", "b.zarr"]


def test_merging_says_what_came_from_where(here):
    done = run("merge", "a.zarr", "b.zarr", "--recipe", CODE, cwd=here)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "a.zarr: 36 models added." in done.stderr
    assert "b.zarr: 0 models added, 36 were there already." in done.stderr
    assert "Retracted 1 model, as the sources had." in done.stderr
    assert "memdb.zarr has 36 models." in done.stderr
    assert "36 in 1 block and 0 segments" in run("info", cwd=here).stdout
    wider = memdb.init(str(here / "c.zarr"), "digits", subset_fraction=0.5)
    assert wider.n_models == 0
    refused = run("merge", "a.zarr", "c.zarr", cwd=here)
    assert (refused.returncode, "sets differ: memdb.zarr has" in refused.stderr) == (1, True)
