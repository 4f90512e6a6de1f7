"""How much faster than one at a time are many small models trained as one program?

batch  models by memdb's ``mlp`` recipe, all in one batch, called as ``memdb train`` calls it
loop   models of the same recipe (layers, He initialisation, optimiser, learning rate, weight decay, batch
       size, epochs, subsets) one after the other in a plain PyTorch loop, the data on the device
fused  the same loop with the optimiser's ``fused=True``, which the recipe uses too: few users set it
alone  one model by memdb's recipe
step, epoch, vmap   the same networks as a JAX program (see bench_jax.py), where ``jax`` is installed

All evaluate on the training and the test set. Same process, same threads; all take turns, after a
warm-up of each. Run it on a quiet machine, the load average says whether it was: PyTorch's threads wait for
each other at every step, and other programs slow all of them down manyfold and unevenly. With one thread,
CPU seconds, which are printed beside the seconds, say more on a busy machine.

    python scripts/bench_training.py
    python scripts/bench_training.py --models 20 --loop-models 2 --rounds 2
    python scripts/bench_training.py --threads 1
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
import importlib.util
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
JAX_WAYS = ("step", "epoch", "vmap")


@dataclass
class Way:
    """A way to train some models, and what its rounds took: seconds, CPU seconds, mean test accuracy."""

    train: Train
    n_models: int
    rounds: list[tuple[float, float, float]] = field(default_factory=list)

    @property
    def medians(self) -> tuple[float, float, float]:
        """The medians of all rounds; seconds are those of a model."""
        wall, cpu, accuracy = (statistics.median(column) for column in zip(*self.rounds, strict=True))
        return wall / self.n_models, cpu / self.n_models, accuracy

    def run(self, data: Dataset, recipe: MLP, first: int) -> None:
        """Train models from this seed on, and note what it took."""
        batch = seeds_and_masks(data, first, self.n_models)
        wall, cpu = time.perf_counter(), time.process_time()
        found = self.train(data, recipe, *batch)
        self.rounds.append(
            (time.perf_counter() - wall, time.process_time() - cpu, statistics.mean(found)),
        )


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
    ways = ways_to_train(options, device)
    print(f"load average before the start: {os.getloadavg()[0]:.2f}")
    for name, way in ways.items():
        if options.dataset == "digits" or kind == "cuda" or name in JAX_WAYS:
            way.train(data, recipe, *seeds_and_masks(data, 0, way.n_models if name in JAX_WAYS else 2))
    print(f"{options.dataset}, mlp {dict(recipe.options)}")
    print(
        f"{device}, {options.threads} threads, PyTorch {torch.__version__}, medians of {options.rounds} rounds"
    )
    for number in range(options.rounds):
        for way in ways.values():
            way.run(data, recipe, number * options.models)
    print("       models   seconds a model   CPU seconds   CPU ms an epoch   test accuracy   models a minute")
    for name, way in ways.items():
        wall, cpu, accuracy = way.medians
        print(
            f"{name:6}{way.n_models:7}{wall:18.4f}{cpu:14.4f}{1000 * cpu / recipe.epochs:18.2f}"
            f"{accuracy:16.5f}{60 / wall:18.1f}"
        )
    report_rates(recipe, data, device, {name: way.medians[0] for name, way in ways.items()})
    batch = ways["batch"].medians
    for name, way in ways.items():
        if name != "batch":
            wall, cpu, _ = (theirs / ours for theirs, ours in zip(way.medians, batch, strict=True))
            print(
                f"{name:6} {wall:5.2f} times the seconds of a model of the batch, {cpu:5.2f} times its CPU seconds"
            )
    return judge(ways["loop"].medians[0] / batch[0], TARGETS.get((options.dataset, kind)))


def seeds_and_masks(data: Dataset, first: int, n_models: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    seeds = list(range(first, first + n_models))
    size = subsets.subset_size(len(data.train), SUBSET_FRACTION)
    masks = subsets.subset_masks(STORE_SEED, seeds, len(data.train), size)
    return np.array(seeds, dtype=np.uint64), masks


def ways_to_train(options: argparse.Namespace, device: str) -> dict[str, Way]:
    """Return all ways that there are on this device, JAX's where it is installed."""
    ways = {
        "batch": Way(partial(train_batch, device=device), options.models),
        "alone": Way(partial(train_batch, device=device), 1),
        "loop": Way(partial(train_loop, fused=None, device=device), options.loop_models),
        "fused": Way(partial(train_loop, fused=True, device=device), options.loop_models),
    }
    if device != "cpu":
        return ways
    if importlib.util.find_spec("jax") is None:
        print("step, epoch, vmap: skipped, jax is not installed (pip install jax)")
        return ways
    import bench_jax

    print(f"JAX {bench_jax.start(options.threads)}")
    n_models = {"step": options.loop_models, "epoch": options.loop_models, "vmap": options.models}
    return ways | {way: Way(partial(bench_jax.train, way=way), n_models[way]) for way in JAX_WAYS}


def show_programs(options: argparse.Namespace) -> int:
    data = datasets.load("digits")
    seeds, masks = seeds_and_masks(data, 0, options.models)
    batch = data, masks, seeds
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


def report_rates(recipe: MLP, data: Dataset, device: str, seconds: dict[str, float]) -> None:
    """Say what share of the device's rate of products each way reaches, and the memory it took."""
    n_weights = sum(n_in * n_out for n_in, n_out in pairwise(recipe.layer_sizes(data)))
    n_evaluated = sum(map(len, data.sets.values()))
    size = subsets.subset_size(len(data.train), SUBSET_FRACTION)
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
