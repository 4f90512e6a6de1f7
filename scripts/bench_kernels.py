"""What one training step asks of a GPU: kernels, waits of the host, and bytes, counted without one.

    python scripts/bench_kernels.py                # every recipe at real sizes
    python scripts/bench_kernels.py --only resnet9 --detail

Trains on the simulated device of the tests, where nothing is computed: sizes are those of MNIST and CIFAR-100,
with 70 % of the examples in a subset. *Bytes* are what kernels read and write, were no cache to hold any of it;
divided by the device's bandwidth they are the least time of a step that is not bound by its products. *TFLOP* are
the operations of products and convolutions, of one step of all models and of whole trainings. The peak is that of
the bytes in use. What cuDNN and cuBLAS do inside a call, and how long they take, is not seen.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memdb import Dataset, Run, recipes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.simulated_device import install, simulated_device

SUBSET_FRACTION = 0.7
BANDWIDTH = 3.35e12  # bytes a second of an H100
FIRST, LAST = 2, 22  # steps that are counted: those before allocate what later ones use again
SHAPES = {"mnist": (60_000, 10_000, (28, 28), 10), "cifar": (50_000, 10_000, (32, 32, 3), 100)}
CASES: dict[str, tuple[str, dict[str, Any], str, int]] = {  # recipe, options, data, models
    "mlp": ("mlp", {"preset": "digits"}, "mnist", 256),
    "mlp, MNIST's preset": ("mlp", {}, "mnist", 1000),
    "the same, bfloat16": ("mlp", {"precision": "bfloat16"}, "mnist", 1000),
    "the same, moved": ("mlp", {"flip": True, "shift": 2, "cutout": 4}, "mnist", 1000),
    "cnn": ("cnn", {}, "mnist", 1),
    "cnn, bfloat16, moved": ("cnn", {"precision": "bfloat16", "shift": 2}, "mnist", 1),
    "resnet9": ("resnet9", {}, "cifar", 1),
    "resnet9, float32": ("resnet9", {"precision": "float32"}, "cifar", 1),
    "resnet9 version 2": ("resnet9", {}, "cifar", 1),
}


class Enough(Exception):  # noqa: N818 - no error: as many steps as were wanted
    """Ends a training that has been counted."""


@dataclass(frozen=True)
class Counts:
    """What one step took."""

    kernels: Counter[str]
    waits: float
    traffic: float
    operations: float
    n_steps: int  # of an epoch
    peak: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--detail", action="store_true", help="name the kernels")
    options = parser.parse_args()
    install()
    print(
        f"{'':22}{'models':>7}{'kernels':>9}{'waits':>7}{'GB a step':>11}{'ms at 3.35 TB/s':>17}{'TFLOP':>8}"
        f"{'in all':>9}{'peak GB':>9}"
    )
    for name, (recipe, own, data, n_models) in CASES.items():
        if options.only in name:
            version = "2" if name.endswith("version 2") else None
            made = as_on_cuda(recipes.resolve(recipe, own, version, dataset=data).train)
            found = counted(made, examples(data), n_models)
            print(
                f"{name:22}{n_models:7}{found.kernels.total():9.0f}{found.waits:7.0f}{found.traffic / 1e9:11.3f}"
                f"{1e3 * found.traffic / BANDWIDTH:17.3f}{found.operations / 1e12:8.3f}"
                f"{found.operations * found.n_steps * made.epochs / 1e12:9.0f}{found.peak / 1e9:9.2f}",
                flush=True,
            )
            if options.detail:
                print("   " + ", ".join(f"{n:g} {kernel}" for kernel, n in found.kernels.most_common()))


def as_on_cuda(recipe: Any) -> Any:
    """Return a recipe that does on the simulated device what it does on a GPU of NVIDIA."""
    kind = type(recipe)
    if not hasattr(kind, "keeps_no_gradients"):
        return recipe
    changed = {"keeps_no_gradients": lambda self, _device: kind.keeps_no_gradients(self, "cuda:0")}
    return type(kind.__name__, (kind,), changed)(**dict(recipe.options))


def examples(name: str) -> Dataset:
    n_train, n_test, shape, n_classes = SHAPES[name]
    x, y = (np.zeros((n, *shape), np.uint8) for n in (n_train, n_test))
    return Dataset(x, np.arange(n_train) % n_classes, y, np.arange(n_test) % n_classes)


def counted(recipe: Any, data: Dataset, n_models: int) -> Counts:
    """Return the mean of a few steps."""
    n_train, n_steps = len(data.train), 0
    masks = np.zeros((n_models, n_train), dtype=bool)
    masks[:, : int(SUBSET_FRACTION * n_train)] = True
    marks: list[tuple[Counter[str], int, int, int]] = []
    with simulated_device(values=False) as device:

        def watch(done: int, total: int) -> None:
            nonlocal n_steps
            n_steps = total
            if done in {FIRST, LAST}:
                waits = sum(device.waits.values())
                marks.append((Counter(device.kernels), waits, device.traffic, device.operations))
            if done == LAST:
                raise Enough

        run = Run("gpu:0", watch, lambda: False, Path("unused"))
        with contextlib.suppress(Enough):
            replace(recipe, epochs=1)(data, masks, np.arange(n_models, dtype=np.uint64), run)
    (before, waited, moved, some), (after, waits, traffic, operations) = marks
    n = LAST - FIRST
    kernels = Counter({name: times / n for name, times in (after - before).items()})
    per_step = ((waits - waited) / n, (traffic - moved) / n, (operations - some) / n)
    return Counts(kernels, *per_step, n_steps, device.peak)


if __name__ == "__main__":
    main()
