"""How much faster than one at a time are many small models trained as one program?

batch  models by memdb's ``mlp`` recipe, all in one batch, called as ``memdb train`` calls it
loop   models of the same recipe (layers, He initialisation, optimiser, learning rate, weight decay, batch
       size, epochs, subsets) one after the other in a plain PyTorch loop, the data on the device
fused  the same loop with the optimiser's ``fused=True``, which the recipe uses too: few users set it

All evaluate on the training and the test set. Same process, same threads; the three take turns, after a
warm-up of each. Run it on a quiet machine, the load average says whether it was: PyTorch's threads wait for
each other at every step, and other programs slow the three down manyfold and unevenly.

    python scripts/bench_training.py
    python scripts/bench_training.py --models 20 --loop-models 2 --rounds 2
    python scripts/bench_training.py --dataset mnist --data-root ~/data --models 8 --loop-models 1 --rounds 1
    python scripts/bench_training.py --dataset mnist --data-root ~/data --device cuda --models 256
    python scripts/bench_training.py --signals
    python scripts/bench_training.py --against vmap,compile --models 32

``--signals`` prints what learning signals cost instead, ``--against`` how other ways to train many models as one
program compare with ours: ``mlp`` and ``cnn`` on digits, on a CPU (see bench_programs.py).

Digits: about a minute on two quiet cores; a model of the batch should take at most an eighth of the time of
one of the plain loop (medians over the rounds). MNIST has Feldman and Zhang's network (512-256-10, 10 epochs):
its products are large enough to keep two cores busy one at a time, so that a batch gains little there; on a
GPU it should gain 20 times. Like accuracies show that they train the same thing.

The last lines compare with what the device's products alone could do: 6 operations a weight, example and
epoch, at the rate of one product of two square float32 matrices.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import bench_programs
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memdb import Dataset, Run, datasets, recipes
from memdb.format import subsets
from memdb.recipes.mlp import MLP

Train = Callable[[Dataset, MLP, NDArray[np.uint64], NDArray[np.bool_]], list[float]]
STORE_SEED = 0
SUBSET_FRACTION = 0.7
TARGETS = {("digits", "cpu"): 8.0, ("mnist", "cuda"): 20.0}
SQUARE = {"cpu": 2048, "cuda": 8192}


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    device = recipes.resolve_device(options.device)
    kind = device.split(":", maxsplit=1)[0]
    if options.signals or options.against:
        return show_programs(options)
    data = datasets.load(options.dataset, options.data_root)
    recipe = recipes.resolve("mlp", {}, dataset=options.dataset).train
    assert isinstance(recipe, MLP)
    size = subsets.subset_size(len(data.train), SUBSET_FRACTION)

    def seeds_and_masks(first: int, n_models: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        seeds = list(range(first, first + n_models))
        masks = subsets.subset_masks(STORE_SEED, seeds, len(data.train), size)
        return np.array(seeds, dtype=np.uint64), masks

    ways: dict[str, tuple[Train, int]] = {
        "batch": (partial(train_batch, device=device), options.models),
        "loop": (partial(train_loop, fused=None, device=device), options.loop_models),
        "fused": (partial(train_loop, fused=True, device=device), options.loop_models),
    }
    print(f"load average before the start: {os.getloadavg()[0]:.2f}")
    for train, _ in ways.values() if options.dataset == "digits" or kind == "cuda" else ():
        train(data, recipe, *seeds_and_masks(0, 2))
    print(f"{options.dataset}, mlp {dict(recipe.options)}")
    print(
        f"{device}, {options.threads} threads, PyTorch {torch.__version__}; seconds a model, mean test accuracy"
    )
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
    print(", ".join(f"{name} {60 / took:.1f} models a minute" for name, took in medians.items()))
    report_rates(recipe, data, size, device, medians)
    print(
        f"the batch against the loop with a fused optimiser: {medians['fused'] / medians['batch']:.1f} times as fast"
    )
    return judge(medians["loop"] / medians["batch"], TARGETS.get((options.dataset, kind)))


def show_programs(options: argparse.Namespace) -> int:
    data = datasets.load("digits")
    size = subsets.subset_size(len(data.train), SUBSET_FRACTION)
    seeds = list(range(options.models))
    masks = subsets.subset_masks(STORE_SEED, seeds, len(data.train), size)
    batch = data, masks, np.array(seeds, dtype=np.uint64)
    print(
        f"digits, cpu, {options.threads} threads, PyTorch {torch.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    if options.signals:
        bench_programs.show_signals(batch, options.rounds)
    if options.against:
        bench_programs.show_against(options.against, batch, options.rounds)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data-root", help="the folder that holds MNIST")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", type=int, default=100, help="models of a batch")
    parser.add_argument("--loop-models", type=int, default=5, help="models of the loop in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--signals", action="store_true", help="with and without learning signals")
    parser.add_argument("--against", type=lambda text: text.split(","), help="vmap, compile, or both")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, for all")
    return parser.parse_args()


def judge(ratio: float, target: float | None) -> int:
    if target is None:
        print(f"the batch is {ratio:.2f} times as fast as the loop")
        return 0
    verdict = "met" if ratio >= target else "MISSED"
    print(f"target at least {target:g} times as fast as the loop, is {ratio:.1f}: {verdict}")
    return 0 if ratio >= target else 1


def report_rates(recipe: MLP, data: Dataset, size: int, device: str, seconds: dict[str, float]) -> None:
    """Say what share of the device's rate of products each way reaches, and the memory it took."""
    n_weights = sum(n_in * n_out for n_in, n_out in pairwise(recipe.layer_sizes(data)))
    n_evaluated = sum(map(len, data.sets.values()))
    operations = 6 * n_weights * size * recipe.epochs + 2 * n_weights * n_evaluated
    best = matmul_rate(device)
    print(
        f"{operations / 1e9:.1f} billion operations a model; square products run at {best / 1e9:.0f} billion a second"
    )
    for name, took in seconds.items():
        print(
            f"  {name:5} {operations / took / 1e9:8.1f} billion a second, {operations / took / best:.0%} of that"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  at most {peak:.2f} GiB of memory, data and libraries included", end="")
    print(f", {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU" if device != "cpu" else "")


def matmul_rate(device: str) -> float:
    n = SQUARE[device.split(":", maxsplit=1)[0]]
    a = torch.randn(n, n, device=device)
    took = []
    for _ in range(6):
        started = time.perf_counter()
        product = a @ a
        product[0, 0].item()
        took.append(time.perf_counter() - started)
    return 2.0 * n**3 / min(took)


def line(name: object, figures: dict[str, tuple[float, float]]) -> str:
    return f"{name!s:6}" + "".join(
        f"{seconds:13.4f}  {accuracy:.5f}" for seconds, accuracy in figures.values()
    )


def train_batch(
    data: Dataset, recipe: MLP, seeds: NDArray[np.uint64], masks: NDArray[np.bool_], *, device: str
) -> list[float]:
    run = Run(device, lambda _done, _total: None, lambda: False, Path("unused"))
    correct = recipe(data, masks, seeds, run)["test/correct"]
    accuracies: list[float] = correct.mean(axis=1).tolist()
    return accuracies


def train_loop(
    data: Dataset,
    recipe: MLP,
    seeds: NDArray[np.uint64],
    masks: NDArray[np.bool_],
    *,
    fused: bool | None,
    device: str,
) -> list[float]:
    train_x, test_x = (as_rows(part.array).to(device) for part in (data.train, data.test))
    train_y, test_y = (torch.from_numpy(part.labels).long().to(device) for part in (data.train, data.test))
    correct = []
    for seed, mask in zip(seeds, masks, strict=True):
        subset = torch.from_numpy(mask).to(device)
        model = train_one(recipe, train_x[subset], train_y[subset], int(seed), fused=fused)
        with torch.no_grad():
            correct.append([model(x).argmax(1) == y for x, y in ((train_x, train_y), (test_x, test_y))])
    return [on_test.float().mean().item() for _, on_test in correct]


def as_rows(values: NDArray[np.generic]) -> Tensor:
    flat = torch.from_numpy(values.reshape(len(values), -1).astype(np.float32))
    return flat / 255 if values.dtype.kind in "iu" else flat


def train_one(recipe: MLP, x: Tensor, y: Tensor, seed: int, *, fused: bool | None) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((x.shape[1], *recipe.hidden, 10)):
        layer = nn.Linear(n_in, n_out)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).to(x.device)
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused
        )
    else:
        optimizer = torch.optim.SGD(
            model.parameters(),
            recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=fused,
        )
    loss_of = nn.CrossEntropyLoss()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for rows in torch.split(order, recipe.batch_size):
            optimizer.zero_grad()
            loss_of(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


if __name__ == "__main__":
    sys.exit(main())
