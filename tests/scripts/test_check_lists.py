"""The simulation that judges ranked lists, at a small size, and the truth it judges them by."""

from __future__ import annotations

import importlib.util
import itertools
import sys

import numpy as np
import pytest
from support import ROOT

PATH = ROOT / "scripts" / "check_lists.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("check_lists", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_lists", module)
    spec.loader.exec_module(module)
    return module


def test_the_truth_is_the_difference_over_all_subsets_of_that_size(script):
    n_train, size = 7, 5
    effects = np.random.default_rng(0).uniform(-0.05, 0.05, (n_train, 3))
    own = np.random.default_rng(1).uniform(0, 0.3, n_train)
    base = {"train": np.full(n_train, 0.5), "test": np.full(3, 0.5)}
    labels = np.zeros(n_train, dtype=np.int64)
    truth = script.Truth(labels, labels[:3], base, effects, own)
    masks = np.array([np.isin(range(n_train), held) for held in itertools.combinations(range(n_train), size)])
    chances = truth.chances(masks)
    for i in range(n_train):
        inside = masks[:, i]
        contrast = {name: p[inside].mean(axis=0) - p[~inside].mean(axis=0) for name, p in chances.items()}
        assert contrast["test"] == pytest.approx(truth.influence[i], abs=1e-12)
        assert contrast["train"][i] == pytest.approx(own[i], abs=1e-12)


def test_pairs_without_effect_have_no_influence_at_all(script):
    truth = script.draw_truth(np.random.default_rng(3), 400, 16)
    assert np.abs(truth.influence[truth.effects == 0]).max() < 1e-15
    assert ((truth.effects != 0).sum(axis=0) == [4] * 12 + [0] * 4).all()  # 1 % of 400


@pytest.mark.slow
def test_a_small_simulation_covers_and_finds_what_it_should(script):
    sizes = script.Sizes(
        stores=1,
        train=200,
        test=8,
        models=150,
        peeked_stores=1,
        peeked_test=2,
        peeked_models=100,
        look_every=50,
    )
    figures, _ = script.check(sizes)
    for outcome in ("correct", "confidence"):
        assert 0.92 <= figures[f"covered, {outcome}"] <= 0.98
        assert figures[f"excess_shrunk, {outcome}"] < figures[f"excess_raw, {outcome}"]
    assert figures["ever_missed"] <= 0.05


@pytest.mark.slow
def test_every_target_is_met(script):
    figures, met = script.check(script.Sizes(stores=4, peeked_stores=2))
    assert [target for target, is_met in met.items() if not is_met] == [], figures
