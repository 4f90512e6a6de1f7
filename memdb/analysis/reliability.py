"""Split-half reliability: how far the scores of two random halves of the models agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.examples import ExampleRef, require_own
from memdb.query.formulas import Arms, score
from memdb.query.pairs.popcount import counts
from memdb.query.ranked_list import first
from memdb.query.relations import Relations
from memdb.wording import count

LISTS = (10, 100, 1000)
FEWEST = 4  # models: two in each half
SUMS_AT_ONCE = 1 << 22  # each of one selection of models on one training example
CONFIDENCES_AT_ONCE = 512
MAX_SPLITS = 10_000
THRESHOLDS = {"memorization": 0.25, "influence": 0.15}  # Feldman and Zhang's
Numbers = NDArray[np.float64]


class Sums(NamedTuple):
    """The sums of some models, [train] each."""

    n_in: NDArray[Any]
    n_out: NDArray[Any]
    s_in: NDArray[Any]
    s_out: NDArray[Any]

    @property
    def scores(self) -> Numbers:
        """The differences in means; NaN where an arm is empty."""
        return score(Arms(self.s_in, self.s_in, self.n_in, self.s_out, self.s_out, self.n_out))


@dataclass(frozen=True, slots=True)
class Splitting:
    """The number and seed of random splits, and what is compared."""

    n_splits: int = 20
    seed: int = 0
    lists: Sequence[int] = field(default=LISTS)
    threshold: float | None = None

    def require(self, n_train: int, *, given: bool) -> None:
        """Check all values; default lists may be longer than the training set, lists that are given may not.

        Raises:
            InvalidInputError: a value out of range.
        """
        if not 1 <= self.n_splits <= MAX_SPLITS:
            raise InvalidInputError(
                f"splits {self.n_splits} is not a number from 1 to {MAX_SPLITS:,}",
                hint="use e.g. splits=20",
                parameter="splits",
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidInputError(
                f"seed {self.seed} is out of range", hint="use one from 0 to 2**64 - 1", parameter="seed"
            )
        if self.threshold is not None and not -1 < self.threshold < 1:
            raise InvalidInputError(
                f"threshold {self.threshold:g} is not between -1 and 1",
                hint="use e.g. threshold=0.25",
                parameter="threshold",
            )
        odd = [k for k in self.lists if k < 1 or (given and k > n_train)]
        if odd:
            raise InvalidInputError(
                f"k {odd[0]} is not a number from 1 to {n_train:,}",
                hint="a list cannot be longer than the training set",
                parameter="k",
            )


def reliability(
    relations: Relations, target: ExampleRef | None, splitting: Splitting, *, given: bool = False
) -> pa.Table:
    """Return one row per measure: its mean, minimum and maximum over the splits.

    Raises:
        NotEnoughModelsError: fewer than two models per half.
        InvalidInputError: an argument out of range.
    """
    snapshot = relations.snapshot
    splitting.require(snapshot.manifest.train.n_examples, given=given)
    if snapshot.n_models < FEWEST:
        raise NotEnoughModelsError(
            f"{snapshot.url} has {count(snapshot.n_models, 'model')}, too few for two halves",
            hint=f"train {FEWEST - snapshot.n_models} more, better 100, with `memdb train`",
        )
    if target is None or target.example_set == layout.TRAIN:
        require_own(snapshot)
    threshold = splitting.threshold
    if threshold is None:
        threshold = THRESHOLDS["memorization" if target is None else "influence"]
    halves = _halves(snapshot.model_ids, splitting)
    by_measure: dict[tuple[str, float | None], list[float | None]] = {}
    for a, b in _scores(relations, target, halves):
        for measure, at, value in _agreement(a, b, threshold, splitting.lists):
            by_measure.setdefault((measure, at), []).append(value)
    rows = []
    for (measure, at), all_values in by_measure.items():
        values = [value for value in all_values if value is not None]
        row = {"measure": measure, "at": at, "n_splits": len(values)}
        if values:
            row |= {"mean": math.fsum(values) / len(values), "least": min(values), "most": max(values)}
        rows.append(row)
    return arrow.of_records(rows, SCHEMA)


SCHEMA = pa.schema(
    [
        ("measure", pa.string()), ("at", pa.float64()), ("mean", pa.float64()), ("least", pa.float64()),
        ("most", pa.float64()), ("n_splits", pa.int64()),
    ]
)  # fmt: skip


def _halves(model_ids: Sequence[str], splitting: Splitting) -> NDArray[np.bool_]:
    """Return which models are in the first half, [splits, models]: a function of their ids and the seed."""
    by_id = np.argsort(np.array(model_ids), kind="stable")
    halves = np.zeros((splitting.n_splits, len(model_ids)), dtype=np.bool_)
    for split, half in enumerate(halves):
        draws = np.random.Philox(key=splitting.seed + (split << 64)).random_raw(len(model_ids))
        half[by_id[np.argsort(draws, kind="stable")[: len(model_ids) // 2]]] = True
    return halves


def _scores(
    relations: Relations, target: ExampleRef | None, halves: NDArray[np.bool_]
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the scores of both halves of each split, of the training examples that have both."""
    everyone = np.ones((1, halves.shape[1]), dtype=np.bool_)
    sums_of = _confidence_sums if relations.outcome == "confidence" else _bit_sums
    chosen, at_once = np.concatenate([everyone, halves]), max(1, SUMS_AT_ONCE // len(relations.mask))
    starts = range(0, len(chosen), at_once)
    sums = chain.from_iterable(sums_of(relations, target, chosen[at : at + at_once]) for at in starts)
    whole = next(sums)
    for half in sums:
        a, b = half.scores, Sums(*map(np.subtract, whole, half)).scores
        known = ~np.isnan(a) & ~np.isnan(b)
        yield a[known], b[known]


def _correlation(a: Numbers, b: Numbers) -> float | None:
    """Return the correlation of two halves' scores; None where one of them does not vary."""
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    return max(-1.0, min(1.0, float(a @ b) / math.sqrt((a @ a) * (b @ b))))


def _agreement(
    a: Numbers, b: Numbers, threshold: float, lists: Sequence[int]
) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield how far the scores of both halves of a split agree: measure, where, value."""
    yield "correlation", None, (r := _correlation(a, b))
    yield "spearman_brown", None, None if r is None or r <= -1 else 2 * r / (1 + r)
    high_a, high_b = a >= threshold, b >= threshold
    n_a, n_b, n_both = (int(np.count_nonzero(high)) for high in (high_a, high_b, high_a & high_b))
    yield "confirmed", threshold, (n_both / n_a + n_both / n_b) / 2 if n_a and n_b else None
    fitting = sorted({k for k in lists if k <= len(a)})
    ids = np.arange(len(a))
    top_a, top_b = (first(scores, scores, ids, max(fitting, default=1)) for scores in (a, b))
    for k in fitting:
        n_shared = len(np.intersect1d(top_a[:k], top_b[:k], assume_unique=True))
        yield "top_overlap", float(k), n_shared / (2 * k - n_shared)


def _bit_sums(relations: Relations, target: ExampleRef | None, chosen: NDArray[np.bool_]) -> Iterator[Sums]:
    """Yield the counts of each training example over each selection of models, bool [selections, models]."""
    mask = relations.mask
    right = relations.correct(layout.TRAIN if target is None else target.example_set)
    right = right if target is None else right[target.row : target.row + 1]
    some = bits.words(bits.pack(chosen.T))
    sums = (counts(some, rows) for rows in (mask, mask & right, right))
    for n_in, k_in, k_all, n_models in zip(*sums, chosen.sum(axis=1), strict=True):
        yield Sums(n_in, n_models - n_in, k_in, k_all - k_in)


def _confidence_sums(
    relations: Relations, target: ExampleRef | None, chosen: NDArray[np.bool_]
) -> Iterator[Sums]:
    """Yield sums of p likewise, in one pass over the confidences, which are much larger than bits."""
    mask, n_train = relations.mask, len(relations.mask)
    weights = chosen.T.astype(np.float64)  # [models, selections]; all products and sums are exact
    sums = {name: np.empty((len(chosen), n_train)) for name in ("n_in", "s_in", "s_all")}
    one = None if target is None else relations.confidences[target.example_set].of_one(target.row)[None]
    for start in range(0, n_train, CONFIDENCES_AT_ONCE):
        part = slice(start, min(n_train, start + CONFIDENCES_AT_ONCE))
        ids = np.arange(part.start, part.stop, dtype=np.int32)
        p = relations.confidences[layout.TRAIN].rows(ids)[0] if one is None else one
        inside = bits.unpack(mask[part].view(np.uint8), len(weights)).T
        sums["n_in"][:, part] = (inside @ weights).T
        sums["s_in"][:, part] = ((p * inside) @ weights).T
        sums["s_all"][:, part] = (p @ weights).T
    for n_models, n_in, s_in, s_all in zip(chosen.sum(axis=1), *sums.values(), strict=True):
        yield Sums(n_in, n_models - n_in, s_in, s_all - s_in)
