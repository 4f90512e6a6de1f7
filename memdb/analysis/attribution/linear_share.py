"""How much of what models do is linear in their masks, and so the most that attribution scores can predict.

Attribution scores predict a model's outcome on a test example as a sum over its subset. No choice of scores
explains more of the outcome's variance over models than its linear share, h^2: interactions between examples
and the noise of training are out of reach. Models that share more of their subsets say more similar things in
proportion to h^2, so the slope of a regression of products of outcomes on the similarity of masks, over pairs
of models, estimates it without estimating any influence (Haseman and Elston 1972; known for the heritability
of traits from genomes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.attribution.model_outcomes import outcomes_on_tests
from memdb.format import bits, layout
from memdb.query.examples import require_examples
from memdb.query.relations import Relations

FEWEST = 20  # models
MOST = 6000  # models: a matrix of them takes 144 MB, and more would hardly sharpen the estimate
PRECISE = 1000  # models up to which float64 costs nothing, and all machines give the same digits
PERMUTATIONS = 20
TRAINS_AT_ONCE = 2048
TESTS_AT_ONCE = 256
ROWS_AT_ONCE = 512
ALIKE = 0.5  # correlation of masks that are copies or complements of each other, and not independent
SEED = 0
NODES = 2000  # of the integral over test examples
SPREAD = 0.95  # of the widest variance that a mean allows
Numbers = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LinearShare:
    """The share of the outcomes' variance over models that is linear in the mask, mean over test examples.

    Attributes:
        h2, lo, hi: the share and its interval, which covers the choice of models, not of test examples.
        permuted, permuted_se: the mean share, and its standard error, when each model gets another's mask:
            0 unless something else than the masks makes it.
        ranked: the share of the variance of the outcomes' ranks, which rank correlations are about.
        ranked_lo, ranked_hi: its interval.
        variance: of that share between test examples.
        n_models, n_tests: how many it was estimated from; test examples that all models agree on have none.
        n_train: the number of training examples whose presence varies.
    """

    h2: float
    lo: float
    hi: float
    permuted: float
    permuted_se: float
    ranked: float
    ranked_lo: float
    ranked_hi: float
    variance: float
    n_models: int
    n_tests: int
    n_train: int

    @property
    def ceiling(self) -> float:
        """The largest mean linear datamodeling score that any attribution can be expected to have."""
        return self._mean_lds(self.ranked)

    @property
    def ceiling_interval(self) -> tuple[float, float]:
        """The interval of the ceiling that follows from that of the share."""
        return self._mean_lds(self.ranked_lo), self._mean_lds(self.ranked_hi)

    def forecast(self, n_models: float, ranked: float | None = None) -> float:
        """Return the mean linear datamodeling score to expect of raw influences from this many models.

        The sum of t-model influences over a subset is the sum of the true ones plus noise with n/t of the
        outcome's variance, so it correlates with the outcome by h^2 / sqrt(h^2 + n/t) (Daetwyler and others
        2008, of the accuracy of genomic prediction).
        """
        return self._mean_lds(self.ranked if ranked is None else ranked, self.n_train / n_models)

    def models_for(self, lds: float, most: int, ranked: float | None = None) -> int | None:
        """Return the fewest models whose raw influences are expected to score this; None beyond ``most``."""
        if self.forecast(most, ranked) < lds:
            return None
        below, above = 0, most
        while above - below > 1:
            tried = (below + above) // 2
            below, above = (below, tried) if self.forecast(tried, ranked) >= lds else (tried, above)
        return above

    def _mean_lds(self, ranked: float, noise: float = 0.0) -> float:
        """Return the mean over test examples whose shares are Beta-distributed with this mean."""
        if ranked <= 0:
            return 0.0
        shares, weights = _beta(min(ranked, 1.0), self.variance)
        correlation = shares / np.sqrt(shares + noise)
        return float(weights @ _spearman(correlation))


def _spearman(correlation: Numbers) -> Numbers:
    """Return the rank correlation that goes with a correlation with ranks, for normal variables."""
    normal = np.minimum(correlation / math.sqrt(3 / math.pi), 1.0)
    rank_correlation: Numbers = 6 / math.pi * np.arcsin(normal / 2)
    return rank_correlation


def _beta(mean: float, variance: float) -> tuple[Numbers, Numbers]:
    """Return points in (0, 1) and their weights in a Beta distribution; one point if it is narrow."""
    variance = min(variance, SPREAD * mean * (1 - mean))
    if variance <= 1e-6:
        return np.array([mean]), np.ones(1)
    size = mean * (1 - mean) / variance - 1
    a, b = mean * size, (1 - mean) * size
    root = (np.arange(NODES) + 0.5) / NODES  # fourth roots, so that the density is finite at 0 for a >= 1/4
    points = root**4
    logs = (4 * a - 1) * np.log(root) + (b - 1) * np.log1p(-points)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    return points * (mean / (weights @ points)), weights


def linear_share(
    relations: Relations, outcome: str, level: float, progress: Progress = lambda _done, _total: None
) -> LinearShare | None:
    """Estimate the linear share of an outcome of test examples; None with too few models or none that differ.

    Memory is three numbers for each pair of models, of `MOST` models at most, and a band of examples.
    """
    n_tests = require_examples(relations.snapshot, layout.TEST)
    chosen = _some_models(relations.snapshot.n_models)
    if len(chosen) < FEWEST:
        return None
    similarity, n_train = _mask_similarity(relations, chosen)
    masks = _Pairs.of(similarity)
    if n_train < 2 or masks.scale == 0:
        return None
    halves = [_Pairs.of(_recentred(similarity[part, part])) for part in _halves(len(chosen))]
    sums = {kind: _Sums(masks, halves) for kind in ("values", "ranks")}
    for start in range(0, n_tests, TESTS_AT_ONCE):
        progress(start, n_tests)
        tests = np.arange(start, min(n_tests, start + TESTS_AT_ONCE))
        values = outcomes_on_tests(relations, outcome, tests)[:, chosen]
        values = values[values.min(axis=1) < values.max(axis=1)]
        sums["ranks"].add(_ranks(values))
        if outcome != "correct":  # whose ranks are a linear function of it
            sums["values"].add(values)
    progress(n_tests, n_tests)
    ranks = sums["ranks"]
    if ranks.n_tests == 0:
        return None
    return _concluded(ranks if outcome == "correct" else sums["values"], ranks, n_train, level)


def _concluded(raw: _Sums, ranks: _Sums, n_train: int, level: float) -> LinearShare:
    """Return what sums over all test examples say."""
    (h2, se), (ranked, ranked_se) = raw.slope(), ranks.slope()
    permuted = raw.permuted()
    z = NormalDist().inv_cdf((1 + level) / 2)
    return LinearShare(
        h2=h2,
        lo=h2 - z * se,
        hi=h2 + z * se,
        permuted=float(permuted.mean()),
        permuted_se=float(permuted.std(ddof=1) / math.sqrt(len(permuted))),
        ranked=ranked,
        ranked_lo=ranked - z * ranked_se,
        ranked_hi=ranked + z * ranked_se,
        variance=ranks.variance(),
        n_models=ranks.n_models,
        n_tests=ranks.n_tests,
        n_train=n_train,
    )


def _some_models(n_models: int) -> NDArray[np.int64]:
    """Return the positions of all models, or of `MOST` of them drawn at random, in a random order.

    The order makes the two halves random, too.
    """
    order = np.argsort(np.random.Philox(key=SEED).random_raw(n_models), kind="stable")
    return order[:MOST]


def _halves(n_models: int) -> tuple[slice, slice]:
    return slice(0, n_models // 2), slice(n_models // 2, n_models)


def _mask_similarity(relations: Relations, chosen: NDArray[np.int64]) -> tuple[Floats, int]:
    """Return the mean product of two models' standardized masks, [models, models].

    Also return how many training examples some models had and others had not.
    """
    n_models, n_varying = relations.snapshot.n_models, 0
    real = np.float64 if len(chosen) <= PRECISE else np.float32
    similarity: Floats = np.zeros((len(chosen), len(chosen)), dtype=real)
    for start in range(0, len(relations.mask), TRAINS_AT_ONCE):
        packed = relations.mask[start : start + TRAINS_AT_ONCE].view(np.uint8)
        inside: Floats = bits.unpack(packed, n_models)[chosen].astype(real)
        inside -= inside.mean(axis=0)
        spread = np.sqrt(np.square(inside).mean(axis=0))
        varies = spread > 0
        inside = inside[:, varies] / spread[varies]
        similarity += inside @ inside.T  # which BLAS knows to be symmetric, and computes by half
        n_varying += int(varies.sum())
    similarity /= max(1, n_varying)
    return similarity, n_varying


def _recentred(similarity: Floats) -> Floats:
    """Return what the similarity would be if masks were centred among these models alone."""
    means = similarity.mean(axis=0)
    recentred: Floats = similarity - means - means[:, None] + means.mean()
    return recentred


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pairs of models with independent masks: their similarity less its mean; 0 for all other pairs."""

    values: Floats  # [models, models]
    scale: float  # sum of squares

    @classmethod
    def of(cls, similarity: Floats) -> _Pairs:
        used = np.abs(similarity) <= ALIKE
        np.fill_diagonal(used, val=False)
        n_used = int(used.sum())
        mean = float(similarity.sum(where=used, dtype=np.float64)) / max(1, n_used)
        values = np.where(used, similarity - mean, 0)
        return cls(values, float(np.square(values).sum(dtype=np.float64)))

    def slopes(self, values: Floats) -> Numbers:
        """Return the slope of each row of standardized outcomes [tests, models]."""
        products = np.einsum("zm,zm->z", values @ self.values, values, dtype=np.float64)
        slopes: Numbers = products / self.scale
        return slopes


class _Sums:
    """What bands of test examples add to the regression."""

    def __init__(self, masks: _Pairs, halves: list[_Pairs]) -> None:
        self._masks, self._halves = masks, halves
        self.n_models = len(masks.values)
        self._products = np.zeros_like(masks.values)
        self._slopes: list[Numbers] = []  # [2, tests]: of either half
        self.n_tests = 0

    def add(self, values: Numbers) -> None:
        """Add outcomes that vary, [tests, models]."""
        if not len(values):
            return
        whole = self._standardized(values)
        self._products += whole.T @ whole
        parts = zip(self._halves, _halves(values.shape[1]), strict=True)
        self._slopes.append(
            np.stack([pairs.slopes(self._standardized(values[:, part])) for pairs, part in parts])
        )
        self.n_tests += len(values)

    def _standardized(self, values: Numbers) -> Floats:
        """Return rows with mean 0 and variance 1; rows without variance become 0."""
        centred = values - values.mean(axis=1, keepdims=True)
        spread = centred.std(axis=1, ddof=1, keepdims=True)
        scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
        return np.asarray(scaled, dtype=self._products.dtype)

    def slope(self) -> tuple[float, float]:
        """Return the mean slope over test examples and its standard error.

        Two pairs with a model in common are not independent: the variance adds up over models, as for dyads
        (Aronow and others 2015).
        """
        similarity, used = self._masks.values, self._masks.values != 0
        products = self._products / self.n_tests
        slope = _dot(similarity, products) / self._masks.scale
        mean = float(products.sum(where=used, dtype=np.float64) / used.sum())
        by_model, squares = np.empty(len(products)), 0.0
        for start in range(0, len(products), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            residual = products[rows] - mean - slope * similarity[rows]
            terms = similarity[rows] * residual
            by_model[rows] = terms.sum(axis=1, dtype=np.float64)
            squares += float(np.square(terms, dtype=np.float64).sum()) / 2
        shared = float(by_model @ by_model) - squares
        variance = max(shared, squares)  # the latter is that of pairs that are independent
        return slope, 2 * math.sqrt(variance) / self._masks.scale

    def permuted(self) -> Numbers:
        """Return the mean slope in each of some permutations of the masks."""
        rng = np.random.Generator(np.random.Philox(key=SEED))
        shares = np.empty(PERMUTATIONS)
        for row in range(PERMUTATIONS):
            order = rng.permutation(len(self._products))
            shares[row] = sum(
                _dot(self._masks.values[order[start : start + ROWS_AT_ONCE]][:, order], part)
                for start, part in _bands(self._products)
            )
        shares /= self._masks.scale * self.n_tests
        return shares

    def variance(self) -> float:
        """Return the variance of the share between test examples.

        The covariance of two estimates from different models, whose errors are independent.
        """
        one, other = np.concatenate(self._slopes, axis=1)
        if self.n_tests < 2:
            return 0.0
        return max(0.0, float(np.cov(one, other)[0, 1]))


def _bands(matrix: Floats) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        yield start, matrix[start : start + ROWS_AT_ONCE]


def _dot(one: Floats, other: Floats) -> float:
    """Return the sum of products of two matrices, added up in float64: many of either sign nearly cancel."""
    return float(np.einsum("ab,ab->", one, other, dtype=np.float64))


def _ranks(values: Numbers) -> Numbers:
    """Return the mean rank of each value in its row."""
    ranks = np.empty_like(values)
    for row, given in enumerate(values):
        _, group, times = np.unique(given, return_inverse=True, return_counts=True)
        ranks[row] = (np.cumsum(times) - (times - 1) / 2)[group]
    return ranks
