"""What a user adds without touching the package: a recipe, an outcome, a storage, a format of runs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from support.stores import bits_of, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, NotFoundError
from memdb.format.manifest import CORRECT
from memdb.interop.run_formats import Runs
from memdb.storage.protocol import Found

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
    drawn = np.random.default_rng(0)
    seen, right = np.array([drawn.permutation(23) < 16 for _ in range(7)]), drawn.random((7, 23)) < 0.8
    np.savez(tmp_path / "runs.npz", seen=seen.T, right=right.T)
    done = memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "s.zarr"), formats=[two_columns])
    assert (done.kind, done.n_added) == ("two columns", 7)
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        masks, correct, _ = bits_of(db.snapshot)
        assert sorted(map(tuple, masks)) == sorted(map(tuple, seen))
        assert correct.sum() == right.sum()
