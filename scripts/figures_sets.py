"""The data sets and recipes of `figures_faster.py equivalent`, and stores of models trained on them.

``digits``, ``mnist`` and ``cifar`` are trained as multi-layer perceptrons, ``cnn`` and ``resnet9`` are convolutional
networks on digits with flipped labels, and ``pictures`` is a residual network on a slice of CIFAR-100.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from figures_faster import flipped
from numpy.typing import NDArray

import memdb
from memdb import datasets

SIDE = 16  # pixels of pictures that are scaled down
COMPONENTS = 40  # principal ones


@dataclass(frozen=True)
class Case:
    """A data set, and how models are trained on it.

    Attributes:
        title: of the data.
        load: returns the data set; takes the folder that holds real ones.
        recipe: of memdb's.
        options: of the recipe.
        n_models: in the long form.
        n_sketched: of them, the first.
    """

    title: str
    load: Callable[[Path], memdb.Dataset]
    recipe: str
    options: Mapping[str, Any]
    n_models: int
    n_sketched: int = 10
    needs_root: bool = field(default=True, kw_only=True)


def digits(_root: Path) -> memdb.Dataset:
    """Return scikit-learn's digits."""
    return datasets.load("digits")


def mislabelled_digits(_root: Path) -> memdb.Dataset:
    """Return scikit-learn's digits with 5 % of the labels flipped."""
    data = datasets.load("digits")
    return memdb.Dataset(data.train.array, flipped(data.train.labels), data.test.array, data.test.labels)


def mnist(root: Path) -> memdb.Dataset:
    """Return principal components of 2,500 + 1,000 training pictures of MNIST, with 5 % of the labels flipped."""
    part = datasets.load("mnist", str(root)).train
    rows = np.random.default_rng(0).permutation(len(part))[:3500]
    x = np.stack([np.asarray(part[row][0]) for row in rows]).reshape(len(rows), -1) / 255
    train, test = components(x[:2500], x[2500:])
    labels = part.labels[rows]
    return memdb.Dataset(train, flipped(labels[:2500]), test, labels[2500:])


def cifar(root: Path) -> memdb.Dataset:
    """Return principal components of five classes of CIFAR-100, 16 x 16 pixels."""
    (x, y), (x_test, y_test) = (folder(root, part, 5, 500, SIDE) for part in ("train", "test"))
    train, test = components(*(values.reshape(len(values), -1) / 255 for values in (x, x_test)))
    return memdb.Dataset(train, y, test, y_test)


def pictures(root: Path) -> memdb.Dataset:
    """Return 300 pictures each of five classes of CIFAR-100, 16 x 16 pixels, and those of the test set."""
    return memdb.Dataset(*folder(root, "train", 5, 300, SIDE), *folder(root, "test", 5, 300, SIDE))


def folder(
    root: Path, part: str, n_classes: int, n_each: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return pictures of the first classes from ``cifar100/PART/CLASS/*.png``, and their labels."""
    from PIL import Image

    top = root / "cifar100" / part
    names = sorted(item.name for item in top.iterdir() if item.is_dir())[:n_classes]
    files = [
        (label, file) for label, name in enumerate(names) for file in sorted((top / name).iterdir())[:n_each]
    ]
    shrunk = (
        Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BILINEAR) for _, file in files
    )
    return np.stack([np.asarray(picture) for picture in shrunk]), np.array([label for label, _ in files])


def components(
    train: NDArray[np.floating[Any]], test: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the first principal components of the training examples, their standard deviation 1 in all."""
    mean = train.mean(axis=0)
    _, axes = np.linalg.eigh((train - mean).T @ (train - mean))
    axes = axes[:, ::-1][:, :COMPONENTS]
    reduced = (train - mean) @ axes, (test - mean) @ axes
    scale = reduced[0].std()
    return (reduced[0] / scale).astype(np.float32), (reduced[1] / scale).astype(np.float32)


NARROW = {
    "width": 8, "epochs": 10, "batch_size": 128, "precision": "float32", "flip": False, "shift": 0, "lr": 0.2,
}  # fmt: skip
CASES: Mapping[str, Case] = {
    "digits": Case("digits", digits, "mlp", {}, 4500, needs_root=False),
    "mnist": Case(
        "MNIST, 5 % of the labels flipped",
        mnist,
        "mlp",
        {"hidden": [96], "lr": 5e-3, "batch_size": 64, "epochs": 16},
        5000,
    ),
    "cifar": Case(
        "five classes of CIFAR-100",
        cifar,
        "mlp",
        {"hidden": [64], "lr": 5e-3, "batch_size": 64, "epochs": 24},
        5000,
    ),
    "cnn": Case(
        "digits, 5 % of the labels flipped",
        mislabelled_digits,
        "cnn",
        {"channels": [16, 32], "epochs": 14},
        2450,
        20,
        needs_root=False,
    ),
    "resnet9": Case(
        "digits, 5 % of the labels flipped",
        mislabelled_digits,
        "resnet9",
        NARROW,
        1500,
        20,
        needs_root=False,
    ),
    "pictures": Case(
        "pictures of five classes of CIFAR-100",
        pictures,
        "resnet9",
        {**NARROW, "flip": True, "shift": 1},
        800,
        20,
    ),
}


def store(case: Case, name: str, place: Path, root: Path) -> memdb.Database:
    """Open the store of a case, made if it is not there."""
    url = str(place / f"{name}.zarr")
    if Path(url).exists():
        return memdb.open(url)
    options, data = dict(case.options), case.load(root)
    return memdb.init(url, data, recipe=case.recipe, recipe_options=options, seed=0, sketches=case.n_sketched)
