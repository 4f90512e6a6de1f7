"""Digits and a slice of MNIST for the figures, with planted label noise where it is wanted."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import memdb
from memdb import datasets

MNIST = "MEMDB_MNIST"  # the folder that torchvision.datasets.MNIST reads
RECIPE_OF_MNIST = {"hidden": [128], "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0, "batch_size": 128,
                   "epochs": 15}  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A data set, the recipe's options for it, and the training examples that were given another label."""

    data: memdb.Dataset
    options: dict[str, object]
    flipped: NDArray[np.int64]


def add_arguments(parser: argparse.ArgumentParser, noise: float) -> None:
    """Add what `planted` reads."""
    parser.add_argument(
        "--mnist",
        metavar="DIR",
        nargs="?",
        const=os.environ.get(MNIST, ""),
        help=f"MNIST in place of digits, from this folder (${MNIST})",
    )
    parser.add_argument("--examples", type=int, default=10_000, help="the first ones of MNIST to train on")
    parser.add_argument("--noise", type=float, default=noise, help="share of training labels to change")


def planted(given: argparse.Namespace) -> Planted:
    """Return the data set that the command line asks for."""
    data, options = datasets.digits(), {}
    if given.mnist is not None:
        data, options = datasets.load("mnist", given.mnist), dict(RECIPE_OF_MNIST)
    n_train = min(len(data.train), given.examples)
    labels, flipped = flip(data.train.labels[:n_train], given.noise, data.n_classes)
    names = data.class_names
    part = memdb.Dataset(
        data.train.array[:n_train],
        labels,
        data.test.array,
        data.test.labels,
        names,
        train_keys=data.train.keys[:n_train],
        test_keys=data.test.keys,
    )
    return Planted(part, options, flipped)


def flip(
    labels: NDArray[np.int32], share: float, n_classes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give a share of the labels another one, each equally likely; return all, and the rows changed."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(labels), round(share * len(labels)), replace=False))
    changed = labels.copy()
    changed[rows] = (labels[rows] + rng.integers(1, n_classes, len(rows))) % n_classes
    return changed, rows
