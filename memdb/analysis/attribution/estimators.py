"""The ways to score pairs that memdb can compare.

An estimator is a function from the models that it may look at, as `Relations` of these alone, and an outcome,
to `Estimates`. To compare another one, add it to `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.attribution.estimates import WIDEST, Arms, Certified, Estimate, Estimator, Ids, Numbers
from memdb.analysis.attribution.sketched import Informed, Screened, Trak
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.query.informed.predictor import Predictor
from memdb.query.mixture import Effects, binned
from memdb.query.relations import Relations
from memdb.query.statistics import (
    FDR,
    Candidates,
    hypergeometric_tail,
    q_values,
    shrunk,
)

LIKELY = 2.0  # standard errors of chance, below which no pair of many is certain
TIE = 1e-6  # of a raw score: enough to order pairs that are shrunk to nothing


@dataclass(frozen=True, slots=True)
class Raw:
    """The difference of means, as `memdb score` gives it, with fixed intervals."""

    relations: Relations
    outcome: str
    level: float = 0.95

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on some test examples."""
        arms = Arms.of(self.relations, self.outcome, tests)
        z = NormalDist().inv_cdf((1 + self.level) / 2)
        values, lo, hi = (np.empty(arms.s_in.shape, dtype=np.float32) for _ in range(3))
        for row in range(len(tests)):
            values[row] = arms.influence(row)
            mean_in, of_in, mean_out, of_out = arms.means(row, z * z / 4)
            half = np.where(arms.has_score, z * np.sqrt(of_in + of_out), WIDEST)
            lo[row], hi[row] = mean_in - mean_out - half, mean_in - mean_out + half
        certified = _certified(arms) if self.outcome == "correct" else None
        return Estimate(values, np.minimum(lo, values), np.maximum(hi, values), certified=certified)


def _certified(arms: Arms) -> Certified:
    """Test all pairs for influences that help, exactly, and return those below the false discovery rate."""
    certified: list[tuple[Ids, Ids, Numbers]] = []
    for row in range(len(arms.s_in)):
        error = arms.null_se(row)
        trains = np.flatnonzero((error > 0) & (arms.influence(row) > LIKELY * error))
        total = np.full(len(trains), round(float(arms.s_all[row, 0])))
        right, n_in = arms.s_in[row, trains].astype(np.int64), arms.n_in[trains].astype(np.int64)
        p = hypergeometric_tail(right, total, n_in, arms.n_models)
        certified.append((np.full(len(trains), row), trains, p))
    rows, trains, p = (np.concatenate(parts) for parts in zip(*certified, strict=True))
    others = len(arms.s_in) * int(arms.has_score.sum()) - len(p)  # which are too weak to be certain
    times = np.append(np.ones(len(p), dtype=np.int64), max(1, others))
    sure = q_values(np.append(p, 1.0), times)[:-1] <= FDR
    return Certified(rows[sure], trains[sure])


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Posterior means by empirical Bayes, fitted to all pairs at hand, as `memdb pairs` gives them."""

    relations: Relations
    outcome: str

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on some test examples."""
        arms = Arms.of(self.relations, self.outcome, tests)
        labels = {name: self.relations.examples[name].labels for name in (layout.TRAIN, layout.TEST)}
        same = labels[layout.TEST][tests][:, None] == labels[layout.TRAIN][None]
        histograms = {True: binned(np.empty(0)), False: binned(np.empty(0))}
        for row in range(len(tests)):
            z, known = _null_z(arms, row)
            for stratum in (True, False):
                histograms[stratum] = histograms[stratum] + binned(z[known & (same[row] == stratum)])
        effects = {stratum: Effects.fitted(histogram) for stratum, histogram in histograms.items()}
        values, ranked = (np.empty(arms.s_in.shape, dtype=np.float32) for _ in range(2))
        for row in range(len(tests)):
            values[row] = self._posterior(arms, row, same[row], effects)
            ranked[row] = values[row] + TIE * arms.influence(row)
        return Estimate(values, ranked=ranked)

    def _posterior(
        self, arms: Arms, row: int, same: NDArray[np.bool_], effects: Mapping[bool, Effects]
    ) -> Numbers:
        score = arms.influence(row)
        if self.outcome not in {"correct", "confidence"}:  # adding a right and a wrong model makes no sense
            z, _ = _null_z(arms, row)
            factors = np.where(same, effects[True].factors(z), effects[False].factors(z))
            return score * factors
        _, of_in, _, of_out = arms.means(row)
        mean_in, more_in, mean_out, more_out = arms.means(row, 1.0)
        candidates = Candidates(
            score=score,
            effect_se=np.where(arms.has_score, np.sqrt(of_in + of_out), 0.0),
            ac_z=np.where(arms.has_score, (mean_in - mean_out) / np.sqrt(more_in + more_out), 0.0),
            null_se=arms.null_se(row),
            n_in=arms.n_in.astype(np.int64),
            n_models=arms.n_models,
            strata=same,
        )
        return shrunk(candidates, effects)


def _null_z(arms: Arms, row: int) -> tuple[Numbers, NDArray[np.bool_]]:
    """Return |z| of the influences under no effect, [train], and where there is one."""
    error = arms.null_se(row)
    z = np.divide(np.abs(arms.influence(row)), error, out=np.zeros(len(error)), where=error > 0)
    return z, error > 0


@dataclass(frozen=True, slots=True)
class Random:
    """Normal numbers that look at nothing: what a comparison says of scores that know nothing."""

    n_train: int
    seed: int = 0

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on some test examples, which are a function of the example."""
        rows = [
            np.random.default_rng([self.seed, test]).standard_normal(self.n_train, dtype=np.float32)
            for test in tests.tolist()
        ]
        values = np.stack(rows) if rows else np.empty((0, self.n_train), dtype=np.float32)
        return Estimate(values, is_influence=False)


@dataclass(frozen=True, slots=True)
class Kind:
    """An entry of `ESTIMATORS`.

    Attributes:
        make: the estimator.
        needs_sketches: whether it computes from gradient sketches of some of the models.
        has_scores: whether it scores pairs, and does not only test them.
        learns: whether it gets better with more models.
    """

    make: Estimator
    needs_sketches: bool = False
    has_scores: bool = True
    learns: bool = True


def _random(relations: Relations, _outcome: str) -> Random:
    return Random(relations.snapshot.manifest.train.n_examples)


ESTIMATORS: Mapping[str, Kind] = {
    "raw": Kind(Raw),
    "shrunk": Kind(Shrunk),
    "informed": Kind(Informed, needs_sketches=True),
    "trak": Kind(Trak, needs_sketches=True),
    "screened": Kind(Screened, needs_sketches=True, has_scores=False),
    "random": Kind(_random, learns=False),
}


def usual_estimators(relations: Relations) -> list[str]:
    """Return the names of the estimators that a store has what it takes for."""
    has_prior = Predictor(relations).why_no_prior is None
    return [name for name, kind in ESTIMATORS.items() if has_prior or not kind.needs_sketches]


def require_estimators(relations: Relations, names: Sequence[str] | None, *, scoring: bool) -> list[str]:
    """Return the names of estimators without repeats, by default all that the store has what it takes for.

    Raises:
        InvalidInputError: an unknown one, or one without scores where ``scoring`` asks for them.
    """
    chosen = list(usual_estimators(relations) if names is None else dict.fromkeys(names))
    known = [name for name, kind in ESTIMATORS.items() if kind.has_scores or not scoring]
    unknown = [name for name in chosen if name not in known]
    if unknown and names is not None:
        raise InvalidInputError(
            f"unknown estimator {unknown[0]!r}", hint=f"use {', '.join(known)}", parameter="estimator"
        )
    return [name for name in chosen if name in known]
