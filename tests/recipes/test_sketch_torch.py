"""Gradient sketches against gradients that autograd computes one example at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import memdb
from memdb.recipes.sketch_torch import signs

SIZE, SEED = 24, 7


def margin(logits, label):
    others = torch.cat([logits[:label], logits[label + 1 :]])
    return logits[label] - others.logsumexp(0)


def projected(gradient, bias, layer, groups=1):
    """Project the gradient of a layer's weights [out, in, ...], explicitly: one sum per number of the sketch."""
    matrix = gradient.reshape(len(gradient), -1)
    if bias is not None:
        matrix = torch.cat([matrix, bias[:, None]], 1)
    r, s = (
        signs(SEED, layer, side, SIZE, width)
        for side, width in (("in", matrix.shape[1]), ("out", matrix.shape[0]))
    )
    return torch.stack([(torch.outer(s[k], r[k]) * matrix).sum() for k in range(SIZE)])


def by_autograd(model, x, y):
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
        found.append(torch.stack(parts).sum(0) / SIZE**0.5)
    return torch.stack(found).numpy()


class Residual(nn.Module):
    """Nested modules, in-place changes after a layer, a shared layer, batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.out = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))

    def forward(self, x):
        x = self.first(x)
        x = x + self.shared(self.shared(x).relu_()).relu_()
        return self.out(x.mean((2, 3)))


MODELS = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 49, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)),
    "strided": lambda: nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    ),
    "dilated, same, circular": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, dilation=2, padding="same", padding_mode="circular"),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(3),
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, groups=8),
        nn.Flatten(), nn.LazyLinear(3),
    ),
    "tokens": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(49, 5), nn.GELU(), nn.Flatten(), nn.LazyLinear(3)),
    "residual": Residual,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_sketch_is_the_projected_gradient_of_each_example(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    x, y = torch.randn(5, 2, 7, 7), torch.tensor([0, 2, 1, 1, 0])
    model(x)  # lazy layers get their shapes, norms their statistics
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = memdb.gradient_sketch(model, x, y, size=SIZE, seed=SEED, batch_size=2)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    np.testing.assert_allclose(found, by_autograd(model, x, y), rtol=1e-4, atol=1e-5)
