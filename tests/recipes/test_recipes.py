from __future__ import annotations

import importlib

import numpy as np
import pytest
import typer

import memdb
from memdb import datasets, recipes
from memdb.cli.app import app
from memdb.errors import InvalidInputError
from memdb.format import subsets
from memdb.recipes.mlp import MLP


def plain(data, masks, seeds, run):
    return {}


class Forest:
    name, version = "forest", "3"

    def __init__(self, trees=10, depth=None):
        self.options = {"trees": trees, "depth": depth}

    def __call__(self, data, masks, seeds, run):
        return {}


class Unjson(Forest):
    def __init__(self):
        self.options = {"trees": object()}


INSTANCE = Forest(5)
NUMBER = 7


def run(tmp_path, device="cpu"):
    return memdb.Run(device, lambda done, total: None, lambda: False, tmp_path)


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([], {}),
        (["hidden=512,256"], {"hidden": [512, 256]}),
        (["lr=0.1", "optimizer=sgd"], {"lr": 0.1, "optimizer": "sgd"}),
        (["hidden=[7]", "flag=true", "none=null"], {"hidden": [7], "flag": True, "none": None}),
        (["names=a,b", "path=x=y"], {"names": ["a", "b"], "path": "x=y"}),
    ],
)
def test_options_are_read_as_what_they_look_like(texts, options):
    assert recipes.parse_options(texts) == options


@pytest.mark.parametrize(
    ("texts", "says"),
    [(["lr"], "'lr' is not name=value"), (["=3"], "not name=value"), (["a=1", "a=2"], "a is given twice")],
)
def test_options_that_cannot_be_read_are_named(texts, says):
    with pytest.raises(InvalidInputError, match=says):
        recipes.parse_options(texts)


@pytest.mark.parametrize(
    ("name", "options", "version", "identity"),
    [
        ("test_recipes:plain", {}, None, ("test_recipes:plain", "0", {})),
        ("test_recipes:plain", {}, "7", ("test_recipes:plain", "7", {})),
        ("test_recipes:Forest", {"trees": 3}, None, ("forest", "3", {"trees": 3, "depth": None})),
        ("test_recipes:INSTANCE", {}, None, ("forest", "3", {"trees": 5, "depth": None})),
    ],
)
def test_a_recipe_of_ones_own_has_an_identity(name, options, version, identity):
    info = recipes.resolve(name, options, version).info
    assert (info.name, info.version, info.options) == identity
    assert info.import_path == name


@pytest.mark.parametrize(
    ("name", "options", "version", "says"),
    [
        ("cnn3", {}, None, "unknown recipe 'cnn3'"),
        ("mlp", {"width": 3}, None, "mlp has no option 'width'"),
        ("mlp", {"preset": "imagenet"}, None, "unknown preset 'imagenet'"),
        ("mlp", {"hidden": 0}, None, r"hidden=\(0,\) is not valid"),
        ("mlp", {"hidden": "wide"}, None, "hidden='wide' is not valid"),
        ("mlp", {"lr": -1}, None, "lr=-1.0 is not valid"),
        ("mlp", {"epochs": 1.5}, None, "epochs=1.5 is not valid"),
        ("mlp", {"optimizer": "lion"}, None, "optimizer='lion'"),
        ("mlp", {"optimizer": ["adamw", "sgd"]}, None, "optimizer=.* is not valid"),
        ("mlp", {"preset": ["digits"]}, None, "unknown preset"),
        ("mlp", {}, "9", "has version 1, not 9"),
        ("no_such:thing", {}, None, "cannot be imported"),
        ("test_recipes:nothing", {}, None, "no attribute 'nothing'"),
        ("test_recipes:NUMBER", {}, None, "is of type int, which cannot be called"),
        ("test_recipes:plain", {"lr": 1}, None, "takes no options"),
        ("test_recipes:Forest", {"lr": 1}, None, "does not take the options {'lr': 1}"),
        ("test_recipes:Unjson", {}, None, "are no JSON"),
    ],
)
def test_a_recipe_that_cannot_be_is_explained(name, options, version, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        recipes.resolve(name, options, version)
    assert caught.value.hint


def test_options_left_out_are_filled_in_and_change_the_fingerprint():
    base = recipes.resolve("mlp", {}).info
    assert base.options["hidden"] == [128]
    assert recipes.resolve("mlp", {"hidden": 128}).info.fingerprint == base.fingerprint
    assert recipes.resolve("mlp", {"epochs": 29}).info.fingerprint != base.fingerprint


def test_mnist_gets_the_network_of_feldman_and_zhang():
    options = recipes.resolve("mlp", {}, dataset="mnist").info.options
    assert (options["hidden"], options["optimizer"], options["lr"]) == ([512, 256], "sgd", 0.1)
    assert (options["momentum"], options["epochs"], options["batch_size"]) == (0.9, 10, 128)
    named = recipes.resolve("mlp", {"preset": "feldman-zhang-mnist"}).info
    assert named.options == options
    assert "preset" not in options
    assert recipes.resolve("mlp", {"preset": "digits"}, dataset="mnist").info.options["hidden"] == [128]


def digits_part(n_train=120, n_test=40):
    data = datasets.load("digits")
    return memdb.Dataset(
        data.train.array[:n_train],
        data.train.labels[:n_train],
        data.test.array[:n_test],
        data.test.labels[:n_test],
    )


@pytest.mark.parametrize(
    "recipe",
    [
        MLP(epochs=4),
        MLP(hidden=(16, 8), optimizer="sgd", lr=0.1, epochs=4, schedule="cosine"),
        MLP(hidden=(), epochs=2, label_smoothing=0.1),
    ],
    ids=["adamw", "sgd", "linear"],
)
def test_what_a_model_predicts_does_not_depend_on_its_batch_mates(recipe, tmp_path):
    pytest.importorskip("torch")
    data = digits_part()
    seeds = np.array([5, 2**63 - 1, 7, 8], dtype=np.uint64)
    masks = subsets.subset_masks(1, [int(s) for s in seeds], 120, 84)
    together = recipe(data, masks, seeds, run(tmp_path))
    for row in range(4):
        alone = recipe(data, masks[row : row + 1], seeds[row : row + 1], run(tmp_path))
        for name in ("train/logit_confidence", "test/logit_confidence"):
            np.testing.assert_allclose(alone[name][0], together[name][row], atol=2e-3)
    backwards = recipe(data, masks[::-1].copy(), seeds[::-1].copy(), run(tmp_path))
    np.testing.assert_allclose(
        backwards["test/logit_confidence"][::-1], together["test/logit_confidence"], atol=2e-3
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_is_that_of_plain_pytorch(optimizer, weight_decay, smoothing, tmp_path):
    """The same weights, order and optimiser in nn.Sequential with autograd give the same predictions."""
    torch = pytest.importorskip("torch")
    recipe = MLP(
        hidden=(16,),
        optimizer=optimizer,
        lr=0.01,
        weight_decay=weight_decay,
        label_smoothing=smoothing,
        epochs=3,
    )
    data = digits_part()
    mask = subsets.subset_mask(1, 9, 120, 84)
    found = recipe(data, mask[None], np.array([9], dtype=np.uint64), run(tmp_path))

    generator = torch.Generator().manual_seed(9)
    net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    with torch.no_grad():
        for layer in (net[0], net[2]):
            weight = torch.randn(layer.in_features, layer.out_features, generator=generator)
            layer.weight.copy_((weight * (2 / layer.in_features) ** 0.5).T)
            layer.bias.zero_()
    kinds = {
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=weight_decay),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=weight_decay),
    }
    optimiser, loss_of = (
        kinds[optimizer](net.parameters()),
        torch.nn.CrossEntropyLoss(label_smoothing=smoothing),
    )
    x = torch.from_numpy(data.train.array.reshape(120, -1)[mask])
    y = torch.from_numpy(data.train.labels[mask]).long()
    for _ in range(3):
        for rows in torch.randperm(84, generator=generator).split(50):
            optimiser.zero_grad()
            loss_of(net(x[rows]), y[rows]).backward()
            optimiser.step()
    p = net(torch.from_numpy(data.test.array.reshape(40, -1))).double().softmax(1)
    own = p[torch.arange(40), torch.from_numpy(data.test.labels).long()].detach().numpy()
    np.testing.assert_allclose(found["test/logit_confidence"][0], np.log(own / (1 - own)), atol=2e-3)
    assert (found["test/correct"][0] == (p.argmax(1).numpy() == data.test.labels)).all()


def test_a_network_learns_what_it_saw(tmp_path):
    pytest.importorskip("torch")
    data = digits_part()
    seeds = np.arange(3, dtype=np.uint64)
    masks = subsets.subset_masks(1, [0, 1, 2], 120, 84)
    found = MLP()(data, masks, seeds, run(tmp_path))
    assert found["train/correct"][masks].mean() > 0.97
    assert found["train/correct"][~masks].mean() < 0.95
    assert found["train/correct"].dtype == bool


def test_batches_are_sized_to_the_memory_that_is_free(monkeypatch):
    pytest.importorskip("torch")
    from memdb.recipes import batches

    data, sizes = digits_part(), []
    for free in (1 << 10, 1 << 26, 1 << 40):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        sizes.append(MLP().models_per_batch(data, "cuda:0"))
    assert sizes[0] == 1
    assert 1 < sizes[1] < sizes[2] <= 1024
    assert MLP().models_per_batch(data, "cpu") <= 128


@pytest.mark.parametrize(
    ("options", "momentum", "device", "adds_up"),
    [
        ({"precision": "bfloat16"}, 0.9, "cuda:0", True),
        (
            {"precision": "bfloat16"},
            0.99,
            "cuda:0",
            False,
        ),  # of equal gradients a quarter would be rounded away
        ({}, 0.99, "cuda:0", True),
        ({"precision": "bfloat16"}, 0.9, "cpu", False),
    ],
)
def test_a_gpu_keeps_a_momentum_in_bfloat16_that_forgets_more_than_it_rounds(
    options, momentum, device, adds_up
):
    recipe = MLP(optimizer="sgd", momentum=momentum, **options)
    assert recipe.keeps_no_gradients(device) is adds_up


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet9"])
def test_labels_that_are_identifiers_are_refused_before_anything_is_allocated(name, tmp_path):
    labels = np.where(np.arange(20) % 2, 900_000_000, 7)
    data = memdb.Dataset(np.zeros((20, 8, 8)), labels, np.zeros((2, 8, 8)), labels[:2])
    with (
        memdb.init(str(tmp_path / "s.zarr"), data, name) as db,
        pytest.raises(InvalidInputError, match="labels go up to 900,000,000, though only 2") as caught,
    ):
        db.train(1)
    assert "numpy.unique" in caught.value.hint


def test_devices_that_are_not_there_are_named():
    torch = pytest.importorskip("torch")
    assert recipes.resolve_device("cpu") == "cpu"
    assert recipes.resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    for name in ("abacus", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(InvalidInputError, match=f"device '{name}' cannot be used"):
            recipes.resolve_device(name)


def numbered(data, masks, seeds, run):
    return {}


numbered.version = 1


@pytest.mark.parametrize(
    "name",
    ["test_recipes:numbered", "test_recipes:INSTANCE", "test_recipes:Forest", "test_recipes:plain", "mlp"],
)
def test_a_recipe_that_a_store_names_is_bound_again_as_it_was(name):
    info = recipes.resolve(name, {"trees": 4} if name.endswith("Forest") else {}).info
    assert recipes.rebind(info).info == info


def test_a_recipe_of_a_newer_version_has_another_fingerprint_not_another_error(monkeypatch):
    info = recipes.resolve("test_recipes:numbered", {}).info
    monkeypatch.setattr(numbered, "version", 2)
    assert recipes.rebind(info).info.fingerprint != info.fingerprint


def test_the_help_of_init_names_every_built_in_recipe_and_data_set():
    importlib.import_module("memdb.cli.train")
    command = typer.main.get_command(app).commands["init"]
    help_of = {option.name: option.help for option in command.params}
    assert [name for name in recipes.BUILT_IN if name not in help_of["recipe"]] == []
    assert [name for name in datasets.BUILT_IN if name not in help_of["dataset"]] == []


def test_a_recipe_in_another_version_is_chosen_by_it_and_bound_again(tmp_path):
    first, second = recipes.resolve("resnet9", {}), recipes.resolve("resnet9", {}, "2")
    assert (first.info.version, second.info.version) == ("1", "2")
    assert first.info.fingerprint != second.info.fingerprint
    assert second.info.fingerprint.startswith("a2de86891ea3")
    assert recipes.rebind(second.info).info == second.info
    assert recipes.rebind(first.info).info == first.info
    with pytest.raises(InvalidInputError, match="has no option 'filter_lr'"):
        recipes.resolve("resnet9", {"filter_lr": 0.1})
    with pytest.raises(InvalidInputError, match="resnet9 has versions 1 and 2, not 3") as caught:
        recipes.resolve("resnet9", {}, "3")
    assert "or 2" in caught.value.hint
