"""mlp, cnn and resnet9: many models as one program, and what they show while they train."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import TESTS
from support.cases import every

import memdb
from memdb import datasets, recipes
from memdb.errors import InvalidInputError, TrainingError
from memdb.format import bits, subsets
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.out_of_memory import Fitting, is_out_of_memory
from memdb.recipes.resnet9 import ResNet9
from memdb.recipes.resnet9_v2 import ResNet9v2

SIGNALS = frozenset({"cumulative_loss", "first_learned"})
N_TRAIN = 60


@pytest.fixture(autouse=True)
def one_thread(torch):
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that wait for each other are slower at this size
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data():
    whole = datasets.load("digits")
    train, test = (part.array[:n] for part, n in ((whole.train, N_TRAIN), (whole.test, 20)))
    return memdb.Dataset(train, whole.train.labels[:N_TRAIN], test, whole.test.labels[:20])


def run(tmp_path, device="cpu", outcomes=frozenset()):
    return memdb.Run(device, lambda done, total: None, lambda: False, tmp_path, outcomes)


def drawn(n_models, first=0):
    seeds = np.arange(first, first + n_models, dtype=np.uint64)
    return subsets.subset_masks(1, [int(seed) for seed in seeds], N_TRAIN, 42), seeds


def side_by_side(recipe, data, masks, seeds, run):
    """Train the models of a resnet9 batch together on a CPU too, where the recipe would take turns."""

    class SideBySide(type(recipe)):
        def side_by_side(self, device):
            return True

    return SideBySide(**recipe.options)(data, masks, seeds, run)


SMALL = {
    "mlp": MLP(epochs=2, hidden=(8,)),
    "mlp-augmented": MLP(epochs=2, hidden=(8,), flip=True, shift=1, cutout=2),
    "cnn": CNN(epochs=2, channels=(4, 8), batch_size=16),
    "cnn-augmented": CNN(epochs=2, channels=(4,), flip=True, shift=1, cutout=2),
    "resnet9": ResNet9(epochs=1, width=2, batch_size=21, shift=1, precision="float32", lr=0.05),
    "resnet9-2": ResNet9v2(epochs=1, width=2, batch_size=21, shift=1, precision="float32", lr=0.05),
}


@pytest.mark.parametrize("recipe", SMALL.values(), ids=SMALL.keys())
def test_a_batch_of_64_predicts_what_each_of_its_models_predicts_alone(recipe, data, tmp_path):
    masks, seeds = drawn(64)
    train = side_by_side if recipe.name == "resnet9" else type(recipe).__call__
    together = train(recipe, data, masks, seeds, run(tmp_path, outcomes=SIGNALS))
    for row in (0, 63):
        part = slice(row, row + 1)
        alone = recipe(data, masks[part], seeds[part], run(tmp_path, outcomes=SIGNALS))
        for path in ("train/logit_confidence", "test/logit_confidence", "train/cumulative_loss"):
            np.testing.assert_allclose(alone[path][0], together[path][row], atol=2e-3)
    assert np.ptp(together["test/logit_confidence"], axis=0).min() > 0.01  # and no two are the same


def test_neighbours_in_a_batch_of_resnet9_side_by_side_make_no_difference(data, tmp_path):
    """A whole training, with batch norm at a high rate: what one model let through would show."""
    recipe = ResNet9(epochs=6, width=2, batch_size=21, shift=1, precision="float32")
    masks, seeds = drawn(8)
    rows = [5, 6, 7, 2]  # seed 2 among others, at another place
    one = side_by_side(recipe, data, masks[:4], seeds[:4], run(tmp_path))["test/logit_confidence"][2]
    two = side_by_side(recipe, data, masks[rows], seeds[rows], run(tmp_path))["test/logit_confidence"][3]
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_batch_of_resnet9_takes_turns_on_a_cpu_and_is_the_same_to_the_last_bit(data, tmp_path):
    masks, seeds = drawn(3)
    recipe = ResNet9(epochs=1, width=2, batch_size=21, shift=1)
    together = recipe(data, masks, seeds, run(tmp_path))
    alone = recipe(data, masks[1:2], seeds[1:2], run(tmp_path))
    assert (together["test/logit_confidence"][1] == alone["test/logit_confidence"][0]).all()


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", SMALL.values(), ids=SMALL.keys())
def test_a_gpu_trains_a_batch_as_it_trains_one_and_as_a_cpu_does(recipe, data, tmp_path, cuda):
    masks, seeds = drawn(8)
    together = recipe(data, masks, seeds, run(tmp_path, "cuda:0"))
    for device in ("cuda:0", "cpu"):
        alone = recipe(data, masks[:1], seeds[:1], run(tmp_path, device))
        np.testing.assert_allclose(
            alone["test/logit_confidence"][0], together["test/logit_confidence"][0], atol=0.1
        )


@pytest.mark.parametrize(
    "recipe",
    every(
        3,
        [
            MLP(),
            CNN(epochs=30, channels=(16, 32), batch_size=8, lr=0.03),
            ResNet9(epochs=20, width=8, lr=0.05, batch_size=8, flip=False, shift=0),
        ],
    ),
    ids=lambda recipe: recipe.name,
)
def test_a_network_learns_what_it_saw_and_its_signals_say_when(recipe, data, tmp_path):
    masks, seeds = drawn(2)
    found = recipe(data, masks, seeds, run(tmp_path, outcomes=SIGNALS))
    losses, learned = found["train/cumulative_loss"], found["train/first_learned"]
    assert found["train/correct"][masks].mean() > 0.95
    assert found["test/correct"].mean() > 0.3
    assert (np.isnan(losses) == ~masks).all()
    assert (losses[masks] > 0).all()
    assert ((learned == 0) == ~masks).all()
    assert learned.max() <= recipe.epochs + 1
    late, early = learned[masks] > np.median(learned[masks]), learned[masks] <= np.median(learned[masks])
    assert losses[masks][late].mean() > losses[masks][early].mean()  # what is learned late costs more


def test_signals_are_the_sums_that_plain_pytorch_would_keep(data, tmp_path, torch):
    """One step an epoch over the whole subset, so that the loss before each step is easily taken."""
    masks, seeds = drawn(1)
    recipe = MLP(hidden=(), optimizer="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=42, epochs=3)
    found = recipe(data, masks, seeds, run(tmp_path, outcomes=SIGNALS))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 10, generator=generator).mul_((2 / 64) ** 0.5).requires_grad_()
    bias = torch.zeros(10).requires_grad_()
    x = torch.from_numpy(data.train.array.reshape(N_TRAIN, -1)[masks[0]])
    y = torch.from_numpy(data.train.labels[masks[0]]).long()
    total, since = torch.zeros(42), torch.ones(42)
    for epoch in range(3):
        logits = x @ weight + bias
        losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
        total += losses.detach()
        since[logits.argmax(1) != y] = epoch + 2
        grads = torch.autograd.grad(losses.mean(), [weight, bias])
        with torch.no_grad():
            weight -= 0.1 * grads[0]
            bias -= 0.1 * grads[1]
    np.testing.assert_allclose(found["train/cumulative_loss"][0, masks[0]], total.numpy(), rtol=1e-4)
    assert found["train/first_learned"][0, masks[0]].tolist() == since.tolist()


def test_a_store_keeps_learning_signals_and_gives_them_back(data, tmp_path):
    outcomes = ["correct", "cumulative_loss", "first_learned"]
    options = {"epochs": 2, "hidden": [8]}
    with memdb.init(str(tmp_path / "s.zarr"), data, MLP(**options), outcomes=outcomes) as db:
        db.train(5, batch_models=3)
        db.compact()
        db.train(2)
        masks = bits.unpack(db.snapshot.mask(), 7)
        losses = db.snapshot.outcome_values("train/cumulative_loss")
        learned = db.snapshot.outcome_values("train/first_learned")
        assert (losses.dtype, learned.dtype) == (np.float16, np.uint16)
        assert losses.shape == learned.shape == (N_TRAIN, 7)
        assert (np.isnan(losses) == (learned == 0)).all()
        assert ((learned > 0).sum(axis=0) == 42).all()
        assert ((learned > 0) == masks.T).all()
        assert not db.verify()[0].damages
        assert len(db.top_memorized(3).fetchall()) == 3


def test_a_recipe_that_gives_no_signals_is_refused_at_once_or_at_its_first_batch(data, tmp_path):
    def plain(data, masks, seeds, run):
        return {
            f"{name}/correct": np.zeros((len(masks), len(part)), bool) for name, part in data.sets.items()
        }

    plain.version = "1"
    with memdb.init(str(tmp_path / "a.zarr"), data, plain, outcomes=["correct", "first_learned"]) as db:
        with pytest.raises(TrainingError, match="returned no 'train/first_learned'"):
            db.train(1)
        assert db.n_models == 0
    plain.outcomes = {"correct"}
    with pytest.raises(InvalidInputError, match="gives no first_learned"):
        memdb.init(str(tmp_path / "b.zarr"), data, plain, outcomes=["correct", "first_learned"])


def test_a_model_that_diverges_has_the_largest_loss(data, tmp_path):
    recipe = MLP(hidden=(8,), optimizer="sgd", lr=1e30, epochs=3)
    with memdb.init(str(tmp_path / "s.zarr"), data, recipe, outcomes=["correct", "cumulative_loss"]) as db:
        db.train(1)
        losses = db.snapshot.outcome_values("train/cumulative_loss")
        assert np.nanmax(losses) == 65504
        assert db.snapshot.models[0][1].diverged


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cnn", {"channels": []}, r"channels=\(\) is not valid"),
        ("cnn", {"hidden": 3}, "cnn has no option 'hidden'"),
        ("cnn", {"shift": -1}, "shift=-1 is not valid"),
        ("cnn", {"flip": 1}, "flip=1 is not valid"),
        ("mlp", {"precision": "float8"}, "precision='float8' is not valid"),
        ("resnet9", {"warmup": 1}, "warmup=1.0 is not valid"),
        ("resnet9", {"epochs": 70000}, "epochs=70000 is not valid"),
        ("resnet9", {"preset": "digits"}, "has no option 'preset'"),
    ],
)
def test_options_that_cannot_be_are_named(name, options, says):
    with pytest.raises(InvalidInputError, match=says):
        recipes.resolve(name, options)


@pytest.mark.parametrize(
    ("recipe", "shape", "says"),
    [
        (CNN(), (5,), r"cnn needs images; examples of this data set have shape \(5,\)"),
        (CNN(), (3, 9), "at least 4 x 4 pixels; these have 3 x 9"),
        (ResNet9(), (6, 6, 3), "at least 8 x 8 pixels"),
        (MLP(flip=True), (7,), "augmentation needs images"),
    ],
)
def test_data_that_is_no_image_or_too_small_is_named(recipe, shape, says, tmp_path):
    data = memdb.Dataset(np.zeros((4, *shape)), [0, 1, 0, 1], np.zeros((1, *shape)), [0])
    with pytest.raises(InvalidInputError, match=says):
        recipe(data, np.ones((1, 4), bool), np.zeros(1, np.uint64), run(tmp_path))


def test_options_that_came_later_leave_the_fingerprint_of_older_stores_alone():
    fingerprint = "0852e15e0282"
    assert "flip" not in MLP().options
    assert recipes.resolve("mlp", {}).info.fingerprint.startswith(fingerprint)
    assert recipes.resolve("mlp", {"flip": True}).info.options["flip"] is True
    assert recipes.rebind(recipes.resolve("mlp", {"shift": 2}).info).info.options["shift"] == 2


@pytest.mark.parametrize(
    ("name", "fingerprint"),
    [
        ("mlp", "0852e15e0282"),
        ("cnn", "97cd37bdac29"),
        ("resnet9", "9ccc87a725e1"),
    ],
)
def test_recipes_keep_the_fingerprints_that_stores_have(name, fingerprint):
    assert recipes.resolve(name, {}).info.fingerprint.startswith(fingerprint)


def test_augmentation_moves_mirrors_and_blanks_as_told(torch):
    from memdb.recipes.augmentation import Augmentation

    images = torch.arange(1.0, 17).reshape(1, 4, 4, 1)
    row = torch.zeros(1, 1, dtype=torch.long)

    def changed(augmentation, *draws):
        return augmentation.take(images, row, torch.tensor([[draws]]))[0, 0, :, :, 0].int().tolist()

    plain = images[0, :, :, 0].int()
    assert changed(Augmentation(flip=True), 0.4, 0, 0, 0, 0) == plain.flip(1).tolist()
    assert changed(Augmentation(flip=True), 0.6, 0, 0, 0, 0) == plain.tolist()
    down = Augmentation(shift=1)
    assert changed(down, 0, 0.99, 0.5, 0, 0) == [*plain[1:].tolist(), plain[2].tolist()]
    assert changed(down, 0, 0.5, 0.0, 0, 0)[0] == [2, 1, 2, 3]
    assert changed(Augmentation(cutout=2), 0, 0, 0, 0.5, 0.5)[1:3] == [[5, 0, 0, 8], [9, 0, 0, 12]]


class Hungry:
    """Runs out of memory above ``most`` models, as PyTorch says it."""

    def __init__(self, most, error):
        self.most, self.error, self.tried = most, error, []

    def __call__(self, data, masks, seeds, run):
        self.tried.append(len(seeds))
        if len(seeds) > self.most:
            raise self.error
        run.progress(1, 1)
        return {"seeds": seeds}


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried"), RuntimeError("can't allocate memory: you")],
    ids=["python", "cuda", "cpu"],
)
def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(error, data, tmp_path):
    hungry, heard = Hungry(3, error), []
    fitting = Fitting(hungry, "hungry")
    watching = memdb.Run("cpu", lambda done, total: heard.append(done / total), lambda: False, tmp_path)
    for _ in range(2):
        masks, seeds = drawn(10)
        assert fitting(data, masks, seeds, watching)["seeds"].tolist() == list(range(10))
    assert hungry.tried == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]  # what fitted is remembered
    assert heard[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the address space has no such limit")
def test_a_process_short_of_memory_trains_fewer_at_once_and_gives_up_at_one(tmp_path):
    """`memdb train` for real: the allocations that fail are PyTorch's, of a limited address space."""
    url = str(tmp_path / "s.zarr")
    memdb.init(url, recipe="support.scarce:train").close()
    command = [str(Path(sys.executable).with_name("memdb")), "train", "--store", url]
    command += ["--add", "32", "--batch-models", "16", "--device", "cpu"]
    command += ["--until-half-width", "0.001"]  # so that nothing is committed while memory is scarce
    scarce = {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    scarce |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back
    done = subprocess.run(
        command, env={**os.environ, **scarce}, capture_output=True, text=True, timeout=120, check=False
    )
    tried = [int(line.removeprefix("trying ")) for line in done.stdout.splitlines()]
    assert tried[:2] == [16, 8]
    assert tried[-1] == 1
    assert done.returncode == 1
    assert (
        "Error: one model of recipe support.scarce:train does not fit into the memory of cpu" in done.stderr
    )
    with memdb.open(url) as db:
        assert db.n_models == 16


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),  # oneDNN
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        MemoryError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("HIP error: hipErrorOutOfMemory"),
        RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
        RuntimeError("level_zero backend failed with error: 40 (UR_RESULT_ERROR_OUT_OF_RESOURCES)"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_all_words_for_too_little_memory_are_understood(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(OSError("something else"))


def test_one_model_that_does_not_fit_is_an_error_with_a_way_out(data, tmp_path):
    masks, seeds = drawn(2)
    with pytest.raises(TrainingError, match="one model of recipe hungry does not fit into the memory of cpu"):
        Fitting(Hungry(0, MemoryError()), "hungry")(data, masks, seeds, run(tmp_path))
    with pytest.raises(RuntimeError, match="something else"):
        Fitting(Hungry(0, RuntimeError("something else")), "hungry")(data, masks, seeds, run(tmp_path))
