"""Validation of the options of built-in recipes."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from memdb.datasets import Dataset
from memdb.errors import InvalidInputError

FEW_CLASSES = 100_000  # numbers of five digits, as postcodes have, cost an output layer of megabytes
MOST_GAPS = 100  # numbers for each that occurs
PRECISIONS = ("float32", "tf32", "bfloat16")
TINY = 16  # channels of the widest layer, up to which a GPU trains models side by side
SEE_DOCS = "see `memdb init --help` and the recipe's page in the docs"


def natural(value: object) -> bool:
    """Whether a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def count(value: object) -> bool:
    """Whether a value is a non-negative integer."""
    return natural(value) or (value == 0 and type(value) is int)


def real(value: object) -> bool:
    """Whether a value is a finite float."""
    return isinstance(value, float) and math.isfinite(value)


def naturals(value: object) -> bool:
    """Whether a value is a tuple of positive integers."""
    return isinstance(value, tuple) and all(natural(item) for item in value)


def normalize(recipe: Any) -> None:
    """Convert fields to their types: the command line gives 1 for 1.0, and 128 or [128] for (128,)."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.type == "float" and type(value) is int:
            with contextlib.suppress(OverflowError):  # it stays an integer, which `require` refuses
                object.__setattr__(recipe, field.name, float(value))
        elif field.type == "tuple[int, ...]" and isinstance(value, int | list):
            object.__setattr__(recipe, field.name, (value,) if isinstance(value, int) else tuple(value))


def require(recipe: Any, checks: Mapping[str, bool]) -> None:
    """Check the options that recipes share, and those in ``checks``.

    Raises:
        InvalidInputError: names the first invalid option and its value.
    """
    for name, right in {**_shared(recipe), **checks}.items():
        if not right:
            raise InvalidInputError(
                f"recipe option {name}={getattr(recipe, name)!r} is not valid", hint=SEE_DOCS
            )


def _shared(recipe: Any) -> dict[str, bool]:
    known = {field.name for field in fields(recipe)}
    tests: dict[str, Callable[[Any], bool]] = {
        "lr": lambda v: real(v) and v > 0,
        "momentum": lambda v: real(v) and 0 <= v < 1,
        "weight_decay": lambda v: real(v) and v >= 0,
        "label_smoothing": lambda v: real(v) and 0 <= v < 1,
        "batch_size": natural,
        "epochs": lambda v: natural(v) and v < 2**16 - 1,  # `first_learned` has 16 bits
        "flip": lambda v: isinstance(v, bool),
        "shift": count,
        "cutout": count,
        "precision": lambda v: v in PRECISIONS,
    }
    return {name: test(getattr(recipe, name)) for name, test in tests.items() if name in known}


def image_shape(shape: Sequence[int], recipe: str, least: int = 1) -> tuple[int, int, int]:
    """Return height, width and channels of examples of this shape.

    Raises:
        InvalidInputError: they are not images, or less than ``least`` pixels high or wide.
    """
    match tuple(shape):
        case (int(height), int(width)):
            found = height, width, 1
        case (int(height), int(width), (1 | 3 | 4) as channels):
            found = height, width, channels
        case ((1 | 3 | 4) as channels, int(height), int(width)):
            found = height, width, channels
        case _:
            raise InvalidInputError(
                f"{recipe} needs images; examples of this data set have shape {tuple(shape)}",
                hint="give arrays [examples, height, width] or [examples, height, width, channels]",
            )
    if min(found[:2]) < least:
        raise InvalidInputError(
            f"{recipe} needs images of at least {least} x {least} pixels; these have {found[0]} x {found[1]}",
            hint="use the recipe mlp, or resize them",
        )
    return found


def n_outputs(data: Dataset) -> int:
    """Return the outputs of a network: one for each number up to the largest label.

    Raises:
        InvalidInputError: labels are identifiers rather than numbers of classes.
    """
    if data.n_classes <= FEW_CLASSES:
        return data.n_classes
    n_labels = len(np.unique(np.concatenate([part.labels for part in data.sets.values()])))
    if data.n_classes > MOST_GAPS * n_labels:
        raise InvalidInputError(
            f"labels go up to {data.n_classes - 1:,}, though only {n_labels:,} of them occur, and a network "
            "has an output for each number",
            hint="number the classes from 0, as numpy.unique(labels, return_inverse=True)[1] does",
        )
    return data.n_classes


def torch_program(name: str) -> Any:
    """Import a recipe's PyTorch program on demand, since PyTorch takes seconds to import."""
    return importlib.import_module(f"memdb.recipes.{name}")
