"""How much faster than one at a time are many small models trained as one program?

batch  digits models by memdb's ``mlp`` recipe, all in one batch, called as ``memdb train`` calls it
loop   models of the same recipe (layers, He initialisation, AdamW, learning rate, weight decay, batch size,
       epochs, subsets) one after the other in a plain PyTorch loop
fused  the same loop with AdamW's ``fused=True``, which the recipe uses too: few users set it

All evaluate on the training and the test set. Same process, same threads; the three take turns, after a
warm-up of each. Run it on a quiet machine, the load average says whether it was: PyTorch's threads wait for
each other at every step, and other programs slow the three down manyfold and unevenly.

    python scripts/bench_training.py
    python scripts/bench_training.py --models 20 --loop-models 2 --rounds 2

Expect about a minute on two quiet cores. Target: a model of the batch takes at most an eighth of the time of
one of the plain loop (medians over the rounds). Like accuracies show that they train the same thing; one
model's varies by some 0.004.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memdb import Dataset, Run, subsets
from memdb.datasets import digits
from memdb.recipes.mlp import MLP

Train = Callable[[Dataset, MLP, NDArray[np.uint64], NDArray[np.bool_]], list[float]]
STORE_SEED = 0
SUBSET_FRACTION = 0.7
TARGET = 8.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=100, help="models of a batch")
    parser.add_argument("--loop-models", type=int, default=5, help="models of the loop in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, for both")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, recipe = digits(), MLP()
    size = subsets.subset_size(len(data.train), SUBSET_FRACTION)

    def seeds_and_masks(first: int, n_models: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        seeds = list(range(first, first + n_models))
        masks = subsets.subset_masks(STORE_SEED, seeds, len(data.train), size)
        return np.array(seeds, dtype=np.uint64), masks

    ways: dict[str, tuple[Train, int]] = {
        "batch": (train_batch, options.models),
        "loop": (partial(train_loop, fused=None), options.loop_models),
        "fused": (partial(train_loop, fused=True), options.loop_models),
    }
    print(f"load average before the start: {os.getloadavg()[0]:.2f}")
    for train, n_models in ways.values():
        train(data, recipe, *seeds_and_masks(0, n_models))
    print(f"digits, mlp {dict(recipe.options)}")
    print(f"{options.threads} threads, PyTorch {torch.__version__}; seconds a model, mean test accuracy")
    print("round " + "".join(f"{f'{name}, {n_models} models':>22}" for name, (_, n_models) in ways.items()))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    accuracies: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, (train, n_models) in ways.items():
            started = time.perf_counter()
            found = train(data, recipe, *seeds_and_masks(number * options.models, n_models))
            seconds[name].append((time.perf_counter() - started) / n_models)
            accuracies[name].append(statistics.mean(found))
        print(
            line(number + 1, {name: (seconds[name][-1], accuracies[name][-1]) for name in ways}), flush=True
        )

    medians = {name: statistics.median(seconds[name]) for name in ways}
    print(line("all", {name: (medians[name], statistics.mean(accuracies[name])) for name in ways}))
    print(
        f"the batch against the loop with fused AdamW: {medians['fused'] / medians['batch']:.1f} times as fast"
    )
    ratio = medians["loop"] / medians["batch"]
    print(
        f"target at least {TARGET:g} times as fast as the loop, is {ratio:.1f}: {'met' if ratio >= TARGET else 'MISSED'}"
    )
    return 0 if ratio >= TARGET else 1


def line(name: object, figures: dict[str, tuple[float, float]]) -> str:
    return f"{name!s:6}" + "".join(
        f"{seconds:13.4f}  {accuracy:.5f}" for seconds, accuracy in figures.values()
    )


def train_batch(
    data: Dataset, recipe: MLP, seeds: NDArray[np.uint64], masks: NDArray[np.bool_]
) -> list[float]:
    run = Run("cpu", lambda _done, _total: None, lambda: False, Path("unused"))
    correct = recipe(data, masks, seeds, run)["test/correct"]
    accuracies: list[float] = correct.mean(axis=1).tolist()
    return accuracies


def train_loop(
    data: Dataset, recipe: MLP, seeds: NDArray[np.uint64], masks: NDArray[np.bool_], *, fused: bool | None
) -> list[float]:
    train_x, test_x = (torch.from_numpy(part.array).flatten(1) for part in (data.train, data.test))
    train_y, test_y = (torch.from_numpy(part.labels).long() for part in (data.train, data.test))
    correct = []
    for seed, mask in zip(seeds, masks, strict=True):
        subset = torch.from_numpy(mask)
        model = train_one(recipe, train_x[subset], train_y[subset], int(seed), fused=fused)
        with torch.no_grad():
            correct.append([model(x).argmax(1) == y for x, y in ((train_x, train_y), (test_x, test_y))])
    return [on_test.float().mean().item() for _, on_test in correct]


def train_one(recipe: MLP, x: Tensor, y: Tensor, seed: int, *, fused: bool | None) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    (hidden,) = recipe.hidden
    first, last = nn.Linear(x.shape[1], hidden), nn.Linear(hidden, 10)
    for layer in (first, last):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    model = nn.Sequential(first, nn.ReLU(), last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused
    )
    loss_of = nn.CrossEntropyLoss()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in torch.split(order, recipe.batch_size):
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


if __name__ == "__main__":
    sys.exit(main())
