"""Gradient sketches against gradients that autograd computes one example at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import memdb
from memdb.errors import InvalidInputError
from memdb.recipes.protocol import SketchRequest

pytestmark = pytest.mark.usefixtures("torch")
SIZE, SEED = 24, 7


def margin(logits, label):
    import torch

    others = torch.cat([logits[:label], logits[label + 1 :]])
    return logits[label] - others.logsumexp(0)


def projected(gradient, bias, layer):
    """Project the gradient of a layer's weights [out, in, ...]: one explicit sum per number of the sketch."""
    import torch

    from memdb.recipes.sketch_torch import signs

    matrix = gradient.reshape(len(gradient), -1)
    if bias is not None:
        matrix = torch.cat([matrix, bias[:, None]], 1)
    r = signs(SEED, layer, "in", SIZE, matrix.shape[1])
    s = signs(SEED, layer, "out", SIZE, matrix.shape[0])
    return torch.stack([(torch.outer(s[k], r[k]) * matrix).sum() for k in range(SIZE)]) / SIZE**0.5


def by_autograd(model, x, y):
    import torch
    from torch import nn

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    found = []
    model.eval()
    for image, label in zip(x, y.tolist(), strict=True):
        model.zero_grad()
        margin(model(image[None])[0], label).backward()
        parts = [
            projected(layer.weight.grad, None if layer.bias is None else layer.bias.grad, number)
            for number, layer in enumerate(layers)
        ]
        found.append(torch.stack(parts).sum(0))
    return torch.stack(found).numpy()


def residual():
    """Nested modules, changes in place after a layer, a layer used twice, batch norm and dropout."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(
                nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
            )
            self.shared = nn.Conv2d(6, 6, 3, padding=1)
            self.out = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))

        def forward(self, x):
            x = self.first(x)
            x = x + self.shared(self.shared(x).relu_()).relu_()
            return self.out(x.mean((2, 3)))

    return Residual()


def models():
    from torch import nn

    flat, last = nn.Flatten, nn.LazyLinear
    return {
        "linear": lambda: nn.Sequential(flat(), nn.Linear(98, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)),
        "strided": lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), nn.Tanh(), flat(), last(3)
        ),
        "padded": lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, dilation=2, padding="same", padding_mode="circular"),
            nn.AdaptiveAvgPool2d(2), flat(), last(3),
        ),
        "grouped": lambda: nn.Sequential(
            nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, groups=8), flat(), last(3),
        ),
        "tokens": lambda: nn.Sequential(flat(2), nn.Linear(49, 5), nn.GELU(), flat(), last(3)),
        "residual": residual,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["linear", "strided", "padded", "grouped", "tokens", "residual"])
def test_a_sketch_is_the_projected_gradient_of_each_example(name, torch):
    torch.manual_seed(0)
    model = models()[name]()
    x, y = torch.randn(5, 2, 7, 7), torch.tensor([0, 2, 1, 1, 0])
    model(x)  # lazy layers get their shapes, norms their statistics
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        found = memdb.gradient_sketch(model, x, y, size=SIZE, seed=SEED, batch_size=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    np.testing.assert_allclose(found, by_autograd(model, x, y), rtol=1e-4, atol=1e-5)


def test_both_ways_of_projecting_give_the_same(torch, monkeypatch):
    """Wide layers are projected at every position, narrow ones form the gradient; rows are cut to fit memory."""
    from memdb.recipes import sketch_torch

    torch.manual_seed(1)
    for shape, size in (((4, 1, 30, 2), 3), ((4, 2, 3, 50), 40)):
        inputs = torch.randn(shape)
        deltas = torch.randn(shape[0], shape[1], 5, shape[3])
        r, s = torch.randn(size, shape[2]), torch.randn(size, shape[1] * 5)
        gradients = torch.einsum("ngpl,ngql->ngpq", inputs, deltas)
        wanted = torch.einsum("kp,ngpq,kgq->nk", r, gradients, s.view(size, shape[1], 5))
        torch.testing.assert_close(sketch_torch.factored(inputs, deltas, r, s), wanted)
    model, x, y = models()["strided"](), torch.randn(9, 2, 7, 7), torch.zeros(9, dtype=torch.long)
    model(x)
    whole = memdb.gradient_sketch(model, x, y, size=SIZE)
    monkeypatch.setattr(sketch_torch, "CACHED_BYTES", 4000)
    np.testing.assert_allclose(memdb.gradient_sketch(model, x, y, size=SIZE), whole, rtol=1e-4, atol=1e-5)


def sketched_batch(kind, x, labels):
    """Sketch the first two of three models as the recipes do; return also their logits and layers in order."""
    import torch

    from memdb.recipes import cnn_torch, grouped, mlp_torch, resnet9_torch
    from memdb.recipes.cnn import CNN
    from memdb.recipes.resnet9 import ResNet9

    generators = [torch.Generator().manual_seed(n) for n in range(3)]
    request = SketchRequest(2, SIZE, SEED)
    if kind == "mlp":
        net = mlp_torch.Network([64, 7, 5, 3], generators, torch.device("cpu"), torch.float32)
        for bias in net.biases:
            bias.normal_()
        found = net.sketches(x.flatten(1), labels, request)
        for parameter in net.parameters:
            parameter.requires_grad_()
        logits = net.activations(x.flatten(1).expand(3, -1, -1))[-1]
        return found, logits, list(zip(net.weights, net.biases, strict=True))
    draw = grouped.Draw(generators, torch.device("cpu"))
    if kind == "cnn":
        net = cnn_torch.Network(CNN(channels=(4, 6)), (8, 8, 1), 3, draw)
        layers = [*zip(net._filters, net._offsets, strict=True), (net._out, net._out_offset)]
    else:
        net = resnet9_torch.Network(ResNet9(width=2), 1, 3, draw)
        (a, b), (c, d) = net._blocks[0], net._blocks[2]
        used = [net._first, net._stages[0], a, b, net._stages[1], net._stages[2], c, d]
        layers = [*((layer.weight, None) for layer in used), (net.out, None)]
    with torch.no_grad():
        for parameter in net.others:
            parameter.add_(torch.randn(parameter.shape) / 3)
    images = x[..., None]
    with torch.no_grad():
        for _ in range(3):
            net(grouped.side_by_side(images.expand(3, *images.shape)), training=True)  # norms get statistics
    found = grouped._sketches(net, images, labels, 3, request)
    return found, net(grouped.side_by_side(images.expand(3, *images.shape)), training=False), layers


@pytest.mark.parametrize("kind", ["mlp", "cnn", "resnet9"])
def test_a_batch_sketches_each_of_its_first_models(kind, torch, monkeypatch):
    from memdb.recipes import grouped, mlp_torch

    monkeypatch.setattr(grouped, "SKETCHED_ROWS", 3)
    monkeypatch.setattr(mlp_torch, "EVALUATION_ROWS", 3)
    torch.manual_seed(2)
    x, labels = torch.rand(5, 8, 8), torch.tensor([0, 2, 1, 1, 0])
    found, logits, layers = sketched_batch(kind, x, labels)
    assert (found.shape, found.dtype) == ((2, 5, SIZE), np.float16)
    tensors = [tensor for layer in layers for tensor in layer if tensor is not None]
    for model in range(2):
        for row, label in enumerate(labels.tolist()):
            given = iter(torch.autograd.grad(margin(logits[model, row], label), tensors, retain_graph=True))
            wanted = torch.zeros(SIZE)
            for number, (_, bias) in enumerate(layers):
                weight = next(given)[model]
                offset = None if bias is None else next(given)[model].flatten()
                wanted += projected(weight.T if kind == "mlp" else weight, offset, number)
            np.testing.assert_allclose(found[model, row], wanted.numpy(), rtol=2e-3, atol=2e-3)


def test_a_recipe_sketches_what_is_asked_whatever_the_batch(torch, tmp_path):
    from memdb import datasets
    from memdb.format import subsets
    from memdb.recipes.cnn import CNN
    from memdb.recipes.mlp import MLP
    from memdb.recipes.resnet9 import ResNet9

    whole = datasets.load("digits")
    data = memdb.Dataset(
        whole.train.array[:30], whole.train.labels[:30], whole.test.array[:6], whole.test.labels[:6]
    )
    seeds = np.arange(3, dtype=np.uint64)
    masks = subsets.subset_masks(1, seeds.tolist(), 30, 21)
    run = memdb.Run("cpu", lambda done, total: None, lambda: False, tmp_path)
    for recipe in (
        MLP(epochs=1, hidden=(6,)), CNN(epochs=1, channels=(4,)), ResNet9(epochs=1, width=2, precision="float32")
    ):  # fmt: skip
        assert "train/gradient_sketch" not in recipe(data, masks, seeds, run)
        together = recipe(data, masks, seeds, replace(run, sketch=SketchRequest(2, SIZE, SEED)))
        alone = recipe(data, masks[1:2], seeds[1:2], replace(run, sketch=SketchRequest(1, SIZE, SEED)))
        assert together["test/gradient_sketch"].shape == (2, 6, SIZE)
        np.testing.assert_allclose(
            together["train/gradient_sketch"][1], alone["train/gradient_sketch"][0], rtol=0.02, atol=0.02
        )


@pytest.mark.slow
def test_torchvision_s_classifiers_are_sketched_too(torch, tmp_path):
    pytest.importorskip("torchvision")
    from memdb.store.read_sketches import read_sketches

    chance = np.random.default_rng(0)
    train, test = (chance.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (12, 5))
    data = memdb.Dataset(train, np.arange(12) % 3, test, np.arange(5) % 3)
    options = {"image_size": 32, "epochs": 1, "batch_size": 4, "precision": "float32"}
    with memdb.init(
        str(tmp_path / "a.zarr"), data, "torchvision:mobilenet_v3_small", recipe_options=options,
        sketches=1, sketch_size=SIZE,
    ) as db:  # fmt: skip
        db.train(add=2, device="cpu", batch_models=2)
        found = read_sketches(db.snapshot, "train")
        assert (found.models.tolist(), found.values.shape) == ([0], (1, 12, SIZE))
        assert np.isfinite(found.values).all()
        assert (found.values.std(axis=1) > 0).all()


def test_a_model_that_cannot_be_sketched_is_refused_in_a_sentence(torch):
    from torch import nn

    linear, x = nn.Linear(4, 3), torch.randn(5, 4)
    y = torch.zeros(5, dtype=torch.long)
    frozen = nn.Sequential(nn.Flatten(), linear)
    frozen.requires_grad_(requires_grad=False)
    assert memdb.gradient_sketch(frozen, x, y, size=3).shape == (5, 3)  # weights play no part
    cases = [
        ({"model": nn.Flatten()}, "no layer to sketch"),
        ({"size": 0}, "a sketch of size 0"),
        ({"size": 10**6}, "a sketch of size 1000000"),
        ({"y": y[:4]}, "5 examples and 4 labels"),
        ({"y": y + 3}, "the label 3 is not one of the 3 classes"),
        ({"y": y.float()}, "labels are not integers"),
        ({"model": wrapped(linear)}, "returns a tuple"),
    ]
    for changed, said in cases:
        given = {"model": linear, "x": x, "y": y, "size": 3, **changed}
        with pytest.raises(InvalidInputError, match=said):
            memdb.gradient_sketch(given.pop("model"), given.pop("x"), given.pop("y"), **given)


def wrapped(inner):
    from torch import nn

    class Wrapped(nn.Module):
        def forward(self, x):
            return inner(x), None

    return Wrapped()
