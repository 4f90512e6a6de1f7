"""Parts of bench_training.py: what learning signals cost, and our programs against other ways to batch.

signals  a batch by memdb's ``mlp`` and ``cnn`` on digits, with and without ``cumulative_loss`` and
         ``first_learned``
vmap     the plain model of one network (``torch.nn``), its gradient by ``torch.func.grad``, mapped over the
         models by ``torch.func.vmap``; optimiser, data and evaluation as in our programs
compile  our programs with their forward pass (``cnn``) or their gradients (``mlp``) through
         ``torch.compile``; the warm-up, which compiles, is excluded
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from memdb import Dataset, Run
from memdb.format.manifest import CUMULATIVE_LOSS, FIRST_LEARNED
from memdb.recipes import cnn_torch, mlp_torch
from memdb.recipes.augmentation import Augmentation
from memdb.recipes.batches import Schedule, generators_of, images_of, labels_of, subsets_of
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP

RECIPES: Mapping[str, MLP | CNN] = {"mlp": MLP(), "cnn": CNN()}
SIGNALS = frozenset({CUMULATIVE_LOSS.name, FIRST_LEARNED.name})
Batch = tuple[Dataset, NDArray[np.bool_], NDArray[np.uint64]]
Way = Callable[[MLP | CNN, Batch], float]


def show_signals(batch: Batch, rounds: int) -> None:
    ways: dict[str, Way] = {
        "without": partial(by_memdb, outcomes=frozenset()),
        "with": partial(by_memdb, outcomes=SIGNALS),
    }
    for name, recipe in RECIPES.items():
        took, _ = measured(recipe, ways, batch, rounds)
        (wall, cpu), (bare_wall, bare_cpu) = took["with"], took["without"]
        print(
            f"{name}: with learning signals {wall / bare_wall:.2f} times the seconds of without, "
            f"{cpu / bare_cpu:.2f} times the CPU seconds ({len(batch[2])} models, medians of {rounds})",
            flush=True,
        )


def show_against(names: list[str], batch: Batch, rounds: int) -> None:
    others: dict[str, Way] = {"vmap": by_vmap, "compile": by_compile}
    if "compile" in names and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        print("compile: skipped, torch.compile needs a C++ compiler on a CPU and there is none")
        names = [name for name in names if name != "compile"]
    ways: dict[str, Way] = {"ours": by_memdb} | {name: others[name] for name in names}
    for name, recipe in RECIPES.items():
        took, accuracies = measured(recipe, ways, batch, rounds)
        for way, (wall, cpu) in took.items():
            print(
                f"{name}, {way}: {60 * len(batch[2]) / wall:.1f} models a minute, {wall / took['ours'][0]:.2f} "
                f"times our seconds, {cpu / took['ours'][1]:.2f} times our CPU seconds, "
                f"test accuracy {accuracies[way]:.4f}",
                flush=True,
            )


def measured(
    recipe: MLP | CNN, ways: Mapping[str, Way], batch: Batch, rounds: int
) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Return each way's median seconds and CPU seconds, in turns after a warm-up, and its accuracy."""
    accuracies = {name: train(recipe, batch) for name, train in ways.items()}
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, train in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            train(recipe, batch)
            took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {
        name: (statistics.median(w for w, _ in found), statistics.median(c for _, c in found))
        for name, found in took.items()
    }
    return medians, accuracies


def by_memdb(recipe: MLP | CNN, batch: Batch, outcomes: frozenset[str] = frozenset()) -> float:
    data, masks, seeds = batch
    run = Run("cpu", lambda _done, _total: None, lambda: False, Path("unused"), outcomes)
    return float(recipe(data, masks, seeds, run)["test/correct"].mean())


def by_compile(recipe: MLP | CNN, batch: Batch) -> float:
    owner, name = (
        (mlp_torch.Network, "gradients") if isinstance(recipe, MLP) else (cnn_torch.Network, "__call__")
    )
    plain = getattr(owner, name)
    setattr(owner, name, COMPILED.setdefault(recipe.name, torch.compile(plain)))
    try:
        return by_memdb(recipe, batch)
    finally:
        setattr(owner, name, plain)


COMPILED: dict[str, Any] = {}


def by_vmap(recipe: MLP | CNN, batch: Batch) -> float:
    """Train copies of one plain model by ``torch.func``; return the mean test accuracy."""
    data, masks, seeds = batch
    device = torch.device("cpu")
    x, y = _inputs(recipe, data.train, device), labels_of(data.train, device)
    model = plain_model(recipe, data)
    generators = generators_of(seeds)
    parameters = {
        name: torch.stack([_drawn(value, g) for g in generators]).requires_grad_()
        for name, value in model.named_parameters()
    }

    def loss_of(values: dict[str, Tensor], rows: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, values, (rows,)), labels)

    gradients = vmap(grad(loss_of))
    optimizer = _optimizer(recipe, list(parameters.values()))
    subsets = subsets_of(masks, recipe.name, device)
    even = isinstance(recipe, CNN)
    schedule = Schedule(recipe.epochs, recipe.batch_size, Augmentation(), even=even)
    n_steps = schedule.n_steps(subsets.shape[1])
    for number, step in enumerate(schedule.steps(subsets, generators)):
        if isinstance(recipe, CNN):
            optimizer.param_groups[0]["lr"] = recipe.rate(number / n_steps)
        held = {name: value.detach() for name, value in parameters.items()}
        found = gradients(held, x[step.rows], y[step.rows])
        for name, value in parameters.items():
            value.grad = found[name]
        optimizer.step()
    test_x, test_y = _inputs(recipe, data.test, device), labels_of(data.test, device)
    with torch.no_grad():
        predict = vmap(lambda values, rows: functional_call(model, values, (rows,)), in_dims=(0, None))
        for rows in (x, test_x):  # both, as our programs do
            logits = torch.cat([predict(parameters, part) for part in torch.split(rows, 512)], 1)
    return float((logits.argmax(-1) == test_y).float().mean())


def plain_model(recipe: MLP | CNN, data: Dataset) -> nn.Module:
    layers: list[nn.Module] = []
    if isinstance(recipe, MLP):
        for n_in, n_out in itertools.pairwise(recipe.layer_sizes(data)):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    height, width = data.train.array.shape[1:3]
    for n_in, n_out in itertools.pairwise((1, *recipe.channels)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    shrunk = 2 ** len(recipe.channels)
    n_features = recipe.channels[-1] * (height // shrunk) * (width // shrunk)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_features, data.n_classes))


def _drawn(value: Tensor, generator: torch.Generator) -> Tensor:
    if value.ndim == 1:
        return torch.zeros_like(value)
    return torch.randn(value.shape, generator=generator).mul_((2 / value[0].numel()) ** 0.5)


def _optimizer(recipe: MLP | CNN, parameters: list[Tensor]) -> torch.optim.Optimizer:
    if isinstance(recipe, MLP):
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        parameters,
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=True,
    )


def _inputs(recipe: MLP | CNN, examples: Any, device: torch.device) -> Tensor:
    images = images_of(examples, device)
    if isinstance(recipe, MLP):
        return images.flatten(1)
    return images.sub_(0.5).div_(0.25).permute(0, 3, 1, 2)
