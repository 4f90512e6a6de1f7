"""Counts of each example over a block's models, stored beside its bits so that totals need not read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.format.manifest import CORRECT, Manifest
from memdb.format.segment import Segment

Integers = NDArray[np.integer[Any]]
Counts = NDArray[np.uint16]  # [names, examples]; a block has at most 1,024 models
COUNTED = np.dtype(np.uint16)
NAMES = ("n_correct",)
NAMES_OF_TRAIN = ("n_correct", "n_in", "k_in")


def names_of(set_name: str) -> tuple[str, ...]:
    """Return the names of the counts of a set's examples, in the order of the stored rows.

    ``n_correct``: how many models are right on the example; for training examples also how many had it in
    their subset (``n_in``), and how many of those are right (``k_in``).
    """
    return NAMES_OF_TRAIN if set_name == layout.TRAIN else NAMES


def has_counts(manifest: Manifest, segment: Segment) -> bool:
    """Tell whether a block stores counts; loose segments do not."""
    return all(layout.counts(set_name) in segment.metadata for set_name in _sets(manifest))


def _sets(manifest: Manifest) -> list[str]:
    paths = (path.split("/") for path in manifest.arrays())
    return [set_name for set_name, outcome in paths if outcome == CORRECT.name]


def are_possible(n_in: Integers, n_correct: Integers, k_in: Integers, n_models: int) -> bool:
    """Tell whether the counts are consistent: no more models right, inside or outside, than there are."""
    k_out, n_out = n_correct - k_in, n_models - n_in
    return bool(((k_in >= 0) & (k_in <= n_in) & (k_out >= 0) & (k_out <= n_out) & (n_in >= 0)).all())


class BlockCounter:
    """Counts a block's bits as they are written: all masks first, then each outcome, a few rows at a time."""

    def __init__(self, manifest: Manifest) -> None:
        self._counts: dict[str, Counts] = {
            name: np.zeros((len(names_of(name)), manifest.set_named(name).n_examples), dtype=COUNTED)
            for name in _sets(manifest)
        }
        self._mask = np.zeros((manifest.train.n_examples, 0), dtype=np.uint64)

    def add(self, path: str, start: int, packed: bits.Packed) -> None:
        """Count some rows of the masks or of ``<set>/correct``; other outcomes are ignored."""
        rows = slice(start, start + len(packed))
        words = bits.words(packed)
        set_name, _, outcome = path.partition("/")
        if path == layout.MASK:
            if not self._mask.shape[1]:
                self._mask = np.zeros((len(self._mask), words.shape[1]), dtype=np.uint64)
            self._mask[rows] = words
        elif outcome == CORRECT.name:
            counts = self._counts[set_name]
            counts[0, rows] = bits.count(words)
            if set_name == layout.TRAIN:
                counts[1, rows] = bits.count(self._mask[rows])
                counts[2, rows] = bits.count_and(self._mask[rows], words)

    def arrays(self) -> Mapping[str, Counts]:
        """Return the counts by their paths in the block."""
        return {layout.counts(set_name): values for set_name, values in self._counts.items()}
