"""A store is data: what it names is imported and called only where its user made it here, or named that code."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from support.commands import run
from support.stores import coin_recipe, small_database, small_dataset

import memdb
from memdb import permission, recipes
from memdb.errors import InvalidInputError, MemdbError, MismatchError, UnnamedCodeError
from memdb.format.documents import fingerprint, group_metadata, sealed

TRACES = ("IMPORTED", "CALLED", "MADE", "LOADED", "PWNED")
THUMBNAILS = ("--include", "bits", "--include", "thumbnails")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A store without models, which may say anything of its recipe."""
    url = tmp_path_factory.mktemp("untrained") / "store.zarr"
    small_database(url).close()
    return url


@pytest.fixture
def theirs(here, untrained):
    """Make a stranger's store, whose manifest names the given code."""

    def make(folder="theirs", *, dataset="in-memory", like=untrained, **recipe):
        shutil.copytree(like, here / folder)
        named = {"name": recipe["import_path"]} if "import_path" in recipe and like == untrained else {}
        return rewritten(here / folder, dataset=dataset, **(named | recipe))

    return make


def rewritten(store, *, dataset=None, **recipe):
    """Change the code that a store names, as anyone with write access can."""
    path = Path(store) / "zarr.json"
    manifest = json.loads(path.read_bytes())["attributes"]["memdb"]
    manifest["dataset"] = dataset or manifest["dataset"]
    known = manifest["recipe"] | recipe
    named = {key: known[key] for key in ("name", "options", "version")}
    manifest["recipe"] = known | {"fingerprint": fingerprint(named)}
    path.write_bytes(group_metadata(sealed(manifest)))
    return store


def traces(here):
    found = [name for name in TRACES if (here / name).exists()]
    assert (here / "photos" / "thesis.txt").exists()
    return found


def say_no(here, done, *shown):
    """It was refused in one line that shows these, and nothing of the stranger's ran."""
    assert (done.returncode, done.stdout, traces(here)) == (1, "", []), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    for part in shown:
        assert part in line
    return line


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--add", "1", "--store", "theirs"],
        ["train", "--add", "1", "--workers", "1", "--store", "theirs"],
        ["train", "--until-half-width", ".1", "--store", "theirs"],
        ["train", "--add", "1", "--task-id", "7", "--store", "theirs"],
        ["init", "--extend", "theirs", "--store", "mine"],
        ["merge", "theirs", "--store", "mine"],
    ],
)
def test_every_door_shows_the_code_and_the_command_that_goes_on(here, theirs, trained, arguments):
    memdb.open(str(theirs(import_path="spells:train", dataset="spells:data", like=trained))).compact()
    line = say_no(here, run(*arguments, cwd=here), "theirs names the recipe spells:train and the data set")
    assert line.endswith(f"memdb {shlex.join(arguments)} --recipe spells:train --dataset spells:data.")
    assert not (here / "mine").exists()


@pytest.mark.parametrize("path", ["spells:data", "shutil:rmtree", "os:listdir"])
def test_publishing_pictures_calls_no_strangers_data_set(here, theirs, trained, path):
    theirs(dataset=path, like=trained)
    arguments = ["publish", "out", *THUMBNAILS, "--data-root", "photos", "--store", "theirs"]
    say_no(here, run(*arguments, cwd=here), f"names the data set {path}", f"--dataset {path}")


def test_python_refuses_too_and_says_what_to_pass(here, theirs, trained):
    store = theirs(import_path="spells:train", dataset="spells:data", like=trained)
    with memdb.open(str(store)) as db:
        for act in (
            lambda: db.train(add=1),
            lambda: db.train(add=1, workers=1),
            lambda: db.train(add=1, recipe="spells:train"),
            lambda: db.train(add=1, dataset=small_dataset()),
            lambda: db.publish("out", include=("bits", "thumbnails")),
            db.load_dataset,
            lambda: db.train(add=1, recipe="spells:train", dataset=None),
        ):
            with pytest.raises(UnnamedCodeError, match="spells:") as caught:
                act()
            assert caught.value.hint.startswith("if you know that code, say so: ")
        for name in ("", "spells:date"):
            with pytest.raises(MemdbError):
                db.load_dataset(dataset=name)
        assert set(traces(here)) <= {"IMPORTED"}
        assert db.train(seeds=[90], dataset=small_dataset(), recipe=coin_recipe) == 1


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("subprocess:Popen", "belongs to Python's own library"),
        ("os:system", "belongs to Python's own library"),
        ("spells:subprocess.Popen", "belongs to Python's own library"),
        ("spells:hidden", "belongs to Python's own library"),
        ("spells:two", "does not take the arguments of its partial"),
        ("spells:Spell", "is a class whose objects cannot be called"),
        ("spells:data", "does not take the arguments of its partial"),
        ("spells:TRACES", "no attribute 'TRACES'"),
        ("sklearn:subprocess.Popen", "belongs to Python's own library"),
        ("sklearn:sklearn.svm.SVR", "predicts no classes"),
    ],
)
def test_a_recipe_that_was_named_is_called_only_if_it_is_one(here, theirs, path, says):
    where = {"name": path, "import_path": None} if path.startswith("sklearn:") else {"import_path": path}
    theirs(**where, options={"args": ["sh", "-c", "touch PWNED"]})
    done = run(
        "train", "--add", 1, "--recipe", path, "--dataset", "spells:data", "--store", "theirs", cwd=here
    )
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    assert set(traces(here)) <= {"IMPORTED"}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("shutil:rmtree", "belongs to Python's own library"),
        ("spells:shutil.rmtree", "belongs to Python's own library"),
        ("spells:none", "takes (), but is called with (root)"),
        ("spells:train", "takes (data, masks, seeds, run), but is called with (root)"),
    ],
)
def test_a_data_set_that_was_named_is_called_only_if_it_takes_a_root(here, theirs, trained, path, says):
    theirs(dataset=path, like=trained)
    for command in (["train", "--add", "1"], ["publish", "out", *THUMBNAILS]):
        named = ["--dataset", path, "--data-root", "photos", "--store", "theirs"]
        named += ["--recipe", "support.stores:coin_recipe"] if command[0] == "train" else []
        done = run(*command, *named, cwd=here)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert set(traces(here)) <= {"IMPORTED"}


@pytest.mark.parametrize("name", ["mlp", "resnet9", "torchvision:resnet18", "sklearn:sklearn.svm.SVC"])
def test_a_built_in_name_leads_to_no_other_code_whatever_a_store_says(here, theirs, name):
    theirs(name=name, options={}, import_path="spells:train", dataset="digits")
    train = ["train", "--add", "1", "--store", "theirs"]
    say_no(here, run(*train, cwd=here), "names the recipe spells:train")
    say_no(
        here, run(*train, "--recipe", "spells:train", cwd=here), f"calls its recipe {name}, which is built in"
    )
    info = run("info", "--store", "theirs", cwd=here).stdout
    assert f"{name} 0, imported from spells:train" in info


def test_a_recipe_of_ones_own_needs_a_name_of_its_own(tmp_path):
    nothing = lambda self, data, masks, seeds, run: None  # noqa: E731
    impostor = type("Impostor", (), {"name": "mlp", "options": {}, "__call__": nothing})
    for recipe in (impostor(), "memdb.recipes.mlp:MLP"):
        with pytest.raises(InvalidInputError, match="calls itself mlp, the name of a built-in one"):
            memdb.init(str(tmp_path / "s.zarr"), small_dataset(), recipe)
    assert not (tmp_path / "s.zarr").exists()


def test_the_demo_trains_no_strangers_recipe(here, theirs):
    theirs("memdb.zarr", name="mlp", options={}, import_path="spells:train", dataset="digits")
    say_no(here, run("demo", cwd=here), "not the demo's")


def test_info_shows_what_training_would_import(here, theirs):
    theirs(import_path="spells:train", name="innocent", dataset="spells:data")
    shown = run("info", "--store", "theirs", cwd=here).stdout
    assert "spells:data: 23 training" in shown
    assert "innocent 0, imported from spells:train" in shown
    (row,) = json.loads(run("info", "--store", "theirs", "--format", "json", cwd=here).stdout)["rows"]
    assert (row["recipe_import_path"], row["dataset_import_path"]) == ("spells:train", "spells:data")


def test_what_was_named_once_need_not_be_named_again_for_that_store(here, theirs):
    theirs(import_path="spells:train", dataset="spells:data")
    train = ["train", "--add", "1", "--device", "cpu", "--store"]
    done = run(*train, "theirs", "--recipe", "spells:train", "--dataset", "spells:data", cwd=here)
    assert done.returncode == 0, done.stderr
    (here / "link").symlink_to("theirs")
    for same in ("theirs", "./theirs/", here / "theirs", f"file://{here / 'theirs'}", "link"):
        assert run(*train, same, cwd=here).returncode == 0
    assert traces(here) == ["IMPORTED", "CALLED", "LOADED"]
    for name in TRACES[:4]:
        (here / name).unlink(missing_ok=True)
    shutil.copytree(here / "theirs", here / "copy")
    say_no(here, run(*train, "copy", cwd=here), "--recipe spells:train --dataset spells:data")
    rewritten(here / "copy", import_path="spells:Made")
    say_no(here, run(*train, "copy", cwd=here), "names the recipe spells:Made and")
    shutil.rmtree(here / "theirs")
    theirs(import_path="spells:Made", name="spells:train", dataset="spells:data")
    say_no(here, run(*train, "theirs", cwd=here), "names the recipe spells:Made,")
    shutil.rmtree(here / "theirs")
    theirs(import_path="spells:train", options={"shell": "rm"}, dataset="spells:data")
    say_no(here, run(*train, "theirs", cwd=here), "names the recipe spells:train,")


def test_a_store_made_here_needs_no_name_and_a_copy_of_it_does(here):
    options = {"recipe_options": {"depth": 3}, "seed": 1}
    memdb.init("mine.zarr", "spells:pictures", "spells:Made", **options).close()
    with memdb.open("mine.zarr") as db:
        assert db.train(seeds=range(12)) == 12
        db.compact()
        db.publish("published", include=("bits", "thumbnails"))
    shutil.move("mine.zarr", "moved.zarr")
    with memdb.open("moved.zarr") as db, pytest.raises(UnnamedCodeError):
        db.train(add=1)
    memdb.pull("published", "mine.zarr", only="bits")  # its id, at the very place: a stranger's all the same
    with memdb.open("mine.zarr") as db:
        with pytest.raises(UnnamedCodeError, match="the recipe spells:Made and the data set spells:pictures"):
            db.train(add=1)
        assert db.train(seeds=[13], recipe="spells:Made", dataset="spells:pictures") == 1
        assert db.train(seeds=[14]) == 1
    with memdb.extend("more.zarr", "mine.zarr", recipe="spells:Made", dataset="spells:pictures") as db:
        assert db.store.manifest.recipe.options == {"depth": 3}
    with memdb.open("more.zarr") as db:
        assert db.train(seeds=[15]) == 1


def test_a_data_set_given_as_an_object_says_nothing_about_the_name_that_a_base_has(here, theirs, trained):
    memdb.open(str(theirs(dataset="spells:data", like=trained))).compact()
    given = {"dataset": small_dataset(), "recipe": "support.stores:coin_recipe"}
    memdb.extend("mine.zarr", "theirs", **given).close()
    with (
        memdb.open("mine.zarr") as db,
        pytest.raises(UnnamedCodeError, match="names the data set spells:data,"),
    ):
        db.train(add=1)
    assert traces(here) == []


def _no_home():
    raise RuntimeError("no home")


@pytest.mark.parametrize("home", [_no_home, lambda: Path("home")])
def test_who_has_no_home_of_ones_own_is_asked_each_time(here, theirs, monkeypatch, home):
    theirs(import_path="spells:train")
    monkeypatch.setattr(permission.Path, "home", home)
    given = {"dataset": small_dataset(), "seeds": [50]}
    with memdb.open("theirs") as db:
        assert db.train(recipe="spells:train", **given) == 1
        with pytest.raises(UnnamedCodeError):
            db.train(**given)
    assert not (here / "home").exists()


def test_another_name_for_the_same_recipe_is_the_users_to_give(here, theirs):
    theirs(import_path="old_module:train", name="support.stores:coin_recipe")
    with memdb.open("theirs") as db:
        with pytest.raises(MismatchError, match="fingerprint"):
            db.train(seeds=[51], dataset="spells:data", recipe="spells:train")
        assert db.train(seeds=[51], dataset="spells:data", recipe="support.stores:coin_recipe") == 1


def test_workers_are_told_what_was_named(here, theirs):
    theirs(import_path="spells:train", dataset="spells:data")
    with memdb.open("theirs") as db:
        assert db.train(seeds=[60, 61], recipe="spells:train", dataset="spells:data", workers=1) == 2


def test_the_working_folder_is_seen_by_publish_and_import_as_by_init_and_train(here):
    assert run("init", "-d", "spells:pictures", "-r", "spells:train", cwd=here).returncode == 0
    assert run("train", "--add", 1, "--device", "cpu", cwd=here).returncode == 0
    sys.modules.pop("spells")
    done = run("publish", "out", *THUMBNAILS, cwd=here)
    assert done.returncode == 0, done.stderr
    sys.modules.pop("spells")
    run("export", "runs.npz", "--what", "models", cwd=here)
    done = run("import", "runs.npz", "--dataset", "spells:pictures", "--store", "again.zarr", cwd=here)
    assert (done.returncode, "Created again.zarr: spells:pictures, 6 train" in done.stderr) == (0, True), (
        done.stderr
    )


def test_a_folder_without_the_module_stays_out_of_every_import(here):
    assert (
        run("init", "-d", "digits", "-r", "sklearn:sklearn.naive_bayes.GaussianNB", cwd=here).returncode == 0
    )
    recipes.resolve("test_strangers_code:plain", {})
    assert str(here) not in sys.path


def plain(data, masks, seeds, run):
    raise AssertionError
