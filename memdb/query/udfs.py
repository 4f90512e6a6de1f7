"""The functions behind the views of pairs: they count pairs over all models, a vector of pairs at a time.

They must not reference the `Relations` that they serve: the cycle through DuckDB would never be freed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import bits
from memdb.query.arrow import column, values_of
from memdb.query.confidences import Confidences
from memdb.query.options import MAX_PAIRS

PAIRS_AT_ONCE = 256  # pairs of confidences without a common target, each of which needs a row of numbers
Words = NDArray[np.uint64]  # [examples, ceil(models / 64)]
Ids = NDArray[np.int32]


@dataclass
class Budget:
    """The number of pairs that a statement may count, and how many of them are left."""

    allowed: int = MAX_PAIRS
    left: int = MAX_PAIRS

    def spend(self, n_pairs: int) -> None:
        """Deduct pairs.

        Raises:
            InvalidInputError: fewer are left.
        """
        self.left -= n_pairs
        if self.left < 0:
            raise InvalidInputError("too many pairs")


def counter(
    mask_of: Callable[[], Words], targets_of: Callable[[], Words], budget: Budget
) -> Callable[[Any, Any], pa.Array]:
    """Return an Arrow function that counts the models trained on one example and correct on the other."""

    def count_pairs(train_ids: Any, target_ids: Any) -> pa.Array:
        mask, correct = mask_of(), targets_of()
        trains, targets = _ids(train_ids, len(mask)), _ids(target_ids, len(correct))
        budget.spend(len(trains))
        if (targets == targets[0]).all():
            return column(bits.count_and(mask[_rows(trains)], correct[targets[0]]))
        if (trains == trains[0]).all():
            return column(bits.count_and(correct[_rows(targets)], mask[trains[0]]))
        return column(bits.count_and(mask[trains], correct[targets]))

    return count_pairs


def summer(
    mask_of: Callable[[], Words], confidences: Confidences, n_models: int, budget: Budget
) -> Callable[[Any, Any], pa.Array]:
    """Return an Arrow function that sums p and its square over the models trained on the first example."""

    def sum_pairs(train_ids: Any, target_ids: Any) -> pa.Array:
        mask = mask_of()
        trains, targets = _ids(train_ids, len(mask)), _ids(target_ids, confidences.n_examples)
        budget.spend(len(trains))
        s, q = np.empty(len(trains)), np.empty(len(trains))
        if (targets == targets[0]).all():
            s[:], q[:] = confidences.weights(int(targets[0])).sums(mask[_rows(trains)])
        else:
            by_target = np.argsort(targets, kind="stable")
            for at in np.split(by_target, range(PAIRS_AT_ONCE, len(by_target), PAIRS_AT_ONCE)):
                p, squares = confidences.rows(targets[at])
                inside = bits.unpack(mask[trains[at]].view(np.uint8), n_models).T
                s[at], q[at] = (p * inside).sum(axis=1), (squares * inside).sum(axis=1)
        return pa.StructArray.from_arrays([column(s), column(q)], ["s", "q"])

    return sum_pairs


def _ids(given: Any, n_examples: int) -> Ids:
    ids = values_of(given)
    if ids.min() < 0 or ids.max() >= n_examples:
        raise InvalidInputError(f"no example has one of the ids {ids.min()} to {ids.max()}")
    return ids


def _rows(ids: Ids) -> slice | Ids:
    """Return contiguous ids as a slice, which needs no gathering."""
    contiguous = (np.diff(ids) == 1).all()
    return slice(int(ids[0]), int(ids[0]) + len(ids)) if contiguous else ids
