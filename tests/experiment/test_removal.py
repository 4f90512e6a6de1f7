"""memdb experiment removal: which examples go, which models judge, and what is said of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from support import twins
from support.commands import run, surroundings
from support.stores import bits_of, coin_recipe, dicts, small_dataset

import memdb
from memdb.experiment.removal import Chooser, Design
from memdb.experiment.report import Findings
from memdb.experiment.run import Progress
from memdb.format.experiment import Experiment, arm_seed
from memdb.format.manifest import Manifest
from memdb.interop.own_tables import own_table
from memdb.store import Store

HALF = {"thresholds": [0.5], "controls": ["random", "matched"]}


@pytest.fixture(scope="module")
def some(db):
    """A threshold that removes a third of the 23 examples, half of no class."""
    scores = Chooser(db.relations(), 0.95, 1).scores["raw"]
    return float(np.sort(scores)[-6])


@pytest.fixture(scope="module")
def found(sixty, some, tmp_path_factory):
    with memdb.open(str(sixty)) as db:
        into = tmp_path_factory.mktemp("removal") / "removal.zarr"
        yield experiment(db, into, thresholds=[some], add_back=True, models=6)


def experiment(db, into, **options):
    return db.removal_experiment(str(into), dataset=small_dataset(), recipe=coin_recipe, seed=3, **options)


def test_each_model_leaves_out_what_its_arm_does(found, db, some):
    masks, _, test = bits_of(found.snapshot)
    raw = Chooser(db.relations(), 0.95, 1).scores
    memorized = np.flatnonzero(raw["raw"] >= some)
    labels = db.relations().examples["train"].labels
    arms = found.experiment.arms
    assert [arm.control for arm in arms] == ["all", "memorized", "random", "matched", "added"]
    progress = Progress.of(found.snapshot)
    assert [sorted(rows) for rows in progress.rows] == [list(range(6))] * 5
    out = [[set(np.flatnonzero(~masks[row])) for row in rows.values()] for rows in progress.rows]
    assert out[0] == [set()] * 6
    assert out[1] == [set(memorized)] * 6
    assert {len(ids) for ids in out[2]} == {len(memorized)}
    assert len({frozenset(ids) for ids in out[2]}) > 1  # a set of its own for each model
    matched = np.array(sorted(out[3][0]))
    assert not set(matched) & set(memorized)
    assert sorted(labels[matched]) == sorted(labels[memorized])
    # the control's accuracy minus the other's, by a loop
    rows = [[progress.rows[arm][r] for r in range(6)] for arm in (1, 2)]
    differences = [test[b].mean() - test[a].mean() for a, b in zip(*rows, strict=True)]
    row = found.rows().to_pylist()[0]
    assert row["difference"] == pytest.approx(np.mean(differences))
    assert row["difference_lo"] < row["difference"] < row["difference_hi"]
    assert row["fraction_left"] == pytest.approx(1 - len(memorized) / 23)


def test_the_document_of_an_experiment_comes_back_and_its_masks_with_it(found):
    manifest = found.snapshot.manifest
    again = Manifest.from_document(manifest.to_document(), "here")
    assert again.to_document() == manifest.to_document()
    seeds = [arm_seed(manifest.seed, arm, 0) for arm in range(5)]
    masks = [m.experiment.masks(manifest.seed, seeds, 23) for m in (manifest, again)]
    np.testing.assert_array_equal(*masks)
    document = json.loads(json.dumps(manifest.to_document()))
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(files("memdb.schemas").joinpath("manifest.schema.json").read_text())
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "required_features": []}, schema)
    document["required_features"] = []
    with pytest.raises(memdb.errors.WrongFormatError, match="experiment"):
        Manifest.from_document(document, "here")


def test_a_share_of_what_is_left_is_a_part_of_it(found):
    whole = found.experiment
    half = Experiment(whole.arms, whole.source, fraction=0.5)
    for arm, each in enumerate(whole.arms):
        seed = arm_seed(7, arm, 0)
        (mask,), (kept,) = (e.masks(7, [seed], 23) for e in (half, whole))
        assert mask.sum() == int(0.5 * (23 - each.n_removed) + 0.5)
        if each.removed is not None:
            assert not (mask & ~kept).any()


def test_its_store_answers_nothing_else(found, tmp_path):
    url = found.snapshot.url
    for command in ("top-memorized", "info", "train --add 2", "export x.npz"):
        refused = run(*command.split(), "--store", url, cwd=tmp_path)
        assert refused.returncode == 1
        assert "subsets are not random" in refused.stderr
    assert run("verify", "--store", url, cwd=tmp_path).returncode == 0


KILLED = """
import os, signal, sys, memdb
from support.stores import coin_recipe, small_dataset
n = 0
def progress(status):
    if status.n_committed >= 7:
        os.kill(os.getpid(), signal.SIGKILL)
memdb.open(sys.argv[1]).removal_experiment(
    sys.argv[2], dataset=small_dataset(), recipe=coin_recipe, seed=3, thresholds=[float(sys.argv[3])], add_back=True,
    models=6, batch_models=2, progress=progress)
"""


@pytest.mark.slow
def test_killed_and_resumed_it_finds_the_same(found, sixty, some, tmp_path):
    into = tmp_path / "killed.zarr"
    command = [sys.executable, "-c", KILLED, str(sixty), str(into), repr(some)]
    assert subprocess.run(command, env=surroundings({}), check=False, timeout=60).returncode == -9
    with memdb.open(str(sixty)) as db:
        store = Store.open(memdb.storage.open_storage(str(into)))
        assert 7 <= store.snapshot().n_models < 30
        assert (
            Findings(store.snapshot()).rows()["n_repetitions"].to_pylist()[0] < 6
        )  # which is an answer, too
        resumed = experiment(db, into, models=6)
        assert resumed.rows() == found.rows()
        grown = experiment(db, into, add=2)
        assert grown.rows()["n_repetitions"].to_pylist() == [8, 8, 8]
        assert {m.model_id for _, m in resumed.snapshot.models} < {
            m.model_id for _, m in grown.snapshot.models
        }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thresholds": [1.0]}, "removes nothing"),
        ({"thresholds": [-0.99]}, "removes every training example"),
        ({"thresholds": [7]}, "lies from -1 to 1"),
        ({"thresholds": []}, "0 thresholds"),
        ({"rules": ["loud"]}, "rules loud"),
        ({"fraction": 0}, "fraction 0"),
        ({"models": 2, "add": 2}, "both given"),
        ({"models": 0}, "models 0"),
        ({"level": 1.5}, "level 1.5"),
    ],
)
def test_what_makes_no_experiment_is_refused_and_nothing_is_made(db, tmp_path, options, said):
    with pytest.raises(memdb.MemdbError, match=said):
        experiment(db, tmp_path / "none.zarr", **options)
    assert not (tmp_path / "none.zarr").exists()


def test_a_threshold_that_removes_a_class_is_refused(db, monkeypatch):
    chooser = Chooser(db.relations(), 0.95, 1)
    labels = db.relations().examples["train"].labels
    monkeypatch.setitem(chooser.scores, "raw", np.where(labels == 1, 0.8, 0.1))
    with pytest.raises(memdb.errors.InvalidInputError, match="examples of class 1"):
        chooser.experiment(Design((0.5,)))


def test_arms_that_are_missing_are_said(found):
    labels, (kept, memorized, *_) = found.snapshot.examples("train").labels, found.experiment.arms
    half = np.flatnonzero(labels == 1)[: (np.sum(labels == 1) + 1) // 2].astype(np.int32)
    most = dataclasses.replace(memorized, n_removed=len(half), removed=half)
    other = dataclasses.replace(memorized, rule="shrunk", threshold=0.9)
    experiment = dataclasses.replace(found.experiment, arms=(kept, most, other))
    manifest = dataclasses.replace(found.snapshot.manifest, experiment=experiment)
    said = list(Findings(dataclasses.replace(found.snapshot, manifest=manifest)).sentences())
    assert any(f"they are {len(half)} of {np.sum(labels == 1)} examples of class 1" in s for s in said)
    assert f"Nothing is memorized at {most.threshold:g} or more (shrunk)." in said


def test_the_same_command_goes_on_where_a_rule_or_a_control_has_no_arms(db, tmp_path):
    scores = Chooser(db.relations(), 0.95, 1).scores
    assert np.nanmax(scores["lower"]) < 0.5 <= np.nanmax(scores["raw"])
    few = min(1.0, float(np.sort(scores["raw"])[-2]))
    options = {"thresholds": [few], "rules": ["raw", "lower"], "models": 1}
    made = experiment(db, tmp_path / "some.zarr", **options)
    assert "lower" not in {arm.rule for arm in made.experiment.arms}
    assert f"Nothing is memorized at {few:g} or more (lower)." in made.sentences()
    again = experiment(db, tmp_path / "some.zarr", **options | {"models": 2})
    assert set(again.rows()["n_repetitions"].to_pylist()) == {2}
    with pytest.raises(memdb.errors.MismatchError, match="rules raw, not raw, shrunk"):
        experiment(db, tmp_path / "some.zarr", **options | {"rules": ["raw", "shrunk"]})


def test_stores_that_cannot_choose_or_judge_are_refused(db, empty, found, sixty, some, tmp_path):
    with pytest.raises(memdb.errors.NotEnoughModelsError):
        experiment(empty, tmp_path / "none.zarr")
    other = memdb.init(str(tmp_path / "other.zarr"), small_dataset(shift=1), coin_recipe)
    with pytest.raises(memdb.errors.MismatchError, match="train set"):
        experiment(db, tmp_path / "none.zarr", scores_from=other)
    with pytest.raises(memdb.errors.InvalidInputError, match="not the store of an experiment"):
        experiment(db, sixty)
    with pytest.raises(memdb.errors.MismatchError, match="thresholds"):
        experiment(db, found.snapshot.url, thresholds=[0.123])
    with pytest.raises(memdb.errors.MismatchError, match="without add_back|with add_back"):
        experiment(db, found.snapshot.url, add_back=False)
    with pytest.raises(memdb.errors.MismatchError, match="with seed 3, not 4"):
        db.removal_experiment(found.snapshot.url, dataset=small_dataset(), recipe=coin_recipe, seed=4)
    assert not (tmp_path / "none.zarr").exists()


def test_another_stores_scores_choose(db, asked, tmp_path):
    raw = Chooser(asked.relations(), 0.95, 1).scores["raw"]
    threshold = float(np.sort(raw)[-4])
    made = experiment(
        db, tmp_path / "other.zarr", scores_from=asked, thresholds=[threshold], controls=["random"], models=1
    )
    assert made.experiment.source.store_id == asked.store.manifest.store_id
    assert made.experiment.arms[1].removed.tolist() == np.flatnonzero(raw >= threshold).tolist()
    with pytest.raises(memdb.errors.MismatchError, match="scores that chose"):
        experiment(db, tmp_path / "other.zarr", scores_from=db)


def test_near_duplicates_are_counted_apart(found):
    experiment, test = found.experiment, bits_of(found.snapshot)[2]
    removed = int(experiment.arms[1].removed[0])
    twins = Experiment(experiment.arms, experiment.source, near_duplicates=((removed, 4), (removed, 6)))
    manifest = dataclasses.replace(found.snapshot.manifest, experiment=twins)
    row = Findings(dataclasses.replace(found.snapshot, manifest=manifest)).rows().to_pylist()[0]
    progress = Progress.of(found.snapshot)
    without = np.delete(test, [4, 6], axis=1).mean(axis=1)
    differences = [without[progress.rows[2][r]] - without[progress.rows[1][r]] for r in range(6)]
    assert row["n_near_duplicates"] == 2
    assert row["difference_without_near_duplicates"] == pytest.approx(np.mean(differences))
    apart = Findings(dataclasses.replace(found.snapshot, manifest=manifest))
    points = f"{100 * np.mean(differences):+.2f} points"
    assert f"Without the 2 test examples that have a near-duplicate among the removed: {points}" in next(
        apart.sentences()
    )
    assert any("No test example has a near-duplicate" in sentence for sentence in found.sentences())


def test_what_looks_alike_is_counted_too_and_how_well_the_match_matches_is_said(tmp_path):
    with twins.database(tmp_path / "twins.zarr", 60) as db:
        made = db.removal_experiment(
            str(tmp_path / "removal.zarr"), dataset=twins.dataset(), recipe=twins.recipe, seed=3,
            thresholds=[0.5], controls=["random", "matched"], models=5,
        )  # fmt: skip
        hard = Chooser(db.relations(), 0.95, 1).scores
        losses = made.losses(3, db.relations()).to_pylist()
        influence = {row["train_id"]: row["influence"] for row in dicts(db.influence(test_id=0))}
    if importlib.util.find_spec("scipy") is not None:
        assert (made.experiment.content, made.experiment.look_alikes) == ("pictures", ((2, 0),))
    random, matched = made.rows().to_pylist()
    removed = made.experiment.arms[1].removed
    assert random["n_look_alikes"] == random["n_near_duplicates"] == 1
    assert random["held_out"] == pytest.approx(hard["held_out"][removed].mean())
    assert random["control_held_out"] == pytest.approx(hard["held_out"].mean())
    assert matched["class_overlap"] == 1
    of_class = (
        np.bincount(twins.GROUP[removed] % 2) / len(removed),
        np.bincount(twins.GROUP % 2) / len(twins.GROUP),
    )
    assert random["class_overlap"] == pytest.approx(np.minimum(*of_class).sum())
    assert any("100 % of their classes agree" in sentence for sentence in made.sentences())
    first = losses[0]
    assert (first["test_id"], first["near_duplicate"], first["influencers"][0]) == (0, True, 2)
    assert first["influences"][0] == pytest.approx(influence[2])


def test_too_few_repetitions_for_an_interval_are_said(db, some, tmp_path):
    few = experiment(db, tmp_path / "few.zarr", thresholds=[some], controls=["random"], models=2)
    (row,) = few.rows().to_pylist()
    assert row["difference_lo"] is None
    assert not row["separates"]
    assert "3 more give one" in next(few.sentences())


@pytest.mark.slow
def test_the_command_answers_for_programs_and_draws(found, sixty, tmp_path):
    arguments = ("experiment", "removal", "--store", sixty, "--into", found.snapshot.url, "--models", 6)
    said = run(*arguments, "-f", "json", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    document = json.loads(said.stdout)
    assert document["judges_are_disjoint"]
    assert document["rows"] == found.rows().to_pylist()
    assert "removal" in own_table(document["rows"][0]).what  # it is no file to import
    lost = document["lost"]
    assert [row["loss"] for row in lost] == sorted((row["loss"] for row in lost), reverse=True)
    pytest.importorskip("matplotlib")
    shown = run(  # which names the data for good
        *arguments, "--dataset", "support.stores:make_data", "--graphics", "ascii", "--lost", 1, cwd=tmp_path
    )
    assert shown.stdout.rstrip().splitlines()[-3].startswith("test ")
    drawn = run(*arguments, "-o", "curves.svg", "--lost", 1, cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")
    assert "memorized" in drawn.stdout
    assert run(*arguments[:-1], "many", cwd=tmp_path).returncode == 2
