"""What gradient sketches cost: CPU seconds beside those of training, and bytes a model in the store.

    python scripts/bench_sketches.py [--size 512] [--models 4]

Each recipe trains a batch of models on scikit-learn's digits twice, in turns: without sketches and with sketches of
all of them. The share is what sketching one model takes of training one; a store that sketches 10 of 400 models pays a
fortieth of it. The recipes of MNIST and CIFAR are trained on random pictures of that shape, since nothing here depends on
what they show. Times are of one thread.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb import datasets
from memdb.format import subsets
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.protocol import Run, SketchRequest
from memdb.recipes.resnet9 import ResNet9


def pictures(*shape: int, n_train: int, n_test: int) -> memdb.Dataset:
    chance = np.random.default_rng(0)
    train, test = (chance.integers(0, 256, (n, *shape), dtype=np.uint8) for n in (n_train, n_test))
    return memdb.Dataset(train, np.arange(n_train) % 10, test, np.arange(n_test) % 10)


def cases() -> list[tuple[str, Any, memdb.Dataset]]:
    digits = datasets.load("digits")
    return [
        ("mlp, digits", MLP(), digits),
        ("cnn, digits", CNN(channels=(16, 32), epochs=14), digits),
        ("resnet9 of width 8, digits", ResNet9(
            width=8, epochs=10, batch_size=128, precision="float32", flip=False, shift=0, lr=0.2), digits),
        ("mlp of 512 and 256, 28 x 28", MLP(hidden=(512, 256), epochs=10), pictures(28, 28, n_train=2000, n_test=400)),
        ("cnn, 28 x 28", CNN(), pictures(28, 28, n_train=1000, n_test=200)),
        ("resnet9 of width 32, 32 x 32", ResNet9(width=32, precision="float32", batch_size=64),
         pictures(32, 32, 3, n_train=64, n_test=16)),
    ]  # fmt: skip


def seconds(recipe: Any, data: memdb.Dataset, n_models: int, sketch: SketchRequest | None) -> float:
    seeds = np.arange(n_models, dtype=np.uint64)
    n_train = len(data.train)
    masks = subsets.subset_masks(1, seeds.tolist(), n_train, subsets.subset_size(n_train, 0.7))
    folder = Path(tempfile.mkdtemp())
    run = Run("cpu", lambda _done, _total: None, lambda: False, folder)
    started = time.process_time()
    recipe(data, masks, seeds, replace(run, sketch=sketch))
    shutil.rmtree(folder)
    return time.process_time() - started


def bytes_a_model(size: int) -> tuple[float, int]:
    """Return what a sketched model of digits takes in a store, as written and as numbers."""
    folder = tempfile.mkdtemp()
    with memdb.init(
        f"{folder}/digits.zarr", recipe_options={"epochs": 2}, sketches=2, sketch_size=size
    ) as db:
        db.train(add=2, device="cpu")
        (stored,) = db.info().project("sketch_bytes").fetchall()[0]
    shutil.rmtree(folder)
    return stored / 2, 2 * size * 1797


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--only", default="", help="cases whose name has this")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print(f"k = {asked.size}, batches of {asked.models} models; CPU seconds a model")
    print(f"{'':30}{'training':>10}{'sketching':>11}{'share':>8}{'10 of 400':>11}")
    for name, recipe, data in cases():
        if asked.only not in name:
            continue
        n_models = 1 if "32 x 32" in name else asked.models
        request = SketchRequest(n_models, asked.size, 1)
        plain, both = (
            min(seconds(recipe, data, n_models, wanted) for _ in range(2)) for wanted in (None, request)
        )
        share = (both - plain) / plain
        print(
            f"{name:30}{plain / n_models:10.2f}{(both - plain) / n_models:11.3f}{share:8.1%}{share / 40:11.2%}"
        )
    stored, held = bytes_a_model(asked.size)
    print(
        f"a sketched model of digits takes {stored:,.0f} bytes in the store, {stored / held:.3f} of its float16"
    )
    print(f"at 60,000 examples: {60_000 * 2 * asked.size * stored / held / 1e6:.1f} MB a model")


if __name__ == "__main__":
    main()
