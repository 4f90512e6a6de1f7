from __future__ import annotations

import numpy as np
import pytest
from support.cases import every
from support.stores import bits_of, coin_recipe, small_dataset

import memdb
from memdb.errors import InvalidInputError, TrainingError
from memdb.format import subsets


class Predicts:
    """A recipe whose result is computed by a function of (data, masks, seeds)."""

    name, version, options = "predicts", "1", {}

    def __init__(self, function, batch=4):
        self.function, self.batch, self.seen = function, batch, []

    def models_per_batch(self, data, device):
        return self.batch

    def __call__(self, data, masks, seeds, run):
        self.seen.append((masks.copy(), [int(seed) for seed in seeds], run))
        return self.function(data, masks, seeds)


def right(data, masks, seeds):
    return {
        "train/correct": np.ones(masks.shape, dtype=bool),
        "test/correct": np.ones((len(masks), len(data.test)), dtype=bool),
    }


def made(tmp_path, recipe, **options):
    return memdb.init(str(tmp_path / "s.zarr"), small_dataset(), recipe, seed=7, **options)


def test_a_recipe_is_called_with_masks_that_are_a_function_of_the_seeds(tmp_path):
    recipe = Predicts(right)
    db = made(tmp_path, recipe)
    assert db.train(seeds=[5, 2**64 - 1, 9, 10, 11]) == 5
    assert [len(seeds) for _, seeds, _ in recipe.seen] == [3, 2]  # batches of at most 4, of like size
    masks = np.concatenate([masks for masks, _, _ in recipe.seen])
    assert (masks == subsets.subset_masks(7, [5, 2**64 - 1, 9, 10, 11], 23, 16)).all()
    assert (bits_of(db.snapshot)[0] == masks).all()
    assert recipe.seen[0][2].device == "cpu"


def test_the_number_of_models_a_batch_can_be_given(tmp_path):
    recipe = Predicts(right)
    made(tmp_path, recipe).train(seeds=range(7), batch_models=2)
    assert [len(seeds) for _, seeds, _ in recipe.seen] == [2, 2, 2, 1]


def test_every_model_keeps_how_it_was_made_and_how_well_it_did(tmp_path):
    db = made(tmp_path, coin_recipe)
    db.train(seeds=range(6))
    masks, train, test = bits_of(db.snapshot)
    for row, (_, model) in enumerate(db.snapshot.models):
        assert model.model_id == subsets.model_id(7, model.seed)
        assert model.train_accuracy == pytest.approx(train[row][masks[row]].mean())
        assert model.out_accuracy == pytest.approx(train[row][~masks[row]].mean())
        assert model.test_accuracy == pytest.approx(test[row].mean())
        assert (model.subset_size, model.device) == (16, "cpu")
        assert {"memdb", "numpy", "python"} <= set(model.versions)


def test_confidence_is_clipped_and_kept_as_float16(tmp_path):
    def confident(data, masks, seeds):
        found = right(data, masks, seeds)
        found["train/logit_confidence"] = np.linspace(-100, 100, masks.size).reshape(masks.shape)
        found["test/logit_confidence"] = np.full((len(masks), len(data.test)), np.inf)
        return found

    db = made(tmp_path, Predicts(confident))
    db.train(seeds=range(3))
    kept = db.snapshot.outcome_values("train/logit_confidence")
    assert kept.dtype == np.float16
    assert (kept.min(), kept.max()) == (-30, 30)
    expected = np.clip(np.linspace(-100, 100, 69).reshape(3, 23), -30, 30).T
    np.testing.assert_allclose(kept, expected, atol=0.01)
    assert (db.snapshot.outcome_values("test/logit_confidence") == 30).all()


def test_a_diverged_model_is_kept_marked_and_wrong_where_it_gave_no_number(tmp_path):
    def diverging(data, masks, seeds):
        found = right(data, masks, seeds)
        confidence = np.ones((len(masks), 23))
        confidence[1, 4:9] = np.nan
        found["train/logit_confidence"] = confidence
        found["test/logit_confidence"] = np.ones((len(masks), 11))
        found["train/correct"][2] = False
        return found

    db = made(tmp_path, Predicts(diverging))
    db.train(seeds=range(3))
    assert [model.diverged for _, model in db.snapshot.models] == [
        False,
        True,
        True,
    ]  # NaN; worse than chance
    _, train, _ = bits_of(db.snapshot)
    assert train[1].tolist() == [not 4 <= i < 9 for i in range(23)]
    assert db.snapshot.outcome_values("train/logit_confidence")[5].tolist() == [1, -30, 1]
    assert db.info().project("n_diverged").fetchall() == [(2,)]
    assert db.n_models == 3


@pytest.mark.parametrize(
    ("n_right", "diverged"), every(2, [(0, True), (80, False), (60, False), (100, False), (36, True)])
)
def test_a_model_that_only_guesses_has_diverged(tmp_path, n_right, diverged):
    labels = (
        np.arange(200) % 3
    )  # the commonest class is a third or more; two standard errors of 100 guesses: .1
    data = memdb.Dataset(np.zeros((200, 1)), labels, np.zeros((3, 1)), [0, 1, 2])

    def some(data, masks, seeds):
        found = right(data, masks, seeds)
        for row, mask in enumerate(masks):
            found["train/correct"][row] = False
            found["train/correct"][row, np.flatnonzero(mask)[:n_right]] = True
        return found

    with memdb.init(str(tmp_path / "s.zarr"), data, Predicts(some), seed=7, subset_fraction=0.5) as db:
        db.train(seeds=range(3))
        assert {model.diverged for _, model in db.snapshot.models} == {diverged}


def shaped(path, change):
    def recipe(data, masks, seeds):
        found = right(data, masks, seeds)
        found[path] = change(found[path])
        return found

    return recipe


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda d, m, s: None, "returned a NoneType, not a mapping"),
        (lambda d, m, s: {}, "returned no 'train/correct' but \\[\\]"),
        (
            shaped("train/correct", lambda v: v[:, :-1]),
            r"'train/correct' as bool \(4, 22\); expected bool \(4, 23\)",
        ),
        (shaped("train/correct", lambda v: v.T), r"bool \(23, 4\)"),
        (
            shaped("test/correct", lambda v: v.astype(float)),
            r"'test/correct' as float64 \(4, 11\); expected bool",
        ),
        (shaped("test/correct", lambda v: v.astype(int)), "int64"),
        (shaped("test/correct", lambda v: [[1], [2, 3]]), "'test/correct' is not an array"),
        (lambda d, m, s: 1 / 0, "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_recipe_that_returns_something_else_is_told_what(tmp_path, function, says):
    db = made(tmp_path, Predicts(function))
    with pytest.raises(TrainingError, match=says) as caught:
        db.train(seeds=range(4))
    assert caught.value.hint
    assert db.n_models == 0


def test_a_recipe_that_raises_at_model_37_keeps_the_36_before(tmp_path):
    seen = []

    def tired(data, masks, seeds, run):
        seen.append(seeds)
        if len(seen) == 37:
            raise RuntimeError("tired of it\nsecond line")
        return right(data, masks, seeds)

    db = memdb.init(str(tmp_path / "t.zarr"), small_dataset(), tired, recipe_version="1")
    with pytest.raises(TrainingError, match=rf"raised RuntimeError: tired of it \(model seeds {36}\)"):
        db.train(seeds=range(50))
    assert db.n_models == 36


def test_seeds_that_are_there_are_not_trained_again(tmp_path):
    recipe = Predicts(right)
    db = made(tmp_path, recipe)
    db.train(seeds=[1, 2, 3])
    assert db.train(seeds=[2, 3, 4]) == 1
    assert recipe.seen[-1][1] == [4]
    assert db.train(seeds=[4]) == 0
    assert db.n_models == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"add": 0}, "add 0"), ({"add": -3}, "add -3"), ({}, "either a number of models or their seeds"),
        ({"add": 1, "seeds": [1]}, "either"), ({"seeds": [1, 1]}, "cannot be used"), ({"seeds": [-1]}, "cannot be used"),
        ({"seeds": [2**64]}, "cannot be used"), ({"add": 1, "batch_models": 0}, "batch_models 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_named(tmp_path, arguments, says):
    db = made(tmp_path, Predicts(right))
    with pytest.raises(InvalidInputError, match=says):
        db.train(**arguments)


def test_stopping_loses_the_batch_in_flight_and_nothing_else(tmp_path):
    calls = []

    def stopping(data, masks, seeds):
        calls.append(seeds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return right(data, masks, seeds)

    db = made(tmp_path, Predicts(stopping))
    with pytest.raises(KeyboardInterrupt):
        db.train(seeds=range(20))
    assert db.n_models == 8
    assert db.train(seeds=range(20)) == 12


def test_progress_tells_models_accuracy_and_the_shrinking_half_width(tmp_path):
    told = []
    db = made(tmp_path, coin_recipe)
    db.train(seeds=range(40), progress=told.append)
    done = [status for status in told if not status.n_in_flight]
    assert [status.n_committed for status in done] == [0, *range(5, 41, 5)]
    assert {status.n_asked for status in told} == {40}
    assert any(status.n_in_flight == 5 for status in told)
    assert done[0].mean_half_width is None
    with memdb.open(db.url) as again:
        (width, accuracy) = again.info().project("mean_half_width, test_accuracy").fetchall()[0]
    assert done[-1].mean_half_width == pytest.approx(width, abs=1e-12)
    assert done[-1].test_accuracy == pytest.approx(accuracy)
    assert done[-1].mean_half_width < done[2].mean_half_width


def test_a_checkpoint_folder_is_the_same_when_seeds_are_retried_and_goes_when_they_are_in(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("memdb.training.loop.checkpoint_root", lambda: tmp_path / "checkpoints")
    folders = []

    def interrupted(data, masks, seeds, run):
        folders.append(run.checkpoint_dir)
        found = run.checkpoint_dir / "half.pt"
        if not found.exists():
            run.checkpoint_dir.mkdir(parents=True)
            found.write_text("half")
            raise KeyboardInterrupt
        return right(data, masks, seeds)

    db = memdb.init(str(tmp_path / "s.zarr"), small_dataset(), interrupted, recipe_version="1")
    with pytest.raises(KeyboardInterrupt):
        db.train(seeds=[3])
    assert db.train(seeds=[3]) == 1
    assert folders[0] == folders[1]
    assert not folders[0].exists()


def test_a_recipe_in_a_file_of_ones_own_is_found_again_by_its_import_path(tmp_path):
    with memdb.init(str(tmp_path / "s.zarr"), "support.stores:make_data", "test_loop:half") as db:
        assert db.store.manifest.recipe.import_path == "test_loop:half"
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        assert db.train(add=3) == 3


def test_arrays_in_memory_cannot_be_loaded_again_by_name(tmp_path):
    made(tmp_path, coin_recipe).close()
    with (
        memdb.open(str(tmp_path / "s.zarr")) as db,
        pytest.raises(InvalidInputError, match="made of arrays in memory"),
    ):
        db.train(add=1)


@pytest.mark.parametrize("outcomes", [["correct"], ["correct", "logit_confidence"]])
def test_only_the_outcomes_asked_for_are_kept(tmp_path, outcomes):
    db = made(tmp_path, coin_recipe, outcomes=outcomes)
    db.train(seeds=range(3))
    kept = {name.split("/")[1] for name in db.store.manifest.arrays()}
    assert kept == set(outcomes)
    assert db.top_memorized(1).fetchall()


@pytest.mark.parametrize("outcomes", [[], ["logit_confidence"], ["correct", "loss"], ["correct", "correct"]])
def test_outcomes_that_cannot_be_kept_are_named(tmp_path, outcomes):
    with pytest.raises(InvalidInputError, match="cannot keep the outcomes"):
        made(tmp_path, coin_recipe, outcomes=outcomes)


def half(data, masks, seeds, run):
    return right(data, masks, seeds)


def test_a_run_that_is_asked_to_stop_ends_without_the_batch_in_flight(tmp_path):
    calls = []

    def obliging(data, masks, seeds, run):
        calls.append(seeds)
        if run.stop_requested():
            raise KeyboardInterrupt
        return right(data, masks, seeds)

    with memdb.init(str(tmp_path / "s.zarr"), small_dataset(), obliging, recipe_version="1") as db:
        assert db.train(add=10, stop_requested=lambda: len(calls) == 4) == 3  # between, or inside, batches
        calls.clear()
        assert db.train(add=10, stop_requested=lambda: len(calls) >= 2) == 1
        assert db.n_models == 4


def test_a_recipe_can_be_named_to_train_too(tmp_path):
    pytest.importorskip("torch")
    with memdb.init(str(tmp_path / "s.zarr"), small_dataset(), recipe_options={"epochs": 1}) as db:
        assert db.train(add=2) == 2
        with pytest.raises(InvalidInputError, match="fingerprint"):
            db.train(add=2, recipe="mlp")


@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        (
            lambda data, device: 1 / 0,
            TrainingError,
            "models_per_batch of recipe predicts raised ZeroDivisionError",
        ),
        (lambda data, device: 0, InvalidInputError, "wants 0 models a batch"),
        (
            lambda data, device: __import__("no_such_package"),
            InvalidInputError,
            "needs no_such_package, which is not installed",
        ),
    ],
)
def test_a_batch_size_that_cannot_be_is_explained(tmp_path, wanted, error, says):
    recipe = Predicts(right)
    recipe.models_per_batch = wanted
    with pytest.raises(error, match=says) as caught:
        made(tmp_path, recipe).train(add=1)
    assert caught.value.hint


def test_the_outcomes_kept_do_not_change_what_is_correct(tmp_path):
    def diverging(data, masks, seeds):
        found = right(data, masks, seeds)
        for name, examples in data.sets.items():
            found[f"{name}/logit_confidence"] = np.full((len(masks), len(examples)), np.nan)
        return found

    for number, outcomes in enumerate((["correct"], ["correct", "logit_confidence"])):
        with memdb.init(
            str(tmp_path / f"{number}.zarr"), small_dataset(), Predicts(diverging), outcomes=outcomes
        ) as db:
            db.train(seeds=[1])
            assert not bits_of(db.snapshot)[1].any()
            assert db.snapshot.models[0][1].diverged
