"""The examples run, at a tiny size, and say what their docstrings promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

import memdb

NOTEBOOK = ROOT / "examples" / "03_see_it.ipynb"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "n_models", "says"),
    [
        ("01", 6, "memorization"),
        ("04", 3, "memorization"),
        ("02", 80, "most memorized: [0, 1, 2, 3, 4]"),
        ("05", 30, "most memorized: [4, 25]"),
        ("06", 40, "most memorized: ['A007', 'A031']"),
    ],
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
    script = ROOT / "examples" / "slurm-array.sh"
    given = {"STORE": url, "DATA": str(tmp_path), "DEVICE": "cpu", "MODELS": "3", "SLURM_ARRAY_TASK_ID": "4"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for added in (3, 0):
        environment = {**os.environ, **given, "CHECKPOINTS": str(tmp_path / "c"), "PATH": path}
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=True)
        assert f"Added {added} models" in done.stderr
    assert "were there already" in done.stderr


@pytest.mark.ray
def test_the_cluster_of_ray_is_one_that_ray_starts():
    """Ray's own checks, those of `ray up` before it asks the cloud for anything."""
    pytest.importorskip("ray")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster = yaml.safe_load((ROOT / "examples" / "ray-cluster.yaml").read_text("utf-8"))
    validate_config(prepare_config(cluster))
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0


@pytest.mark.slow
def test_the_notebook_runs_and_keeps_its_pictures_when_converted(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("MEMDB_EXAMPLE_MODELS", "8")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # which would go stale
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [
        output["data"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]
    tables = [data["text/html"] for data in shown if "<table" in data.get("text/html", "")]
    assert tables[0].count("<img") == 5
    assert max(len(table.encode()) for table in tables) <= 200_000
    assert sum("image/png" in data for data in shown) == 3
    nbconvert = pytest.importorskip("nbconvert")
    monkeypatch.setenv(
        "JUPYTER_PATH", str(Path(nbconvert.__file__).parents[4] / "share" / "jupyter")
    )  # its templates
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert page.count('<img alt="train example') + page.count("<img alt='train example") == 5


def test_every_example_is_run_here():
    assert [path.name[:2] for path in EXAMPLES] == ["01", "02", "04", "05", "06"]
