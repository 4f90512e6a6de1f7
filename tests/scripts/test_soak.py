from __future__ import annotations

import importlib

import pytest
from support import ROOT


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("soak").soak


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_or_wrong_when_writers_compactors_and_cleaners_are_killed(
    soak, tmp_path
):
    result = soak(str(tmp_path / "soak.zarr"), processes=4, models=300, kills=15, seconds=60, seed=20261123)
    assert (result.lost, result.doubled, result.problems) == (0, 0, ())
    assert min(result.kills, result.acknowledged, result.compactions, result.removals, result.reads) > 0
