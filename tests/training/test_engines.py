"""Workers: exactly the models that were asked for, none twice, whichever process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.stores import coin_recipe, small_database, small_dataset
from support.trained import dying_recipe, ids, made, stored

import memdb
from memdb import recipes
from memdb.environment import n_cores
from memdb.errors import InvalidInputError, MismatchError, TrainingError
from memdb.store import Store
from memdb.training.engines import local
from memdb.training.engines.worker import Work, set_up
from memdb.training.loop import Hooks
from memdb.training.seeds import Seeds


def leaving_recipe(data, masks, seeds, run):
    """As coins fall; the first time that it sees seed 3 somebody asks its process to end."""
    marker = Path(os.environ["DYING"])
    if 3 in seeds and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        assert run.stop_requested()
        raise KeyboardInterrupt
    return coin_recipe(data, masks, seeds, run)


def assertion_of_a_gpu():
    torch = pytest.importorskip("torch")
    kind = getattr(torch, "AcceleratorError", RuntimeError)  # since PyTorch 2.8
    return kind("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")


def broken_recipe(data, masks, seeds, run):
    """As coins fall; the first time that it sees seed 3 the GPU fails, and then fails the whole process."""
    marker = Path(os.environ["DYING"])
    if 3 in seeds and not marker.exists():
        marker.write_text(str(os.getpid()))
    if marker.exists() and marker.read_text() == str(os.getpid()):
        raise assertion_of_a_gpu()
    return coin_recipe(data, masks, seeds, run)


def overlapping_recipe(data, masks, seeds, run):
    """As coins fall; its process commits the first batch no sooner than the second one is trained."""
    if 0 in seeds:
        overlapping_recipe.second, commit = threading.Event(), Store.commit

        def once_the_second_is_trained(*arguments):
            assert overlapping_recipe.second.wait(30), "nothing was trained meanwhile"
            return commit(*arguments)

        Store.commit = once_the_second_is_trained
    else:
        overlapping_recipe.second.set()
    return coin_recipe(data, masks, seeds, run)


def patient_recipe(data, masks, seeds, run):
    """As coins fall, if the first batch is committed before the second one is trained; that takes a while."""
    if not hasattr(patient_recipe, "first"):
        patient_recipe.first, commit = threading.Event(), Store.commit

        def slowly(*arguments):
            time.sleep(0.3)
            committed = commit(*arguments)
            patient_recipe.first.set()
            return committed

        Store.commit = slowly
    else:
        assert patient_recipe.first.is_set()
    return coin_recipe(data, masks, seeds, run)


def unpolled_recipe(data, masks, seeds, run):
    """As coins fall; after the first batch it does not poll for a minute."""
    if 0 not in seeds:
        Path(os.environ["DYING"]).touch()
        time.sleep(60)
    return coin_recipe(data, masks, seeds, run)


def deadly_recipe(data, masks, seeds, run):
    os.kill(os.getpid(), signal.SIGKILL)


def failing_recipe(data, masks, seeds, run):
    if 4 in seeds:
        raise RuntimeError("no more")
    return coin_recipe(data, masks, seeds, run)


def late_recipe(data, masks, seeds, run):
    """As coins fall; one process fails once another one, which is in no hurry, has begun a commit."""
    marker = Path(os.environ["DYING"])
    if 0 in seeds:
        commit = Store.commit

        def slowly(*arguments):
            marker.touch()
            time.sleep(0.5)
            return commit(*arguments)

        Store.commit = slowly
    elif 4 in seeds:
        while not marker.exists():
            time.sleep(0.01)
        raise RuntimeError("no more")
    return coin_recipe(data, masks, seeds, run)


def threads_recipe(data, masks, seeds, run):
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"  # nothing on the CPU asks a GPU
    assert os.environ["OMP_NUM_THREADS"] == str(max(1, n_cores() // 2))
    return coin_recipe(data, masks, seeds, run)


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_but_time(tmp_path, monkeypatch):
    monkeypatch.setenv("DYING", str(tmp_path / "died"))
    told = []
    with made(tmp_path, dying_recipe) as db:
        assert db.train(seeds=range(8), workers=2, batch_models=2, progress=told.append) == 8
        assert stored(db) == ids(range(8))
    assert any("was killed by signal 9" in status.remark for status in told)
    assert [status.n_committed for status in told if not status.remark and not status.n_in_flight] == [
        0,
        2,
        4,
        6,
        8,
    ]
    assert {status.n_asked for status in told} == {8}


def remark_of(folder, recipe):
    """Train six models in one worker, none of which may be lost, and return what is said of its end."""
    told = []
    with made(folder, recipe) as db:
        assert db.train(seeds=range(6), workers=1, batch_models=2, progress=told.append) == 6
        assert stored(db) == ids(range(6))
    (remark,) = {status.remark for status in told if status.remark}
    return remark


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_was_not_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("DYING", str(tmp_path / "asked"))
    assert "ended by itself (exit code 0)" in remark_of(tmp_path, leaving_recipe)


@pytest.mark.slow
def test_a_worker_commits_a_batch_while_it_trains_the_next_one(tmp_path):
    with made(tmp_path, overlapping_recipe) as db:
        assert db.train(seeds=range(5), workers=1, batch_models=2) == 5
        assert [model.seed for _, model in db.snapshot.models] == list(range(5))


@pytest.mark.slow
def test_a_worker_that_must_look_back_commits_each_batch_first(tmp_path):
    with made(tmp_path, patient_recipe) as db:
        assert db.train(add=4, workers=1, batch_models=2, max_seconds=3600) == 4


@pytest.mark.slow
def test_what_a_worker_committed_before_it_had_to_be_killed_is_counted(tmp_path, monkeypatch):
    marker = tmp_path / "begun"
    monkeypatch.setenv("DYING", str(marker))
    monkeypatch.setattr("memdb.training.engines.local.PATIENCE_SECONDS", 0.5)
    with made(tmp_path, unpolled_recipe) as db:

        def stop():
            return marker.exists() and db.store.own_snapshot().n_models == 2

        assert db.train(seeds=range(6), workers=1, batch_models=2, stop_requested=stop) == 2
        assert stored(db) == ids(range(2))


@pytest.mark.slow
def test_a_gpu_that_fails_costs_its_worker_and_not_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DYING", str(tmp_path / "died"))
    remark = remark_of(tmp_path, broken_recipe)
    assert "lost its device" in remark
    assert "device-side assert triggered" in remark


def test_a_gpu_that_fails_in_this_process_ends_the_run_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("DYING", str(tmp_path / "died"))
    with made(tmp_path, broken_recipe) as db:
        with pytest.raises(TrainingError, match="device-side assert") as caught:
            db.train(seeds=range(6), batch_models=2)
        assert "workers=1" in caught.value.hint
        assert stored(db) == ids(range(2))


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("memdb.training.engines.local.MAX_DEATHS", 2)
    with (
        made(tmp_path, deadly_recipe) as db,
        pytest.raises(TrainingError, match="signal 9.* 2 times in a row"),
    ):
        db.train(add=1, workers=1)


def test_what_a_worker_fails_with_is_what_one_is_told(tmp_path):
    with made(tmp_path, failing_recipe) as db:
        with pytest.raises(TrainingError, match=r"raised RuntimeError: no more \(model seeds 4"):
            db.train(seeds=range(6), workers=1, batch_models=2)
        assert stored(db) == ids(range(4))


@pytest.mark.slow
def test_what_others_commit_while_a_worker_fails_is_told_before_its_error(tmp_path, monkeypatch):
    monkeypatch.setenv("DYING", str(tmp_path / "marker"))
    told = []
    with made(tmp_path, late_recipe) as db:
        with pytest.raises(TrainingError, match="raised RuntimeError: no more"):
            db.train(seeds=[0, 4], workers=2, batch_models=1, progress=told.append)
        assert stored(db) == ids([0])
    assert told[-1].n_committed == 1


@pytest.mark.slow
def test_workers_divide_the_cores(tmp_path):
    before = dict(os.environ)
    with made(tmp_path, threads_recipe) as db:
        assert db.train(add=2, workers=2, device="cpu") == 2
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"add": 1, "workers": 0}, "workers 0"),
        ({"add": 1, "workers": 1, "recipe": lambda *_: None}, "cannot be sent to worker processes"),
        ({"add": 1, "ray": "local", "workers": 0}, "workers 0"),
        ({"add": 1, "ray": "local", "task_cpus": 0}, "task_cpus 0"),
        ({"add": 1, "ray": "local", "task_gpus": -1.0}, "task_gpus -1"),
        ({"add": 1, "ray": "local", "device": "cuda", "task_gpus": 0.0}, "'cuda' and task_gpus 0 contra"),
        ({"add": 1, "ray": "local", "device": "cpu", "task_gpus": 0.5}, "'cpu' and task_gpus 0.5 contra"),
        ({"until_half_width": 0.0}, "until_half_width 0"),
        ({"max_seconds": -1.0}, "max_seconds -1"),
        ({"seeds": [1], "task_id": "a"}, "either a number of models or their seeds"),
        ({"task_id": "a"}, "either a number"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, arguments, says):
    with made(tmp_path, coin_recipe) as db, pytest.raises(InvalidInputError, match=says) as caught:
        db.train(**arguments)
    assert caught.value.hint


def test_a_store_in_memory_is_seen_by_no_worker(tmp_path):
    with (
        small_database("memory://engines") as db,
        pytest.raises(InvalidInputError, match="memory of this process"),
    ):
        db.train(add=1, workers=1)


def test_workers_with_other_code_or_data_are_refused(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        for dataset, recipe in ((small_dataset(1), coin_recipe), (small_dataset(), failing_recipe)):
            with pytest.raises(MismatchError, match="fingerprint"):
                set_up(Work(db.store, dataset, recipes.bind(recipe)))


def test_workers_that_share_a_device_share_its_memory(tmp_path):
    def hungry(data, masks, seeds, run):
        raise AssertionError

    hungry.models_per_batch, hungry.version = lambda data, device: 128, "1"
    with made(tmp_path, hungry) as db:
        data, recipe = small_dataset(), recipes.bind(hungry)
        found = [set_up(Work(db.store, data, recipe, share=share)).n_models for share in (1, 2, 100)]
        assert found == [128, 64, 8]
        assert set_up(Work(db.store, data, recipe, share=9, batch_models=50)).n_models == 50


def test_workers_are_told_how_many_share_their_gpu_and_divide_the_cores(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(local, "n_cores", lambda: 16)
    monkeypatch.setattr(local, "_Worker", lambda number, work, n_threads: started.append((work, n_threads)))
    with made(tmp_path, coin_recipe) as db:
        work = Work(db.store, small_dataset(), recipes.bind(coin_recipe))
        gpus = ["cuda:0", "cuda:1", "cuda:0"]
        run = local._Run(work, gpus, Seeds(range(6), 6, 7), Hooks())
        for number, device in enumerate(gpus):
            run._start(number, device)
    found = [(work.device, work.share, n_threads) for work, n_threads in started]
    assert found == [("cuda:0", 2, 5), ("cuda:1", 1, 5), ("cuda:0", 2, 5)]


def test_ctrl_c_does_not_end_a_process_that_is_started_as_a_worker():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    with local._without_ctrl_c():
        run = subprocess.run(
            [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True, check=True
        )
    assert run.stdout == "goes on\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_that_has_trained_before_is_told_its_threads(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    for name in recipes.THREADS:
        monkeypatch.setenv(name, "7")
    before = torch.get_num_threads()
    try:
        with small_database(tmp_path / "s.zarr") as db:
            set_up(Work(db.store, small_dataset(), recipes.bind(coin_recipe), n_threads=before + 1))
        assert torch.get_num_threads() == before + 1
        assert {os.environ[name] for name in recipes.THREADS} == {str(before + 1)}
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_stopping_workers_keeps_what_was_committed_and_says_how_to_go_on(tmp_path, sign):
    url = str(tmp_path / "d.zarr")
    pytest.importorskip("torch")
    memdb.init(url, recipe_options={"epochs": 5}).close()
    memdb_command = str(Path(sys.executable).with_name("memdb"))
    command = [memdb_command, "train", "--store", url, "--add", "4000", "--workers", "2"]
    command += ["--batch-models", "8"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    first = run.stderr.readline()
    assert "8/4000 models" in first
    os.killpg(run.pid, sign)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    with memdb.open(url) as db:
        assert f"Stopped. {db.n_models} of 4,000 models were added" in said
        left = 4000 - db.n_models
    assert f"memdb train --add {left} --batch-models 8 --workers 2 --store {url}" in said
