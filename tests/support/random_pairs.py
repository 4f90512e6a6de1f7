"""Random masks and outcomes to search for pairs."""

from __future__ import annotations

import numpy as np

from memdb.format import bits
from memdb.query.pairs.types import PairBits


def random_bits(seed, n_models, n_train, n_test, n_classes=3):
    """Bits with examples never in, never out, always right and never right among them."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n_models, n_train)) < rng.choice([0.0, 0.3, 0.7, 0.7, 0.7, 1.0], n_train)
    right = rng.random((n_models, n_test)) < rng.choice([0.0, 0.5, 0.9, 1.0], n_test)
    for test in range(0, n_test, 3):  # some true influence
        right[:, test] |= masks[:, rng.integers(n_train)]
    on_train = rng.random((n_models, n_train)) < 0.4 + 0.5 * masks
    return masks, right, on_train, rng.integers(0, n_classes, n_train), rng.integers(0, n_classes, n_test)


def as_bits(masks, right, on_train, train_labels, test_labels):
    n_in = masks.sum(axis=0)
    with np.errstate(invalid="ignore"):
        memorization = (masks & on_train).sum(axis=0) / n_in - (~masks & on_train).sum(axis=0) / (~masks).sum(
            axis=0
        )
    return PairBits(
        len(masks), bits.words(bits.pack(masks)), train_labels.astype(np.int32), memorization,
        bits.words(bits.pack(right)), test_labels.astype(np.int32), n_in.astype(np.int32),
        right.sum(axis=0).astype(np.int32),
    )  # fmt: skip
