"""What is done while a batch is trained: the commit of the one before, and what the next one needs."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import numpy as np
import pytest
from support.stores import bits_of, small_dataset

import memdb
from memdb.errors import StorageError, TrainingError
from memdb.store import Store
from memdb.training.ahead import Ahead, with_next
from memdb.training.commits import Commits
from memdb.training.run import warn_of_doubts

SECONDS = 30  # until a test gives up on a thread


class Watching:
    """A recipe of one model a batch that calls back; ``prepare`` draws the seeds."""

    name, version, options = "watching", "1", {}

    def __init__(self, seen=lambda number, run: None, ahead=lambda seeds: [int(seed) for seed in seeds]):
        self.seen, self.ahead = seen, ahead
        self.prepared, self.threads = [], []

    def prepare(self, data, seeds, device):
        self.threads.append(threading.current_thread().name)
        return self.ahead(seeds)

    def __call__(self, data, masks, seeds, run):
        self.prepared.append((run.prepared, [int(seed) for seed in seeds]))
        self.seen(len(self.prepared), run)
        return {
            f"{name}/correct": np.ones((len(masks), len(part)), dtype=bool)
            for name, part in data.sets.items()
        }


def made(tmp_path, recipe):
    return memdb.init(str(tmp_path / "s.zarr"), small_dataset(), recipe, seed=7)


@pytest.fixture
def slow_commits(monkeypatch):
    """Let every commit wait until the event is set."""
    go, commit = threading.Event(), Store.commit

    def slowly(*arguments):
        assert go.wait(SECONDS), "nothing was trained meanwhile"
        return commit(*arguments)

    monkeypatch.setattr(Store, "commit", slowly)
    return go


def test_a_batch_is_committed_while_the_next_one_is_trained_and_all_stay_in_order(tmp_path, slow_commits):
    recipe = Watching(lambda number, run: slow_commits.set() if number == 2 else None)
    db = made(tmp_path, recipe)
    assert db.train(seeds=[5, 3, 9]) == 3
    assert [model.seed for _, model in db.snapshot.models] == [5, 3, 9]
    assert bits_of(db.snapshot)[1].all()


def polling(told):
    """Return what a recipe does that polls in its second batch until a commit is told."""

    def polled(number, run):
        waiting = threading.Event()
        for _ in range(SECONDS * 1000) if number == 2 else ():
            run.progress(1, 2)
            if told[-1].n_committed == 1:
                return
            waiting.wait(0.001)

    return polled


def test_ctrl_c_while_a_commit_is_told_counts_it_once(tmp_path):
    told = []

    def interrupted(status):
        told.append(status)
        if [status.n_committed for status in told].count(1) == 1:
            raise KeyboardInterrupt

    db = made(tmp_path, Watching(polling(told)))
    with pytest.raises(KeyboardInterrupt):
        db.train(seeds=range(9), progress=interrupted)
    assert db.n_models == told[-1].n_committed == 1
    assert [status.n_committed for status in told].count(1) > 1


def test_a_commit_is_told_while_the_next_batch_is_trained_and_is_doubted_at_the_line_of_the_caller(tmp_path):
    told = []

    def doubtful(data, masks, seeds, run):
        found = recipe(data, masks, seeds, run)
        return {
            **found,
            "train/logit_confidence": np.ones(masks.shape),
            "train/correct": ~found["train/correct"],
        }

    def shown(status):
        told.append(status)
        warn_of_doubts(status)

    recipe = Watching(polling(told))
    db = memdb.init(str(tmp_path / "s.zarr"), small_dataset(), doubtful, recipe_version="1")
    with pytest.warns(UserWarning, match="look like") as caught:
        db.train(seeds=[5, 3], batch_models=1, progress=shown)
    assert [warning.filename for warning in caught] == [__file__]
    assert [(status.n_committed, status.n_in_flight) for status in told[-2:]] == [(1, 0.5), (2, 0.0)]
    assert db.n_models == 2


def test_a_run_with_a_limit_knows_what_was_committed_before_it_goes_on(tmp_path):
    told = []
    recipe = Watching(lambda number, run: told.append(len(db.store.own_snapshot().models)))
    db = made(tmp_path, recipe)
    assert db.train(add=4, max_seconds=3600) == 4
    assert told == [0, 1, 2, 3]
    assert {name.startswith("memdb") for name in recipe.threads} == {False}


def test_a_commit_that_fails_ends_the_batch_in_flight_and_the_run_with_its_error(tmp_path, monkeypatch):
    def full(*_arguments):
        raise StorageError("disk full", hint="make room")

    def obedient(number, run):
        stopped = threading.Event()
        while number == 2 and not run.stop_requested():
            assert not stopped.wait(0.001)
        if run.stop_requested():
            raise KeyboardInterrupt

    db = made(tmp_path, Watching(obedient))
    monkeypatch.setattr(Store, "commit", full)
    with pytest.raises(StorageError, match="disk full"):
        db.train(seeds=range(9))
    assert db.n_models == 0


@pytest.mark.parametrize("lasts", [False, True])
def test_a_commit_that_memory_was_too_short_for_is_made_again_once_after_the_batch(
    tmp_path, monkeypatch, lasts
):
    training, failed, commit, tried = threading.Event(), threading.Event(), Store.commit, []

    def short(store, models, *arguments):
        tried.append(models[0].seed)
        if models[0].seed == 5 and (lasts or len(tried) == 1):
            assert training.wait(SECONDS), "nothing was trained meanwhile"
            failed.set()
            raise MemoryError
        return commit(store, models, *arguments)

    def beside(number, run):
        if number == 2:
            training.set()
            assert failed.wait(SECONDS)
            assert not run.stop_requested()

    monkeypatch.setattr(Store, "commit", short)
    db = made(tmp_path, Watching(beside))
    if lasts:
        with pytest.raises(MemoryError):
            db.train(seeds=[5, 3, 9])
        assert (db.n_models, tried) == (0, [5, 5])
    else:
        assert db.train(seeds=[5, 3, 9]) == 3
        assert [model.seed for _, model in db.snapshot.models] == tried[1:] == [5, 3, 9]


def test_what_memory_was_too_short_to_prepare_is_made_once_the_batch_has_ended():
    made = []

    def make(batch):
        made.append((batch, threading.current_thread().name.partition("_")[0]))
        if len(made) == 2:
            raise MemoryError
        return batch

    with Ahead(make) as ahead:
        assert [ahead.take(batch, following) for batch, following in with_next("abc")] == ["a", "b", "c"]
    assert made == [("a", "MainThread"), ("b", "memdb ahead"), ("b", "MainThread"), ("c", "memdb ahead")]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("tired")])
def test_what_was_trained_before_a_batch_failed_is_committed_and_counted(tmp_path, slow_commits, error):
    def fail(number, _run):
        if number == 2:
            slow_commits.set()
            raise error

    told = []
    db = made(tmp_path, Watching(fail))
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else TrainingError):
        db.train(seeds=range(9), progress=told.append)
    assert db.n_models == told[-1].n_committed == 1


def test_ctrl_c_while_the_last_commit_is_awaited_counts_what_it_commits(tmp_path, monkeypatch):
    interrupts = [KeyboardInterrupt()]

    def awaited(futures, patience):
        if interrupts:
            raise interrupts.pop()
        return wait(futures, patience)

    monkeypatch.setattr("memdb.training.commits.wait", awaited)
    told = []
    db = made(tmp_path, Watching())
    with pytest.raises(KeyboardInterrupt):
        db.train(seeds=[5], progress=told.append)
    assert db.n_models == told[-1].n_committed == 1


def test_models_whose_commit_is_in_the_making_count_as_in_flight(tmp_path, slow_commits):
    def half(number, run):
        run.progress(1, 2)
        if number == 2:
            slow_commits.set()

    told = []
    made(tmp_path, Watching(half)).train(seeds=range(2), progress=told.append)
    assert [status.n_in_flight for status in told if status.n_in_flight] in ([0.5, 1.5], [0.5, 0.5])


def test_the_next_batch_is_prepared_in_another_thread(tmp_path):
    recipe = Watching()
    assert made(tmp_path, recipe).train(seeds=[4, 2, 8]) == 3
    assert recipe.prepared == [([4], [4]), ([2], [2]), ([8], [8])]
    assert [name.startswith("memdb ahead") for name in recipe.threads] == [False, True, True]


def test_what_was_prepared_serves_once_and_not_for_parts(tmp_path):
    def small(number, run):
        if number == 1:
            raise MemoryError

    recipe = Watching(small)
    assert made(tmp_path, recipe).train(seeds=[4, 2], batch_models=2) == 2
    assert recipe.prepared == [([4, 2], [4, 2]), (None, [4]), (None, [2])]


def test_a_recipe_that_cannot_prepare_is_named_unless_memory_has_run_out(tmp_path):
    def none_left(_seeds):
        raise MemoryError

    recipe = Watching(ahead=none_left)
    assert made(tmp_path / "a", recipe).train(seeds=[4]) == 1
    assert recipe.prepared == [(None, [4])]
    with pytest.raises(TrainingError, match="prepare of recipe watching raised ZeroDivisionError") as caught:
        made(tmp_path / "b", Watching(ahead=lambda seeds: 1 / 0)).train(seeds=[4])
    assert caught.value.hint


def test_two_commits_at_once_are_refused():
    with Commits() as commits:
        commits.begin(lambda: 1, 1)
        with pytest.raises(RuntimeError, match="order"):
            commits.begin(lambda: 2, 1)
        assert list(commits.made()) == [1]
