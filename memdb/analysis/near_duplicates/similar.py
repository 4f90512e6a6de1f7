"""Near-duplicates in what they teach: training and other examples whose gradients point the same way.

A gradient sketch says which way an example pushes a model. Whitened by the second moment of the model's
training examples, as in the prior of `memdb.query.informed`, it lacks what a class has in common, and two of
it are as good as orthogonal unless they teach the same. That needs neither pictures nor examples that models
get wrong: gradients of easy examples are small, yet have a direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.near_duplicates.lookalikes import CROWD, STANDS_OUT, Alike, require_few
from memdb.format import layout
from memdb.query.informed.predictor import Predictor
from memdb.query.informed.prior import Kernel
from memdb.query.informed.products import CPU
from memdb.query.relations import Relations

CHANCE = 0.01  # that a projection makes any pair similar
PAIRS_AT_ONCE = 1 << 23  # of some examples and all training examples of their class
Ids = NDArray[np.int64]
Numbers = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Directions:
    """Whitened sketches of both sets, and the classes that pairs are compared within.

    Similarity is the cosine of two sketches, those of all sketched models end to end.
    """

    kernels: dict[str, Kernel]
    labels: dict[str, NDArray[np.int32]]
    norms: dict[str, Numbers]

    @classmethod
    def of(cls, relations: Relations) -> Directions | None:
        """Return those of a snapshot; None if it has no sketches."""
        kernels = Predictor(relations).kernels
        if kernels is None:
            return None
        labels = {name: relations.labels(name) for name in kernels}
        if not relations.are_labelled:
            labels = {name: np.zeros_like(values) for name, values in labels.items()}
        return cls(kernels, labels, {name: _norms(kernel) for name, kernel in kernels.items()})

    def alike(self, set_name: str, min_similarity: float, progress: Progress) -> Alike:
        """Return the pairs of a training example and one of a set that are similar, and stand out.

        That is, their distance, 1 - similarity, is at most a share of that of either, or of the test example,
        from its ninth nearest of the training set; and no random projection of their size makes any pair this
        similar by chance.

        Raises:
            InvalidInputError: more pairs than fit in memory, as of thousands of copies.
        """
        within = set_name == layout.TRAIN
        classes = self._classes(set_name)
        total = sum(len(targets) for targets, _ in classes)
        least = max(min_similarity, self._by_chance(classes))
        usual = np.full(len(self.labels[set_name]), np.inf)
        parts, done, n_found = [np.zeros((3, 0))], 0, 0
        for targets, trains in classes:
            for rows, similarity in self._similarities(set_name, targets, trains):
                distance = 1 - similarity
                usual[rows] = _usual(distance)
                stands_out = distance <= STANDS_OUT * usual[rows, None]  # few do, however many are similar
                row, column = np.nonzero(stands_out & (similarity >= least))
                parts.append(np.stack([trains[column], rows[row], distance[row, column]]))
                n_found += len(row)
                require_few(
                    n_found // 2 if within else n_found, "gradient sketches that are as good as equal"
                )
                done += len(rows)
                progress(done, total)
        train, target, distance = np.concatenate(parts, axis=1)
        first, second = train.astype(np.int32), target.astype(np.int32)
        kept = np.ones(len(first), dtype=np.bool_)
        if within:
            kept = (first < second) & (distance <= STANDS_OUT * usual[first])
        return Alike(first[kept], second[kept], np.maximum(distance[kept], 0))

    def _classes(self, set_name: str) -> list[tuple[Ids, Ids]]:
        """Return the examples of each class of a set, and its training examples, if it has any."""
        labels, of_train = self.labels[set_name], self.labels[layout.TRAIN]
        classes = [
            (np.flatnonzero(labels == label), np.flatnonzero(of_train == label))
            for label in np.unique(labels)
        ]
        return [(targets, trains) for targets, trains in classes if len(trains)]

    def _by_chance(self, classes: list[tuple[Ids, Ids]]) -> float:
        """Return how similar none of all pairs is by the chance of their projection."""
        n_pairs = sum(len(targets) * len(trains) for targets, trains in classes)
        width = self.kernels[layout.TRAIN].numbers.shape[1]
        return -NormalDist().inv_cdf(CHANCE / max(1, n_pairs)) / math.sqrt(width)

    def _similarities(self, set_name: str, targets: Ids, trains: Ids) -> Iterator[tuple[Ids, Numbers]]:
        """Yield for some targets at a time how similar all these training examples are; -1 for themselves."""
        every, n_rows = slice(None), max(1, PAIRS_AT_ONCE // len(trains))
        right, left = (self.kernels[name] for name in (layout.TRAIN, set_name))
        packed = CPU.packed(right.part(trains, every).numbers)
        for start in range(0, len(targets), n_rows):
            rows = targets[start : start + n_rows]
            similarities = CPU.product(left.part(rows, every).numbers, packed).astype(np.float32)
            similarities /= self.norms[set_name][rows][:, None] * self.norms[layout.TRAIN][trains]
            if set_name == layout.TRAIN:
                similarities[rows[:, None] == trains] = -1
            yield rows, similarities


def _norms(kernel: Kernel) -> Numbers:
    """Return the lengths of sketches in the units of their numbers; infinity where a gradient is 0."""
    squares = np.einsum("ij,ij->i", kernel.numbers, kernel.numbers, dtype=np.float64, casting="unsafe")
    return np.where(squares > 0, np.sqrt(squares), np.inf).astype(np.float32)


def _usual(distance: Numbers) -> Numbers:
    """Return how far each row is from its ninth nearest; infinity if there are fewer."""
    if distance.shape[1] <= CROWD + 1:  # one may be the example itself
        return np.full(len(distance), np.inf, dtype=np.float32)
    return np.partition(distance, CROWD, axis=1)[:, CROWD]
