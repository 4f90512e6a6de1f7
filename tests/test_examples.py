"""The examples run, at a tiny size, and say what their docstrings promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_every_example_is_run_here():
    assert [path.name[:2] for path in EXAMPLES] == ["01", "02"]
