"""The command line's frame: the application, and the one place where errors become messages."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from typing import Annotated, NoReturn

import typer

from memdb.addresses import without_secrets
from memdb.errors import MemdbError, UnnamedCode
from memdb.render.tables import clean, console

INTERRUPTED = 130  # what shells expect after Ctrl-C

app = typer.Typer(
    name="memdb",
    help="Which training examples did a model memorize, and which made it get a test example right?\n\n"
    "A store keeps what models trained on random subsets predicted; questions are answered from it, with "
    "intervals that tighten as models are added.\n\n"
    "Start with `memdb demo`.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        from importlib.metadata import version

        typer.echo(f"memdb {version('memdb')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def say(*lines: str) -> None:
    """Print a remark to stderr: stdout is for answers."""
    for line in lines:
        console(stderr=True).print(without_secrets(line), soft_wrap=True)


class Remarks(logging.Handler):
    """Prints what a storage says of waiting."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, as one line."""
        say(f"{clean(record.getMessage())} ...")


def _command_that_names(error: UnnamedCode) -> str:
    """Return how to go on: what was typed, and the code that it lacks."""
    named = [word for kind, path in error.named.items() for word in (f"--{kind}", path)]
    return f"if you know that code, name it: {without_secrets(shlex.join(['memdb', *sys.argv[1:], *named]))}"


def run() -> NoReturn:
    """Run a command line. Exit 0: done; 1: refused or failed, with one line that says why; 2: wrong usage."""
    # Threads of PyTorch that wait for each other spin; where others use the cores, too, for most of the time.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    logging.getLogger().addHandler(logging.NullHandler())  # drivers' own words: an error is said once, below
    ours = logging.getLogger("memdb")
    ours.handlers, ours.propagate = [Remarks()], False
    ours.setLevel(logging.INFO)
    try:
        app()
    except MemdbError as error:
        if os.environ.get("MEMDB_TRACEBACK"):
            raise
        hint = _command_that_names(error) if isinstance(error, UnnamedCode) else error.hint
        text = f"{error}. {hint[:1].upper()}{hint[1:]}." if hint else f"{error}."
        say(f"Error: {clean(' '.join(text.split()))}")
        sys.exit(1)
    except MemoryError:
        say("Error: that takes more memory than there is. Ask for less at once, or on a larger machine.")
        sys.exit(1)
    except KeyboardInterrupt:
        say("Interrupted; nothing was changed.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)
