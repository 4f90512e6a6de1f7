"""Orthogonal steps, against NumPy's singular values."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def spectral():
    pytest.importorskip("torch")
    from memdb.recipes import spectral

    return spectral


def test_a_matrix_becomes_nearly_orthogonal_whatever_it_is_padded_with(spectral, torch):
    torch.manual_seed(0)
    matrix = torch.randn(6, 20)
    found = spectral.orthogonal(matrix[None])[0]
    u, values, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    assert np.ptp(values) > 2
    assert np.ptp(np.linalg.svd(found.numpy(), compute_uv=False)) < 0.7
    assert (found.numpy() * (u @ v)).sum() > 0.98 * np.linalg.norm(found.numpy()) * np.linalg.norm(u @ v)
    padded = torch.zeros(1, 9, 31)
    padded[0, :6, :20] = matrix
    again = spectral.orthogonal(padded)[0]
    torch.testing.assert_close(again[:6, :20], found)
    assert again[6:].abs().sum() + again[:, 20:].abs().sum() == 0


def test_layers_and_models_of_a_stack_are_changed_as_each_is_alone(spectral, torch):
    torch.manual_seed(0)
    shapes = [(3, 4, 2, 3, 3), (3, 8, 4, 3, 3)]  # models, out, in, height, width

    def changed(models, layers):
        torch.manual_seed(1)
        drawn = [(torch.randn(shape), torch.randn(shape)) for shape in shapes]
        filters = [drawn[layer][0][models].clone() for layer in layers]
        stack = spectral.Stack(filters, 0.6, torch.float32)
        for one, layer in zip(filters, layers, strict=True):
            one.grad = drawn[layer][1][models]
        for _ in range(3):
            stack.step(0.1)
        return filters

    together = changed(slice(None), (0, 1))
    for layer in (0, 1):
        for model in range(3):
            alone = changed(slice(model, model + 1), (layer,))[0][0]
            torch.testing.assert_close(together[layer][model], alone)
        lengths = together[layer].flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((3,), shapes[layer][1] ** 0.5))


def test_filters_without_a_gradient_stay_what_they_are(spectral, torch):
    filters = [torch.ones(1, 4, 2, 3, 3)]
    stack = spectral.Stack(filters, 0.6, torch.float32)
    before = filters[0].clone()
    filters[0].grad = torch.zeros_like(before)
    stack.step(0.1)
    torch.testing.assert_close(filters[0], before)
