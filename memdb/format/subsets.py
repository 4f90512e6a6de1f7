"""Subset masks as a pure function of (store seed, model seed).

Only Philox's raw stream is used: it is stable across NumPy versions, which Generator methods are not.
Golden masks in ``schemas/golden-masks.json`` keep other implementations honest.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError

DOMAIN = b"memdb-mask-1"


def subset_size(n_train: int, fraction: float) -> int:
    """Return how many training examples a subset holds.

    Raises:
        InvalidInputError: a fraction outside (0, 1), or one whose subsets have no examples or all of them.
    """
    if not 0 < fraction < 1:
        raise InvalidInputError(
            f"the subset fraction {fraction:g} is not between 0 and 1", hint="use one such as 0.7"
        )
    size = int(np.floor(fraction * n_train + 0.5))
    if not 0 < size < n_train:
        raise InvalidInputError(
            f"a subset fraction of {fraction:g} of {n_train:,} training examples puts {size:,} of them in "
            "every subset",
            hint="use a fraction that leaves some examples in and some out, such as 0.7",
        )
    return size


def subset_mask(store_seed: int, model_seed: int, n_train: int, size: int) -> NDArray[np.bool_]:
    """Return the training examples that a model sees, bool [train].

    They are those with the ``size`` smallest of n_train 64-bit draws; equal draws go by the smaller id.
    """
    digest = hashlib.sha256(DOMAIN + _seed_bytes(store_seed) + _seed_bytes(model_seed)).digest()
    draws = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(n_train)
    largest = np.partition(draws, size - 1)[size - 1]  # nine times as fast as sorting them
    mask: NDArray[np.bool_] = draws < largest
    mask[np.flatnonzero(draws == largest)[: size - int(mask.sum())]] = True
    return mask


def subset_masks(store_seed: int, seeds: Sequence[int], n_train: int, size: int) -> NDArray[np.bool_]:
    """Return one mask per model seed, bool [models, train]."""
    masks = np.empty((len(seeds), n_train), dtype=np.bool_)
    for mask, seed in zip(masks, seeds, strict=True):
        mask[:] = subset_mask(store_seed, seed, n_train, size)
    return masks


def model_id(store_seed: int, model_seed: int) -> str:
    """Return the id of the model that this seed gives in a store of that seed: 32 hex digits."""
    return hashlib.sha256(_seed_bytes(store_seed) + _seed_bytes(model_seed)).hexdigest()[:32]


def random_seeds(n_seeds: int) -> list[int]:
    """Draw seeds of 63 bits from the operating system, so that workers need not talk to each other."""
    return [secrets.randbits(63) for _ in range(n_seeds)]


def _seed_bytes(seed: int) -> bytes:
    return seed.to_bytes(8, "little")
