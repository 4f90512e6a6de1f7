"""Errors speak their caller's language: parameters in Python, options on the command line."""

from __future__ import annotations

import ast
import re
from datetime import timedelta
from pathlib import Path

import pytest

import memdb
from memdb.cli.usage import in_options
from memdb.errors import MemdbError
from memdb.query.imported_scores import Assumed
from memdb.training.engines.request import Request

ROOT = Path(memdb.__file__).parent
OPTION = re.compile(r"(^|[^\w-])(--[a-z]|-[a-z]\b)")
COMMAND = re.compile(
    r"`(memdb|pip|python|ray) [^`]*`|^(run: )?pip install .*|by memdb verify --repair"
)  # which stores keep
OF_THE_COMMAND_LINE = {"cli", "render/tables.py", "render/analysis.py", "sharing/readme.py"}  # what it prints

CALLS = [  # the hint in Python, and what the command line prints of the same error
    (lambda db: db.train(add=0), "add 0 is not a number from 1", "use e.g. add=100",
     "--add 0 is not a number from 1", "use e.g. --add 100"),
    (lambda db: db.train(add=1, max_seconds=-1), "max_seconds -1 is not a length of time",
     "use e.g. max_seconds=7200", "--max-time -1 is not a length of time", "use e.g. --max-time 7200"),
    (lambda db: db.train(add=1, until_half_width=2), "until_half_width 2 is not between 0 and 1",
     "use e.g. until_half_width=0.05", "--until-half-width 2 is not between 0 and 1",
     "use e.g. --until-half-width 0.05"),
    (lambda _: Request("local", 0), "workers 0 is not a number from 1", "use e.g. workers=2",
     "--workers 0 is not a number from 1", "use e.g. --workers 2"),
    (lambda db: db.top_memorized(0), "k 0 is not a number from 1 to 2,147,483,647", "use e.g. k=20",
     "-k 0 is not a number from 1 to 2,147,483,647", "use e.g. -k 20"),
    (lambda db: db.info(level=1.5), "the level 1.5 is not between 0 and 1", "use e.g. level=0.95",
     "the level 1.5 is not between 0 and 1", "use e.g. --level 0.95"),
    (lambda db: db.top_influence(), "name exactly one example, none was given",
     "use one of test_id or train_id or target_id, or its key", "name exactly one example, none was given",
     "use one of --test-id or --train-id or --target-id, or its key"),
    (lambda db: db.top_influence(test_id=99), "test_id 99 is out of range", "this store has 0 to 10",
     "--test-id 99 is out of range", "this store has 0 to 10"),
    (lambda db: db.sql("SELECT 1", timeout=0), "timeout 0 is not above 0", "give seconds, such as timeout=60",
     "--timeout 0 is not above 0", "give seconds, such as --timeout 60"),
    (lambda db: db.pairs(), "neither a smallest influence nor a number of pairs was given, and all pairs are too many",
     "use e.g. min_influence=0.15, or top=256 for each test example",
     "neither a smallest influence nor a number of pairs was given, and all pairs are too many",
     "use e.g. --min-influence 0.15, or --top 256 for each test example"),
    (lambda db: db.pairs(min_influence=2), "min_influence 2 is not between -1 and 1", "use e.g. 0.15",
     "--min-influence 2 is not between -1 and 1", "use e.g. 0.15"),
    (lambda db: db.plan(half_width=3), "half_width 3 is not between 0 and 1", "use e.g. half_width=0.1",
     "--half-width 3 is not between 0 and 1", "use e.g. --half-width 0.1"),
    (lambda db: db.gc(grace=timedelta(0)),
     "a grace period of 0:00:00 is shorter than the 1 day, 0:00:00 that writers and readers may take",
     "omit grace, or make sure that nothing else uses this store and pass alone=True",
     "a grace period of 0:00:00 is shorter than the 1 day, 0:00:00 that writers and readers may take",
     "omit --grace, or make sure that nothing else uses this store and pass --alone"),
    (lambda db: db.retract(["0"], because=" "), "a retraction needs a reason",
     'say why: because="wrong labels in this run"', "a retraction needs a reason",
     'say why: --because "wrong labels in this run"'),
    (lambda db: db.publish("memory://x", include=["thumbnails"]),
     "cannot publish thumbnails: all answers are counted from bits",
     'use include=["bits"], and add confidence, sketches or thumbnails to it if these are to be shared too',
     "cannot publish thumbnails: all answers are counted from bits",
     "use --include bits, and add confidence, sketches or thumbnails to it if these are to be shared too"),
    (lambda _: Assumed(1, 0.5), "assume=(1, 0.5) is out of range", "use e.g. assume=(4000, 0.7)",
     "--assume-models 1 --assume-fraction 0.5 is out of range",
     "use e.g. --assume-models 4000 --assume-fraction 0.7"),
    (lambda db: memdb.open(f"{db.url}x"), "no memdb store at STOREx",
     "create one with `memdb init`, or name another url", "no memdb store at STOREx",
     "create one with `memdb init`, or name another --store"),
    (lambda _: memdb.datasets.load("mnist"), "this data set lies in a folder that was not named",
     "name it with data_root=DIR", "this data set lies in a folder that was not named",
     "name it with --data-root DIR"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message", "hint", "printed", "printed_hint"), CALLS)
def test_an_error_names_parameters_to_python_and_options_to_a_shell(
    asked, call, message, hint, printed, printed_hint
):
    with pytest.raises(MemdbError) as caught:
        call(asked)
    error = caught.value
    said, says = (text.replace(asked.url, "STORE") for text in (str(error), error.hint))
    assert (said, says) == (message, hint)
    assert [in_options(text, error.parameters) for text in (said, says)] == [printed, printed_hint]


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ('use device="auto" or "cpu"; task_gpus=1 waits', ("device", "task_gpus"),
         "use --device auto or cpu; --task-gpus 1 waits"),
        ("name one with scores: scores, other", ("scores",), "name one with --scores: scores, other"),
        ("the folder a/level/x has no level and the level 3", ("level",),
         "the folder a/level/x has no level and the level 3"),
        ("say what to assume: assume=(4000, 0.7)", ("assume",),
         "say what to assume: --assume-models 4000 --assume-fraction 0.7"),
        ("min_level 3", ("level",), "min_level 3"),
        ("run: pip install 'a[ray]'", ("ray",), "run: pip install 'a[ray]'"),
        ("nothing of it", (), "nothing of it"),
    ],
)  # fmt: skip
def test_words_and_values_that_only_look_like_a_parameter_stay(text, names, expected):
    assert in_options(text, names) == expected


def texts(tree):
    """Every string of a module but its docstrings, with {} for what is formatted into it."""
    skipped = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


def test_only_the_command_line_names_options_but_for_whole_commands():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT)
        if not OF_THE_COMMAND_LINE & {module.parts[0], str(module)}:
            found += [
                f"{module}: {text}"
                for text in texts(ast.parse(path.read_text()))
                if OPTION.search(COMMAND.sub("", text))
            ]
    assert found == []


def test_a_path_that_holds_the_name_of_a_parameter_stays_a_path():
    text = "scores.zarr has no scores named 'full'"
    assert in_options(text, ["scores"]) == text
