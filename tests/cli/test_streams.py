"""What stdout and stderr may be: closed, full, or without the characters of an answer."""

from __future__ import annotations

import codecs
import json
import os
import subprocess
from pathlib import Path

import pytest
from support.cases import every
from support.commands import MEMDB, run, spawn, surroundings

from memdb.cli import streams
from memdb.cli.app import say

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
FULL = "Error: cannot write to stdout: No space left on device. Write to a file with --output FILE.\n"


def in_shell(command, cwd):
    """Run a command line where the shell closes and redirects streams."""
    done = subprocess.run(
        command.replace("memdb", MEMDB, 1), shell=True, cwd=cwd, env=surroundings({}), capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@needs_full
@pytest.mark.parametrize("command", every(2, ["memdb info -s store.zarr", "memdb --help"]))
def test_a_full_stdout_is_one_sentence(trained, command):
    assert in_shell(f"{command} >/dev/full", trained.parent) == (1, "", FULL)


def test_a_closed_stdout_is_one_sentence(trained):
    code, _, said = in_shell("memdb cache --cache-dir x >&-", trained.parent)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("Error: cannot write to stdout: ")


@pytest.mark.slow
@needs_full
def test_a_stderr_that_takes_nothing_changes_no_answer_and_no_exit_code(trained):
    expected = run("info", "-s", "store.zarr", cwd=trained.parent).stdout
    assert in_shell("memdb info -s store.zarr 2>&-", trained.parent) == (0, expected, "")
    assert in_shell("memdb info -s nowhere 2>/dev/full", trained.parent) == (1, "", "")


@pytest.mark.slow
def test_an_encoding_without_the_characters_of_a_table_gets_others(trained):
    done = spawn(
        "convergence", "--train-id", 3, "-s", "store.zarr", cwd=trained.parent, PYTHONIOENCODING="ascii"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "37 models | outcome correct" in done.stdout
    assert "* memorization   : 95 % fixed   . 95 % anytime" in done.stdout


def test_what_looks_like_nothing_in_an_encoding_is_escaped():
    codecs.register_error(streams.PLAIN, streams._plain)
    text = "\u2013 \u00e9 \u4e2d \udcff\u2026"
    assert text.encode("ascii", streams.PLAIN) == b"- \\xe9 \\u4e2d \\udcff..."
    assert text.encode("cp1252", streams.PLAIN) == b"\x96 \xe9 \\u4e2d \\udcff\x85"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", streams.PLAIN)


def test_a_closed_descriptor_is_given_to_no_file(tmp_path):
    code = (
        "import os, sys; from memdb.cli.streams import prepare; prepare(); "
        "sys.stderr.write(str(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)))"
    )
    done = subprocess.run(
        f'"$PYTHON" -c "{code}" {tmp_path / "file"} <&- >&-', shell=True, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHON": str(Path(MEMDB).with_name("python"))},
    )  # fmt: skip
    assert int(done.stderr) > 2


def test_ctrl_c_before_a_command_has_begun_is_one_word(trained):
    code = (
        "import memdb.cli as cli\n"
        "def interrupt(): raise KeyboardInterrupt\n"
        "cli.main = interrupt\n"
        "cli.program()"
    )
    done = subprocess.run(
        [str(Path(MEMDB).with_name("python")), "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_ctrl_c_that_a_command_does_not_speak_of_is_one_word(trained, monkeypatch):
    from memdb.cli.store_options import Place

    def interrupt(_place):
        raise KeyboardInterrupt

    monkeypatch.setattr(Place, "open", interrupt)
    done = run("info", cwd=trained.parent)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_json_is_ascii_and_the_same_once_it_is_read(trained):
    statement = "SELECT 'caf\u00e9 \u202e\u2028\x9b\x7f' AS name"
    done = run("sql", statement, "-s", "store.zarr", "-f", "json", cwd=trained.parent)
    assert done.stdout.isascii()
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    assert json.loads(done.stdout)["rows"] == [{"name": "caf\u00e9 \u202e\u2028\x9b\x7f"}]


@pytest.mark.parametrize("columns", ["0", "00", ""])
def test_a_terminal_of_unknown_width_shows_what_any_other_does(tmp_path, columns):
    usual, narrow = (spawn("info", cwd=tmp_path, COLUMNS=width, FORCE_COLOR="1") for width in ("80", columns))
    assert (narrow.returncode, narrow.stderr) == (1, usual.stderr)
    assert narrow.stderr


def test_remarks_break_between_words_on_terminals_alone_and_commands_never(capsys, monkeypatch):
    prose = "Without any influence, chance would put 27 of 1,437 scores at 0.090 or more."
    command = (
        "Go on with a command that is longer than this terminal: memdb top-memorized --store scores.zarr"
    )
    monkeypatch.setenv("COLUMNS", "40")
    say(prose, command)
    assert capsys.readouterr().err.splitlines() == [prose, command]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    say(prose, command)
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == command
    assert len(lines) == 2
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == prose
