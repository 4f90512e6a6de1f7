"""Steps of `gpu_run.py` that compare: the device's own rates, and what memdb counts and trains on it with the CPU."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu_memdb import (
    DEVICE,
    Call,
    PairBits,
    PairChoice,
    PairSearch,
    attempt,
    bits,
    fresh,
    kernel_on,
    recipe_of,
    run_on,
    subsets_of,
    timed,
)
from numpy.typing import NDArray
from torch.nn import functional

from memdb import Dataset

SIGNALS = frozenset({"cumulative_loss", "first_learned"})
LAYERS = (  # in, out, side
    (3, 64, 32),
    (64, 128, 32),
    (128, 128, 16),
    (128, 256, 16),
    (256, 512, 8),
    (512, 512, 4),
)


def facts(_call: Call, _seconds: float) -> None:
    """Say what the machine is and how fast: copies, products, uploads, launches."""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    versions = f"torch {torch.__version__}, cuda {torch.version.cuda}, cudnn {cudnn}"
    print(f"  python {platform.python_version()}, {versions}, {os.cpu_count()} cores")
    if DEVICE == "cpu":
        print("  no GPU")
        return
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    print(f"  {torch.cuda.get_device_name(0)}, memory free and in all {torch.cuda.mem_get_info()}")
    print(f"  products {precision}, cudnn tf32 {tf32}, benchmark {torch.backends.cudnn.benchmark}")
    pair = [torch.empty(1 << 31, dtype=torch.uint8, device=DEVICE) for _ in range(2)]
    print(f"  copy {2 * pair[0].numel() / timed(lambda: pair[1].copy_(pair[0])) / 1e12:.2f} TB/s")
    pair.clear()
    n = 8192
    for dtype, products in (
        (torch.float32, "highest"),
        (torch.float32, "high"),
        (torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(products)
        x = torch.randn(n, n, device=DEVICE, dtype=dtype)
        took = timed(partial(torch.mm, x, x))
        print(f"  products of {dtype}, {products}: {2 * n**3 / took / 1e12:.0f} TFLOP/s")
    torch.set_float32_matmul_precision("highest")
    there = torch.empty(64 << 20, dtype=torch.uint8)
    pinned = there.pin_memory()
    rates = [there.numel() / timed(partial(x.to, DEVICE, non_blocking=True)) / 1e9 for x in (there, pinned)]
    print(f"  upload {rates[0]:.1f} GB/s, pinned {rates[1]:.1f}")
    v = torch.zeros(1, device=DEVICE)
    print(f"  {timed(lambda: [v.add_(1) for _ in range(1000)]) * 1e3:.2f} us a launch")


def patterns(n_train: int, n_test: int) -> Dataset:
    """Return pictures of a pattern a class and noise, which any recipe can learn."""
    rng = np.random.default_rng(0)
    of_class = rng.random((10, 12, 12, 3))

    def made(n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        y = np.concatenate([np.arange(10), rng.integers(0, 10, n - 10)])
        noise = rng.random((n, 12, 12, 3))
        return (255 * np.clip(0.6 * of_class[y] + 0.4 * noise, 0, 1)).astype(np.uint8), y

    return Dataset(*made(n_train), *made(n_test))


def recipes(call: Call, _seconds: float) -> None:
    """Train every recipe on the device and on the CPU: one model, and a batch of eight."""
    data = patterns(*((60, 20) if call.tiny else (300, 100)))
    train, test = data.train, data.test
    grey = Dataset(train.array[..., 0], train.labels, test.array[..., 0], test.labels)
    moved: dict[str, Any] = {"flip": True, "shift": 1, "cutout": 3}
    sgd: dict[str, Any] = {"hidden": [64, 32], "optimizer": "sgd", "lr": 0.05}
    small: dict[str, Any] = {"width": 8, "batch_size": 70, "shift": 1, "lr": 0.05, "precision": "float32"}
    resnet18: dict[str, Any] = {
        "image_size": 32,
        "epochs": 1,
        "batch_size": 70,
        "precision": "float32",
        "lr": 0.01,
    }
    cases = (
        ("mlp, adamw", recipe_of("mlp", epochs=2), data),
        ("mlp, sgd, augmented", recipe_of("mlp", epochs=2, **sgd, **moved), data),
        ("cnn", recipe_of("cnn", epochs=2), data),
        ("cnn, grey, augmented", recipe_of("cnn", epochs=2, **moved), grey),
        ("resnet9", recipe_of("resnet9", epochs=1, **small), data),
        ("resnet9 version 2", recipe_of("resnet9", version="2", epochs=1, **small), data),
        ("torchvision:resnet18", recipe_of("torchvision:resnet18", **resnet18), data),
    )
    for name, recipe, examples in cases:
        with attempt(name):
            print(f"  {name:22} {'; '.join(_compared(call, recipe, examples))}", flush=True)


def _compared(call: Call, recipe: Any, data: Dataset) -> list[str]:
    """Say how far the device's models are from the CPU's, and from themselves."""
    kept = SIGNALS & getattr(recipe, "outcomes", frozenset())
    masks, seeds = subsets_of(8 if kept else 1, len(data.train))

    def trained(one: Any, device: str, n_models: int) -> Any:
        return one(data, masks[:n_models], seeds[:n_models], run_on(device, call, kept))

    cpu = trained(recipe, "cpu", 1)
    said = []
    for label in ("tf32", "float32"):
        one = replace(recipe, precision=label)
        alone, batch = trained(one, DEVICE, 1), trained(one, DEVICE, len(seeds))
        far = [_distance(cpu, one, "test/logit_confidence") for one in (alone, batch)]
        turned = [int((cpu["test/correct"][0] != one["test/correct"][0]).sum()) for one in (alone, batch)]
        said.append(
            f"{label}: off by {far[0]:.1e} alone, {far[1]:.1e} of {len(seeds)}, turned {turned} of {len(data.test)}"
        )
    said += [f"{name} off by {_distance(cpu, batch, f'train/{name}'):.1e}" for name in sorted(kept)]
    again = trained(recipe, DEVICE, len(seeds))
    said.append(f"run twice: off by {_distance(batch, again, 'test/logit_confidence'):.1e}")
    low = trained(replace(recipe, precision="bfloat16"), DEVICE, len(seeds))
    return [*said, f"bfloat16 turns {int((low['test/correct'][0] != cpu['test/correct'][0]).sum())}"]


def _distance(a: Any, b: Any, path: str) -> float:
    """Return how far the first model's values are apart."""
    return float(np.nanmax(np.abs(np.asarray(a[path][0], float) - np.asarray(b[path][0], float))))


def sieve(call: Call, _seconds: float) -> None:
    """Search pairs on the device and on the CPU: the same ones, then how fast."""
    choices = (
        PairChoice(top=5),
        PairChoice(min_influence=0.1, direction="both"),
        PairChoice(top=5, same_class=True),
    )
    for n_models in (37, 300) if call.tiny else (37, 300, 5000):
        for choice in choices:
            with attempt(f"sieve of {n_models}, {choice}"):
                cpu = PairSearch(_outcomes(n_models, 2000, 600), choice, tally=True)
                ours, z = _found(cpu)
                theirs, other_z = _found(replace(cpu, kernel=kernel_on(DEVICE), threads=2))
                off = int(np.abs(np.cumsum(z - other_z, axis=1)).max())
                which = f"{n_models} models, {choice.direction}, same class {choice.same_class}"
                same = np.array_equal(ours, theirs)
                print(f"  {which}: {ours.shape[1]} pairs, same {same}, z bins off by {off}", flush=True)
    n_train, n_test, n_models = (2000, 600, 100) if call.tiny else (50_000, 10_000, 1000)
    search = PairSearch(_outcomes(n_models, n_train, n_test), PairChoice(top=10), tally=True)
    for name, one in (
        ("device", replace(search, kernel=kernel_on(DEVICE), threads=2)),
        ("device, one thread", replace(search, kernel=kernel_on(DEVICE), threads=1)),
        ("cpu", search),
    ):
        with attempt(f"rate, {name}"):
            started = time.perf_counter()
            _found(one)
            took = time.perf_counter() - started
            rate = n_train * n_test * n_models / took / 1e9
            print(
                f"  {name}: {n_train:,} x {n_test:,} pairs of {n_models} models in {took:.2f} s, {rate:.0f} G/s"
            )


def _outcomes(n_models: int, n_train: int, n_test: int) -> PairBits:
    """Return outcomes of which every third test example hangs on a training example."""
    rng = np.random.default_rng(n_models)
    masks = rng.random((n_models, n_train), dtype=np.float32) < 0.7
    right = rng.random((n_models, n_test), dtype=np.float32) < rng.choice([0.0, 0.5, 0.9, 1.0], n_test)
    for test in range(0, n_test, 3):
        right[:, test] |= masks[:, rng.integers(n_train)]
    labels = [rng.integers(0, 10, n).astype(np.int32) for n in (n_train, n_test)]
    counts = [values.sum(axis=0).astype(np.int32) for values in (masks, right)]
    words = [bits.words(bits.pack(values)) for values in (masks, right)]
    return PairBits(n_models, words[0], labels[0], rng.random(n_train), words[1], labels[1], *counts)


def _found(search: PairSearch) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return test ids, train ids and sums of the pairs found, and the histogram of all z."""
    blocks = list(search.blocks())
    pairs = [np.stack([block.test_id, block.train_id, block.sums]) for block in blocks]
    return np.concatenate(pairs, axis=1), np.sum(
        [block.z_histogram for block in blocks if block.z_histogram is not None], axis=0
    )


def convolutions(call: Call, _seconds: float) -> None:
    """Time resnet9's convolutions forward and backward: one model, and eight side by side as groups."""
    rows, n, layers = (4, 2, LAYERS[:2]) if call.tiny else (508, 8, LAYERS)
    print(f"  ms a model and step, both ways, bfloat16, {rows} images; the grouped ones of {n} models")
    ways = (  # groups, channels last, cuDNN's benchmark
        ("one", 1, True, False),
        ("one, benchmark", 1, True, True),
        ("grouped", n, True, False),
        ("grouped, benchmark", n, True, True),
        ("grouped, channels first", n, False, True),
    )
    totals = dict.fromkeys((name for name, *_ in ways), 0.0)
    for layer in layers:
        n_in, n_out, side = layer
        flops = 3 * 2 * 9 * n_in * n_out * side**2 * rows
        line = f"  {n_in:4} -> {n_out:4} at {side:2}: "
        for name, groups, last, benchmark in ways:
            with attempt(name):
                torch.backends.cudnn.benchmark = benchmark
                took = _convolved(layer, rows, groups, last=last)
                totals[name] += took * (2 if n_in == n_out else 1)  # such layers come in pairs
                line += f"{name} {took * 1e3:7.3f} ({flops / took / 1e12:5.1f} TFLOP/s)  "
        print(line, flush=True)
        fresh()
    print("  all layers: " + ", ".join(f"{name} {1e3 * took:.2f}" for name, took in totals.items()))


def _convolved(layer: tuple[int, int, int], rows: int, groups: int, *, last: bool) -> float:
    """Return the seconds a model of one layer, forward and backward."""
    n_in, n_out, side = layer
    form = torch.channels_last if last else torch.contiguous_format
    there: dict[str, Any] = {"device": DEVICE, "dtype": torch.bfloat16}
    x = torch.randn(rows, groups * n_in, side, side, **there).to(memory_format=form)
    x.requires_grad_(n_in > 3)  # images want no gradient
    w = torch.randn(groups * n_out, n_in, 3, 3, **there, requires_grad=True)
    gradient = torch.randn_like(functional.conv2d(x, w, padding=1, groups=groups))

    def both() -> None:
        torch.autograd.backward(functional.conv2d(x, w, padding=1, groups=groups), gradient)
        x.grad = w.grad = None

    return timed(both, 3) / groups
