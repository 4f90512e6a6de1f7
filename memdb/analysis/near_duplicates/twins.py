"""Near-duplicates in what examples do: pairs of which each does for the other what it would do itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.query.pairs.kernel_twins import Bounds, Targets, TwinKernel
from memdb.query.pairs.scores import pair_bits, require_fit
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBits, PairChoice
from memdb.query.relations import Relations
from memdb.query.statistics import Candidates, p_values, q_values

CAREFUL = 0.8  # of the normal quantile: the exact test may find a bit more than it
MOST_MODELS = 1 << 20
ROWS = 65_536  # pairs counted at once
Ids = NDArray[np.int32]
Numbers = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Found:
    """Pairs of a first training example and a second, or a test example; out of how many."""

    first: Ids
    second: Ids
    n_ranked: int


@dataclass(frozen=True)
class Arms:
    """The models that hold a target out, with another training example and without, and those trained on it.

    Each int64 [pairs]: ``n_in`` and ``k_in`` of the first, ``n_out`` and ``k_out`` of the second, and of the
    last ``n_own_in`` and ``k_own_in``; ``k_own_out`` is ``k_out`` again. All models hold a test example out:
    its own counts are those of the training example on itself.
    """

    n_in: NDArray[np.int64]
    k_in: NDArray[np.int64]
    n_out: NDArray[np.int64]
    k_out: NDArray[np.int64]
    n_own_in: NDArray[np.int64]
    k_own_in: NDArray[np.int64]
    k_own_out: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.n_in)

    def only(self, rows: NDArray[Any]) -> Arms:
        """Return some of them."""
        return Arms(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def influence(self) -> Numbers:
        """The influence on the target over the models that hold it out; NaN without one or the other."""
        return _rate(self.k_in, self.n_in) - _rate(self.k_out, self.n_out)

    @property
    def share(self) -> Numbers:
        """The influence as a share of what an example does for itself; NaN where that is nothing."""
        gain = _rate(self.k_own_in, self.n_own_in) - _rate(self.k_own_out, self.n_out)
        share: Numbers = np.divide(self.influence, gain, out=np.full(len(self), np.nan), where=gain > 0)
        return share

    @property
    def null_se(self) -> Numbers:
        """The standard deviation of the influence by chance; NaN without models of both kinds."""
        n, total = self.n_in + self.n_out, self.k_in + self.k_out
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = total * (n - total) / (n * np.maximum(1, n - 1)) * (1 / self.n_in + 1 / self.n_out)
        return np.sqrt(np.where((self.n_in > 0) & (self.n_out > 0), spread, np.nan))

    def p_values(self) -> Numbers:
        """Return two-sided p-values of no influence, by the exact test over the models that hold out."""
        p, n_held, null_se = np.ones(len(self)), self.n_in + self.n_out, self.null_se
        known, total = ~np.isnan(null_se), self.k_in + self.k_out
        for n in np.unique(n_held[known]).tolist():
            at = np.flatnonzero(known & (n_held == n))
            unused, one = np.zeros(len(at)), np.ones(len(at), dtype=np.bool_)
            counted = self.influence[at], unused, unused, null_se[at], self.n_in[at], n, one
            p[at] = p_values(Candidates(*counted, self.k_in[at], total[at]))
        return p


def _rate(k: NDArray[np.int64], n: NDArray[np.int64]) -> Numbers:
    rate: Numbers = np.divide(k, n, out=np.full(len(n), np.nan), where=n > 0)
    return rate


class Twins:
    """Searches a store for pairs that do the same, and counts what they do."""

    def __init__(self, relations: Relations, bounds: Bounds, min_influence: float) -> None:
        self._relations, self._bounds, self._min_influence = relations, bounds, min_influence
        self._same_class = relations.are_labelled

    def within(self, progress: Progress) -> Found:
        """Return the pairs of training examples that stand in for each other, the smaller id first."""
        relations = self._relations
        labels = relations.labels(layout.TRAIN)
        targets = Targets.of(relations.mask, relations.correct(layout.TRAIN))
        known = PairBits(
            n_models=relations.snapshot.n_models,
            masks=relations.mask,
            train_labels=labels,
            memorization=np.zeros(len(labels)),
            correct=targets.alone,
            test_labels=labels,
            n_in=targets.n_in.astype(np.int32),
            n_correct=targets.k_out.astype(np.int32),
        )
        kernel = partial(TwinKernel, targets=targets, bounds=self._bounds)
        search = PairSearch(known, self._choice, kernel=kernel, is_final=True)
        n_ranked = pairs_within(search.trains.labels, same_class=self._same_class)
        found = self._found(search, n_ranked, progress)
        return Found(found.second, found.first, found.n_ranked)  # the kernel gives the smaller as the target

    def between(self, progress: Progress) -> Found:
        """Return the pairs of a training and a test example of which the first stands in for the second."""
        search = PairSearch(pair_bits(self._relations), self._choice)
        return self._found(search, search.n_ranked, progress)

    @property
    def _choice(self) -> PairChoice:
        return PairChoice(min_influence=self._min_influence, same_class=self._same_class)

    def _found(self, search: PairSearch, n_ranked: int, progress: Progress) -> Found:
        parts = [np.zeros((2, 0), np.int32)]
        for block in search.blocks(progress=progress):
            pairs = np.stack([block.train_id, block.test_id])
            parts.append(pairs if search.is_final else pairs[:, self._may_count(*pairs)])
            require_fit(sum(part.shape[1] for part in parts))
        first, second = np.concatenate(parts, axis=1)
        return Found(first, second, n_ranked)

    def _may_count(self, train: Ids, test: Ids) -> NDArray[np.bool_]:
        """Return which pairs with test examples reach the bounds that the kernel of others applies itself."""
        arms = self.arms(train, test, layout.TEST)
        large = arms.influence >= self._bounds.null_z * arms.null_se
        return large & (arms.share >= self._bounds.share) & (arms.share <= 1 / self._bounds.share)

    def arms(self, train: Ids, targets: Ids, set_name: str) -> Arms:
        """Count what training examples do for targets of a set, pair by pair."""
        starts = range(0, max(1, len(train)), ROWS)
        parts = [
            self._arms(train[start : start + ROWS], targets[start : start + ROWS], set_name)
            for start in starts
        ]
        return Arms(*np.concatenate(parts, axis=1))

    def _arms(self, train: Ids, targets: Ids, set_name: str) -> NDArray[np.int64]:
        """Return the columns of `Arms` of a few pairs, int64 [columns, pairs]."""
        relations, n_models = self._relations, self._relations.snapshot.n_models
        mask = relations.mask[train]
        correct = relations.correct(set_name)[targets]
        own = relations.mask[targets] if set_name == layout.TRAIN else np.zeros_like(mask)
        n_in, k_in = bits.count(mask & ~own), bits.count(mask & ~own & correct)
        n_out, k_out = n_models - bits.count(mask | own), bits.count(correct & ~(mask | own))
        if set_name != layout.TRAIN:
            own, correct = mask, relations.correct(layout.TRAIN)[train]
        of_own = bits.count(own), bits.count(own & correct), bits.count(correct & ~(mask | own))
        return np.stack([n_in, k_in, n_out, k_out, *of_own]).astype(np.int64)


def pairs_within(labels: NDArray[np.int32], *, same_class: bool) -> int:
    """Return how many pairs there are of examples with these labels, of one class or of all."""
    times = np.unique(labels, return_counts=True)[1] if same_class else np.array([len(labels)])
    return int((times * (times - 1) // 2).sum())


def bounds_for(share: float, alpha: float) -> Bounds:
    """Return what pairs must reach that may have a share, and a q-value of at most ``alpha``."""
    return Bounds(share, CAREFUL * NormalDist().inv_cdf(1 - alpha / 2))


def q_of(p: Numbers, n_ranked: int) -> Numbers:
    """Return q-values of pairs found, of all those ranked: others count as less significant than any."""
    ranked: Numbers = np.minimum(1.0, q_values(p / max(1, len(p))) * max(n_ranked, len(p)))
    return ranked


def models_needed(fraction: float, n_ranked: int, alpha: float) -> int:
    """Return with how many models the surest pair that there can be has a q-value of ``alpha``.

    It decides the outcome: right with the other in, wrong with both out.
    """
    n_models = 2
    while n_models < MOST_MODELS:
        held = round(n_models * (1 - fraction))
        if 2 / math.comb(held, round(held * fraction)) * n_ranked <= alpha:
            break
        n_models += max(1, n_models // 50)
    return n_models
