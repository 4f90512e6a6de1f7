"""Suspected label errors, judged by loops over models; and the predictions that recipes give for them."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from support.commands import run
from support.stores import bits_of, dicts, small_dataset

import memdb
from memdb.analysis import label_errors
from memdb.analysis.label_errors import share_bounds, votes_of
from memdb.errors import InvalidInputError, NotFoundError, TrainingError
from memdb.format.manifest import NO_PREDICTION
from memdb.interop.own_tables import own_table

WRONG = {4: 2, 9: 1, 16: 0}  # what models without these examples predict, as a rule; labels are row mod 3


def voting_recipe(data, masks, seeds, run):
    """Right on what was seen; held-out models predict the label, or what `WRONG` says, each with p = .8."""
    found = {}
    for name, examples in data.sets.items():
        labels = examples.labels
        usual = labels.copy()
        if name == "train":
            usual[list(WRONG)] = list(WRONG.values())
        rows = []
        for mask, seed in zip(masks, seeds, strict=True):
            rng = np.random.default_rng([int(seed), len(labels)])
            guess = np.where(rng.random(len(labels)) < 0.8, usual, rng.integers(0, 3, len(labels)))
            guess[rng.random(len(labels)) < 0.02] = NO_PREDICTION
            rows.append(np.where(mask, labels, guess) if name == "train" else guess)
        found[f"{name}/prediction"] = np.stack(rows).astype(np.uint16)
        found[f"{name}/correct"] = found[f"{name}/prediction"] == labels
    return found


voting_recipe.models_per_batch = lambda data, device: 20


def too_large(data, masks, seeds, run):
    found = voting_recipe(data, masks, seeds, run)
    return {**found, "train/prediction": found["train/prediction"].astype(np.uint32) + 70_000}


KEPT = ("correct", "prediction")


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    url = tmp_path_factory.mktemp("voted") / "voted.zarr"
    with memdb.init(str(url), small_dataset(), voting_recipe, seed=7, outcomes=KEPT) as db:
        db.train(seeds=range(60), progress=False)
        yield db


def test_votes_are_those_of_the_models_without_an_example(voted):
    masks, _, _ = bits_of(voted.snapshot)
    predicted, labels = voted.snapshot.outcome_values("train/prediction"), small_dataset().train.labels
    votes = votes_of(voted.relations())
    for row, label in enumerate(labels):
        cast = [int(predicted[row, model]) for model in range(60) if not masks[model, row]]
        counts = [cast.count(kind) for kind in range(3)]
        others = [kind for kind in range(3) if kind != label]
        best = max(others, key=lambda kind: (counts[kind], -kind))
        assert votes.n_out[row] == len(cast)
        assert votes.k_given[row] == counts[label]
        assert (votes.suggested[row], votes.k_suggested[row]) == (best, counts[best])


def test_the_examples_with_wrong_labels_come_first_with_the_class_that_models_agree_on(voted):
    rows = dicts(voted.label_errors(3))
    assert {row["train_id"]: row["suggested_label"] for row in rows} == WRONG
    shrunk = [(row["k_suggested"] - row["k_given"]) / (row["n_out"] + 1) for row in rows]
    assert [row["shrunk"] for row in rows] == shrunk == sorted(shrunk, reverse=True)
    scores = {row["train_id"]: row["memorization"] for row in dicts(voted.memorization())}
    for row in rows:
        assert row["lo"] < row["agreement"] <= row["hi"]
        assert row["agreement"] == row["k_suggested"] / row["n_out"]
        assert row["memorization"] == scores[row["train_id"]]
        assert (row["n_ranked"], row["key"]) == (23 * 2, f"train/{row['train_id']}.png")


def test_one_vote_of_one_does_not_outrank_eight_of_nine(voted, monkeypatch):
    n_out, k_given = np.full(24, 30), np.full(24, 30)
    k_suggested = np.zeros(24, int)
    n_out[:2], k_given[:2], k_suggested[:2] = (1, 9), (0, 0), (1, 8)
    votes = label_errors.Votes(n_out, k_given, (np.arange(24) + 1) % 3, k_suggested)
    monkeypatch.setattr(label_errors, "votes_of", lambda _relations: votes)
    rows = dicts(voted.label_errors(5))
    assert [row["train_id"] for row in rows] == [1, 0]
    assert [row["margin"] for row in rows] == pytest.approx([8 / 9, 1])


def test_a_list_can_be_narrowed_to_a_class_and_to_the_memorized(voted):
    assert {row["label"] for row in dicts(voted.label_errors(5, class_name="bee"))} == {1}
    assert all(row["memorization"] >= 0.9 for row in dicts(voted.label_errors(5, min_memorization=0.9)))
    with pytest.raises(NotFoundError, match="agree with every label"):
        voted.label_errors(5, class_name="cat", min_memorization=1.0)
    for wrong in ({"class_name": "dog"}, {"k": 0}, {"level": 2.0}, {"interval": "no"}):
        with pytest.raises(InvalidInputError):
            voted.label_errors(**{"k": 3, **wrong})


def test_the_interval_of_a_share_covers(stats):
    rng = np.random.default_rng(0)
    for n, p, z in ((12, 0.9, 1.96), (30, 0.5, 1.96), (100, 0.98, 3.0)):
        lo, hi = share_bounds(rng.binomial(n, p, 4000), np.full(4000, n), z)
        nominal = 1 - 2 * stats.norm.sf(z)
        assert ((lo <= p) & (p <= hi)).mean() >= nominal - 0.01


def test_a_store_without_predictions_says_how_to_keep_them(db):
    with pytest.raises(NotFoundError, match="does not keep which class") as caught:
        db.label_errors()
    assert "outcomes" in caught.value.hint


@pytest.mark.slow
def test_imported_models_vote_whatever_labels_they_brought_and_not_without(voted, tmp_path):
    voted.export(tmp_path / "runs.npz", "models")
    runs = dict(np.load(tmp_path / "runs.npz"))
    del runs["class_names"]
    found = []
    for name, factor in (("plain", 1), ("large", 900_000_000)):
        labels = {f"{part}_labels": runs[f"{part}_labels"] * factor for part in ("train", "test")}
        np.savez(tmp_path / f"{name}.npz", **runs | labels)
        memdb.import_file(tmp_path / f"{name}.npz", str(tmp_path / f"{name}.zarr"))
        found.append(dicts(memdb.open(str(tmp_path / f"{name}.zarr")).label_errors(3)))
    plain, large = found
    assert {row["train_id"] for row in plain} == set(WRONG)
    assert all(row["label"] >= 900_000_000 and not row["k_given"] for row in large)  # which none can predict
    np.savez(tmp_path / "none.npz", **{name: of for name, of in runs.items() if "labels" not in name})
    memdb.import_file(tmp_path / "none.npz", str(tmp_path / "none.zarr"))
    with pytest.raises(NotFoundError, match="without labels"):
        memdb.open(str(tmp_path / "none.zarr")).label_errors()


def test_predictions_that_the_store_cannot_hold_are_refused(tmp_path):
    db = memdb.init(str(tmp_path / "a.zarr"), small_dataset(), too_large, outcomes=KEPT)
    with pytest.raises(TrainingError, match="the store keeps up to 65,535"):
        db.train(1, progress=False)


def test_the_command_lists_them_for_people_programs_and_the_next_store(voted, tmp_path):
    store = ("--store", voted.url)
    shown = run("label-errors", "-k", 3, *store, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "train/16.png" in shown.stdout
    assert run("label-errors", "-k", 3, "-o", "a.csv", *store, cwd=tmp_path).returncode == 0
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {int(row["train_id"]) for row in rows} == set(WRONG)
    assert "label-errors" in own_table(rows[0]).what  # it is no file to import
    rest = memdb.init(
        str(tmp_path / "rest.zarr"),
        small_dataset(),
        voting_recipe,
        without_ids=tmp_path / "a.csv",
        outcomes=KEPT,
    )
    assert rest.store.manifest.train.n_examples == 20
    odd = run("label-errors", "-o", "a.docx", *store, cwd=tmp_path)
    assert (odd.returncode, odd.stderr.count("\n")) == (1, 1)


def test_a_figure_shows_given_and_suggested_class(voted, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("label-errors", "-k", 3, "-o", "a.svg", "--store", voted.url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("mlp", {"epochs": 2, "hidden": [8]}),
        pytest.param("cnn", {"epochs": 1}, marks=pytest.mark.slow),
        pytest.param("torchvision:resnet18", {"epochs": 1, "image_size": 32}, marks=pytest.mark.slow),
        ("sklearn:sklearn.neighbors.KNeighborsClassifier", {"n_neighbors": 1}),
    ],
)
def test_recipes_predict_the_label_where_they_are_right_and_only_there(tmp_path, torch, recipe, options):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (24, 8, 8, 3), dtype=np.uint8)
    data = memdb.Dataset(x[:16], np.arange(16) % 3, x[16:], np.arange(8) % 3)
    db = memdb.init(str(tmp_path / "a.zarr"), data, recipe, recipe_options=options, outcomes=KEPT)
    db.train(2, progress=False)
    _, train, test = bits_of(db.snapshot)
    for name, correct, examples in (("train", train, data.train), ("test", test, data.test)):
        predicted = db.snapshot.outcome_values(f"{name}/prediction").T
        assert predicted.max() < 3
        np.testing.assert_array_equal(predicted == examples.labels, correct)
