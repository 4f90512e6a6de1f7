"""Help: of the whole, of a command, of what commands share; completion and ``python -m memdb``."""

import re
import subprocess
import sys

import pytest
from support.commands import run

STORAGE = ("--endpoint-url", "--anonymous", "--storage-option", "--cache-dir", "--cache-size", "--trust-base")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_of_commands_is_not_cut(tmp_path, width):
    done = run("--help", cwd=tmp_path, COLUMNS=str(width))
    commands = " ".join(done.stdout.split("Commands:")[1].split())
    assert "100, ..." in commands  # as somebody wrote it
    assert not re.search(r"\w\.\.\.", commands)
    assert "if they saw them." in commands  # the end of a sentence that has two lines


@pytest.mark.parametrize("command", ["score", "train", "sql"])
def test_help_of_a_command_by_either_way(tmp_path, command):
    said = [run(*words, cwd=tmp_path) for words in (("help", command), (command, "--help"))]
    assert [done.returncode for done in said] == [0, 0]
    assert said[0].stdout == said[1].stdout
    assert "memdb help storage" in said[0].stdout


def test_options_for_storages_are_explained_once(tmp_path):
    page = run("help", "storage", cwd=tmp_path).stdout
    of_score = run("help", "score", cwd=tmp_path).stdout
    for option in STORAGE:
        assert f"  {option} " in page or f"  {option}\n" in page
        assert of_score.count(option) == 1
    assert "credentials" not in of_score


def test_help_alone_and_of_nothing(tmp_path):
    assert run("help", cwd=tmp_path).stdout == run("--help", cwd=tmp_path).stdout
    assert run("help", "nonsense", cwd=tmp_path).returncode == 2


def test_a_shell_completes_commands(tmp_path):
    shell = {"_MEMDB_COMPLETE": "complete_bash", "COMP_WORDS": "memdb top-m", "COMP_CWORD": "1"}
    assert run(cwd=tmp_path, **shell).stdout.split() == ["top-memorized"]


@pytest.mark.slow
def test_the_package_runs_as_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "memdb", "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith("memdb ")
