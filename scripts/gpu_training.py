"""Steps of `gpu_run.py` that train: MNIST's preset in several sizes, and CIFAR-100 into a store."""

from __future__ import annotations

import contextlib
import gzip
import io
import signal
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_memdb import (
    DEVICE,
    Call,
    attempt,
    datasets,
    finished,
    fresh,
    memdb,
    peak_memory,
    recipe_of,
    run_on,
    subsets_of,
    wait,
)
from numpy.typing import NDArray

from memdb import Dataset

PIECE = 15 << 20  # bytes of a part of the store that comes back
MOST_PIECES = 4  # after which no model is trained
PROFILED_STEPS = 5
SECONDS_BETWEEN = 45.0  # until the store is packed again
PRODUCTS_A_MODEL = 6 * 535_040 - 2 * 401_408  # FLOPs an example of MNIST's preset; images want no gradient
PRODUCTS_OF_RESNET9 = 2.28e9  # FLOPs an image of 32 x 32 at a width of 64
PRECISIONS = ("float32", "tf32", "bfloat16")
MNIST_RUNS = (  # models, epochs, precision
    *(
        (n, epochs, precision)
        for n, epochs in ((1, 1), (64, 1), (256, 2), (1000, 2))
        for precision in PRECISIONS
    ),
    (1000, 10, "tf32"),
)


class Enough(Exception):  # noqa: N818 - no error: as many steps as were wanted
    """Ends a training that has been timed."""


def mnist(call: Call, seconds: float) -> None:
    """Train Feldman and Zhang's preset: batches of several sizes and precisions against one model."""
    data = _mnist(call)
    recipe = recipe_of("mlp", dataset="mnist")
    until = time.monotonic() + seconds - 15
    print(f"  wanted a batch: {recipe.models_per_batch(data, DEVICE)}; precision {recipe.precision}")
    for run in ((1, 1, "float32"), (3, 1, "bfloat16")) if call.tiny else MNIST_RUNS:
        if time.monotonic() > until:
            print("  out of time")
            break
        with attempt(f"mnist {run}"):
            _timed_mnist(call, data, recipe, run)


def _mnist(call: Call) -> Dataset:
    def read(name: str) -> NDArray[np.uint8]:
        raw = gzip.decompress((call.data / f"{name}-ubyte.gz").read_bytes())
        if "images" in name:
            return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
        return np.frombuffer(raw, np.uint8, offset=8)

    names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    train_x, train_y, test_x, test_y = (read(name)[: 1000 if call.tiny else None] for name in names)
    return Dataset(train_x, train_y, test_x, test_y)


def _timed_mnist(call: Call, data: Dataset, recipe: Any, run: tuple[int, int, str]) -> None:
    n, epochs, precision = run
    fresh()
    marks: list[float] = []

    def watch(done: int, total: int) -> None:
        if done in {1, total}:
            wait()
            marks.append(time.perf_counter())

    masks, seeds = subsets_of(n, len(data.train))
    started = time.perf_counter()
    some = replace(recipe, epochs=epochs, precision=precision)
    found = some(data, masks, seeds, run_on(DEVICE, call, watch=watch))
    ended = time.perf_counter()
    size = int(masks[0].sum())
    n_steps = epochs * -(-size // recipe.batch_size)
    stepping = marks[-1] - marks[0]
    whole = (marks[0] - started) + stepping / epochs * 10 + (ended - marks[-1])
    rate = n * epochs * size * PRODUCTS_A_MODEL / stepping / 1e12
    print(
        f"  {n:5} models, {epochs:2} epochs, {precision}: set up in {marks[0] - started:.2f} s, "
        f"{1e3 * stepping / max(1, n_steps - 1):.3f} ms a step, evaluated in {ended - marks[-1]:.2f} s; "
        f"{whole / n:.4f} s a model of 10 epochs; {rate:.1f} TFLOP/s; {peak_memory():.1f} GiB; "
        f"test {found['test/correct'].mean():.4f}",
        flush=True,
    )


def kernels(call: Call, _seconds: float) -> None:
    """Say how long the steps of presets take, and which kernels that time goes to."""
    rng = np.random.default_rng(0)
    n = 600 if call.tiny else 50_000
    pictures = Dataset(
        rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        rng.permutation(np.arange(n) % 100),
        rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8),
        rng.permutation(np.arange(200) % 100),
    )
    mnist = _mnist(call)
    many = 3 if call.tiny else 1000
    cases = (
        *(
            (
                f"mnist, {n} models, {precision}",
                recipe_of("mlp", dataset="mnist", precision=precision),
                mnist,
                n,
            )
            for n, precision in ((1, "float32"), (many, "tf32"), (many, "bfloat16"))
        ),
        *(
            (f"resnet9 version {version}", recipe_of("resnet9", version=version, **call.options), pictures, 1)
            for version in ("1", "2")
        ),
    )
    for name, recipe, data, n_models in cases:
        with attempt(name):
            _profiled(call, name, recipe, data, n_models)


def _profiled(call: Call, name: str, recipe: Any, data: Dataset, n_models: int) -> None:
    fresh()
    first, last = (1, 3) if call.tiny else (20, 40)
    marks: list[float] = []
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    profile = torch.profiler.profile(activities=activities[: 1 + torch.cuda.is_available()], acc_events=True)

    def watch(done: int, _total: int) -> None:
        if done in {first, last}:
            wait()
            marks.append(time.perf_counter())
        if done == last:
            profile.start()
        if done == last + PROFILED_STEPS:
            wait()
            profile.stop()
            raise Enough

    masks, seeds = subsets_of(n_models, len(data.train))
    with contextlib.suppress(Enough):
        recipe(data, masks, seeds, run_on(DEVICE, call, watch=watch))
    step = 1e3 * (marks[1] - marks[0]) / (last - first)
    on_gpu = [one for one in profile.key_averages() if one.device_type != torch.profiler.DeviceType.CPU]
    busy = sum(one.self_device_time_total for one in on_gpu) / PROFILED_STEPS / 1e3
    n_kernels = sum(one.count for one in on_gpu) / PROFILED_STEPS
    print(
        f"  {name}: {step:.3f} ms a step, {busy:.3f} ms of it in {n_kernels:.0f} kernels; {peak_memory():.1f} GiB"
    )
    for one in sorted(on_gpu, key=lambda one: -one.self_device_time_total)[:14]:
        took = one.self_device_time_total / PROFILED_STEPS / 1e3
        print(f"    {took:8.3f} ms {one.count / PROFILED_STEPS:6.1f} x {one.key[:130]}", flush=True)


def unpack(call: Call, _seconds: float) -> None:
    """Unpack CIFAR-100, which comes as archives of images in folders named for their classes."""
    for archive in sorted(call.data.glob("*.tar.gz")):
        with tarfile.open(archive) as tar:
            tar.extractall(call.data, filter="data")
    n_images = [len(list((call.data / name).glob("*/*.png"))) for name in ("train", "test")]
    print(f"  {n_images[0]} training and {n_images[1]} test images")


def cifar(call: Call, seconds: float) -> None:
    """Time steps and whole models of both versions of resnet9."""
    until = time.monotonic() + seconds - 15
    started = time.perf_counter()
    data = datasets.load("imagefolder", str(call.data))
    n_images = len(data.train.array) + len(data.test.array)
    print(f"  {n_images} images read in {time.perf_counter() - started:.1f} s")
    for version in ("2", "1"):
        if time.monotonic() > until:
            print("  out of time")
            return
        with attempt(f"resnet9 version {version}"):
            recipe = recipe_of("resnet9", version=version, **call.options)
            print(f"  version {version}, {dict(recipe.options)}")
            _timed_step(call, data, recipe)  # compiles, so that the whole model need not
            _whole_model(call, data, recipe)


def _whole_model(call: Call, data: Dataset, recipe: Any) -> None:
    """Train one model, and say how long it took and what it got right."""
    fresh()
    masks, seeds = subsets_of(1, len(data.train))
    started = time.perf_counter()
    found = recipe(data, masks, seeds, run_on(DEVICE, call))
    took = time.perf_counter() - started
    inside, outside = found["train/correct"][masks].mean(), found["train/correct"][~masks].mean()
    accuracy = f"test {found['test/correct'].mean():.4f}, in {inside:.4f}, out {outside:.4f}"
    print(f"  a whole model in {took:.1f} s: {accuracy}", flush=True)


def _timed_step(call: Call, data: Dataset, recipe: Any) -> None:
    """Say what a step takes, by some steps after those that warm up."""
    fresh()
    first, last = (1, 4) if call.tiny else (6, 26)
    limit = time.monotonic() + 20
    marks: list[tuple[int, float]] = []

    def watch(done: int, total: int) -> None:
        if done in {first, last, total} or (done > first and time.monotonic() > limit):
            wait()
            marks.append((done, time.perf_counter()))
        if len(marks) > 1:
            raise Enough

    masks, seeds = subsets_of(1, len(data.train))
    with contextlib.suppress(Enough):
        recipe(data, masks, seeds, run_on(DEVICE, call, watch=watch))
    (a, t), (b, u) = marks[0], marks[-1]
    step = (u - t) / (b - a)
    size = int(masks[0].sum())
    n_steps = -(-size // recipe.batch_size)
    rate = PRODUCTS_OF_RESNET9 * (recipe.width / 64) ** 2 * size / n_steps / step / 1e12
    whole = f"{step * n_steps * recipe.epochs:.1f} s a model of {recipe.epochs} epochs"
    print(f"  {1e3 * step:.2f} ms a step, {whole}, about {rate:.0f} TFLOP/s; {peak_memory():.1f} GiB")


def command(call: Call, _seconds: float) -> None:
    """Train 2,000 networks of MNIST by the command itself, commits included."""
    raw = call.home / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for path in call.data.glob("*-ubyte.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    root, store = raw.parent.parent, call.home / f"mnist-{time.time_ns()}.zarr"
    options = ("--recipe-option=precision=bfloat16", *(["--recipe-option=epochs=1"] if call.tiny else []))
    finished(memdb(call, "init", *options, dataset="mnist", data_root=root, store=store))
    started = time.perf_counter()
    finished(memdb(call, "train", add=4 if call.tiny else 2000, data_root=root, store=store))
    print(f"  trained and committed in {time.perf_counter() - started:.1f} s, Python's start included")
    finished(memdb(call, "info", store=store))


def train(call: Call, seconds: float) -> None:
    """Train as many models of CIFAR-100 as there is time for, into a store that comes back in parts."""
    until = time.monotonic() + seconds - (5 if call.tiny else 25)  # for the last models, and to pack
    store = call.home / f"cifar100-{time.time_ns()}.zarr"  # beside those of calls before
    there: dict[str, Any] = {"data_root": call.data, "store": store}
    options = [f"--recipe-option={name}={value}" for name, value in call.options.items()]
    version = call.version
    finished(
        memdb(
            call, "init", *options, dataset="imagefolder", recipe="resnet9", recipe_version=version, **there
        )
    )
    most = {"add": 4 if call.tiny else 4096, "max_time": f"{until - time.monotonic():.0f}s"}
    batch = {"workers": call.workers, "batch_models": call.models_per_batch}
    training = memdb(call, "train", "--no-compact", **most, **batch, **there)
    while training.returncode is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            training.wait(SECONDS_BETWEEN)
        # What is killed brings back what it had packed; a file may go while it is packed.
        with contextlib.suppress(FileNotFoundError):
            if _packed(store, call.out) >= MOST_PIECES and training.returncode is None:
                print("  no more models come back", flush=True)
                training.send_signal(signal.SIGINT)
                training.wait()
                return
    finished(training)


def _packed(folder: Path, out: Path) -> int:
    """Pack a store into parts that can come back, and return their number.

    Models that are committed later are all in other files, so what was packed before is a store, too.
    """
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        tar.add(folder, "cifar100.zarr")
    data = whole.getvalue()
    parts = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
    names = [f"cifar100.tar.{number}" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        (out / f"new-{name}").write_bytes(part)
    for name in names:  # all at once: parts of two packings do not fit together
        (out / f"new-{name}").replace(out / name)
    print(f"  {len(data) / 1e6:.1f} MB in {len(parts)} parts: cat cifar100.tar.* | tar x", flush=True)
    return len(parts)
