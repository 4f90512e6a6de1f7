"""Estimators from gradient sketches: TRAK's scores, calibrated predictions, and screened tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.analysis.attribution.estimates import WIDEST, Arms, Certified, Estimate, Ids
from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query.confidences import probabilities
from memdb.query.informed.posterior import noise, posterior, smoothed
from memdb.query.informed.predictor import Predictor
from memdb.query.informed.prior import FOLDS, Folds, Kernel, SketchPrior, second_moment, times, whitening
from memdb.query.informed.screening import strongest, tested
from memdb.query.intervals import fixed_z
from memdb.query.relations import Relations
from memdb.query.statistics import FDR, q_values
from memdb.store.read_sketches import read_sketches

ROWS = 4096
Floats = NDArray[np.float32]


def require_prior(predictor: Predictor) -> Predictor:
    """Return a predictor that has something to predict from.

    Raises:
        InvalidInputError: the store has no sketches or no confidences.
    """
    if predictor.why_no_prior is not None:
        raise InvalidInputError(
            f"no estimate can be informed here: {predictor.why_no_prior}",
            hint="name other estimators",
            parameter="estimator",
        )
    return predictor


@dataclass(frozen=True)
class Informed:
    """Calibrated predictions with their intervals; raw influences where the prior explains nothing."""

    relations: Relations
    outcome: str
    level: float = 0.95

    @cached_property
    def _predictor(self) -> Predictor:
        return require_prior(Predictor(self.relations))

    def on(self, tests: Ids) -> Estimate:
        """Return the predictions on some test examples."""
        arms = Arms.of(self.relations, "correct", tests)
        n_models, z = arms.n_models, fixed_z(self.level)
        n_in, n_out = (np.maximum(n, 1e-9) for n in (arms.n_in, arms.n_out))  # an empty arm says nothing
        values, half = (np.empty(arms.s_in.shape, dtype=np.float32) for _ in range(2))
        for row, test in enumerate(tests.tolist()):
            raw, accuracy = arms.influence(row), smoothed(arms.s_all[row], n_models)
            variance = noise(accuracy, n_in, n_out)
            if self._predictor.why_raw is not None:
                values[row], half[row] = raw, np.where(arms.has_score, z * np.sqrt(variance), WIDEST)
                continue
            given = self._predictor.of_one("test_id", test)
            prediction, spread = (part.astype(np.float64) for part in (given.prediction, given.spread))
            posteriors = posterior(raw, prediction, spread, variance)
            values[row], half[row] = posteriors.informed, z * posteriors.deviation
        return Estimate(values, values - half, values + half)


@dataclass(frozen=True)
class _SketchedErrors:
    """What TRAK takes in place of `prior.Errors`: the errors of the sketched models alone."""

    n_test: int
    errors: Floats  # [train]

    def error(self, trains: Any, folds: Folds) -> Floats:  # noqa: ARG002
        """Return 1 - p of the label, mean over the sketched models, [train]."""
        chosen: Floats = self.errors[trains]
        return chosen

    def sway(self, tests: Any, folds: Folds) -> Floats:  # noqa: ARG002
        """Return 1 for each test example."""
        chosen: Floats = np.ones(self.n_test, dtype=np.float32)[tests]
        return chosen


@dataclass(frozen=True)
class Trak:
    """TRAK's scores (Park and others 2023) from the sketched models, with the errors of those models.

    The mean over models of w_i . w_z, times the mean of 1 - p_i, with w whitened by the subset's sketches.
    """

    relations: Relations
    _outcome: str
    _kept: dict[str, SketchPrior] = field(default_factory=dict)

    def on(self, tests: Ids) -> Estimate:
        """Return the scores on some test examples."""
        parts = [
            self._prior.tile(slice(start, start + ROWS))(tests)
            for start in range(0, len(self.relations.mask), ROWS)
        ]
        return Estimate(np.concatenate(parts, axis=1), is_influence=False)

    @cached_property
    def _prior(self) -> SketchPrior:
        snapshot = self.relations.snapshot
        require_prior(Predictor(self.relations))
        train, test = (read_sketches(snapshot, name) for name in (layout.TRAIN, layout.TEST))
        inside = bits.unpack(self.relations.mask.view(np.uint8), snapshot.n_models)[train.models]
        moments = (second_moment(values, mask) for values, mask in zip(train.values, inside, strict=True))
        roots = [times(whitening(moment)) for moment in moments]
        logits = snapshot.outcome_values(f"{layout.TRAIN}/{LOGIT_CONFIDENCE.name}")[:, train.models]
        errors = 1 - probabilities(np.ascontiguousarray(logits))[0].mean(axis=1)
        n_of_fold = [len(train.models)] + [0] * (FOLDS - 1)
        of_train, of_test = (Kernel.of(list(sketches.values), roots) for sketches in (train, test))
        width = train.values.shape[2]
        given: Any = _SketchedErrors(test.values.shape[1], errors.astype(np.float32))
        return SketchPrior(of_train, of_test, n_of_fold, width, given)


@dataclass(frozen=True)
class Screened:
    """Exact tests of the pairs that the prior ranks first: no scores, only which pairs are certain."""

    relations: Relations
    outcome: str

    def on(self, tests: Ids) -> Estimate:
        """Return which pairs of some test examples are certified, of as many as there are models."""
        outcomes, prior = require_prior(Predictor(self.relations)).screening
        n_in = bits.count(self.relations.mask)
        trains = np.flatnonzero((n_in > 0) & (n_in < outcomes.n_models))
        train, test, _ = strongest(prior, outcomes.n_models, trains, tests, "helps")
        sure = q_values(tested(outcomes, train, test, "helps").p) <= FDR
        rows = np.searchsorted(tests, test[sure])
        return Estimate(None, certified=Certified(rows, train[sure]))
