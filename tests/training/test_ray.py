"""Training on a Ray cluster, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support import TESTS
from support.stores import coin_recipe, small_database
from support.trained import dying_recipe, ids, made, stored

import memdb
from memdb.errors import InvalidInputError, NotFoundError, TrainingError
from memdb.store import Store

SEEN = os.pathsep.join([str(TESTS), str(Path(__file__).parent)])  # by workers that start afresh


def shared_task_recipe(data, masks, seeds, run):
    """As coins fall; the second task's first batch is committed no sooner than its second one is trained.

    Its process is killed in its fourth batch.
    """
    if 2 in seeds:
        shared_task_recipe.second, commit = threading.Event(), Store.commit

        def once_the_second_is_trained(*arguments):
            assert shared_task_recipe.second.wait(30), "nothing was trained meanwhile"
            return commit(*arguments)

        Store.commit = once_the_second_is_trained
    elif 4 in seeds:
        shared_task_recipe.second.set()
    elif 8 in seeds and not Path(os.environ["DYING"]).exists():
        Path(os.environ["DYING"]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif 30 in seeds:
        raise RuntimeError("no more")
    return coin_recipe(data, masks, seeds, run)


def deadly_recipe(data, masks, seeds, run):
    """As coins fall; whichever process trains seed 8 is killed."""
    if 8 in seeds:
        os.kill(os.getpid(), signal.SIGKILL)
    return coin_recipe(data, masks, seeds, run)


def answering(words):
    """A server on loopback that sends these words to every client; return its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = server.accept()
        with connection, server:
            connection.recv(100)
            connection.sendall(words)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def test_without_ray_one_is_told_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "memdb.training.engines.ray", None)
    with (
        small_database(tmp_path / "s.zarr") as db,
        pytest.raises(InvalidInputError, match="not installed") as caught,
    ):
        db.train(add=1, ray="local")
    assert "memdb-scores[ray]" in caught.value.hint


@pytest.mark.ray
def test_ray_addresses_that_do_not_answer_are_told_apart_at_once(tmp_path):
    pytest.importorskip("ray")
    free = socket.create_server(("127.0.0.1", 0))
    closed = free.getsockname()[1]
    free.close()
    cases = [
        ("nonsense", InvalidInputError, "is not the address"),
        ("http://127.0.0.1:8265", InvalidInputError, "is not the address"),
        (f"127.0.0.1:{closed}", NotFoundError, "no Ray cluster answers.*refused"),
        (
            f"127.0.0.1:{answering(b'HTTP/1.1 400 Bad Request')}",
            NotFoundError,
            "is not a Ray cluster but 'HTTP/1.1",
        ),
        (f"127.0.0.1:{answering(b'')}", NotFoundError, "is not a Ray cluster but something that hangs up"),
        (f"ray://127.0.0.1:{answering(bytes(9))}", NotFoundError, "is not a Ray cluster but"),
    ]
    started = time.monotonic()
    with small_database(tmp_path / "s.zarr") as db:
        for address, error, says in cases:
            with pytest.raises(error, match=says) as caught:
                db.train(add=1, ray=address)
            assert caught.value.hint
    assert time.monotonic() - started < 30


@pytest.fixture
def head(monkeypatch):
    """A Ray cluster of one machine, started as on a head node: its process, and the addresses it has."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", SEEN)
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    folder = tempfile.mkdtemp(prefix="ray")  # a short name: Ray keeps sockets in it
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
    command += [f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}", "--include-dashboard=false"]
    process = subprocess.Popen(
        [*command, f"--temp-dir={folder}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert any("Ray runtime started" in line for line in process.stdout)
    yield process, f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}"
    process.terminate()
    process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_a_cluster_trains_by_both_of_its_addresses_and_is_missed_when_it_goes(tmp_path, head):
    process, address, client_address = head
    url = str(tmp_path / "d.zarr")
    memdb.init(url, recipe="support.stores:coin_recipe").close()

    def train(add, at):
        command = [str(Path(sys.executable).with_name("memdb")), "train", "--store", url, "--add", str(add)]
        command += ["--batch-models", "2", "--ray", at]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    with train(4, address) as run:
        assert "Added 4 models" in run.stderr.read()
    with train(1000, client_address) as run:
        assert "2/1000 models" in run.stderr.readline()
        process.terminate()
        said = run.stderr.read()
    assert run.returncode == 1
    assert f"Error: the Ray cluster at {client_address} was lost: " in said
    assert "Traceback" not in said


@pytest.mark.ray
def test_ray_trains_as_many_models_as_asked_for_though_workers_die(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("DYING", str(tmp_path / "died"))
    monkeypatch.setenv("PYTHONPATH", SEEN)
    with made(tmp_path, dying_recipe) as db:
        assert db.train(seeds=range(10), ray="local", workers=2, batch_models=2) == 10
        assert stored(db) == ids(range(10))
        assert (tmp_path / "died").exists()
        with pytest.raises(InvalidInputError, match="has no GPU"):
            db.train(add=1, ray="local", device="cuda")


@pytest.mark.ray
def test_short_batches_share_a_task_of_ray_which_loses_nothing_that_it_committed(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("DYING", str(tmp_path / "died"))
    monkeypatch.setenv("PYTHONPATH", SEEN)
    told = []
    with made(tmp_path, shared_task_recipe) as db:
        with pytest.raises(TrainingError, match=r"raised RuntimeError: no more \(model seeds 30"):
            db.train(seeds=range(40), ray="local", workers=1, batch_models=2, progress=told.append)
        assert stored(db) == ids(range(30))
    assert (tmp_path / "died").exists()
    assert told[-1].n_committed == 30


@pytest.mark.ray
def test_what_a_task_committed_is_told_though_ray_gives_up_on_it(tmp_path, monkeypatch):
    engine = pytest.importorskip("memdb.training.engines.ray")
    monkeypatch.setattr(engine, "MAX_RETRIES", 0)
    monkeypatch.setenv("PYTHONPATH", SEEN)
    told = []
    with made(tmp_path, deadly_recipe) as db:
        with pytest.raises(TrainingError, match="gave up on a task of 8 models"):
            db.train(seeds=range(40), ray="local", workers=1, batch_models=2, progress=told.append)
        assert 6 <= told[-1].n_committed <= db.n_models  # at least one batch of that task
