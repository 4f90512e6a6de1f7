"""A set of examples in a fixed order, with their labels, keys and content hashes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memdb.datasets.inputs import Inputs, content_of, inputs_of, picked, require_steady
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.store import Examples, ExampleTable
from memdb.wording import count

KINDS = {"U": "text", "S": "bytes", "M": "dates", "m": "spans of time"}


class ExampleSet:
    """Examples in a fixed order: ``set[i]`` is ``(x, label)``.

    Args:
        x: an array [examples, ...], or a sequence of numbers, text or arrays that may be read lazily. If it
            has a method ``content(i)``, this returns the bytes to hash for example i; otherwise its array is
            hashed.
        labels: integers from 0, [examples].
        keys: names of the examples; by default, their rows.
        name: the name of the set, for messages.

    Attributes:
        feature_names: the names of the columns, of a table that has them.

    Raises:
        InvalidInputError: lengths that differ, labels that are not integers from 0, keys that are not text,
            or examples that could only be hashed by their address in memory.
    """

    def __init__(
        self, x: Inputs | ArrayLike, labels: ArrayLike, keys: Sequence[str] | None = None, name: str = "set"
    ) -> None:
        self.name = name
        self.x: Any = inputs_of(x, name)
        self.feature_names = tuple(map(str, getattr(x, "columns", ())))
        self.labels = _labels(labels, name)
        self.keys = [str(row) for row in range(len(self.labels))] if keys is None else list(keys)
        odd = next((key for key in self.keys if not isinstance(key, str)), None)
        if odd is not None:
            raise InvalidInputError(
                f"the {name} set has the key {odd!r}, which is not text",
                hint=f"write {name}_keys=[str(key) for key in keys]",
            )
        if not len(self.x) == len(self.labels) == len(self.keys):
            raise InvalidInputError(
                f"the {name} set has {count(len(self.x), 'example')}, {count(len(self.labels), 'label')} and "
                f"{count(len(self.keys), 'key')}",
                hint="give one label and one key an example",
            )

    @classmethod
    def of_nothing(cls, like: Any) -> Self:
        """Return a test set without examples, of inputs like these."""
        empty = cls.__new__(cls)
        empty.name, empty.x, empty.keys = layout.TEST, like[:0] if isinstance(like, np.ndarray) else [], []
        empty.labels = np.empty(0, dtype=np.int32)
        return empty

    def only(self, rows: NDArray[np.integer[Any]]) -> Self:
        """Return some of the examples, with their own keys."""
        chosen = copy.copy(self)
        chosen.__dict__.pop("array", None)
        chosen.x, chosen.labels = picked(self.x, rows), self.labels[rows]
        chosen.keys = [self.keys[row] for row in rows.tolist()]
        return chosen

    def __repr__(self) -> str:
        return f"ExampleSet({self.name!r}, n_examples={len(self)})"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.x[index], int(self.labels[index])

    @cached_property
    def array(self) -> NDArray[Any]:
        """All examples as one array [examples, ...].

        Raises:
            InvalidInputError: examples of different shapes.
        """
        if isinstance(self.x, np.ndarray):
            return self.x
        items = [np.asarray(self.x[index]) for index in range(len(self))]
        odd = next((i for i, item in enumerate(items) if item.shape != items[0].shape), None)
        if odd is not None:
            raise InvalidInputError(
                f"example {self.keys[odd]} has shape {items[odd].shape}, example {self.keys[0]} has "
                f"{items[0].shape}",
                hint="resize the examples, or use a recipe that takes them one by one",
            )
        return np.stack(items)

    @property
    def numbers(self) -> NDArray[Any]:
        """All examples as one array of numbers [examples, ...].

        Raises:
            InvalidInputError: text or dates, or examples of different shapes.
        """
        values = self.array
        if values.dtype.kind not in "biuf":
            raise InvalidInputError(
                f"this recipe takes numbers; the {self.name} set is {KINDS.get(values.dtype.kind, 'other')}",
                hint="encode it as numbers, or write a recipe of your own, which finds it in data.train.x",
            )
        return values

    def table(self, class_names: Sequence[str]) -> ExampleTable:
        """Return what a store keeps of these examples.

        Raises:
            InvalidInputError: an example has no content hash, or changes between reads.
        """
        content = getattr(self.x, "content", None)
        if content is None and not isinstance(self.x, np.ndarray | list | tuple):
            require_steady(self.x, len(self), self.name)
        digests = b"".join(
            hashlib.sha256(
                content(row) if content else content_of(self.x[row], f"example {row} of the {self.name} set")
            ).digest()[:16]
            for row in range(len(self))
        )
        return ExampleTable(
            Examples.from_keys(self.keys, self.labels, class_names),
            np.frombuffer(digests, dtype=np.uint8).reshape(len(self), 16),
        )


def _labels(labels: ArrayLike, name: str) -> NDArray[np.int32]:
    values = np.asarray(labels)
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.size == 0:
        given = repr(labels) if isinstance(labels, str) else f"{values.dtype} {values.shape}"
        raise InvalidInputError(f"the labels of the {name} set are {given}", hint=_label_hint(labels, values))
    if values.min() < 0 or values.max() >= 2**31:
        wrong = values.min() if values.min() < 0 else values.max()
        raise InvalidInputError(f"the {name} set has the label {wrong}", hint="number the classes from 0")
    return values.astype(np.int32)


def _label_hint(labels: ArrayLike, values: NDArray[Any]) -> str:
    if isinstance(labels, str):
        return (
            f"give the column itself: memdb.Dataset(train.drop(columns={labels!r}), train[{labels!r}], ...)"
        )
    if values.ndim == 1 and values.dtype.kind in "bf" and np.isin(values, np.arange(1000)).all():
        return "write labels.astype(int)"
    if values.ndim == 1 and values.dtype.kind in "OUST" and values.size:
        return "number the classes of both sets: names, labels = numpy.unique(labels, return_inverse=True)"
    return "give integers, one each"
