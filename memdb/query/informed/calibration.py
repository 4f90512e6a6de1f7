"""From a prior to predictions: fitted to raw influences of models that the prior has not seen.

Pure functions of arrays. Each fold of models is predicted by the prior from the other folds:

1. a line through the origin, then isotonic means in bins (`Curve`), weighted by n_in n_out / n / (a (1 - a)),
   which is the inverse of a raw influence's variance; a is the accuracy on the test example;
2. the spread of the truth about the prediction f, tau^2(f) = c0 + c1 |f| + c2 f^2 (`Spread`), from products
   of the residuals of two different folds. Their noise is independent, so its mean is 0 without a model of
   the variance. It is fitted to estimate + 1 standard error: an estimate near 0 would make intervals of no
   width. Where the means of bins, made non-decreasing, are larger, these are the spread.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]

QUANTILES = (
    0.0005, 0.002, 0.01, 0.03, 0.1, 0.25, 0.375, 0.5, 0.625, 0.75, 0.9, 0.95, 0.97, 0.98, 0.99, 0.994, 0.997,
    0.9985, 0.9993, 0.9997, 0.9999, 0.99995,
)  # fmt: skip
RARE_QUANTILES = 0.99998, 0.99999  # where the sample has enough pairs beyond
ENOUGH = 40
SPREAD_QUANTILES = (0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999)
PSEUDO_MODELS = 3.0  # that stand for the line in each bin
STEEPEST = 1.2  # slope beyond the last bin, in those of the line
SURE = {5: 3.747, 4: 4.541, 3: 6.965, 2: 31.82}  # t quantiles at .99, by the number of folds
RARE = 0.01  # of the pairs looked at: the strongest ones
SURE_OF_PAIRS = 4.0  # standard errors, as if pairs were independent
LEAST = 1e-12
LEAST_VARIANCE = 0.01  # of whether a model is right


@dataclass(frozen=True)
class Fold:
    """What one fold of models says of some pairs, and what the others predict, [pairs] each.

    Attributes:
        prior: scores from the models of the other folds.
        raw: difference in means over the models of this fold; 0 where there is none.
        weight: n_in n_out / n over the models of this fold; 0 where there is no difference.
    """

    prior: Floats
    raw: Floats
    weight: Floats


@dataclass(frozen=True)
class Sample:
    """The pairs that are calibrated on.

    Attributes:
        folds: those that can be judged.
        prior: scores from the models of all folds, [pairs].
        variance: a (1 - a) of the pair's test example, [pairs].
        stands_for: how many pairs each of these stands for, [pairs].
    """

    folds: Sequence[Fold]
    prior: Floats
    variance: Floats
    stands_for: Floats

    def weights(self, fold: Fold) -> Floats:
        """Return the weights in a fit to a fold, [pairs]: inverse variances, as often as a pair counts."""
        variance: Floats = np.maximum(self.variance, LEAST_VARIANCE, dtype=np.float32)
        return fold.weight * self.stands_for / variance


@dataclass(frozen=True)
class Curve:
    """Predicted influence as a function of the prior: non-decreasing, with straight pieces."""

    slope: float  # of the line through the origin
    at: Numbers  # on the line, increasing
    values: Numbers

    def __call__(self, prior: Floats) -> Floats:
        """Return the predicted influence for priors of any shape."""
        line = prior * np.float32(self.slope)
        values = np.interp(line, self.at, self.values)
        steep = float(np.clip(self.values[-1] / max(self.at[-1], LEAST), 0, STEEPEST))
        values += np.maximum(line - self.at[-1], 0) * steep
        result: Floats = values.astype(np.float32)
        return result


@dataclass(frozen=True)
class Spread:
    """The variance of the truth about a prediction f: c0 + c1 |f| + c2 f^2, or a floor that is higher.

    Attributes:
        at: sizes of predictions, ascending, from which on the floor matters; none if it nowhere does.
        floor: the least variance there, and in between on straight lines.
    """

    c0: float
    c1: float
    c2: float
    at: Numbers = field(default_factory=partial(np.empty, 0))
    floor: Numbers = field(default_factory=partial(np.empty, 0))

    def __call__(self, prediction: Floats) -> Floats:
        """Return tau^2 for predictions of any shape."""
        size = np.abs(prediction)
        spread: Floats = np.float32(self.c0) + size * (np.float32(self.c1) + np.float32(self.c2) * size)
        if len(self.at):
            large = size > self.at[0]  # few of all pairs
            spread[large] = np.maximum(spread[large], np.interp(size[large], self.at, self.floor))
        return spread


@dataclass(frozen=True)
class Calibration:
    """What turns a prior into a prediction with a spread.

    Attributes:
        gain: share of the variance of the true influences that the prior explains, found in models that it
            has not seen: what it explains there, over that plus the mean of tau^2.
        spread_mean: root of the mean of tau^2.
    """

    curve: Curve
    spread: Spread
    gain: float
    spread_mean: float


def to_arrays(calibration: Calibration | None) -> list[Numbers]:
    """Return a calibration as arrays; none for None."""
    if calibration is None:
        return []
    curve, spread = calibration.curve, calibration.spread
    numbers = [curve.slope, spread.c0, spread.c1, spread.c2, calibration.gain, calibration.spread_mean]
    return [np.array(numbers), curve.at, curve.values, spread.at, spread.floor]


def from_arrays(arrays: Sequence[NDArray[Any]]) -> Calibration | None:
    """Return the calibration that `to_arrays` was given."""
    if not arrays:
        return None
    numbers, at, values, *floor = arrays
    slope, c0, c1, c2, gain, spread_mean = numbers.tolist()
    return Calibration(Curve(slope, at, values), Spread(c0, c1, c2, *floor), gain, spread_mean)


@dataclass(frozen=True)
class Slope:
    """Of raw influences over the prior.

    Attributes:
        slope: mean over folds, each of a prior that has not seen it.
        surplus: by how much it exceeds what noise would give: above 1 if the prior explains anything, and
            negative where large scores go with small influences.
    """

    slope: float
    surplus: float


def explained(sample: Sample) -> Slope:
    """Return the slope that stands out most from noise.

    Where a few pairs of millions have any influence, the noise of the others drowns them in a slope over all
    pairs. So the slope over the strongest priors alone, which goes by their cubes, counts as well.
    """
    fits = sorted((_slope(sample, emphasis) for emphasis in (_all, _rare)), key=lambda each: each.surplus)
    return fits[0] if fits[0].surplus < -1 else fits[-1]


def _all(prior: Floats) -> Floats:
    return prior


def _rare(prior: Floats) -> Floats:
    size = np.abs(prior)
    strong: Floats = np.where(size >= np.quantile(size[::7], 1 - RARE), prior * prior * prior, np.float32(0))
    return strong


def _slope(sample: Sample, emphasis: Callable[[Floats], Floats]) -> Slope:
    """Return the slope with pairs weighted by what an emphasis makes of their prior.

    The mean must be far from 0 by its standard error from the folds, which are independent, as pairs are not
    (at a level of 1 %), and by that from the pairs: chance makes a few folds agree now and then.
    """
    slopes, sizes, squares = [], [], []
    for fold in sample.folds:
        emphasized = emphasis(fold.prior)
        weighted = sample.weights(fold) * emphasized
        size = float(np.vdot(weighted, fold.prior))
        slopes.append(float(np.vdot(weighted, fold.raw)) / size if size > 0 else 0.0)
        sizes.append(size)
        squares.append(float(np.vdot(weighted * sample.stands_for, emphasized)))
    n_folds, total = len(slopes), sum(sizes)
    if n_folds not in SURE or not total > 0:
        return Slope(0.0, 0.0)
    mean = float(np.average(slopes, weights=sizes))
    of_folds = float(np.std(slopes, ddof=1)) / math.sqrt(n_folds) * SURE[n_folds]
    of_pairs = SURE_OF_PAIRS * math.sqrt(sum(squares)) / total
    return Slope(mean, mean / max(of_folds, of_pairs))


def calibrated(sample: Sample) -> tuple[Calibration | None, float]:
    """Fit to a sample; return how far the prior's slope is beyond noise, too (`Slope.surplus`).

    There is no calibration where the prior explains nothing in models that it has not seen: fitted to noise,
    the prediction would be a bold 0.
    """
    fit = explained(sample)
    if not fit.surplus > 1:
        return None, fit.surplus
    curve = _fitted_curve(sample, fit.slope)
    prediction = curve(sample.prior)
    spread = _fitted_spread(sample, prediction)
    rest = float(np.average(spread(prediction), weights=sample.stands_for))
    gain = weight = 0.0
    for fold in sample.folds:
        weights, predicted = fold.weight * sample.stands_for, curve(fold.prior)
        gain += float(np.vdot(weights, predicted * (2 * fold.raw - predicted)))
        weight += float(weights.sum())
    gain = max(0.0, gain / weight)
    return Calibration(curve, spread, gain / max(gain + rest, LEAST), rest**0.5), fit.surplus


def _fitted_curve(sample: Sample, slope: float) -> Curve:
    lines = [fold.prior * np.float32(slope) for fold in sample.folds]
    rare = [share for share in RARE_QUANTILES if (1 - share) * len(sample.prior) >= ENOUGH]
    edges = _edges(np.concatenate([line[::7] for line in lines]), [*QUANTILES, *rare])
    n_bins = len(edges) + 1
    weight, raw, line_sum = (np.zeros(n_bins) for _ in range(3))
    for fold, line in zip(sample.folds, lines, strict=True):
        bins, weights = np.searchsorted(edges, line), fold.weight * sample.stands_for
        weight += np.bincount(bins, weights, n_bins)
        raw += np.bincount(bins, weights * fold.raw, n_bins)
        line_sum += np.bincount(bins, weights * line, n_bins)
    used = weight > 0
    weight, raw, line_sum = weight[used], raw[used], line_sum[used]
    at = line_sum / weight
    values = isotonic((raw + PSEUDO_MODELS * at) / (weight + PSEUDO_MODELS), weight)
    return Curve(slope, at, values)


def _edges(values: Floats, shares: Sequence[float]) -> Floats:
    """Return the quantiles that differ; in the type of the values, or searches would convert all of these."""
    edges: Floats = np.unique(np.quantile(values, shares).astype(np.float32))
    return edges


def isotonic(values: Numbers, weights: Numbers) -> Numbers:
    """Return the non-decreasing values nearest in weighted squares, by pooling adjacent violators."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of values
    for value, of_value in zip(values.tolist(), weights.tolist(), strict=True):
        mean, weight, n = value, of_value, 1
        while blocks and blocks[-1][0] >= mean:
            above, heavy, more = blocks.pop()
            mean = (mean * weight + above * heavy) / (weight + heavy)
            weight, n = weight + heavy, n + more
        blocks.append((mean, weight, n))
    return np.repeat([mean for mean, _, _ in blocks], [n for _, _, n in blocks])


def _fitted_spread(sample: Sample, prediction: Floats) -> Spread:
    """Return the spread of the truth about a prediction, by its size.

    Bins of tiny predictions have tiny errors, so that they decide on the coefficients, and a prior that fails
    for some of the large ones would go unnoticed: hence the floor.
    """
    counts, products = _products(sample, prediction)
    counted, of_residuals = counts * sample.stands_for, products * sample.stands_for
    size = np.abs(prediction)
    edges = _edges(size[::5], SPREAD_QUANTILES)
    bins, n_bins = np.searchsorted(edges, size), len(edges) + 1
    count = np.bincount(bins, counted, n_bins)
    used = count > 0
    estimate = np.bincount(bins, of_residuals, n_bins)[used] / count[used]
    error = np.sqrt(np.bincount(bins, of_residuals**2, n_bins))[used] / count[used]
    mean = np.bincount(bins, size * counted, n_bins)[used] / count[used]
    terms = np.stack([np.ones(len(mean)), mean, mean**2], axis=1) / (error + LEAST)[:, None]
    fitted = Spread(*least_squares(terms, np.maximum(estimate + error, 0) / (error + LEAST)).tolist())
    floor = isotonic(estimate, 1 / (error + LEAST) ** 2)
    above = np.flatnonzero(floor > fitted(mean.astype(np.float32)))
    if not len(above):
        return fitted
    first = max(0, above[0] - 1)
    return replace(fitted, at=mean[first:], floor=floor[first:])


def _products(sample: Sample, prediction: Floats) -> tuple[Numbers, Numbers]:
    """Return sums over ordered pairs of two folds: products of weights, and of weighted residuals, [pairs].

    Both are sums over single folds, squared, less the sums of their squares.
    """
    weights, squares, sums, of_squares = (np.zeros(len(prediction)) for _ in range(4))
    for fold in sample.folds:
        weights += fold.weight
        squares += fold.weight**2
        residual = (fold.raw - prediction) * fold.weight
        sums += residual
        of_squares += residual**2
    return weights**2 - squares, sums**2 - of_squares


def least_squares(terms: Numbers, values: Numbers) -> Numbers:
    """Return the coefficients >= 0 of a few terms [values, terms] that are nearest in squares."""
    n_terms = terms.shape[1]
    best, error = np.zeros(n_terms), float((values**2).sum())
    for size in range(1, n_terms + 1):
        for support in map(list, itertools.combinations(range(n_terms), size)):
            tried = np.zeros(n_terms)
            tried[support] = np.linalg.lstsq(terms[:, support], values, rcond=None)[0]
            missed = float(((values - terms @ tried) ** 2).sum())
            if (tried >= 0).all() and missed < error:
                best, error = tried, missed
    return best
