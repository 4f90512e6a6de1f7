"""Read the arrays of a segment or block, or those of some of its models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits
from memdb.format.segment import ModelInfo, Segment
from memdb.storage.protocol import Storage
from memdb.store.read_arrays import GroupReader


@dataclass(frozen=True)
class Selection:
    """Some models of a segment or block, in order, and the storage that holds it."""

    storage: Storage
    segment: Segment
    keep: tuple[bool, ...]

    @property
    def n_models(self) -> int:
        """How many models are selected."""
        return sum(self.keep)

    @property
    def models(self) -> list[ModelInfo]:
        """The selected models."""
        return list(compress(self.segment.models, self.keep))

    @property
    def origins(self) -> list[str]:
        """The segment that each selected model was committed in."""
        return list(compress(self.segment.origins, self.keep))

    def read_bits(
        self, path: str, n_examples: int, rows: tuple[int, int] | None = None
    ) -> tuple[bits.Packed, int]:
        """Read the models' bits, packed [rows, ceil(models / 8)]; return them and the number of models."""
        return read_bits(self.storage, self.segment, path, n_examples, self.keep, rows)

    def read_values(
        self, path: str, n_examples: int, dtype: str, rows: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """Read an outcome of another kind than ``bit``, [rows, models]."""
        values = arrays_of(self.storage, self.segment).read(path, (n_examples, len(self.keep)), dtype, rows)
        return values[:, list(self.keep)]


def cut_into(selections: Iterable[Selection], most: int) -> Iterator[list[Selection]]:
    """Yield batches of at most ``most`` models together, in order; larger selections are cut."""
    batch: list[Selection] = []
    room = most
    for selection in selections:
        flags = np.asarray(selection.keep)
        positions = np.flatnonzero(flags)
        while len(positions):
            taken, positions = positions[:room], positions[room:]
            chosen = np.zeros_like(flags)
            chosen[taken] = True
            batch.append(replace(selection, keep=tuple(chosen.tolist())))
            room -= len(taken)
            if room == 0:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def arrays_of(storage: Storage, segment: Segment) -> GroupReader:
    """Return what reads the arrays of a segment or block as they are stored."""
    return GroupReader(storage, segment.group, segment.objects, segment.metadata)


def read_bits(
    storage: Storage,
    segment: Segment,
    path: str,
    n_examples: int,
    keep: tuple[bool, ...],
    rows: tuple[int, int] | None = None,
) -> tuple[bits.Packed, int]:
    """Read the bits of some models, packed [rows, ceil(kept / 8)]; return them and the number of models."""
    shape = (n_examples, bits.n_bytes(len(keep)))
    packed = arrays_of(storage, segment).read(path, shape, "uint8", rows)
    if not all(keep):
        packed = bits.pack(bits.unpack(packed, len(keep))[list(keep)])
    else:
        packed &= bits.selection([True] * len(keep))  # padding bits would become other models'
    return packed, sum(keep)
