"""init, train and demo as they are typed, and how a training that ends early ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support import TESTS
from support.cases import every
from support.commands import MEMDB, run, spawn

import memdb

INIT = ["init", "--dataset", "support.stores:make_data", "--recipe", "slow_recipe:Slow"]
SLOW = """
import time, numpy as np
class Slow:
    name, version = "slow", "1"
    def __init__(self, seconds=0.0, fail_at=0, stall_at=0):
        self.options = {"seconds": seconds, "fail_at": fail_at, "stall_at": stall_at}
        self.done = 0
    def models_per_batch(self, data, device):
        return 2
    def __call__(self, data, masks, seeds, run):
        for step in range(10):
            time.sleep(self.options["seconds"] / 10)
            run.progress(step + 1, 10)
        while 0 < self.options["stall_at"] <= self.done:
            time.sleep(0.01)
            run.progress(10, 10)
        self.done += len(seeds)
        if self.options["fail_at"] and self.done >= self.options["fail_at"]:
            raise ValueError("no more")
        rng = np.random.default_rng(int(seeds[0]))
        return {f"{name}/correct": rng.random((len(seeds), len(part))) < .7 for name, part in data.sets.items()}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "slow_recipe.py").write_text(SLOW)
    return tmp_path


@pytest.mark.slow
def test_init_and_train_with_a_recipe_and_data_of_ones_own_in_this_folder(folder):
    done = run(*INIT, "-p", "seconds=0", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Created memdb.zarr: support.stores:make_data, 23 train and 11 test examples" in done.stderr
    assert "Next: memdb train --add 100" in done.stderr
    done = spawn("train", "--device", "cpu", "--add", 5, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "5/5 models" in done.stderr
    assert "Added 5 models to memdb.zarr, which now has 5" in done.stderr
    assert run("train", "--device", "cpu", "--add", 3, cwd=folder).returncode == 0
    assert memdb.open(str(folder / "memdb.zarr")).n_models == 8


@pytest.mark.slow
def test_two_trainings_at_once_on_one_store_both_count(folder):
    run(*INIT, "-p", "seconds=0.05", cwd=folder)
    command = [MEMDB, "train", "--device", "cpu", "--add", "10"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    both = [subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert memdb.open(str(folder / "memdb.zarr")).n_models == 20


@pytest.mark.parametrize("sent", every(2, [signal.SIGINT, signal.SIGTERM]))
def test_ctrl_c_keeps_what_was_committed_and_says_how_to_go_on(folder, sent):
    run(*INIT, "-p", "stall_at=4", cwd=folder)
    command = [MEMDB, "train", "--device", "cpu", "--add", "40"]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    while memdb.open(str(folder / "memdb.zarr")).n_models < 4:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(sent)
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 130, "\n".join(said)
    assert said[-2:] == [
        "Stopped. 4 of 40 models were added to memdb.zarr; the batch in flight was dropped.",
        "Go on with: memdb train --add 36 --device cpu",
    ]
    assert memdb.open(str(folder / "memdb.zarr")).n_models == 4
    assert run("top-memorized", cwd=folder).returncode == 0


def test_a_recipe_that_fails_on_the_way_is_one_line_and_keeps_what_was_committed(folder):
    run(*INIT, "-p", "fail_at=7", cwd=folder)
    done = run("train", "--device", "cpu", "--add", 20, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: recipe slow raised ValueError: no more (model seeds "
    )
    assert "Traceback" not in done.stderr
    assert memdb.open(str(folder / "memdb.zarr")).n_models == 6


def test_changed_data_is_refused_with_both_fingerprints(folder):
    (folder / "data.py").write_text(
        "import memdb, numpy as np\ndef make(root):\n    x = np.ones((6, 1)) * float(root)\n"
        "    return memdb.Dataset(x, [0, 1] * 3, x, [0, 1] * 3)\n"
    )
    run("init", "--dataset", "data:make", "--recipe", "slow_recipe:Slow", "--data-root", "1", cwd=folder)
    assert run("train", "--device", "cpu", "--add", 2, "--data-root", "1", cwd=folder).returncode == 0
    done = run("train", "--device", "cpu", "--add", 2, "--data-root", "2", cwd=folder)
    assert done.returncode == 1
    assert "the train set of memdb.zarr has 6 examples with fingerprint" in done.stderr
    assert memdb.open(str(folder / "memdb.zarr")).n_models == 2


@pytest.mark.slow
def test_digits_from_an_empty_folder(tmp_path):
    pytest.importorskip("torch")
    done = run("demo", "--models", 12, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"No store at {tmp_path / 'memdb.zarr'}: creating one" in done.stderr
    for part in (
        "Most memorized training examples · 12 models",
        "Influence on test example",
        "Go on with:",
        "@@",
    ):
        assert part in done.stdout
    again = run("demo", "--models", 12, cwd=tmp_path)
    assert "memdb.zarr has 12 models already" in again.stderr
    for line in again.stdout.split("Go on with:")[1].strip().splitlines()[:3]:
        assert run(*line.split()[1:], cwd=tmp_path).returncode == 0, line
    done = run("train", "--add", 2, cwd=tmp_path)
    assert "which now has 14 (12 when this run began)" in done.stderr


@pytest.mark.parametrize("named", [{"MEMDB_STORE": "no where"}, {}])
def test_a_store_that_was_named_is_not_made_by_training(tmp_path, named):
    options = [] if named else ["--store", "no where"]
    done = run("train", "--add", 1, *options, cwd=tmp_path, **named)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no memdb store at no where. Create one with `memdb init --store 'no where'`" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_sketches_are_asked_for_in_options_and_counted_by_info(tmp_path, torch):
    made = run("init", "--sketches", 2, "--sketch-size", 8, "-p", "epochs=1", "-p", "hidden=4", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "sketches  0 of 2 models, 8 numbers an example" in run("info", cwd=tmp_path).stdout
    for more in (["--add", 3], ["--add", 2, "--sketch", 1]):
        assert run("train", *more, "--device", "cpu", cwd=tmp_path).returncode == 0
    assert "sketches         3 models, 8 numbers an example, " in run("info", cwd=tmp_path).stdout
    refused = [
        (
            ["train", "--sketch", 1, "--sketch-size", 9],
            1,
            "has sketches of 8 numbers, and others of 9 cannot",
        ),
        (
            ["train", "--sketch-size", 9],
            2,
            "--sketch-size does nothing without --sketch. Omit --sketch-size.",
        ),
        (["train", "--sketch", 0], 1, "--sketch 0 is not a number from 1"),
        (["init", "--sketch-size", 9, "-s", "b"], 2, "--sketch-size does nothing without --sketches."),
        (["init", "--extend", ".", "--sketches", 9, "-s", "b"], 1, "--sketches is fixed by the store"),
    ]
    for arguments, code, said in refused:
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode, said in done.stderr) == (code, True), (arguments, done.stderr)


@pytest.mark.slow
def test_python_m_memdb_starts_workers_as_the_command_does(tmp_path):
    command = [sys.executable, "-m", "memdb"]
    for words in (
        "init -r sklearn:sklearn.neighbors.KNeighborsClassifier -p n_neighbors=1",
        "train --add 2 --workers 2",
    ):
        subprocess.run([*command, *words.split(), "--store", "s.zarr"], cwd=tmp_path, check=True)
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        assert db.n_models == 2


@pytest.mark.slow
def test_workers_give_back_the_locks_that_they_took(folder):
    recipe = folder / "slow_recipe.py"
    recipe.write_text(f"import multiprocessing\nLOCK = multiprocessing.get_context('spawn').Lock()\n{SLOW}")
    run(*INIT, cwd=folder)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [MEMDB, "train", "--device", "cpu", "--add", "4", "--workers", "2"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "which now has 4" in done.stderr
    assert "leaked" not in done.stderr
