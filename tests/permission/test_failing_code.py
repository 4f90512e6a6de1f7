"""Recipes and data sets that fail are one line with the file and line of their code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import TESTS
from support.cases import every
from support.commands import run

import memdb
from memdb import recipes
from memdb.errors import MemdbError, TrainingError
from memdb.format.manifest import RecipeInfo
from memdb.training.engines.script import is_guarded


@pytest.mark.parametrize("value", [None, 10**400, "x", [], {}, [10**400]])
def test_odd_options_of_a_built_in_recipe_are_a_sentence(value):
    for name in ("mlp", "cnn", "resnet9"):
        with pytest.raises(MemdbError, match="lr="):
            recipes.rebind(RecipeInfo(name, "1", {"lr": value}))


FAILING = """
import sys
import numpy as np

def raises(data, masks, seeds, run):
    return np.stack([])


def exits(data, masks, seeds, run):
    sys.exit(3)

class Class:
    def __init__(self, depth):
        self.options = {"depth": 2 // depth}
    def __call__(self, data, masks, seeds, run): ...

def data(root):
    raise SystemExit
"""


@pytest.mark.parametrize("workers", every(2, [[], ["--workers", "1"]]))
@pytest.mark.parametrize(
    ("name", "says"),
    [("raises", "raised ValueError: need at least one array"), ("exits", "called sys.exit(3)")],
)
def test_a_recipe_that_fails_is_one_line_with_file_and_line(here, name, says, workers):
    (here / "failing.py").write_text(FAILING)
    run("init", "-d", "spells:data", "-r", f"failing:{name}", cwd=here)
    done = run("train", "--add", 1, "--device", "cpu", *workers, cwd=here)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "recipe" in line]
    assert line.startswith(f"Error: recipe failing:{name} {says}")
    assert (
        f"), in failing.py, line {FAILING.splitlines().index('    sys.exit(3)') + 1 - 4 * (name == 'raises')}"
        in line
    )


@pytest.mark.slow
def test_python_gets_the_original_as_the_cause_from_workers_too(here):
    (here / "failing.py").write_text(FAILING)
    for number, workers in enumerate((None, 1)):
        with memdb.init(f"{number}.zarr", "spells:data", "failing:raises") as db:
            with pytest.raises(TrainingError) as caught:
                db.train(add=1, workers=workers)
            assert isinstance(caught.value.__cause__, ValueError)
    assert "failing.py" in caught.value.__cause__.__notes__[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-r", "failing:Class", "-p", "depth=0"], "by zero, in failing.py, line 14"),
        (["-d", "failing:data"], "'failing:data' failed: sys.exit(), in failing.py, line 18"),
        (["-r", "broken:train"], "cannot be imported: SyntaxError: invalid syntax, in broken.py, line 2"),
        (["-r", "ending:train"], "cannot be imported: sys.exit(2), in ending.py, line 1"),
        (["-d", "spells:odd"], "cannot be read: ZeroDivisionError: division by zero, in spells.py, line"),
    ],
)
def test_code_that_fails_before_training_is_one_line_with_file_and_line(here, arguments, says):
    (here / "failing.py").write_text(FAILING)
    (here / "broken.py").write_text("\ndef train(:\n")
    (here / "ending.py").write_text("raise SystemExit(2)\n")
    with (here / "spells.py").open("a") as module:
        module.write("class Odd(list):\n    def __getitem__(self, row):\n        return 1 / 0\n")
        module.write("def odd(root):\n    import memdb\n    x = Odd([0, 1])\n")
        module.write("    return memdb.Dataset(x, [0, 1], x, [0, 1])\n")
    done = run("init", *arguments, cwd=here)
    assert (done.returncode, done.stdout, says in done.stderr) == (1, "", True), done.stderr
    assert len(done.stderr.splitlines()) == 1


SCRIPT = """
import memdb
from spells import data, train
def main():
    db = memdb.init("s.zarr", dataset="spells:data", recipe="spells:train")
    db.train(add=2, workers=2)
main()
"""


@pytest.mark.slow
def test_workers_outside_of_a_scripts_main_block_are_refused_by_the_line(here):
    (here / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=here, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    message, hint = done.stderr.splitlines()[-2:]
    assert "script.py, line 7: workers are started outside of `if __name__ == " in message
    assert hint == "Put what the script does below that, or omit workers."
    assert done.stderr.count("Traceback") == 1


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("work()", False),
        ("for _ in range(2):\n    work()", False),
        ("if __name__ == '__main__':\n    pass\nwork()", False),
        ("if True:\n    work()", False),
        ("if __name__ == '__main__':\n    work()", True),
        ("if '__main__' == __name__:\n    try:\n        work()\n    except OSError: ...", True),
        ("import multiprocessing as m\nif m.parent_process() is None:\n    work()", True),
        ("import sys\nif __name__ != '__main__':\n    sys.exit()\nwork()", True),
        ("work(", True),  # nothing is known of it
    ],
)
def test_a_line_of_a_script_is_guarded_where_workers_do_not_come(tmp_path, text, guarded):
    (tmp_path / "script.py").write_text(text)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "work(" in line)
    assert is_guarded(str(tmp_path / "script.py"), line) is guarded
