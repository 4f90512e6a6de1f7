"""Devices by name, and what is asked of PyTorch about GPUs: its functions are replaced, no GPU is needed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support import TESTS

import memdb
from memdb import recipes
from memdb.recipes import devices
from memdb.recipes.cnn import CNN
from memdb.recipes.device_failure import device_failure
from memdb.recipes.mlp import MLP


@pytest.fixture
def two_gpus(torch, monkeypatch):
    """PyTorch's answers on a machine with two GPUs; `current` is the one that is, and `asked` what was asked."""
    gpus = SimpleNamespace(current=0, asked=[])

    @contextlib.contextmanager
    def device(name):
        before, gpus.current = gpus.current, torch.device(name).index
        try:
            yield
        finally:
            gpus.current = before

    def note(name, answer=None):
        def answered(*args, **_options):
            gpus.asked.append((name, gpus.current, *args))
            return answer

        monkeypatch.setattr(torch.cuda, name, answered)

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: f" NVIDIA  H{torch.device(name).index}00")
    note("get_rng_state", torch.zeros(16, dtype=torch.uint8))
    for name in ("set_rng_state", "manual_seed", "empty_cache"):
        note(name)
    return gpus


def test_workers_take_the_gpus_in_turn_and_a_model_names_the_make_of_its_own(two_gpus, torch, monkeypatch):
    assert recipes.resolve_device("auto") == "cuda:0"
    assert recipes.worker_devices("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert recipes.name_of("cuda:1") == "cuda:1 (NVIDIA H100)"
    assert recipes.name_of("cpu") == "cpu"
    assert devices.with_make("cuda:0", "") == "cuda:0"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert recipes.worker_devices("auto", 3) == ["cuda:0"] * 3


@pytest.mark.parametrize(("kind", "chosen"), [("xpu", "xpu:0"), ("mps", "mps")])
def test_auto_takes_a_gpu_of_another_make(kind, chosen, torch, monkeypatch):
    for other in ("cuda", "xpu", "mps"):
        module = torch.backends.mps if other == "mps" else getattr(torch, other)
        monkeypatch.setattr(module, "is_available", lambda other=other: other == kind)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda name: "Intel Max 1550")
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4", raising=False)
    assert recipes.resolve_device("auto") == chosen
    assert recipes.name_of(chosen) in {"xpu:0 (Intel Max 1550)", "mps (Apple M4)"}


def test_a_gpu_is_current_while_a_recipe_trains_on_it(two_gpus, tmp_path, monkeypatch, torch):
    current = []

    def watching(data, masks, seeds, run):
        current.append(two_gpus.current)
        return {
            f"{name}/correct": np.zeros((len(masks), len(part)), bool) for name, part in data.sets.items()
        }

    watching.version = "1"
    monkeypatch.setattr(torch, "empty", lambda *a, **k: current.append(two_gpus.current))
    data = memdb.Dataset(np.zeros((6, 2)), [0, 1] * 3, np.zeros((2, 2)), [0, 1])
    with memdb.init(str(tmp_path / "s.zarr"), data, watching) as db:
        db.train(1, device="cuda:1")
        assert db.snapshot.models[0][1].device == "cuda:1 (NVIDIA H100)"
    assert current == [1, 1]  # when it was tried, and when it trained
    assert two_gpus.current == 0


def test_memory_that_pytorch_keeps_for_later_is_free_and_the_hosts_counts_too(torch, monkeypatch):
    from memdb.recipes import batches

    gigabyte = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * gigabyte, 80 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70 * gigabyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: gigabyte)
    assert batches.free_memory("cuda:1") == 71 * gigabyte
    memory = batches.Memory(shared=gigabyte, a_model=gigabyte, on_host=1 << 20)
    assert batches.models_that_fit(memory, "cuda:1", on_cpu=8) == int(71 * batches.MOST_OF_A_DEVICE) - 1
    monkeypatch.setattr(batches.psutil, "virtual_memory", lambda: SimpleNamespace(available=20 << 20))
    assert batches.models_that_fit(memory, "cuda:1", on_cpu=8) == 10


@pytest.mark.parametrize(("precision", "lowered"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_a_precision_means_one_thing_for_convolutions_and_matrix_products(precision, lowered, torch):
    from memdb.recipes.precision import products

    def settings():
        parts = (torch.backends.cuda.matmul, torch.backends.cudnn)
        return [*(part.allow_tf32 for part in parts), torch.backends.cudnn.benchmark]

    def found():
        parts = (torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", torch.backends.cudnn))
        values = [getattr(part, "fp32_precision", None) or part.allow_tf32 for part in parts]
        return [value in {True, "tf32"} for value in values], torch.backends.cudnn.benchmark

    before = settings()
    with products("cuda:1", precision):
        assert found() == ([lowered, lowered], True)
    assert settings() == before
    with products("cpu", precision):
        assert settings() == before


@pytest.mark.parametrize("recipe", [MLP, CNN])
def test_tf32_on_a_cpu_is_float32_and_in_the_fingerprint_where_it_is_named(recipe, torch, tmp_path):
    rng = np.random.default_rng(0)
    data = memdb.Dataset(rng.random((12, 8, 8)), [0, 1] * 6, rng.random((4, 8, 8)), [0, 1] * 2)
    run = memdb.Run("cpu", lambda done, total: None, lambda: False, tmp_path)
    plain, lowered = (recipe(epochs=1, **options) for options in ({}, {"precision": "tf32"}))
    arguments = data, np.ones((1, 12), bool), np.zeros(1, np.uint64), run
    for path, values in plain(*arguments).items():
        np.testing.assert_array_equal(values, lowered(*arguments)[path])
    assert recipes.bind(plain).info.fingerprint != recipes.bind(lowered).info.fingerprint


def test_what_a_model_draws_on_a_gpu_is_kept_and_put_back_there(two_gpus, torch):
    from memdb.recipes.torchvision_torch import _chance_of

    with devices.current("cuda:1"), _chance_of(torch.device("cuda:1"), 7):
        pass
    assert [(name, gpu) for name, gpu, *_ in two_gpus.asked] == [
        ("get_rng_state", 1),
        ("manual_seed", 1),
        ("set_rng_state", 1),
    ]


def test_threads_pin_memory_for_the_gpu_of_their_worker(two_gpus, torch, monkeypatch):
    from memdb.recipes.augmentation import Augmentation
    from memdb.recipes.batches import Schedule
    from memdb.recipes.mlp_torch import Start

    empty, pinned = torch.empty, []

    def watched(*shape, pin_memory=False, **options):
        pinned.append((pin_memory, two_gpus.current))
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", watched)
    gpu, generators = torch.device("cuda:1"), [torch.Generator().manual_seed(n) for n in range(2)]
    orders = [orders for orders, _ in Schedule(2, 4, Augmentation())._drawn(9, generators, gpu)]
    assert [order.dtype for order in orders] == [torch.int32] * 2
    recipe = recipes.resolve("mlp", {"hidden": 3})
    data = memdb.Dataset(np.zeros((6, 2)), [0, 1] * 3, np.zeros((2, 2)), [0, 1])
    assert isinstance(recipe.prepare(data, np.arange(2, dtype=np.uint64), "cuda:1"), Start)
    assert pinned == [(True, 1)] * 4
    assert recipe.prepare(data, np.arange(2, dtype=np.uint64), "cpu") is None
    assert two_gpus.current == 0


def test_on_the_cpu_no_gpu_is_asked_for_anything(two_gpus, torch, tmp_path):
    from memdb.recipes import torchvision_torch as program
    from memdb.recipes.torchvision_adapter import Architecture

    data = memdb.Dataset(np.zeros((6, 8, 8)), [0, 1] * 3, np.zeros((2, 8, 8)), [0, 1])
    recipe = Architecture("shufflenet_v2_x0_5", image_size=32, epochs=1, batch_size=6)
    run = memdb.Run("cpu", lambda done, total: None, lambda: False, tmp_path)
    before = torch.get_rng_state()
    with program._chance_of(torch.device("cpu"), 7):
        training = program.Training.start(recipe, data, np.ones(6, bool), 7, run)
        training.save()
        training.resume()
    assert (torch.get_rng_state() == before).all()
    MLP(epochs=1, optimizer="sgd")(data, np.ones((1, 6), bool), np.zeros(1, np.uint64), run)
    devices.release("cpu")
    assert two_gpus.asked == []
    assert not torch.cuda.is_initialized()


def test_the_failure_of_a_device_is_told_from_errors_of_a_recipe():
    failed = RuntimeError("CUDA error: an illegal memory access was encountered\nfor debugging ...")
    wrapped = ValueError("training failed")
    wrapped.__cause__ = failed
    assert device_failure(wrapped) == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert device_failure(RuntimeError("HIP error: the operation cannot be performed")) is not None
    assert device_failure(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")) is not None
    for other in (
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("CUDA error"),
    ):
        assert device_failure(other) is None


@pytest.mark.parametrize(
    ("says", "exact"), [(None, True), (RuntimeError("not on ROCm"), False), (TypeError(), False)]
)
def test_products_of_bfloat16_are_used_where_their_sums_are_exact(says, exact, torch, monkeypatch):
    from memdb.query.pairs import kernel_torch

    def mm(left, right, out_dtype):
        if says:
            raise says
        return left.to(out_dtype) @ right.to(out_dtype)

    monkeypatch.setattr(torch, "mm", mm)
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *shape, dtype, device: ones(*shape, dtype=dtype))
    assert kernel_torch.sums_in_float32(torch.device("cuda:0")) is exact
    assert not kernel_torch.sums_in_float32(torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "task_gpus", "n_gpus", "expected"),
    [
        ("auto", None, 4.0, ("cuda:0", 1.0)),
        ("auto", 0.0, 4.0, ("cpu", 0.0)),
        ("cuda", 0.5, 4.0, ("cuda:0", 0.5)),
        ("cpu", None, 4.0, ("cpu", 0.0)),
        ("auto", None, 0.0, ("cpu", 0.0)),
    ],
)
def test_a_ray_task_asks_for_as_many_gpus_as_it_is_told(name, task_gpus, n_gpus, expected):
    engine = pytest.importorskip("memdb.training.engines.ray", exc_type=ImportError)
    request = engine.Request("auto", None, 1, task_gpus)
    assert engine._device(name, request, {"GPU": n_gpus, "CPU": 8}) == expected


@pytest.mark.slow
def test_recipes_on_a_simulated_device_do_as_on_the_cpu():
    """In a process of its own, since PyTorch counts its devices once, at the first backward pass."""
    file = TESTS / "support" / "on_a_simulated_device.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "-m",
        "",
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "skipped" in done.stdout and "passed" not in done.stdout and done.returncode in {0, 5}:
        pytest.skip("this PyTorch has no backends written in Python")
    assert done.returncode == 0, done.stdout + done.stderr
