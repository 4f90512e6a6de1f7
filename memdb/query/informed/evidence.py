"""What the prior and its calibration read of a snapshot: errors and outcomes, fold by fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import bits, layout
from memdb.format.manifest import LOGIT_CONFIDENCE
from memdb.query.confidences import rough_probabilities
from memdb.query.informed.levelled import Levelled
from memdb.query.informed.posterior import smoothed
from memdb.query.informed.prior import FOLDS, MOST_LOGIT, Errors, Kernel, second_moment, times, whitening
from memdb.query.udfs import Words
from memdb.store import Snapshot
from memdb.store.read_sketches import Sketched

ROWS = 1024  # examples whose confidences are float32 at once
BAND_BYTES = 128 << 20  # of confidences that are read at once

Numbers = NDArray[np.float64]
Floats = NDArray[np.float32]
Sketches = Sequence[NDArray[np.float16]]
Ids = NDArray[np.int64]
Counts = NDArray[Any]


def kernels_of(
    snapshot: Snapshot, sketched: Sequence[Sketched], inside: NDArray[np.bool_]
) -> tuple[Kernel, Kernel]:
    """Read the sketches of both sets; products of the two are those of whitened ones.

    These see g_i . C^(-1) g_z alone, so that almost all of it goes to the test examples, of which there are
    fewer: training examples are only `Levelled`. ``inside`` says which examples the models' subsets have.
    """
    train, test, moments = _sketches_of(snapshot, sketched, inside)
    maps, others = [], []
    for moment in moments:
        levelled, root = Levelled.of(moment), whitening(moment)
        maps.append(levelled)
        others.append(times(levelled.inverse(root @ root.T)))
    return Kernel.of(train, maps), Kernel.of(test, others)


def whitened_of(
    snapshot: Snapshot, sketched: Sequence[Sketched], inside: NDArray[np.bool_]
) -> tuple[Kernel, Kernel]:
    """Read and whiten the sketches of both sets, for products within one of them, too."""
    train, test, moments = _sketches_of(snapshot, sketched, inside)
    roots = [times(whitening(moment)) for moment in moments]
    return Kernel.of(train, roots), Kernel.of(test, roots)


def _sketches_of(
    snapshot: Snapshot, sketched: Sequence[Sketched], inside: NDArray[np.bool_]
) -> tuple[Sketches, Sketches, Sequence[Numbers]]:
    """Return the sketches of both sets by model, and the second moments that whiten them."""
    train, test = (
        [one.read_finite(snapshot.manifest, name) for one in sketched] for name in (layout.TRAIN, layout.TEST)
    )
    return train, test, [second_moment(values, mask) for values, mask in zip(train, inside, strict=True)]


def errors_of(snapshot: Snapshot, mask: Words, fold_of: NDArray[np.int8]) -> Errors:
    """Sum the confidences of a snapshot over folds, some examples at a time."""
    inside_fold = (fold_of[:, None] == np.arange(FOLDS)).astype(np.float32)  # [models, folds]
    manifest, n_models = snapshot.manifest, snapshot.n_models
    sums = {
        name: np.zeros((2, FOLDS, manifest.set_named(name).n_examples))
        for name in (layout.TRAIN, layout.TEST)
    }
    for rows, logits in _bands(snapshot, layout.TRAIN):
        out = (~bits.unpack(mask[rows].view(np.uint8), n_models).T).astype(np.float32)  # [examples, models]
        sums[layout.TRAIN][0][:, rows] = ((rough_probabilities(logits) * out) @ inside_fold).T
        sums[layout.TRAIN][1][:, rows] = (out @ inside_fold).T
    for rows, logits in _bands(snapshot, layout.TEST):
        clipped = np.clip(np.nan_to_num(logits.astype(np.float32)), -MOST_LOGIT, MOST_LOGIT)
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

    def of_fold(self, fold: int, trains: Ids, tests: Ids) -> tuple[Floats, Floats]:
        """Return raw influences over one fold and their weights n_in n_out / n, [test, train] each."""
        chosen = self.fold_of == fold
        inside = self._unpacked(self.mask, trains, chosen)
        right = self._unpacked(self.correct, tests, chosen)
        return raw_of(inside.sum(axis=0), right.T @ inside, right.sum(axis=0)[:, None], int(chosen.sum()))

    def of_pairs(self, fold: int, trains: Ids, tests: Ids) -> tuple[Floats, Floats]:
        """Return the same of single pairs, [pairs] each."""
        chosen = self.fold_of == fold
        words = bits.words(bits.pack(chosen[:, None]))[0]
        right = self.correct & words
        k_in, n_in = bits.count_and(self.mask[trains], right[tests]), bits.count_and(self.mask, words)
        return raw_of(n_in[trains], k_in, bits.count(right)[tests], int(chosen.sum()))

    def _unpacked(self, words: Words, rows: Ids, models: NDArray[np.bool_]) -> Floats:
        return bits.unpack(words[rows].view(np.uint8), self.n_models)[models].astype(np.float32)


def raw_of(n_in: Counts, k_in: Counts, k: Counts, n: int) -> tuple[Floats, Floats]:
    """Return raw influences and their weights n_in n_out / n, 0 where there is none; arguments broadcast."""
    n_out = n - n_in
    has_raw = (n_in > 0) & (n_out > 0)
    weight = np.where(has_raw, n_in * n_out / max(1, n), 0.0)
    raw = k_in / np.maximum(n_in, 1) - (k - k_in) / np.maximum(n_out, 1)
    raw = np.where(has_raw, raw, 0.0).astype(np.float32)
    return raw, np.broadcast_to(weight.astype(np.float32), raw.shape)
