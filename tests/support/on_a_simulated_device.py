"""What a GPU would refuse or wait for, on a machine without one: see `support.simulated_device`.

`tests/recipes/test_devices.py` runs these tests in a process of their own.
"""

from __future__ import annotations

import gc
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from memdb import Dataset, Run
from memdb.format import subsets
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.protocol import SketchRequest
from memdb.recipes.resnet9 import ResNet9
from memdb.recipes.resnet9_v2 import ResNet9v2
from support import sketched

torch = pytest.importorskip("torch")
simulation = pytest.importorskip(
    "support.simulated_device",
    reason="this PyTorch has no backends written in Python",
    exc_type=ImportError,
)
simulated_device = simulation.simulated_device
simulation.install()


class SideBySide(ResNet9):
    """Trains models side by side on any device, where the recipe would take turns."""

    def side_by_side(self, device):
        return True


class SideBySide2(ResNet9v2):
    """The same in version 2."""

    def side_by_side(self, device):
        return True


class AddingUp(MLP):
    """Adds gradients to their momentum at once, as GPUs do."""

    def keeps_no_gradients(self, device):
        return device != "cpu"


class InThisThread:
    """An executor for what other threads do not see: the simulated device."""

    def __init__(self, n_threads):
        assert n_threads > 0

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self, **_):
        pass


SIGNALS = frozenset({"cumulative_loss", "first_learned"})
RECIPES = {  # with the most kernels a step
    "mlp": (MLP(epochs=2, hidden=(8,), batch_size=16), 30),
    "mlp-sgd-bfloat16": (
        MLP(epochs=2, hidden=(8, 6), optimizer="sgd", precision="bfloat16", batch_size=16),
        50,
    ),
    "mlp-augmented": (MLP(epochs=2, flip=True, shift=1, cutout=2, label_smoothing=0.1, batch_size=16), 75),
    "cnn": (CNN(epochs=2, channels=(4, 8), batch_size=16), 50),
    "cnn-bfloat16": (
        CNN(epochs=2, channels=(4,), batch_size=16, shift=1, cutout=2, precision="bfloat16"),
        105,
    ),
    "resnet9": (SideBySide(epochs=2, width=2, batch_size=21, shift=1, precision="float32"), 150),
    "resnet9-2": (SideBySide2(epochs=2, width=2, batch_size=21, shift=1, precision="float32"), 170),
    "resnet9-bfloat16": (SideBySide(epochs=2, width=2, batch_size=21, shift=1), 170),
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (130, 8, 8, 3)).astype(np.uint8), np.arange(130) % 4
    return Dataset(x[:90], y[:90], x[90:], y[90:])


def trained(recipe, data, device, tmp_path, *, n_models=3, progress=lambda done, total: None, sketch=None):
    seeds = np.arange(n_models, dtype=np.uint64)
    masks = subsets.subset_masks(1, seeds.tolist(), 90, 63)
    run = Run(device, progress, lambda: False, tmp_path, SIGNALS, sketch)
    return recipe(data, masks, seeds, run)


def require_same(found, expected):
    assert found.keys() == expected.keys()
    for path, values in expected.items():
        np.testing.assert_array_equal(found[path], values, err_msg=path)


@pytest.mark.parametrize(("recipe", "most"), RECIPES.values(), ids=RECIPES.keys())
def test_another_device_trains_as_the_cpu_does_and_the_host_waits_once_an_epoch(recipe, most, data, tmp_path):
    expected = trained(recipe, data, "cpu", tmp_path)
    seen = []
    with simulated_device() as device:

        def progress(_done, _total):
            seen.append((sum(device.waits.values()), sum(device.kernels.values())))

        found = trained(recipe, data, "gpu:0", tmp_path, progress=progress)
    require_same(found, expected)
    waits, kernels = np.diff(np.array(seen), axis=0).T
    assert np.median(waits) == 0, "the host waits for the device at every step"
    assert np.median(kernels) <= most
    gc.collect()
    assert device.live == 0


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet9", "resnet9-2"])
def test_gradient_sketches_on_another_device_are_those_of_the_cpu(name, data, tmp_path):
    recipe, sketch = replace(RECIPES[name][0], epochs=1), SketchRequest(2, 32, 7)
    expected = trained(recipe, data, "cpu", tmp_path, sketch=sketch)
    with simulated_device() as device:
        found = trained(recipe, data, "gpu:0", tmp_path, sketch=sketch)
    assert expected["test/gradient_sketch"].shape == (2, 40, 32)
    require_same(found, expected)
    gc.collect()
    assert device.live == 0


@pytest.mark.parametrize("direction", ["helps", "both"])
def test_predictions_of_all_pairs_on_another_device_are_those_of_the_cpu(direction, tmp_path, monkeypatch):
    monkeypatch.setattr("memdb.query.pairs.scores.device_of", lambda device: device)
    monkeypatch.setattr("memdb.query.pairs.search.ThreadPoolExecutor", InThisThread)
    asked = {"top": 5, "direction": direction, "estimator": "informed"}
    with sketched.new_store(tmp_path / "store.zarr") as db:
        sketched.fill(db, sketched.planted(), 60, 6)
        expected = db.pairs(**asked, device="cpu").fetchnumpy()
        with simulated_device() as device:
            found = db.pairs(**asked, device="gpu:0").fetchnumpy()
    assert (expected["informed"] != expected["influence"]).any()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    assert device.kernels["mm"] > 0
    gc.collect()
    assert device.live == 0


def test_a_torchvision_training_does_not_wait_at_every_step(data, tmp_path):
    from memdb.recipes.torchvision_adapter import Architecture

    recipe = Architecture("resnet18", image_size=32, epochs=2, batch_size=16)
    expected = trained(recipe, data, "cpu", tmp_path, n_models=1)
    seen = []
    with simulated_device() as device:
        found = trained(
            recipe,
            data,
            "gpu:0",
            tmp_path,
            n_models=1,
            progress=lambda _done, _total: seen.append(sum(device.waits.values())),
        )
    require_same(found, expected)
    assert np.median(np.diff(seen)) == 0
    gc.collect()
    assert device.live == 0


def test_networks_of_usual_width_take_turns_on_a_gpu_and_the_data_is_moved_once(data, tmp_path):
    recipe = CNN(epochs=1, channels=(4, 32), batch_size=32)
    assert not recipe.side_by_side("gpu:0")
    with simulated_device() as device:
        together = trained(recipe, data, "gpu:0", tmp_path)
        moved = device.waits["upload"]
        alone = [trained(recipe, data, "gpu:0", tmp_path, n_models=n) for n in (1, 2)]
    for one in alone:  # to the last bit, whoever else is in the batch
        for path, values in one.items():
            np.testing.assert_array_equal(values, together[path][: len(values)])
    n_weights, n_parts = 6, 3  # of each model: weights, subset, and the order of its epoch
    assert moved <= 3 * (n_weights + 2) + 2 * n_parts


@pytest.mark.parametrize(
    ("options", "most", "mean"),
    [
        ({"weight_decay": 0.0}, 1e-4, 1e-5),
        ({"weight_decay": 0.01, "momentum": 0.0, "schedule": "cosine"}, 1e-4, 1e-5),
        ({"precision": "bfloat16"}, 0.4, 0.03),  # far less than a momentum of 0.95 in place of 0.9 would make
    ],
)
def test_gradients_added_to_their_momentum_train_as_sgd_does(options, most, mean, data, tmp_path):
    recipe = AddingUp(epochs=4, hidden=(8, 6), optimizer="sgd", lr=0.05, batch_size=16, **options)
    expected = trained(recipe, data, "cpu", tmp_path)
    with simulated_device():
        found = trained(recipe, data, "gpu:0", tmp_path)
    for path in ("train/logit_confidence", "test/logit_confidence", "train/cumulative_loss"):
        np.testing.assert_allclose(found[path], expected[path], atol=most)
        assert np.nanmean(np.abs(found[path] - expected[path])) < mean


def test_weights_drawn_ahead_are_those_drawn_at_the_start(data, tmp_path):
    recipe, seeds = replace(RECIPES["mlp"][0], epochs=1), np.arange(3, dtype=np.uint64)
    masks = subsets.subset_masks(1, seeds.tolist(), 90, 63)
    with simulated_device():
        run = Run("gpu:0", lambda done, total: None, lambda: False, tmp_path, SIGNALS)
        ahead = replace(run, prepared=recipe.prepare(data, seeds, "gpu:0"))
        require_same(recipe(data, masks, seeds, ahead), recipe(data, masks, seeds, run))


PRESET = MLP(hidden=(512, 256), optimizer="sgd", weight_decay=0.0, batch_size=128)
MNIST, CIFAR = (60_000, 10_000, (28, 28), 10), (50_000, 10_000, (32, 32, 3), 100)


@pytest.mark.parametrize(
    ("recipe", "sizes", "n_models"),
    [
        pytest.param(PRESET, MNIST, 64, id="mlp-preset"),
        pytest.param(
            AddingUp(hidden=(512, 256), optimizer="sgd", batch_size=128), MNIST, 64, id="mlp-adding-up"
        ),
        pytest.param(PRESET, MNIST, 256, id="mlp-preset-256"),
        pytest.param(
            AddingUp(hidden=(512, 256), optimizer="sgd", batch_size=128, precision="bfloat16"),
            MNIST,
            64,
            id="mlp-adding-up-bfloat16",
        ),
        pytest.param(replace(PRESET, precision="bfloat16", shift=2), MNIST, 64, id="mlp-bfloat16-augmented"),
        pytest.param(MLP(), MNIST, 64, id="mlp-adamw"),
        pytest.param(CNN(), MNIST, 16, id="cnn"),
        pytest.param(CNN(precision="bfloat16", shift=2), MNIST, 16, id="cnn-bfloat16-augmented"),
        pytest.param(ResNet9(), CIFAR, 1, id="resnet9"),
        pytest.param(SideBySide(batch_size=128), CIFAR, 8, id="resnet9-128-side-by-side"),
        pytest.param(ResNet9(precision="float32"), CIFAR, 1, id="resnet9-float32"),
        pytest.param(ResNet9v2(), CIFAR, 1, id="resnet9-2"),
    ],
)
def test_a_training_takes_almost_the_memory_that_was_estimated(
    recipe, sizes, n_models, tmp_path, monkeypatch
):
    """At real sizes: nothing is computed, of tensors on `meta` only the sizes are known."""
    from memdb.recipes import batches, cnn

    starts = batches.Schedule._starts
    monkeypatch.setattr(batches.Schedule, "_starts", lambda self, size: starts(self, size)[:3])
    n_train, n_test, shape, n_classes = sizes
    train, test = (np.zeros((n, *shape), np.uint8) for n in (n_train, n_test))
    data = Dataset(train, np.arange(n_train) % n_classes, test, np.arange(n_test) % n_classes)
    masks = np.zeros((n_models, n_train), bool)
    masks[:, : int(0.7 * n_train)] = True
    run = Run("gpu:0", lambda done, total: None, lambda: False, tmp_path, SIGNALS)
    memory = recipe.memory(data, "gpu:0") if recipe.name == "mlp" else recipe.memory(data)
    at_once = n_models if recipe.name == "mlp" or recipe.side_by_side("gpu:0") else 1
    if recipe.name == "cnn":
        monkeypatch.setattr(cnn, "TINY", 99)  # side by side
        at_once = n_models
    with simulated_device(values=False) as device:
        replace(recipe, epochs=1)(data, masks, np.arange(n_models, dtype=np.uint64), run)
    used = device.peak / (memory.shared + at_once * memory.a_model)
    print(f"{device.peak / 1e9:.2f} GB, {used:.2f} of the estimate")
    assert 0.75 < used < 0.95


def test_the_simulation_refuses_what_a_gpu_refuses():
    with simulated_device() as device:
        on_device = torch.zeros(3, device="gpu:0")
        with pytest.raises(RuntimeError, match="found at least two devices"):
            _ = on_device + torch.zeros(3)
        with pytest.raises(RuntimeError, match="for generator"):
            torch.rand(3, device="gpu:0", generator=torch.Generator())
        with pytest.raises(TypeError, match="Use Tensor.cpu"):
            on_device.numpy()
        before = sum(device.waits.values())
        assert float(on_device.sum()) == 0
        assert sum(device.waits.values()) == before + 1
