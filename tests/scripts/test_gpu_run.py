"""The prepared run on a GPU, at a tiny size on whatever is here: every step does what it is to do."""

from __future__ import annotations

import gzip
import importlib
import os
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from support import ROOT

import memdb

SCRIPT = ROOT / "scripts" / "gpu_run.py"


def run(home, *arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments, "--tiny", "--home", home, "--out", home / "out"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    return done.stdout


def mnist(folder):
    rng = np.random.default_rng(0)
    for part, n in (("train", 400), ("t10k", 20)):
        arrays = {"images-idx3": rng.integers(0, 256, (n, 28, 28)), "labels-idx1": np.arange(n) % 10}
        for kind, values in arrays.items():
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            raw = gzip.compress(header + values.astype(np.uint8).tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(raw)


def pictures(folder, name, n):
    from PIL import Image

    rng = np.random.default_rng(n)
    for row in range(n):
        path = folder / name / f"class{row % 3}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(folder / name, name)


@pytest.mark.slow
def test_the_first_call_runs_every_step(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "data").mkdir()
    mnist(tmp_path / "data")
    said = run(tmp_path, "first", "3000")
    for step in ("facts", "recipes", "sieve", "convolutions", "mnist", "command", "kernels"):
        assert f"== {step}: done" in said
    assert said.count("same True") == 6
    assert "off by 0.0e+00 alone" in said  # where the device is the CPU itself
    assert said.count(" epochs, ") == 2
    assert "trained and committed in" in said
    assert said.count(" ms a step, ") >= 7


@pytest.mark.slow
def test_the_last_call_brings_back_a_store(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "data").mkdir()
    for name, n in (("train", 60), ("test", 20)):
        pictures(tmp_path / "data", name, n)
    said = run(tmp_path, "last", "3000")
    for step in ("unpack", "cifar", "train"):
        assert f"== {step}: done" in said
    with tarfile.open(tmp_path / "out" / "cifar100.tar.0") as tar:
        tar.extractall(tmp_path / "back", filter="data")
    with memdb.open(str(tmp_path / "back" / "cifar100.zarr")) as db:
        assert db.n_models == 4
        assert db.verify()[0].damages == []


@pytest.mark.slow
def test_a_step_that_takes_too_long_does_not_stop_the_others(tmp_path, monkeypatch, capfd):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = importlib.import_module("gpu_run")
    arguments = ["gpu_run.py", "first", "600", "--home", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(script, "LEAST", 0)
    monkeypatch.setitem(script.CALLS, "first", {"recipes": 0.1, "facts": 500})
    with pytest.raises(SystemExit) as ended:
        script.main()
    said = capfd.readouterr().out
    assert ended.value.code == 1
    assert "== recipes: out of time" in said
    assert "== facts: done" in said


@pytest.mark.slow
def test_what_a_step_started_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = importlib.import_module("gpu_run")
    writes = f"import time\nwhile True: open({str(tmp_path / 'beats')!r}, 'a').write('.'); time.sleep(.05)"
    step = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {writes!r}])"
    assert script.ended([sys.executable, "-c", step], 2) == "out of time"
    beats = (tmp_path / "beats").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "beats").stat().st_size == beats > 0


def test_a_step_that_has_no_time_left_is_not_begun(tmp_path):
    said = run(tmp_path, "first", "10")
    assert said.count("no time left") == 7
