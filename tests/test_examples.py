"""The examples run, at a tiny size, and say what their docstrings promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import memdb

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize(
    ("example", "n_models", "says"),
    [("01", 6, "memorization"), ("02", 30, "most memorized: [0, 1, 2, 3, 4]")],
)
def test_an_example_runs(example, n_models, says):
    pytest.importorskip("torch")
    (path,) = [path for path in EXAMPLES if path.name.startswith(example)]
    done = subprocess.run([sys.executable, path, str(n_models)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.slow
def test_a_task_of_a_slurm_array_is_run_again_without_training_twice(tmp_path):
    pytest.importorskip("torch")
    url = str(tmp_path / "s.zarr")
    memdb.init(url, recipe_options={"epochs": 1}).close()
    script = Path(__file__).parent.parent / "examples" / "slurm-array.sh"
    given = {"STORE": url, "DATA": str(tmp_path), "DEVICE": "cpu", "MODELS": "3", "SLURM_ARRAY_TASK_ID": "4"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for added in (3, 0):
        environment = {**os.environ, **given, "CHECKPOINTS": str(tmp_path / "c"), "PATH": path}
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=True)
        assert f"Added {added} models" in done.stderr
    assert "were there already" in done.stderr


def test_every_example_is_run_here():
    assert [path.name[:2] for path in EXAMPLES] == ["01", "02"]
