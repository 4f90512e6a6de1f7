"""What the prior and its calibration read of a snapshot: errors, outcomes and sampled pairs, fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query.confidences import probabilities
from memdb.query.informed.calibration import Fold, Sample
from memdb.query.informed.posterior import smoothed
from memdb.query.informed.prior import FOLDS, MOST_LOGIT, Errors, Kernel, Prior, scores, whitening
from memdb.query.udfs import Words
from memdb.store import Snapshot
from memdb.store.read_sketches import Sketched

ROWS = 1024  # examples whose confidences are float64 at once
BAND_BYTES = 128 << 20  # of confidences that are read at once
MOST_PAIRS = 1 << 22  # that are calibrated on: 4 million
UNIFORM = 0.5  # share of the sampled examples that are drawn with equal chances

Numbers = NDArray[np.float64]


def kernels_of(
    snapshot: Snapshot, sketched: Sequence[Sketched], inside: NDArray[np.bool_]
) -> tuple[Kernel, Kernel]:
    """Read and whiten the sketches of both sets; ``inside`` says which examples the models' subsets have."""
    train, test = (
        [one.read(snapshot.manifest, name) for one in sketched] for name in (layout.TRAIN, layout.TEST)
    )
    roots = [whitening(values, mask) for values, mask in zip(train, inside, strict=True)]
    return Kernel.of(train, roots), Kernel.of(test, roots)


def errors_of(snapshot: Snapshot, mask: Words, fold_of: NDArray[np.int8]) -> Errors:
    """Sum the confidences of a snapshot over folds, some examples at a time."""
    inside_fold = (fold_of[:, None] == np.arange(FOLDS)).astype(np.float64)  # [models, folds]
    manifest, n_models = snapshot.manifest, snapshot.n_models
    sums = {
        name: np.zeros((2, FOLDS, manifest.set_named(name).n_examples))
        for name in (layout.TRAIN, layout.TEST)
    }
    for rows, logits in _bands(snapshot, layout.TRAIN):
        out = ~bits.unpack(mask[rows].view(np.uint8), n_models).T  # [examples, models]
        sums[layout.TRAIN][0][:, rows] = ((probabilities(logits)[0] * out) @ inside_fold).T
        sums[layout.TRAIN][1][:, rows] = (out @ inside_fold).T
    for rows, logits in _bands(snapshot, layout.TEST):
        clipped = np.clip(np.nan_to_num(logits.astype(np.float64)), -MOST_LOGIT, MOST_LOGIT)
        sums[layout.TEST][0][:, rows] = (clipped @ inside_fold).T
        sums[layout.TEST][1][:, rows] = (clipped**2 @ inside_fold).T
    train, test = sums[layout.TRAIN], sums[layout.TEST]
    sizes = np.bincount(fold_of, minlength=FOLDS)
    return Errors((train[0], train[1]), (test[0], test[1]), sizes)


def _bands(snapshot: Snapshot, set_name: str) -> Iterator[tuple[slice, NDArray[np.float16]]]:
    """Yield the logit confidences of a set, some rows at a time: [rows, models]."""
    path = f"{set_name}/{LOGIT_CONFIDENCE.name}"
    n_examples = snapshot.manifest.set_named(set_name).n_examples
    height = snapshot.band_height(path)  # of an object: parts of it cost as much as all of it
    step = max(ROWS, min(height, BAND_BYTES // (2 * max(1, snapshot.n_models))))
    for start in range(0, n_examples, step):
        stop = min(n_examples, start + step)
        values = snapshot.outcome_values(path, (start, stop))
        for first in range(0, len(values), ROWS):
            some = values[first : first + ROWS]
            yield slice(start + first, start + first + len(some)), some


@dataclass(frozen=True)
class Outcomes:
    """Masks and correctness of all models as packed bits, and the fold of each model."""

    mask: Words  # [train, words]
    correct: Words  # [test, words]
    fold_of: NDArray[np.int8]  # [models]

    @property
    def n_models(self) -> int:
        """The number of models."""
        return len(self.fold_of)

    @property
    def n_testing(self) -> int:
        """The number of models that test what the others rank first: those of fold 1."""
        return int((self.fold_of == 1).sum())

    @property
    def testing(self) -> Words:
        """Which models these are, as packed bits, [words]."""
        words: Words = bits.words(bits.pack((self.fold_of == 1)[:, None]))[0]
        return words

    def accuracy(self, tests: Any) -> NDArray[np.floating[Any]]:
        """Return the smoothed accuracy on test examples, over all models."""
        return smoothed(bits.count(self.correct[tests]), self.n_models)

    def of_fold(self, fold: int, trains: NDArray[np.int64], tests: NDArray[np.int64]) -> tuple[Any, Any]:
        """Return raw influences over one fold, [train, test], and their weights n_in n_out / n, [train]."""
        chosen = self.fold_of == fold
        inside = self._unpacked(self.mask, trains, chosen)
        right = self._unpacked(self.correct, tests, chosen)
        n_in, n = inside.sum(axis=0), int(chosen.sum())
        n_out = n - n_in
        k_in = inside.T @ right
        has_raw = (n_in > 0) & (n_out > 0)
        weight = np.where(has_raw, n_in * n_out / max(1, n), 0.0)
        n_in, n_out = np.maximum(n_in, 1)[:, None], np.maximum(n_out, 1)[:, None]
        raw = k_in / n_in - (right.sum(axis=0) - k_in) / n_out
        raw[~has_raw] = 0
        return raw.astype(np.float32), weight

    def _unpacked(
        self, words: Words, rows: NDArray[np.int64], models: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        return bits.unpack(words[rows].view(np.uint8), self.n_models)[models].astype(np.float32)


def sampled(outcomes: Outcomes, prior: Prior, errors: Errors | None) -> Sample:
    """Return the pairs to calibrate on: all, or some training examples times some test examples.

    Pairs that the prior may find strong are drawn more often, and count less: half of the examples with
    chances that grow with the error on a training example, or the sway of a test example (`Errors`), half
    with equal ones, which bounds the weights by 2. The same snapshot gives the same sample.
    """
    n_train, n_test = len(outcomes.mask), len(outcomes.correct)
    n_rows, n_columns = _sides(n_train, n_test)
    every = frozenset(range(FOLDS))
    hard = None if errors is None else errors.error(slice(None), every)
    near = None if errors is None else errors.sway(slice(None), every)
    (trains, train_weight), (tests, test_weight) = (
        drawn(n_train, n_rows, hard),
        drawn(n_test, n_columns, near),
    )
    folds = [
        Fold(given, *outcomes.of_fold(fold, trains, tests)) for fold, given in prior.of_folds(trains, tests)
    ]
    accuracy = outcomes.accuracy(tests)
    whole = scores(prior, trains, tests)
    return Sample(folds, whole, accuracy * (1 - accuracy), train_weight, test_weight)


def _sides(n_train: int, n_test: int) -> tuple[int, int]:
    """Return how many training and test examples to sample."""
    if n_train * n_test <= MOST_PAIRS:
        return n_train, n_test
    n_columns = min(n_test, max(isqrt(MOST_PAIRS), MOST_PAIRS // n_train))
    return min(n_train, MOST_PAIRS // n_columns), n_columns


def drawn(n: int, n_drawn: int, favour: NDArray[np.floating] | None) -> tuple[NDArray[np.int64], Numbers]:
    """Draw rows without replacement, some more likely than others; return them with their inverse chances."""
    if n_drawn >= n:
        return np.arange(n), np.ones(n)
    chance = np.full(n, n_drawn / n)
    total = 0.0 if favour is None else float(favour.sum(dtype=np.float64))
    if favour is not None and total > 0:
        chance = UNIFORM * chance + (1 - UNIFORM) * n_drawn * favour / total
        chance = np.minimum(chance, 1.0)
    order = np.random.default_rng(0).permutation(n)
    reached = np.cumsum(chance[order])
    rows = np.sort(order[np.flatnonzero(np.floor(reached) > np.floor(reached - chance[order]))])
    return rows, 1 / chance[rows]
