"""The ``memdb`` command: each command is parse, one call, render.

A command's module is imported when that command is called (`commands.load`).
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from memdb.cli.commands import COMMANDS, load

if TYPE_CHECKING:
    import typer

# New objects between two searches for cycles: imports create many and free none, and a question ends before
# what it leaves could matter.
GARBAGE, GARBAGE_OF_A_QUESTION = 50_000, 1_000_000
QUESTIONS = ("query", "planning", "analyze")  # modules whose commands read, answer and end


def program() -> NoReturn:
    """Run a command line as the whole process.

    A question leaves nothing to be tidied up, so its process ends without taking everything apart that it
    imported: that would be a tenth of the wait.
    """
    from memdb.cli.streams import prepare

    prepare()  # before a fork opens a pipe
    asks = any(sys.argv[1:2] == [name] for group in QUESTIONS for name in COMMANDS[group])
    gc.set_threshold(GARBAGE_OF_A_QUESTION if asks else GARBAGE)
    if _has_sql(sys.argv[1:]):
        from memdb.cli.supervision import supervised

        supervised()
    try:
        main()
    except KeyboardInterrupt:  # while modules were imported
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write("Interrupted.\n")
        os._exit(130)  # what shells expect
    except SystemExit as end:
        if isinstance(end.code, int) and asks:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code)
        raise


def _has_sql(words: list[str]) -> bool:
    """Whether a command line has SQL of a user, which no process is sure to end by itself."""
    options = {word.partition("=")[0] for word in words}
    return words[:1] == ["sql"] or (words[:1] == ["export"] and not options.isdisjoint({"--drop", "--keep"}))


def main() -> NoReturn:
    """Run a command line (see `app.run`)."""
    from memdb.cli.streams import prepare

    prepare()
    from memdb.cli.app import run, say_storage_help

    if sys.argv[1:3] == ["help", "storage"]:
        load("info")
        say_storage_help("info")
    if sys.argv[1:2] == ["help"]:
        sys.argv[1:] = [*(word for word in sys.argv[2:] if word != "help"), "--help"]
    run()


def application() -> typer.Typer:
    """Return the application with all commands."""
    from memdb.cli.app import app

    load()
    return app
