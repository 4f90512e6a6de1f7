"""Predictions for the pairs of a snapshot: the prior and its calibration, made when first needed."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query.informed.calibration import (
    Calibration,
    calibrated,
    from_arrays,
    to_arrays,
)
from memdb.query.informed.evidence import Outcomes, errors_of, kernels_of, whitened_of
from memdb.query.informed.kept import Keeper
from memdb.query.informed.prior import (
    FOLDS,
    Errors,
    GivenPrior,
    Kernel,
    Prior,
    SketchPrior,
    dealt,
    scores,
)
from memdb.query.informed.sampling import BUDGET, sampled
from memdb.query.informed.screening import parted
from memdb.query.relations import Relations
from memdb.store import Snapshot
from memdb.store.read_sketches import Sketched, find_sketches
from memdb.wording import verb

LEAST_MODELS = 20  # below, folds have fewer than four models each
KEPT = 8  # recent rows and columns of predictions
HOW_TO_SKETCH = (
    "`memdb train --sketch 10` adds models with them, and `memdb publish --include sketches` shares them"
)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Predicted:
    """Predicted influences f, and the variances tau^2 of the truth about them."""

    prediction: Floats
    spread: Floats

    def of(self, ids: NDArray[np.integer]) -> Predicted:
        """Return those of some examples."""
        return Predicted(self.prediction[ids], self.spread[ids])


class Predictor:
    """Predicts influences on test examples, from gradient sketches or from a file of scores.

    What questions share is kept: sketches, 1 byte an entry, the calibration, and recent predictions.

    Args:
        relations: of the snapshot; its masks and outcomes are shared.
        given: scores of all pairs by others, [train, test], in place of the sketches.
        given_name: what they are called.
    """

    def __init__(
        self, relations: Relations, given: NDArray[np.floating[Any]] | None = None, given_name: str = ""
    ) -> None:
        self._snapshot, self._bits = relations.snapshot, relations.bits
        self._keeper = Keeper(relations.snapshot)
        self._given = None if given is None else GivenPrior(given)
        self._given_name = given_name
        self._recent: OrderedDict[tuple[str, int], Predicted] = OrderedDict()
        self._lock = threading.Lock()  # DuckDB calls from several threads

    @property
    def bits(self) -> Mapping[str, Any]:
        """Masks and outcomes by path (see `Relations.bits`)."""
        return self._bits

    @property
    def source(self) -> str:
        """What the prior is, in words."""
        if self._given is not None:
            return f"the scores of {self._given_name}"
        return f"gradient sketches of {self.n_sketched} model{'' if self.n_sketched == 1 else 's'}"

    @property
    def n_sketched(self) -> int:
        """The number of sketched models behind the prior."""
        return 0 if self._kernels is None else len(self._kernels[0])

    @property
    def kernels(self) -> dict[str, Kernel] | None:
        """The whitened sketches of both sets; None if there are none."""
        if not self._sketched:
            return None
        train, test = self._kept_kernels("whitened", whitened_of)
        return {layout.TRAIN: train, layout.TEST: test}

    @cached_property
    def why_no_prior(self) -> str | None:
        """Why there is no prior at all, in words; None if there is one."""
        if self._given is not None:
            return None
        if any(not self._has_confidences(name) for name in (layout.TRAIN, layout.TEST)):
            return "the prior from sketches needs confidences, and this store keeps none of all its models"
        if self._kernels is None:
            return f"the store has no gradient sketches: {HOW_TO_SKETCH}"
        return None

    @cached_property
    def why_raw(self) -> str | None:
        """Why the answer is the raw estimate, in words; None if it is the calibrated prediction."""
        if self._snapshot.n_models < LEAST_MODELS:
            n_models = self._snapshot.n_models
            return f"a calibration takes {LEAST_MODELS} models, and there {verb(n_models)} {n_models}"
        if self.why_no_prior is not None:
            return self.why_no_prior
        if self.calibration is None:
            against = self._fit[1] < -1
            turned = "; large scores go with small influences: negate them" if against else ""
            sampled_of = (
                "" if self._n_pairs <= BUDGET.pairs else f", as far as {BUDGET.pairs:,} sampled pairs tell"
            )
            seen = f"in models that it has not seen{sampled_of}"
            return f"the prior from {self.source} explains nothing {seen}{turned}"
        return None

    @cached_property
    def outcomes(self) -> Outcomes:
        """The outcomes of all models, which are dealt into folds."""
        sketched = np.empty(0, np.int64) if self._kernels is None else self._kernels[0]
        return self._outcomes(dealt(self._snapshot.n_models, sketched))

    @cached_property
    def prior(self) -> Prior:
        """The prior that predictions are calibrated from."""
        return self._prior(self.outcomes.fold_of, self._errors)

    @property
    def calibration(self) -> Calibration | None:
        """The calibration; None where the prior explains nothing."""
        return self._fit[0]

    @cached_property
    def screening(self) -> tuple[Outcomes, Prior]:
        """The outcomes with the models dealt into those behind the prior and those that test it."""
        n_models = self._snapshot.n_models
        if self._given is not None:
            return self._outcomes(np.ones(n_models, dtype=np.int8)), self._given
        assert self._kernels is not None  # noqa: S101 - `why_no_prior` was asked
        fold_of = parted(n_models, self._kernels[0])
        return self._outcomes(fold_of), self._prior(fold_of, self._summed(fold_of))

    def of_one(self, column: str, row: int) -> Predicted:
        """Return the predictions with one example fixed: ``test_id``, for all of [train], or ``train_id``."""
        key = column, row
        with self._lock:
            if key not in self._recent:
                if column == "test_id":
                    priors = self.prior.of_test(row)
                else:
                    priors = scores(self.prior, np.array([row]), slice(None))[0]
                self._recent[key] = self.calibrated(priors)
                while len(self._recent) > KEPT:
                    self._recent.popitem(last=False)
            return self._recent[key]

    def of_pairs(self, train_ids: NDArray[np.integer], test_ids: NDArray[np.integer]) -> Predicted:
        """Return the predictions of pairs, [pairs]."""
        if len(test_ids) and (test_ids == test_ids[0]).all():
            return self.of_one("test_id", int(test_ids[0])).of(train_ids)
        if len(train_ids) and (train_ids == train_ids[0]).all():
            return self.of_one("train_id", int(train_ids[0])).of(test_ids)
        priors = np.empty(len(test_ids), dtype=np.float32)
        order = np.argsort(test_ids, kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(test_ids[order])) + 1):
            if len(at):
                priors[at] = scores(self.prior, train_ids[at], test_ids[at[:1]])[:, 0]
        return self.calibrated(priors)

    def calibrated(self, prior: Floats) -> Predicted:
        """Turn priors into predictions."""
        assert self.calibration is not None  # noqa: S101 - `why_raw` was asked
        prediction = self.calibration.curve(prior)
        return Predicted(prediction, self.calibration.spread(prediction))

    def facts(self) -> dict[str, Any]:
        """Return what an answer says of its estimator."""
        if self.why_raw is not None:
            return {"estimator": "raw", "why_raw": self.why_raw}
        assert self.calibration is not None  # noqa: S101 - `why_raw` was asked
        return {
            "estimator": "informed",
            "interval": "calibrated",
            "prior": self.source,
            "n_sketched": self.n_sketched,
            "prior_gain": self.calibration.gain,
            "prior_spread": self.calibration.spread_mean,
        }

    @cached_property
    def _fit(self) -> tuple[Calibration | None, float]:
        """The calibration, and what the prior `explains`."""
        if self._given is not None:
            return self._fitted()
        sources = [*self._of_kernels, *self._of_errors, *self._keeper.objects(f"{layout.TEST}/correct")]
        explained, *arrays = self._keeper.arrays("calibration", self._n_entries, sources, self._fitted_arrays)
        return from_arrays(arrays), float(explained[0])

    def _fitted(self) -> tuple[Calibration | None, float]:
        return calibrated(sampled(self.outcomes, self.prior))

    def _fitted_arrays(self) -> list[NDArray[Any]]:
        calibration, explained = self._fitted()
        return [np.array([explained]), *to_arrays(calibration)]

    @cached_property
    def _errors(self) -> Errors | None:
        if any(not self._has_confidences(name) for name in (layout.TRAIN, layout.TEST)):
            return None
        return self._summed(self.outcomes.fold_of)

    def _summed(self, fold_of: NDArray[np.int8]) -> Errors:
        """Return the sums of confidences over folds."""
        size = self._snapshot.n_models * sum(info.n_examples for info in self._snapshot.manifest.sets)
        train_p, train_n, test_s, test_q = self._keeper.arrays(
            "errors",
            size,
            [*self._of_errors, fold_of.tobytes()],
            lambda: errors_of(self._snapshot, self._mask, fold_of).sums,
        )
        return Errors((train_p, train_n), (test_s, test_q), np.bincount(fold_of, minlength=FOLDS))

    @cached_property
    def _sketched(self) -> list[Sketched]:
        """The sketched models, ordered by fold."""
        sketches = find_sketches(self._snapshot)
        models = np.array([one.model for one in sketches], dtype=np.int64)
        order = np.argsort(dealt(self._snapshot.n_models, models)[models], kind="stable")
        return [sketches[at] for at in order]

    @cached_property
    def _inside(self) -> NDArray[np.bool_]:
        """Which training examples the sketched models have in their subsets, [models, train]."""
        models = np.array([one.model for one in self._sketched], dtype=np.int64)
        return bits.of_models(self._mask.view(np.uint8), models)

    @cached_property
    def _kernels(self) -> tuple[NDArray[np.int64], Kernel, Kernel] | None:
        """The sketched models, ordered by fold, and sketches of both sets, whose products are whitened."""
        if self._given is not None or not self._sketched:
            return None

        models = np.array([one.model for one in self._sketched], dtype=np.int64)
        return models, *self._kept_kernels("kernels", kernels_of)

    def _kept_kernels(
        self, name: str, made: Callable[[Snapshot, list[Sketched], NDArray[np.bool_]], tuple[Kernel, Kernel]]
    ) -> tuple[Kernel, Kernel]:
        def computed() -> list[NDArray[Any]]:
            kernels = made(self._snapshot, self._sketched, self._inside)
            return [part for kernel in kernels for part in (kernel.numbers, kernel.scale)]

        parts = self._keeper.arrays(name, self._n_entries, self._of_kernels, computed)
        return Kernel(*parts[:2]), Kernel(*parts[2:])

    @property
    def _n_pairs(self) -> int:
        return math.prod(info.n_examples for info in self._snapshot.manifest.sets)

    @property
    def _n_entries(self) -> int:
        """The numbers in all sketches."""
        n_examples = sum(info.n_examples for info in self._snapshot.manifest.sets)
        return sum(one.projection.size for one in self._sketched) * n_examples

    @cached_property
    def _of_kernels(self) -> list[str | bytes]:
        """What these are computed from."""
        digests = [info.sha256 for one in self._sketched for _, info in sorted(one.objects.items())]
        return [f"{len(self._sketched)} models", *digests, np.packbits(self._inside).tobytes()]

    @cached_property
    def _of_errors(self) -> list[str | bytes]:
        """What sums of confidences are computed from."""
        paths = (f"{name}/{LOGIT_CONFIDENCE.name}" for name in (layout.TRAIN, layout.TEST))
        return list(self._keeper.objects(layout.MASK, *paths))

    def _prior(self, fold_of: NDArray[np.int8], errors: Errors | None) -> Prior:
        if self._given is not None:
            return self._given
        assert self._kernels is not None and errors is not None  # noqa: S101, PT018 - `why_no_prior` was asked
        models, train, test = self._kernels
        n_of_fold = np.bincount(fold_of[models], minlength=FOLDS).tolist()
        return SketchPrior(train, test, n_of_fold, train.numbers.shape[1] // len(models), errors)

    def _outcomes(self, fold_of: NDArray[np.int8]) -> Outcomes:
        return Outcomes(self._mask, self._bits[f"{layout.TEST}/correct"], fold_of)

    @property
    def _mask(self) -> NDArray[np.uint64]:
        mask: NDArray[np.uint64] = self._bits[layout.MASK]
        return mask

    def _has_confidences(self, name: str) -> bool:
        path = f"{name}/{LOGIT_CONFIDENCE.name}"
        return path in self._snapshot.manifest.arrays() and self._snapshot.is_complete(path)
