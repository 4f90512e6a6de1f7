"""The one kernel that changes and rounds weights: compiled for a GPU that need not be there, and interpreted."""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import memdb
from memdb import Run
from memdb.recipes import mlp_torch
from memdb.recipes.mlp import MLP

pytestmark = pytest.mark.slow


@pytest.fixture
def triton():
    return pytest.importorskip("triton")


def test_the_kernel_compiles_for_a_gpu(triton):
    from memdb.recipes import descent_triton

    types = {"weights": "*fp32", "moments": "*bf16", "rounded": "*bf16", "rate": "fp32", "n": "i32"}
    source = triton.compiler.ASTSource(
        descent_triton.descended, {**types, "part": "constexpr"}, {"part": descent_triton.PART}
    )
    target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
    assert "cvt.rn.bf16" in triton.compile(source, target=target).asm["ptx"]  # rounds to the nearest


@pytest.mark.parametrize("shape", [(1,), (3, 17, 5), (2, 4096), (5, 1000, 3)])
def test_the_kernel_changes_weights_as_pytorch_does(shape, triton, torch, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    path = importlib.util.find_spec("memdb.recipes.descent_triton").origin
    spec = importlib.util.spec_from_file_location("interpreted", path)
    spec.loader.exec_module(interpreted := importlib.util.module_from_spec(spec))
    weights, moments = torch.randn(shape), torch.randn(shape).bfloat16()
    rounded, expected = torch.empty_like(moments), weights - 0.1 * moments.float()
    interpreted.descend(weights, moments, rounded, 0.1)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(rounded.float(), expected, rtol=2**-7, atol=0)  # the interpreter cuts off


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_networks_are_the_same_with_weights_rounded_by_the_step_and_by_the_next(
    weight_decay, tmp_path, monkeypatch
):
    monkeypatch.setattr(MLP, "keeps_no_gradients", lambda _self, _device: True)
    rng = np.random.default_rng(0)
    data = memdb.Dataset(rng.random((60, 6)), np.arange(60) % 3, rng.random((9, 6)), np.arange(9) % 3)
    recipe = MLP(epochs=3, optimizer="sgd", lr=0.05, precision="bfloat16", weight_decay=weight_decay)
    masks, seeds = np.tile(np.arange(60) % 4 > 0, (2, 1)), np.arange(2, dtype=np.uint64)

    def trained():
        run = Run("cpu", lambda _done, _total: None, lambda: False, tmp_path)
        return recipe(data, masks, seeds, run)["test/logit_confidence"]

    def descend(weights, moments, rounded, rate):
        calls.append(rate)
        rounded.copy_(weights.add_(moments, alpha=-rate))

    calls, apart = [], trained()
    assert not calls
    monkeypatch.setattr(mlp_torch, "_in_one_kernel", lambda _device: descend)
    assert_array_equal(trained(), apart)
    assert calls
