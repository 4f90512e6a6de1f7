"""Scores that are known before any model is trained, asked from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import DATA, planted
from support.cases import every
from support.commands import run

from memdb.format import subsets

GOLDEN = json.loads((DATA / "golden-statistics.json").read_text())
N_MODELS = 400


def ask(folder, *arguments):
    done = run(*arguments, "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


@pytest.fixture(scope="module", params=every(2, [0.0, 0.1]), ids=["as it is", "a tenth flipped"])
def store(request, tmp_path_factory):
    """A folder with 400 models of 1-nearest-neighbour, and by what factor flipped outcomes shrink every score."""
    folder = tmp_path_factory.mktemp("planted")
    options = ["--recipe", "support.planted:NearestNeighbour", "-p", f"flips={request.param}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subsets, "random_seeds", lambda n: list(range(n)))  # the same models in every run
        commands = (
            ["init", "--dataset", "support.planted:clusters", *options, "--outcomes", "correct", "--seed", 1],
            ["train", "--add", N_MODELS],
        )
        for command in commands:
            done = run(*command, cwd=folder)
            assert done.returncode == 0, done.stderr
    return folder, 1 - 2 * request.param


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_the_truth_by_arithmetic_is_the_golden_one(copies):
    own, other = GOLDEN["planted_duplicates"]["fixed"][str(copies)]
    assert planted.truth(copies, own=True) == pytest.approx(own, rel=1e-12)
    assert planted.truth(copies, own=False) == pytest.approx(other, rel=1e-9)


def test_memorization_of_planted_duplicates_is_what_arithmetic_says(store):
    folder, factor = store
    rows = ask(
        folder, "top-memorized", "-k", planted.N_TRAIN, "--order", "memorization", "--interval", "fixed"
    )
    copies = planted.COPIES[planted.CLUSTER[[row["train_id"] for row in rows]]]
    score, lo, hi = (np.array([row[name] for row in rows]) for name in ("memorization", "lo", "hi"))
    if factor == 1:
        assert (score[:60] == 1).all()  # right whenever trained on, wrong whenever held out: no noise at all
    assert set(copies[:60]) == {1}
    true = factor * np.array([planted.truth(c, own=True) for c in copies])
    assert np.mean((lo <= true) & (true <= hi)) >= 0.9
    for c in (1, 2, 3, 4):
        assert score[copies == c].mean() == pytest.approx(factor * planted.truth(c, own=True), abs=0.03)


def test_influence_on_a_planted_point_is_memorization_from_its_copies_and_a_swap_from_all_others(store):
    folder, factor = store
    statement = "SELECT train_id, test_id, influence, lo, hi FROM influence"
    rows = ask(folder, "sql", statement, "--interval", "fixed")
    train, test, score, lo, hi = (
        np.array(column) for column in zip(*(row.values() for row in rows), strict=True)
    )
    assert len(rows) == planted.N_TRAIN * len(planted.COPIES)
    own = planted.CLUSTER[train] == test
    copies = planted.COPIES[test]
    true = (
        factor
        * np.array([[planted.truth(c, own=o) for o in (False, True)] for c in range(1, 5)])[
            copies - 1, own.astype(int)
        ]
    )
    assert 0.93 <= np.mean((lo <= true) & (true <= hi)) <= 0.98
    for c in (1, 2, 3, 4):
        others = ~own & (copies == c)
        assert score[others].mean() == pytest.approx(factor * planted.truth(c, own=False), abs=0.0015)


def test_the_strongest_influences_on_a_planted_point_are_its_copies(store):
    folder, _ = store
    for copies, test_id in ((1, 0), (2, 60), (2, 99)):
        rows = ask(folder, "top-influence", "--test-id", test_id, "-k", copies)
        assert sorted(row["train_id"] for row in rows) == np.flatnonzero(test_id == planted.CLUSTER).tolist()
