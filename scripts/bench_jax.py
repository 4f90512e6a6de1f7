"""Part of bench_training.py: the networks of memdb's ``mlp`` as a small JAX program of our own.

step   one network after the other, a compiled step called for each batch, as Feldman and Zhang (2020) did
epoch  the same with a whole epoch as one compiled function, a scan over its steps
vmap   these epochs mapped over all models by ``jax.vmap``

NumPy draws the weights and the order of the examples. Initialisation, optimiser, subsets, sizes of batches
and evaluation are those of the recipe.
"""

from __future__ import annotations

import os
from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from memdb import Dataset
from memdb.recipes.mlp import MLP

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of AdamW, as PyTorch has them
Tree = Any


def start(threads: int) -> str:
    """Give XLA as many threads as PyTorch has, and return its version: it takes one a core that it sees."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(cores)[:threads]))
    try:
        jax.devices("cpu")
    finally:
        os.sched_setaffinity(0, cores)
    return str(jax.__version__)


def train(
    data: Dataset, recipe: MLP, seeds: NDArray[np.uint64], masks: NDArray[np.bool_], *, way: str
) -> list[float]:
    """Train networks in one of these ways; return their accuracies on the test set."""
    at_once = len(seeds) if way == "vmap" else 1
    parts = [slice(k, k + at_once) for k in range(0, len(seeds), at_once)]
    return [a for part in parts for a in _trained(data, recipe, seeds[part], masks[part], way).tolist()]


def _trained(
    data: Dataset, recipe: MLP, seeds: NDArray[np.uint64], masks: NDArray[np.bool_], way: str
) -> NDArray[np.float32]:
    many = way == "vmap"
    (train_x, train_y), (test_x, test_y) = (
        (_rows(part.array), part.labels.astype(np.int32)) for part in (data.train, data.test)
    )
    randoms = [np.random.default_rng(int(seed)) for seed in seeds]
    sizes = train_x.shape[1], *recipe.hidden, data.n_classes
    drawn = [_drawn(sizes, random) for random in randoms]
    weights: Tree = jax.tree.map(lambda *each: np.stack(each), *drawn) if many else drawn[0]
    moments: Tree = (jax.tree.map(np.zeros_like, weights), jax.tree.map(np.zeros_like, weights))
    rows = [np.flatnonzero(mask) for mask in masks]
    epoch, predict = _programs(recipe, way)
    for number in range(recipe.epochs):
        orders = np.stack([random.permutation(one) for random, one in zip(randoms, rows, strict=True)])
        at = number * -(-orders.shape[1] // recipe.batch_size)
        weights, moments = epoch(weights, moments, (train_x, train_y), orders if many else orders[0], at)
    for x, y in ((train_x, train_y), (test_x, test_y)):  # both, as a store keeps both
        correct = np.asarray(predict(weights, x) == y)
    accuracies: NDArray[np.float32] = correct.reshape(len(seeds), -1).mean(axis=1)
    return accuracies


def _rows(values: NDArray[Any]) -> NDArray[np.float32]:
    flat = values.reshape(len(values), -1).astype(np.float32)
    return flat / np.float32(255) if values.dtype.kind in "iu" else flat


def _drawn(sizes: tuple[int, ...], random: np.random.Generator) -> list[tuple[Any, Any]]:
    return [
        (
            random.standard_normal((n_in, n_out), np.float32) * np.float32((2 / n_in) ** 0.5),
            np.zeros(n_out, np.float32),
        )
        for n_in, n_out in pairwise(sizes)
    ]


@cache
def _programs(recipe: MLP, way: str) -> tuple[Any, Any]:
    """Return what trains an epoch and what predicts, compiled."""
    epoch, predict = partial(_epoch, recipe), _predicted
    if way == "step":
        return _epoch_of_calls(recipe), jax.jit(predict)
    if way == "vmap":
        epoch = jax.vmap(epoch, in_axes=(0, 0, None, 0, None))
        predict = jax.vmap(predict, in_axes=(0, None))
    return jax.jit(epoch, donate_argnums=(0, 1)), jax.jit(predict)


def _epoch_of_calls(recipe: MLP) -> Any:
    step = jax.jit(partial(_step, recipe), donate_argnums=(0, 1))

    def epoch(weights: Tree, moments: Tree, examples: Tree, order: Any, n_done: int) -> tuple[Tree, Tree]:
        x, y = examples
        for number, start in enumerate(range(0, len(order), recipe.batch_size)):
            rows = order[start : start + recipe.batch_size]
            weights, moments = step(weights, moments, x[rows], y[rows], n_done + number + 1)
        return weights, moments

    return epoch


def _epoch(
    recipe: MLP, weights: Tree, moments: Tree, examples: Tree, order: Any, n_done: Any
) -> tuple[Tree, Tree]:
    """Take the steps of an epoch: those of whole batches, and one of what remains."""
    x, y = examples

    def step(carried: tuple[Tree, Tree, Any], rows: Any) -> tuple[tuple[Tree, Tree, Any], None]:
        weights, moments, number = carried
        return (*_step(recipe, weights, moments, x[rows], y[rows], number + 1), number + 1), None

    n_whole, size = len(order) // recipe.batch_size, recipe.batch_size
    carried, _ = jax.lax.scan(
        step, (weights, moments, n_done), order[: n_whole * size].reshape(n_whole, size)
    )
    if len(order) % size:
        carried, _ = step(carried, order[n_whole * size :])
    return carried[0], carried[1]


def _step(recipe: MLP, weights: Tree, moments: Tree, x: Any, y: Any, number: Any) -> tuple[Tree, Tree]:
    return _changed(recipe, weights, moments, jax.grad(_loss)(weights, x, y), number)


def _changed(recipe: MLP, weights: Tree, moments: Tree, slopes: Tree, number: Any) -> tuple[Tree, Tree]:
    """Return the parameters after a step of SGD or AdamW, and the moments."""
    each = jax.tree.map
    if recipe.optimizer == "sgd":
        first = each(
            lambda m, s, w: recipe.momentum * m + s + recipe.weight_decay * w, moments[0], slopes, weights
        )
        return each(lambda w, m: w - recipe.lr * m, weights, first), (first, moments[1])
    first = each(lambda m, s: BETAS[0] * m + (1 - BETAS[0]) * s, moments[0], slopes)
    second = each(lambda m, s: BETAS[1] * m + (1 - BETAS[1]) * s * s, moments[1], slopes)
    rate, bias = recipe.lr / (1 - BETAS[0] ** number), 1 - BETAS[1] ** number
    kept = 1 - recipe.lr * recipe.weight_decay
    changed = each(
        lambda w, m, v: kept * w - rate * m / (jnp.sqrt(v / bias) + EPSILON), weights, first, second
    )
    return changed, (first, second)


def _logits(weights: Tree, x: Any) -> Any:
    for weight, bias in weights[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = weights[-1]
    return x @ weight + bias


def _loss(weights: Tree, x: Any, y: Any) -> Any:
    logs = jax.nn.log_softmax(_logits(weights, x))
    return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()


def _predicted(weights: Tree, x: Any) -> Any:
    return _logits(weights, x).argmax(-1)
