"""Classifiers of torchvision and scikit-learn by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import memdb
from memdb import datasets, recipes
from memdb.errors import InvalidInputError
from memdb.format import subsets
from memdb.recipes.sklearn_adapter import Classifier

pytestmark = pytest.mark.usefixtures("sklearn", "torch")
TINY = {"image_size": 32, "batch_size": 6, "epochs": 2, "precision": "float32", "lr": 0.01}


def run(tmp_path, stop_requested=lambda: False):
    return memdb.Run("cpu", lambda done, total: None, stop_requested, tmp_path / "checkpoints")


def drawn(n_models, n_train):
    seeds = list(range(n_models))
    size = subsets.subset_size(n_train, 0.7)
    return subsets.subset_masks(1, seeds, n_train, size), np.array(seeds, dtype=np.uint64)


@pytest.fixture(scope="module")
def digits():
    whole = datasets.load("digits")
    return memdb.Dataset(
        whole.train.array[:200], whole.train.labels[:200], whole.test.array[:50], whole.test.labels[:50]
    )


@pytest.fixture
def photos(tmp_path):
    """A tree of image files of several sizes, two classes that differ in colour."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for (part, n), (number, name) in itertools.product(
        (("train", 9), ("test", 3)), enumerate(("cat", "dog"))
    ):
        (tmp_path / part / name).mkdir(parents=True)
        for k in range(n):
            pixels = rng.integers(0, 99, (30 + 5 * (k % 3), 40, 3), dtype=np.uint8)
            pixels[..., number] += 150
            image.fromarray(pixels).save(tmp_path / part / name / f"{k}.png")
    return tmp_path


def test_a_nearest_neighbour_by_import_path_memorizes_and_has_scikit_learns_predictions(digits, tmp_path):
    recipe = Classifier("sklearn.neighbors.KNeighborsClassifier", {"n_neighbors": 3})
    masks, seeds = drawn(2, 200)
    found = recipe(digits, masks, seeds, run(tmp_path))
    x = digits.train.array.reshape(200, -1)
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(3).fit(x[masks[1]], digits.train.labels[masks[1]])
    tests = digits.test.array.reshape(50, -1)
    assert (found["test/correct"][1] == (model.predict(tests) == digits.test.labels)).all()
    p = model.predict_proba(tests)[np.arange(50), digits.test.labels]
    np.testing.assert_allclose(1 / (1 + np.exp(-found["test/logit_confidence"][1])), p, atol=1e-9)


def test_a_classifier_that_predicts_from_probabilities_computes_them_once(digits, tmp_path, monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    compute, asked = KNeighborsClassifier.predict_proba, []
    monkeypatch.setattr(
        KNeighborsClassifier, "predict_proba", lambda model, x: asked.append(len(x)) or compute(model, x)
    )
    masks, seeds = drawn(2, 200)
    Classifier("sklearn.neighbors.KNeighborsClassifier", {})(digits, masks, seeds, run(tmp_path))
    assert asked == [200, 50] * 2


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("sklearn.svm.LinearSVC", {}),
        ("sklearn.linear_model.LogisticRegression", {"max_iter": 500}),
        ("sklearn.tree.DecisionTreeClassifier", {"max_depth": 6}),
        ("sklearn.linear_model.RidgeClassifier", {}),
    ],
)
def test_a_store_of_any_classifier_is_trained_again_as_it_was_made(path, options, digits, tmp_path):
    url = str(tmp_path / "s.zarr")
    with memdb.init(url, digits, f"sklearn:{path}", recipe_options=options, seed=1) as db:
        assert db.store.manifest.recipe.name == f"sklearn:{path}"
        assert options.items() <= db.store.manifest.recipe.options.items()
    with memdb.open(url) as db:
        db.train(seeds=[4, 5], dataset=digits)
        assert min(model.test_accuracy for _, model in db.snapshot.models) > 0.6
    with memdb.init(
        str(tmp_path / "again.zarr"), digits, f"sklearn:{path}", recipe_options=options, seed=1
    ) as other:
        other.train(seeds=[4, 5])
        assert other.snapshot.models_sha256 == db.snapshot.models_sha256
        assert (other.snapshot.outcome_bits("test/correct") == db.snapshot.outcome_bits("test/correct")).all()


def test_a_label_that_no_subset_example_has_gets_no_confidence(digits, tmp_path):
    masks = (digits.train.labels != 3)[None]
    for path in ("sklearn.neighbors.KNeighborsClassifier", "sklearn.svm.LinearSVC"):
        found = Classifier(path, {})(digits, masks, np.zeros(1, np.uint64), run(tmp_path))
        threes = digits.test.labels == 3
        assert (found["test/logit_confidence"][0, threes] == -np.inf).all()
        assert np.isfinite(found["test/logit_confidence"][0, ~threes]).any()
        assert not found["test/correct"][0, threes].any()


def test_of_two_classes_the_decision_value_is_the_logit(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    x = rng.normal(size=(60, 3)) + y[:, None]
    data = memdb.Dataset(x[:40], y[:40], x[40:], y[40:])
    masks = np.ones((1, 40), bool)
    found = Classifier("sklearn.svm.LinearSVC", {})(data, masks, np.array([3], np.uint64), run(tmp_path))
    from sklearn.svm import LinearSVC

    model = LinearSVC(random_state=3).fit(x[:40].astype(np.float32), y[:40])
    value = model.decision_function(x[40:].astype(np.float32)) * np.where(y[40:] == 1, 1, -1)
    np.testing.assert_allclose(found["test/logit_confidence"][0], value, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("sklearn:KNN", {}, "sklearn:KNN names no class"),
        ("sklearn:sklearn.neighbors.Nope", {}, "no attribute 'Nope'"),
        ("sklearn:sklearn.linear_model.LinearRegression", {}, "LinearRegression predicts no classes"),
        ("sklearn:sklearn.preprocessing.Binarizer", {}, "has no fit and predict"),
        ("sklearn:sklearn.svm.SVC", {"random_state": 3}, "random_state is not an option"),
        ("sklearn:sklearn.svm.SVC", {"width": 3}, "no option 'width'"),
        pytest.param("torchvision:resnet19", {}, "no classifier 'resnet19'", marks=pytest.mark.slow),
        ("torchvision:resnet18", {"hidden": 3}, "no option 'hidden'"),
        ("torchvision:resnet18", {"crop": 0}, "crop=0.0 is not valid"),
    ],
)
def test_a_classifier_that_cannot_be_is_explained(name, options, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        recipes.resolve(name, options)
    assert caught.value.hint


@pytest.mark.slow
def test_a_torchvision_classifier_learns_from_files_that_are_read_as_needed(photos, tmp_path, torch):
    data = datasets.load("imagefolder", str(photos))
    options = {**TINY, "lr": 0.005, "epochs": 15, "batch_size": 9, "crop": 1.0}
    recipe = recipes.resolve("torchvision:resnet18", options)
    assert recipes.rebind(recipe.info).info == recipe.info
    masks, seeds = drawn(1, 18)
    before = torch.get_rng_state()
    found = recipe.train(data, masks, seeds, run(tmp_path))
    assert (torch.get_rng_state() == before).all()
    assert found["test/correct"].shape == (1, 6)
    assert found["train/correct"].mean() > 0.8


@pytest.mark.slow
def test_two_models_of_one_seed_are_one_model(photos, tmp_path):
    data = datasets.load("imagefolder", str(photos))
    recipe = recipes.resolve("torchvision:shufflenet_v2_x0_5", TINY)
    masks, seeds = drawn(2, 18)
    together = recipe.train(data, masks, seeds, run(tmp_path))["test/logit_confidence"]
    alone = recipe.train(data, masks[1:], seeds[1:], run(tmp_path))["test/logit_confidence"]
    np.testing.assert_allclose(alone[0], together[1], atol=1e-4)


@pytest.mark.slow
def test_a_preempted_training_goes_on_where_it_was_to_the_same_end(photos, tmp_path):
    data = datasets.load("imagefolder", str(photos))
    recipe = recipes.resolve("torchvision:shufflenet_v2_x0_5", TINY)
    masks, seeds = drawn(1, 18)
    whole = recipe.train(data, masks, seeds, run(tmp_path / "whole"))
    asked = []

    def stop_at_the_fourth():
        asked.append(1)
        return len(asked) == 4

    with pytest.raises(KeyboardInterrupt):
        recipe.train(data, masks, seeds, run(tmp_path, stop_at_the_fourth))
    steps = []
    watched = memdb.Run(
        "cpu", lambda done, total: steps.append((done, total)), lambda: False, tmp_path / "checkpoints"
    )
    resumed = recipe.train(data, masks, seeds, watched)
    assert steps == [(4, 6), (5, 6), (6, 6)]
    np.testing.assert_allclose(resumed["test/logit_confidence"], whole["test/logit_confidence"], atol=1e-4)

    (checkpoint,) = (tmp_path / "checkpoints").rglob("*.pt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])  # cut short, as by a full disk
    recipe.train(data, masks, seeds, watched)
    assert steps[3] == (1, 6)


def test_processes_that_read_images_start_once_to_train_and_once_to_predict(photos, tmp_path, monkeypatch):
    from memdb.recipes import images

    started, loader = [], images.DataLoader
    monkeypatch.setattr(images, "DataLoader", lambda *a, **k: started.append(1) or loader(*a, **k))
    data = datasets.load("imagefolder", str(photos))
    masks, seeds = drawn(1, 18)
    recipes.resolve("torchvision:shufflenet_v2_x0_5", TINY).train(data, masks, seeds, run(tmp_path))
    assert len(started) == 2


def test_an_image_that_cannot_be_decoded_is_named_also_by_another_process(photos, tmp_path, monkeypatch):
    from memdb.recipes import images

    data = datasets.load("imagefolder", str(photos))
    (photos / "train/dog/4.png").write_bytes(b"no image")
    recipe = recipes.resolve("torchvision:shufflenet_v2_x0_5", TINY)
    masks = np.ones((1, 18), bool)
    for few in (2048, 0):
        monkeypatch.setattr(images, "FEW", few)
        with pytest.raises(InvalidInputError, match="dog/4.png cannot be decoded"):
            recipe.train(data, masks, np.zeros(1, np.uint64), run(tmp_path))


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 3), (3, 9, 7), (9, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_image_becomes_a_square_of_three_colours(shape, dtype):
    from memdb.recipes.images import Crop, _as_colours

    image = _as_colours((np.ones(shape) * (255 if dtype == np.uint8 else 1)).astype(dtype))
    assert image.shape == (3, 9, 7)
    assert image.min() == 255
    for crop in (Crop(8), Crop(8, least=0.1, flip=True, seed=2**64 - 1, epoch=3)):
        assert crop(image, 5).shape == (3, 8, 8)
