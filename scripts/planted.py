"""Digits, a slice of MNIST or one of CIFAR-100 for the figures, with planted label noise where it is wanted."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import memdb
from memdb import datasets

MNIST = "MEMDB_MNIST"  # the folder that torchvision.datasets.MNIST reads
RECIPE_OF_MNIST = {"hidden": [128], "optimizer": "sgd", "lr": 0.1, "weight_decay": 0.0, "batch_size": 128,
                   "epochs": 15}  # fmt: skip
RECIPE_OF_CIFAR = {"channels": [16, 32], "lr": 0.05, "weight_decay": 0.0, "epochs": 12}
AT_ONCE = 500  # test examples, of which the distances from all training examples are in memory


@dataclass(frozen=True)
class Planted:
    """A data set, the recipe and its options for it, and the training examples that were given another label."""

    data: memdb.Dataset
    recipe: str
    options: dict[str, Any]
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
    parser.add_argument(
        "--cifar100",
        metavar="DIR",
        type=Path,
        help="CIFAR-100 in place of digits, at 16 x 16 pixels, from folders train/CLASS and test/CLASS of images",
    )
    parser.add_argument("--classes", type=int, default=10, help="the first ones of CIFAR-100 to take")
    parser.add_argument(
        "-p", metavar="NAME=VALUE", action="append", default=[], help="an option of the recipe"
    )
    parser.add_argument(
        "--twins", type=int, default=0, help="of odd test examples, to add to the training set"
    )
    parser.add_argument("--noise", type=float, default=noise, help="share of training labels to change")


def planted(given: argparse.Namespace) -> Planted:
    """Return the data set that the command line asks for."""
    data, recipe, options = datasets.digits(), "mlp", {}
    if given.mnist is not None:
        data, options = datasets.load("mnist", given.mnist), dict(RECIPE_OF_MNIST)
    if given.cifar100 is not None:
        data, recipe, options = cifar100(given.cifar100, given.classes), "cnn", dict(RECIPE_OF_CIFAR)
    n_train = min(len(data.train), given.examples)
    labels, flipped = flip(data.train.labels[:n_train], given.noise, data.n_classes)
    x, odd = data.train.array[:n_train], odd_ones(data, given.twins)
    keys = [f"twin of {data.test.keys[row]}" for row in odd]
    part = memdb.Dataset(
        np.concatenate([x, noisy(data.test.array[odd])]),
        np.concatenate([labels, data.test.labels[odd]]),
        data.test.array,
        data.test.labels,
        data.class_names,
        train_keys=[*data.train.keys[:n_train], *keys],
        test_keys=data.test.keys,
    )
    return with_options(Planted(part, recipe, options, flipped), given.p)


def with_options(about: Planted, given: Sequence[str]) -> Planted:
    """Return the same with other options of the recipe, such as ``weight_decay=5e-4``."""
    changed = {name: json.loads(value) for name, _, value in (text.partition("=") for text in given)}
    return replace(about, options=about.options | changed)


def odd_ones(data: memdb.Dataset, n: int) -> NDArray[np.int64]:
    """Return the test examples that are farthest from their own class, beside how far they are from others."""
    if not n:
        return np.zeros(0, dtype=np.int64)
    train, test = (of.array.reshape(len(of), -1).astype(np.float64) for of in (data.train, data.test))
    distances = []  # from the nearest one of the class, and of all others
    for start in range(0, len(test), AT_ONCE):
        some = test[start : start + AT_ONCE]
        squares = (some**2).sum(axis=1)[:, None] - 2 * some @ train.T + (train**2).sum(axis=1)
        own = data.test.labels[start : start + AT_ONCE, None] == data.train.labels
        distances.append([np.where(of, squares, np.inf).min(axis=1) for of in (own, ~own)])
    nearest = np.concatenate(distances, axis=1)
    return np.sort(np.argsort(nearest[1] - nearest[0], kind="stable")[:n])


def noisy(pictures: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return pictures with noise, whose standard deviation is a twentieth of their range."""
    if not len(pictures):
        return pictures
    values, most = pictures.astype(np.float64), float(pictures.max())
    values += np.random.default_rng(0).normal(0, most / 20, pictures.shape)
    return np.clip(np.rint(values) if pictures.dtype.kind == "u" else values, 0, most).astype(pictures.dtype)


def cifar100(folder: Path, n_classes: int) -> memdb.Dataset:
    """Return the first classes by name, each two by two pixels as one."""
    from PIL import Image

    names = sorted(path.name for path in (folder / "train").iterdir())[:n_classes]
    sets = []
    for part in ("train", "test"):
        files = [
            (n, path) for n, name in enumerate(names) for path in sorted((folder / part / name).iterdir())
        ]
        pictures = np.stack([np.asarray(Image.open(path).convert("RGB").reduce(2)) for _, path in files])
        labels = np.array([label for label, _ in files], dtype=np.int32)
        sets.append((pictures, labels, [path.relative_to(folder).as_posix() for _, path in files]))
    (x, y, keys), (test_x, test_y, test_keys) = sets
    return memdb.Dataset(x, y, test_x, test_y, names, train_keys=keys, test_keys=test_keys)


def flip(
    labels: NDArray[np.int32], share: float, n_classes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give a share of the labels another one, each equally likely; return all, and the rows changed."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(labels), round(share * len(labels)), replace=False))
    changed = labels.copy()
    changed[rows] = (labels[rows] + rng.integers(1, n_classes, len(rows))) % n_classes
    return changed, rows
