"""Somebody's attribution scores of all pairs: a matrix, or the pairs that somebody published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.interop.arrays import ArrayFile, open_arrays
from memdb.interop.by_name import names_of
from memdb.interop.class_formats import pairs_by_class
from memdb.interop.score_formats import ScoreFile, listed_pairs, require_scores

MATRIX = 2  # dimensions


@dataclass(frozen=True, slots=True)
class ListedPairs:
    """The pairs of a file as a matrix [test, train], 0 where a pair is not listed; read in ranges of rows."""

    place: str
    shape: tuple[int, int]
    starts: NDArray[np.int64]  # of each test example's pairs, [test + 1]
    train: NDArray[np.integer]
    values: NDArray[np.floating]

    @classmethod
    def of(cls, file: ScoreFile, shape: tuple[int, int]) -> ListedPairs:
        """Sort the pairs of a file by test example.

        Raises:
            InvalidInputError: a pair of examples that the store does not have, or other sizes than its.
        """
        require_scores(file)
        for name, given, n in zip(
            (layout.TEST, layout.TRAIN), (file.scores.test_id, file.scores.train_id), shape, strict=True
        ):
            stated = file.sizes.get(name, n)
            largest = int(given.max(initial=-1))
            if stated != n or largest >= n:
                found = (
                    f"has {stated:,} {name} examples" if stated != n else f"names {name} example {largest:,}"
                )
                raise InvalidInputError(
                    f"{file.place} {found}, and the store has {n:,}",
                    hint="give scores of the store's examples",
                )
        if not len(file.scores.influence):
            raise InvalidInputError(f"{file.place} holds no influences", hint="give scores of pairs")
        order = np.argsort(file.scores.test_id, kind="stable")
        starts = np.searchsorted(file.scores.test_id[order], np.arange(shape[0] + 1))
        scores = file.scores
        return cls(file.place, shape, starts, scores.train_id[order], scores.influence[order])

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return the scores on a range of test examples."""
        found = np.zeros((stop - start, self.shape[1]))
        pairs = slice(self.starts[start], self.starts[stop])
        tests = np.repeat(np.arange(stop - start), np.diff(self.starts[start : stop + 1]))
        found[tests, self.train[pairs]] = self.values[pairs]
        return found


def open_attributions(path: Path, shape: tuple[int, int]) -> ArrayFile | ListedPairs:
    """Open attribution scores of the pairs of a store, whose sets have these sizes, [test, train].

    A .npy file with a matrix, an .npz file with one, or pairs as in `score_formats`.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: it holds neither, or no numbers. Shapes are the caller's to check.
    """
    arrays = open_arrays(path)
    for read in (listed_pairs, pairs_by_class):
        found = read(path, arrays)
        if found is not None:
            return ListedPairs.of(found, shape)
    return _matrix(path, arrays)


def _matrix(path: Path, arrays: Mapping[str, ArrayFile]) -> ArrayFile:
    matrices = [file for file in arrays.values() if len(file.shape) == MATRIX]
    if len(arrays) == 1:
        matrices = list(arrays.values())  # of another shape: who asks says which is expected
    if len(matrices) != 1:
        raise InvalidInputError(
            f"{path} has {names_of(arrays)}: which of them are the scores?",
            hint="give a .npy file, or an .npz with one matrix, or with tr_idx, tt_idx, infl and mem",
        )
    if matrices[0].dtype.kind not in "fiu":
        raise InvalidInputError(f"{matrices[0].place} is {matrices[0].dtype}", hint="give real numbers")
    return matrices[0]
