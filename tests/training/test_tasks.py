"""Tasks that name their models, and where a run ends."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from support.stores import coin_recipe, small_database
from support.trained import made, stored

from memdb.format import subsets
from memdb.training.engines.worker import committed_since, missing
from memdb.training.seeds import Seeds, task_seeds

GOLDEN = [8236443892266975918, 4207483750537880312]  # of task 7


def test_another_attempt_finds_what_the_first_has_committed(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        begun = datetime.now(UTC)
        db.train(seeds=range(10))
        found = committed_since(db.store, begun, [8, 9, 10, 11])
        assert [model.seed for batch in found for model in batch.models] == [8, 9]
        assert missing(db.store, found, [8, 9, 10, 11]) == [10, 11]
        masks = subsets.subset_masks(7, [8, 9], 23, 16)
        assert (masks == np.unpackbits(found[0].mask, axis=1, count=2, bitorder="little").T).all()
        later = datetime.now(UTC) + timedelta(hours=1)
        assert committed_since(db.store, later, [8, 9]) == []


def test_a_task_trains_the_same_models_whenever_it_is_run(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        assert db.train(add=4, task_id="7") == 4
        first = stored(db)
        assert db.train(add=4, task_id=7) == 0
        assert db.train(add=6, task_id=7) == 2
        assert db.train(add=3, task_id=8) == 3
        assert set(first) < set(stored(db))
        assert len(set(stored(db))) == 9


def test_seeds_of_tasks_stay_what_they_are():
    source = task_seeds("7")
    assert [next(source) for _ in range(2)] == GOLDEN
    assert all(0 <= seed < 2**63 for seed, _ in zip(source, range(100), strict=False))


@pytest.mark.parametrize("n_models", [1, 61, 100, 101])
@pytest.mark.parametrize(("size", "n_workers"), [(30, 1), (7, 3), (1, 2)])
def test_what_is_left_of_a_task_falls_into_the_same_batches(n_models, size, n_workers):
    all_of_it = list(Seeds(range(n_models), n_models, 7).batches(size, n_workers))
    assert [seed for batch in all_of_it for seed in batch] == list(range(n_models))
    assert max(map(len, all_of_it)) <= size
    assert max(map(len, all_of_it)) - min(map(len, all_of_it)) <= 1
    done = frozenset(subsets.model_id(7, seed) for batch in all_of_it[::2] for seed in batch)
    left = Seeds(range(n_models), n_models, 7, done)
    assert list(left.batches(size, n_workers)) == all_of_it[1::2]
    assert left.n_missing == sum(map(len, all_of_it[1::2]))


@pytest.mark.slow
def test_a_run_ends_at_the_half_width_that_info_shows(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        n_models = db.train(until_half_width=0.4)
        (width,) = db.info().project("mean_half_width").fetchall()[0]
        assert width <= 0.4
        assert n_models % 5 == 0
        assert db.train(until_half_width=0.4) == 0
        assert db.train(add=5, until_half_width=0.01) == 5
    shutil.rmtree(tmp_path / "s.zarr")
    with small_database(tmp_path / "s.zarr") as db:
        db.train(add=n_models - 5)
        assert db.info().project("mean_half_width").fetchall()[0][0] > 0.4 * 0.9


def test_no_batch_begins_that_would_last_beyond_the_time(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("memdb.training.run.time.monotonic", lambda: now[0])
    monkeypatch.setattr("memdb.training.loop.time.perf_counter", lambda: now[0])

    def slow(data, masks, seeds, run):
        now[0] += 10
        if run.stop_requested():
            raise KeyboardInterrupt
        return coin_recipe(data, masks, seeds, run)

    slow.models_per_batch, slow.version = lambda data, device: 2, "1"
    with made(tmp_path, slow) as db:
        assert db.train(max_seconds=35) == 6  # the fourth batch would end at 40
        assert db.train(max_seconds=5) == 0  # the first one does not end in time: it is dropped
        assert db.train(add=4, max_seconds=1000) == 4
