"""Membership inference (LiRA; Carlini and others 2022) against the models of a store.

Every model is the target once; all others are the attacker's shadow models. For an example with logit
confidence s under the target, and mean m and standard deviation d of it over the shadow models trained on the
example (in) and over those that are not (out), the statistic is

    online   log N(s; m_in, d_in) - log N(s; m_out, d_out)
    offline  (s - m_out) / d_out, which is monotonic in the paper's 1 - Pr[Z > s], Z ~ N(m_out, d_out)

Standard deviations have n - 1 in the denominator and are at least the rounding error of float16, in which
confidences are stored. With ``variance="pooled"`` each arm has one, the root of the mean variance over
examples, as the paper advises below about 64 models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError, NotFoundError
from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query import arrow
from memdb.query.relations import Relations
from memdb.store import Snapshot
from memdb.wording import count

VARIANTS = ("online", "offline")
VARIANCES = ("auto", "example", "pooled")
FEW = 64  # models per arm, below which variances are pooled
FEWEST = 8
EXAMPLES_AT_ONCE = 256
MAX_TARGETS = 256  # target models with curves
ONE_IN = (1000, 100, 10)  # reciprocals of false-positive rates
ROUNDING = 12**-0.5  # standard deviation of the error of rounding to a step of 1
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Attack:
    """The statistic of the attack."""

    variant: str = "online"
    variance: str = "auto"

    def __post_init__(self) -> None:
        for word, given, allowed in (
            ("variant", self.variant, VARIANTS),
            ("variance", self.variance, VARIANCES),
        ):
            if given not in allowed:
                raise InvalidInputError(f"unknown {word} {given!r}", hint=f"use one of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class _Band:
    """A band of training examples: logit confidences and masks of all models, [examples, models] each."""

    start: int
    values: Numbers
    inside: NDArray[np.bool_]


def membership(
    relations: Relations, attack: Attack, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> pa.Table:
    """Return one row per training example, the most exposed first, with totals of the attack in every row.

    ``auc`` of an example is the fraction of pairs of a model trained on it and a model not trained on it in
    which the former has the larger statistic. ``attack_auc`` and ``tpr_at_1_in_1000``, the true-positive rate
    at that false-positive rate, are means over target models, ``..._least`` and ``..._most`` the extremes.

    Raises:
        NotFoundError: the store keeps no logit confidences.
        NotEnoughModelsError: fewer than eight models.
    """
    snapshot = relations.snapshot
    n_train = snapshot.manifest.train.n_examples
    path = f"{layout.TRAIN}/{LOGIT_CONFIDENCE.name}"
    _require_confidences(snapshot, path)
    deviations = _pooled(relations, path) if _pools(attack, relations) else None
    targets = _targets(relations)
    steps = (1 if deviations is None else 2) * n_train
    statistics = np.empty((n_train, len(targets)), dtype=np.float32)
    members = np.empty((n_train, len(targets)), dtype=np.bool_)
    names = ("auc", "mean_in", "mean_out", "sd_in", "sd_out")
    columns = {name: np.full(n_train, np.nan) for name in names}
    for band in _bands(relations, path):
        rows = slice(band.start, band.start + len(band.values))
        statistic = statistics_of(band.values, band.inside, attack.variant, deviations)
        statistics[rows], members[rows] = statistic[:, targets], band.inside[:, targets]
        for row, (values, inside) in enumerate(zip(statistic, band.inside, strict=True)):
            columns["auc"][band.start + row] = auc(values, inside)
        for arm, which in (("in", band.inside), ("out", ~band.inside)):
            n, mean, square = _moments(band.values, which)
            columns[f"mean_{arm}"][rows] = np.where(n > 0, mean, np.nan)
            with np.errstate(divide="ignore", invalid="ignore"):
                columns[f"sd_{arm}"][rows] = np.where(n > 1, np.sqrt(square / (n - 1)), np.nan)
        progress(steps - n_train + rows.stop, steps)
    return _table(relations, columns, _curves(statistics, members))


def _require_confidences(snapshot: Snapshot, path: str) -> None:
    if path not in snapshot.manifest.arrays():
        raise NotFoundError(
            f"{snapshot.url} keeps no logit confidences, which the attack needs",
            hint='make a store without outcomes=["correct"], or import logit_confidence',
            parameter="outcomes",
        )
    if snapshot.n_models < FEWEST:
        raise NotEnoughModelsError(
            f"{snapshot.url} has {count(snapshot.n_models, 'model')}, too few for an attack",
            hint=f"train at least {FEWEST}",
        )


def _pools(attack: Attack, relations: Relations) -> bool:
    """Whether standard deviations are pooled over examples."""
    n_in = bits.count(relations.mask)
    smaller = np.minimum(n_in, relations.snapshot.n_models - n_in)
    return attack.variance == "pooled" or (attack.variance == "auto" and float(np.median(smaller)) < FEW)


def _targets(relations: Relations) -> NDArray[np.int64]:
    """Return the positions of the target models: all, or those with the smallest ids, which are random."""
    ids = relations.snapshot.model_ids
    return np.sort(np.argsort(np.array(ids), kind="stable")[:MAX_TARGETS])


def _bands(relations: Relations, path: str) -> Iterator[_Band]:
    snapshot = relations.snapshot
    n_train, height = snapshot.manifest.train.n_examples, snapshot.band_height(path)
    for low in range(0, n_train, height):
        high = min(n_train, low + height)
        logits = snapshot.outcome_values(path, (low, high))
        for start in range(low, high, EXAMPLES_AT_ONCE):
            stop = min(high, start + EXAMPLES_AT_ONCE)
            inside = bits.unpack(relations.mask[start:stop].view(np.uint8), snapshot.n_models).T
            yield _Band(start, logits[start - low : stop - low].astype(np.float64), inside)


def _moments(values: Numbers, which: NDArray[np.bool_]) -> tuple[Numbers, Numbers, Numbers]:
    """Return, per example, the number of models in ``which``, their mean and sum of squares around it."""
    n = which.sum(axis=1).astype(np.float64)
    mean = np.where(which, values, 0).sum(axis=1) / np.where(n > 0, n, 1)
    square = (np.where(which, values - mean[:, None], 0) ** 2).sum(axis=1)
    return n, mean, square


def _pooled(relations: Relations, path: str) -> tuple[float, float]:
    """Return the standard deviations pooled over all examples, of models in and of models out."""
    squares, degrees = np.zeros(2), np.zeros(2)
    for band in _bands(relations, path):
        for arm, which in enumerate((band.inside, ~band.inside)):
            n, _, square = _moments(band.values, which)
            squares[arm] += square.sum()
            degrees[arm] += np.maximum(n - 1, 0).sum()
    if (degrees == 0).any():
        raise NotEnoughModelsError(
            f"no example of {relations.snapshot.url} is in two subsets and out of two",
            hint="train more models",
        )
    least = ROUNDING * float(np.spacing(np.float16(1)))
    d_in, d_out = np.maximum(np.sqrt(squares / degrees), least)
    return float(d_in), float(d_out)


def statistics_of(
    values: Numbers,
    inside: NDArray[np.bool_],
    variant: str,
    deviations: tuple[float, float] | None = None,
) -> Numbers:
    """Return the statistic of every model as the target, [examples, models]; NaN with too few shadow models.

    ``values`` are logit confidences, and ``inside`` marks the models trained on the example. The
    target's own value is excluded from the mean and the variance of its arm.
    """
    parts = []
    for arm, which in enumerate((inside, ~inside)):
        n, mean, square = (column[:, None] for column in _moments(values, which))
        own = which.astype(np.float64)
        left = n - own
        with np.errstate(divide="ignore", invalid="ignore"):
            away = values - mean
            centre = mean - own * away / left  # of the others
            variance = (square - own * away**2 * n / left) / (left - 1)
            rounding = ROUNDING * np.spacing(np.abs(centre).astype(np.float16)).astype(np.float64)
            deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), rounding)
        if deviations is not None:
            deviation = np.full_like(centre, deviations[arm])
        parts.append((np.where(left > 1, centre, np.nan), deviation))
    (m_in, d_in), (m_out, d_out) = parts
    z_out = (values - m_out) / d_out
    if variant == "offline":
        return np.asarray(z_out)
    z_in = (values - m_in) / d_in
    ratio: Numbers = (z_out**2 - z_in**2) / 2 + np.log(d_out) - np.log(d_in)
    return ratio


def auc(statistic: Numbers, member: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, with ties counting one half; NaN if a class is empty."""
    known = ~np.isnan(statistic)
    yes, no = np.sort(statistic[known & member]), np.sort(statistic[known & ~member])
    if len(yes) == 0 or len(no) == 0:
        return float("nan")
    below = np.searchsorted(no, yes, "left").sum() + np.searchsorted(no, yes, "right").sum()
    return float(below) / 2 / len(yes) / len(no)


def true_positives(statistic: Numbers, member: NDArray[np.bool_], one_in: int) -> float:
    """Return the largest true-positive rate at a false-positive rate of at most 1 / ``one_in``."""
    known = ~np.isnan(statistic)
    yes, no = statistic[known & member], np.sort(statistic[known & ~member])
    if len(yes) == 0 or len(no) == 0:
        return float("nan")
    threshold = no[len(no) - len(no) // one_in - 1]
    return float((yes > threshold).mean())


def _curves(statistics: NDArray[np.float32], members: NDArray[np.bool_]) -> dict[str, Numbers]:
    """Return the AUC and true-positive rates of the attack on each target model, [targets] each."""
    pairs = list(zip(statistics.T.astype(np.float64), members.T, strict=True))
    curves = {"attack_auc": np.array([auc(s, m) for s, m in pairs])}
    for one_in in ONE_IN:
        curves[f"tpr_at_1_in_{one_in}"] = np.array([true_positives(s, m, one_in) for s, m in pairs])
    return curves


def _table(relations: Relations, found: dict[str, Numbers], curves: dict[str, Numbers]) -> pa.Table:
    examples = relations.examples[layout.TRAIN]
    n_in = bits.count(relations.mask)
    order = np.lexsort((np.arange(len(n_in)), -np.nan_to_num(found["auc"], nan=-1.0)))
    result: dict[str, NDArray[np.generic] | pa.Array] = {
        "train_id": order.astype(np.int32),
        "label": examples.labels[order],
    }
    for name, values in found.items():
        chosen = values[order]
        result[name] = arrow.column(np.nan_to_num(chosen), ~np.isnan(chosen))
    result |= {"n_in": n_in[order], "n_out": (relations.snapshot.n_models - n_in[order]).astype(np.int32)}
    for name, values in curves.items():
        known = values[~np.isnan(values)]
        for ending, reduce in (("", np.mean), ("_least", np.min), ("_most", np.max)):
            value = float(reduce(known)) if len(known) else 0.0
            result[f"{name}{ending}"] = arrow.column(
                np.full(len(order), value), np.full(len(order), len(known) > 0)
            )
    result["n_targets"] = np.full(len(order), len(next(iter(curves.values()))), dtype=np.int32)
    return arrow.table(result)
