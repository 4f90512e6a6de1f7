"""The ``memdb`` command: each command is parse, one call, render.

A command's module is imported when that command is called, so that none waits for another's imports.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import typer

COMMANDS = {  # by their modules
    "query": ("info", "top-memorized", "top-influence", "score", "sql"),
    "planning": ("plan", "convergence", "reliability"),
    "analyze": ("classes", "class-influence", "compare"),
    "combine": ("update", "merge"),
    "maintain": ("compact", "gc", "verify", "retract", "cache"),
    "train": ("init", "train", "demo"),
    "pairs": ("pairs",),
    "duplicates": ("duplicates",),
    "interop": ("import", "export", "membership"),
    "attribution": ("lds", "frontier"),
    "share": ("publish", "pull"),
    "look": ("report", "view"),
    "show": ("show", "gallery"),
    "experiment": ("experiment",),
}

# New objects between two searches for cycles: imports create many and free none.
GARBAGE = 50_000


def program() -> NoReturn:
    """Run a command line as the whole process.

    A question leaves nothing to be tidied up, so its process ends without taking everything apart that it
    imported: that would be a tenth of the wait.
    """
    from memdb.cli.streams import prepare

    prepare()  # before a fork opens a pipe
    gc.set_threshold(GARBAGE)
    if sys.argv[1:2] == ["sql"]:
        from memdb.cli.supervision import supervised

        supervised()
    try:
        main()
    except KeyboardInterrupt:  # while modules were imported
        with contextlib.suppress(OSError, AttributeError):
            sys.stderr.write("Interrupted.\n")
        os._exit(130)  # what shells expect
    except SystemExit as end:
        if isinstance(end.code, int) and _modules() == ["query"]:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code)
        raise


def main() -> NoReturn:
    """Run a command line (see `app.run`)."""
    from memdb.cli.streams import prepare

    prepare()
    from memdb.cli.app import run, say_storage_help

    if sys.argv[1:3] == ["help", "storage"]:
        _load(["query"])
        say_storage_help("info")
    if sys.argv[1:2] == ["help"]:
        sys.argv[1:] = [*sys.argv[2:], "--help"]
    _load(_modules() or COMMANDS)
    run()


def _modules() -> list[str]:
    """Return the module of the command that is called; none where it is not known."""
    named = sys.argv[1] if len(sys.argv) > 1 else ""
    return [module for module, names in COMMANDS.items() if named in names]


def application() -> typer.Typer:
    """Return the application with all commands."""
    from memdb.cli.app import app

    _load(COMMANDS)
    return app


def _load(modules: Iterable[str]) -> None:
    for name in modules:
        importlib.import_module(f"memdb.cli.{name}")
