"""Gradient sketches: how a store says which models have one, of what size, and by which projection.

A sketched model has an array ``<set>/gradient_sketch/<slot>`` in its segment for every set of the store,
float16 [examples, size], where the slot is the model's position in the segment. So models with and without a
sketch share segments and blocks, and one model's sketches are read without those of others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from memdb.errors import InvalidInputError
from memdb.format.documents import Json, Reader

SKETCH = "gradient_sketch"
SKETCH_DTYPE = "float16"
SKETCHES_FEATURE = "sketches"  # of segments: compaction by a memdb that does not know them would lose them
VERSION = 1  # of how signs derive from a projection's seed
DEFAULT_SIZE = 512
MAX_SIZE = 16384
MAX_MODELS = 10_000
DOMAIN = b"memdb-projection-1"

_PATH = re.compile(rf"([a-z][a-z0-9_-]{{0,62}})/{SKETCH}/(0|[1-9][0-9]{{0,6}})")


@dataclass(frozen=True, slots=True)
class Projection:
    """A random projection of gradients, a function of its size and seed alone: equal ones can be compared."""

    size: int
    seed: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise InvalidInputError(
                f"a sketch of size {self.size} cannot be made",
                hint=f"use a number from 1 to {MAX_SIZE:,}, such as {DEFAULT_SIZE}",
                parameter="sketch_size",
            )

    def __str__(self) -> str:
        return f"{self.size} numbers, projection {self.seed:016x}"

    @classmethod
    def of_store(cls, store_seed: int, size: int) -> Projection:
        """Return the projection of a store with this seed: every worker derives the same."""
        digest = hashlib.sha256(DOMAIN + store_seed.to_bytes(8, "little")).digest()
        return cls(size, int.from_bytes(digest[:8], "little"))

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object; the seed is a decimal string."""
        return {"seed": str(self.seed), "size": self.size, "version": self.version}

    @classmethod
    def from_reader(cls, read: Reader) -> Projection:
        """Parse the object."""
        text = read.take(
            "seed", str, "0", lambda v: v.isascii() and v.isdigit() and len(v) <= 20 and int(v) < 2**64
        )
        size = read.take("size", int, 1, lambda v: 1 <= v <= MAX_SIZE)
        return cls(size, int(text), read.take("version", int, VERSION, lambda v: v >= 1))

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], place: str) -> Projection:
        """Parse the attributes of a sketch's array.

        Raises:
            WrongFormatError: they do not describe a projection.
        """
        read = Reader(attributes, place)
        projection = cls.from_reader(read)
        read.finish("run the query on an undamaged copy of the store; `memdb verify` lists what is damaged")
        return projection


@dataclass(frozen=True, slots=True)
class SketchPlan:
    """What a store was created to sketch: the first ``models`` models that are committed to it."""

    models: int
    projection: Projection

    def __post_init__(self) -> None:
        require_n_models(self.models, "sketches")

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {"models": self.models, **self.projection.to_document()}

    @classmethod
    def from_reader(cls, read: Reader) -> SketchPlan:
        """Parse the object."""
        models = read.take("models", int, 1, lambda v: 1 <= v <= MAX_MODELS)
        return cls(models, Projection.from_reader(read))


def require_n_models(n_models: int, parameter: str) -> int:
    """Refuse a number of models to sketch that is not one.

    Raises:
        InvalidInputError: names it.
    """
    if type(n_models) is not int or not 1 <= n_models <= MAX_MODELS:
        raise InvalidInputError(
            f"{parameter} {n_models} is not a number from 1 to {MAX_MODELS:,}",
            hint=f"use e.g. {parameter}=10, or omit it",
            parameter=parameter,
        )
    return n_models


def require_no_size(size: int | None, parameter: str) -> None:
    """Refuse a size of sketches where ``parameter``, how many models to sketch, is not given.

    Raises:
        InvalidInputError: a size is given.
    """
    if size is not None:
        raise InvalidInputError(
            f"sketch_size {size} does nothing without a number of models to sketch",
            hint=f"say how many, such as {parameter}=10",
            parameter="sketch_size",
        )


def sketch_path(set_name: str, slot: int) -> str:
    """Return the path of the sketch of the model at a position of a segment."""
    return f"{set_name}/{SKETCH}/{slot}"


def is_sketch(path: str) -> bool:
    """Tell the array of a sketch from those of outcomes."""
    return _PATH.fullmatch(path) is not None


def sketched_slots(paths: Iterable[str], sets: Iterable[str], n_models: int) -> list[int]:
    """Return the positions of a segment's models that have a sketch for all of these sets."""
    slots: dict[str, set[int]] = {name: set() for name in sets}
    for match in filter(None, map(_PATH.fullmatch, paths)):
        if match[1] in slots:
            slots[match[1]].add(int(match[2]))
    complete = set.intersection(*slots.values()) if slots else set()
    return sorted(slot for slot in complete if slot < n_models)
