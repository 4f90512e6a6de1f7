from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memdb.errors import InvalidInputError
from memdb.format import subsets

SEED = st.integers(0, 2**64 - 1)


@given(SEED, SEED, st.integers(2, 60), st.data())
def test_a_mask_has_its_size_and_is_a_function_of_its_seeds(store_seed, model_seed, n_train, data):
    size = data.draw(st.integers(1, n_train - 1))
    mask = subsets.subset_mask(store_seed, model_seed, n_train, size)
    assert mask.sum() == size
    assert (mask == subsets.subset_mask(store_seed, model_seed, n_train, size)).all()
    larger = subsets.subset_mask(store_seed, model_seed, n_train, min(size + 1, n_train))
    assert (mask <= larger).all()  # the smallest draws: a larger subset of the same seeds holds a smaller one


def test_every_example_is_in_about_its_share_of_subsets():
    masks = subsets.subset_masks(3, range(2000), 50, 35)
    share = masks.mean(axis=0)
    assert abs(share - 0.7).max() < 5 * np.sqrt(0.7 * 0.3 / 2000)


@pytest.mark.parametrize(
    ("n_train", "fraction", "size"), [(1437, 0.7, 1006), (10, 0.25, 3), (3, 0.5, 2), (60000, 0.7, 42000)]
)
def test_a_fraction_rounds_half_up(n_train, fraction, size):
    assert subsets.subset_size(n_train, fraction) == size


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan"), 0.001, 0.999])
def test_a_fraction_that_leaves_an_arm_empty_is_refused(fraction):
    with pytest.raises(InvalidInputError, match="subset fraction"):
        subsets.subset_size(100, fraction)


def golden():
    return json.loads(files("memdb.schemas").joinpath("golden-masks.json").read_text())


def test_masks_are_the_golden_ones():
    cases = golden()["masks"]
    assert len(cases) >= 6
    for case in cases:
        store_seed, model_seed = int(case["store_seed"]), int(case["model_seed"])
        mask = subsets.subset_mask(store_seed, model_seed, case["n_train"], case["size"])
        assert subsets.model_id(store_seed, model_seed) == case["model_id"]
        if "selected" in case:
            assert np.flatnonzero(mask).tolist() == case["selected"]
        if "packed_sha256" in case:
            packed = np.packbits(mask, bitorder="little")
            assert hashlib.sha256(packed.tobytes()).hexdigest() == case["packed_sha256"]


def test_random_seeds_have_63_bits_and_differ():
    seeds = subsets.random_seeds(100)
    assert len(set(seeds)) == 100
    assert max(seeds) < 2**63
