"""What a user adds without touching the package: a recipe, an outcome, a storage, formats of runs and scores."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from support.stores import bits_of, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from memdb.format.manifest import CORRECT
from memdb.interop.run_formats import Runs
from memdb.interop.score_formats import ScoreFile
from memdb.storage.protocol import Found
from memdb.store.score_tables import Scores

DOUBT = memdb.Outcome("doubt", "real", "float32", ("train", "test"), "how unsure the model was, in bits")


class Coin:
    """A recipe: right with a probability, and never sure."""

    name, version = "coin", "1"

    def __init__(self, p):
        self.options = {"p": p}

    def __call__(self, data, masks, seeds, run):
        drawn = np.random.default_rng([int(seed) for seed in seeds])
        found = {}
        for name, examples in data.sets.items():
            shape = len(masks), len(examples)
            found[f"{name}/correct"] = drawn.random(shape) < self.options["p"]
            found[f"{name}/doubt"] = drawn.random(shape).astype(np.float32)
        return found


class Shelf:
    """A storage: a dict, with the time at which each object was written."""

    url, can_list, can_write, cache = "shelf", True, True, None

    def __init__(self):
        self.objects = {}

    def direct(self):
        return self

    def above(self):
        return []

    def read(self, path, start=None, stop=None, *, most=None):
        if path not in self.objects:
            raise NotFoundError(path)
        return self.objects[path][0][start:stop]

    def names(self, folder):
        start = f"{folder}/" if folder else ""
        return sorted(
            {path.removeprefix(start).split("/")[0] for path in self.objects if path.startswith(start)}
        )

    def find(self, folder):
        inside = {path: kept for path, kept in self.objects.items() if path.startswith(f"{folder}/")}
        return [Found(path, len(data), written) for path, (data, written) in inside.items()]

    def write_all(self, objects):
        self.objects |= {path: (data, datetime.now(UTC)) for path, data in objects.items()}

    def create(self, path, data):
        if path in self.objects:
            raise AlreadyExistsError(path)
        self.objects[path] = data, datetime.now(UTC)

    def remove(self, paths):
        for path in paths:
            self.objects.pop(path, None)


def test_a_recipe_an_outcome_and_a_storage_of_ones_own():
    shelf, recipe = Shelf(), Coin(0.8)
    with memdb.init(shelf, small_dataset(), recipe, outcomes=["correct", DOUBT]) as made:
        assert made.train(add=9) == 9
    with memdb.open(shelf) as db:
        assert db.top_memorized(k=3).fetchall() == db.top_memorized(k=3).fetchall()
        assert db.compact().n_models == 9
        assert [outcome.name for outcome in db.store.manifest.outcomes] == ["correct", "doubt"]
        doubt = db.snapshot.outcome_values("test/doubt")  # [test, models]
        assert doubt.dtype == np.float32
        assert doubt.shape == (11, 9)
        assert 0 < doubt.min() < doubt.max() < 1
        assert db.verify()[0].damages == []


def test_what_is_no_outcome_is_refused():
    with pytest.raises(memdb.MemdbError, match="cannot keep the outcomes correct, luck"):
        memdb.init(Shelf(), small_dataset(), Coin(0.5), outcomes=["correct", "luck"])


def drawn_runs():
    """Masks and correctness of 7 models on 23 training examples, bool [models, train]."""
    drawn = np.random.default_rng(0)
    return np.array([drawn.permutation(23) < 16 for _ in range(7)]), drawn.random((7, 23)) < 0.8


def two_columns(path, arrays):
    """A format: ``seen`` and ``right``, transposed, of a training set alone."""
    if set(arrays) != {"seen", "right"}:
        return None
    seen, right = (arrays[name].whole((None, None), "b").T for name in ("seen", "right"))
    return Runs(
        str(path), "two columns", len(seen), {"train": seen.shape[1]},
        (replace(CORRECT, sets=("train",)),),
        lambda start, stop: (seen[start:stop], {"train/correct": right[start:stop]}),
    )  # fmt: skip


def test_a_format_of_ones_own(tmp_path):
    seen, right = drawn_runs()
    np.savez(tmp_path / "runs.npz", seen=seen.T, right=right.T)
    done = memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "s.zarr"), formats=[two_columns])
    assert (done.kind, done.n_added) == ("two columns", 7)
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        masks, correct, _ = bits_of(db.snapshot)
        assert sorted(map(tuple, masks)) == sorted(map(tuple, seen))
        assert correct.sum() == right.sum()


@pytest.fixture
def documented():
    """The two formats that docs/importing.md shows."""
    page = (Path(__file__).parent.parent / "docs" / "importing.md").read_text()
    (block,) = re.findall(r"^```python\n(# long_csv\.py\n.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(block, names)  # noqa: S102 - our own page
    return [names["long_csv"], names["pairs_csv"]]


def test_the_documented_formats_read_runs_and_scores_of_any_file(documented, tmp_path):
    seen, right = drawn_runs()
    lines = [f"{m},{i},{seen[m, i]:d},{right[m, i]:d}" for m in range(7) for i in range(23)]
    (tmp_path / "runs.csv").write_text("\n".join(["model,example,seen,right", *lines]))
    done = memdb.import_file(tmp_path / "runs.csv", str(tmp_path / "s.zarr"), formats=documented)
    assert (done.kind, done.n_added) == ("long CSV", 7)
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        assert bits_of(db.snapshot)[1].sum() == right.sum()
    (tmp_path / "pairs.csv").write_text("train,test,influence\n3,1,0.25\n7,1,0.5\n3,0,-0.5\n")
    url = str(tmp_path / "p.zarr")
    table = memdb.import_file(tmp_path / "pairs.csv", url, formats=documented, n_train=23, n_test=2).table
    assert (table.coverage, table.n_memorization, table.n_influence) == ("listed", 0, 3)
    with memdb.open(url) as db:
        rows = db.top_influence(test_id=1).df()
        assert rows[["train_id", "influence"]].values.tolist() == [[7, 0.5], [3, 0.25]]
    (tmp_path / "other.csv").write_text("")
    with pytest.raises(InvalidInputError, match=r"other\.csv cannot be read"):
        memdb.import_file(tmp_path / "other.csv", url, formats=documented)


def runs_of(sizes=None, masks=None, right=None):
    """A format that misreports the given parts of its runs."""
    seen, correct = drawn_runs()
    masks, right = seen if masks is None else masks, correct if right is None else right
    given = {} if right is ... else {"train/correct": right}
    return lambda path, _: Runs(
        str(path), "odd", 7, sizes or {"train": 23}, (CORRECT,), lambda *_: (masks, given)
    )


def scores_of(coverage="listed", n_scores=23, train=(3, 7), test=(0, 0), influence=(0.5, -0.5)):
    """A format whose scores are not what they should be."""
    arrays = np.array(train), np.array(test), np.array(influence)
    return lambda path, _: ScoreFile(
        str(path), coverage, Scores(np.zeros(n_scores), *arrays), {"train": 23, "test": 2}
    )


@pytest.mark.parametrize(
    ("read", "match"),
    [
        (lambda _path, _arrays: {"mask": 1}, "returned dict for"),
        (runs_of(masks=drawn_runs()[0].T), r"mask of .* is bool \(23, 7\)"),
        (runs_of(masks=drawn_runs()[0] * 1), r"mask of .* is int64 \(7, 23\)"),
        (runs_of(right=drawn_runs()[1] * 1.0), r"train/correct of .* is float64"),
        (runs_of(right=...), "has no train/correct"),
        (runs_of(sizes={"test": 23}), "is of the sets test"),
        (runs_of(sizes={"train": 23, "valid": 4}), "is of the sets train, valid"),
        (scores_of(coverage="all"), "has the coverage 'all'"),
        (scores_of(n_scores=22), "has memorization of 22 training examples; there are 23"),
        (scores_of(train=(3, 23)), "names train example 23, and there are 23"),
        (scores_of(train=(3, -1)), "train_id of .* goes from -1 to 3"),
        (scores_of(test=(0, 2)), "names test example 2, and there are 2"),
        (scores_of(test=(0.0, 1.0)), r"test_id of .* is float64"),
        (scores_of(influence=(0.5,)), r"influence of .* is float64 \(1,\)"),
        (scores_of(influence=(0.5, np.nan)), "influence of .* holds nan"),
        (scores_of(influence=(0.5, 1.5)), "influence of .* holds 1.5"),
        (scores_of(train=(3, 3)), "has the pair of training example 3 and test example 0 twice"),
    ],
)
def test_a_format_that_returns_something_else_is_refused_and_nothing_is_written(tmp_path, read, match):
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(InvalidInputError, match=match):
        memdb.import_file(tmp_path / "x.npz", str(tmp_path / "s.zarr"), formats=[read])
    assert not (tmp_path / "s.zarr").exists()
