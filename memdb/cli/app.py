"""The command line's frame: the application, and the one place where errors become messages."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from memdb.addresses import without_secrets
from memdb.cli.commands import COMMANDS, load
from memdb.cli.streams import silence
from memdb.cli.usage import CarefulCommand, WrongUsageError, converting_plain_values, in_options
from memdb.errors import MemdbError, UnnamedCodeError
from memdb.files import FULL, reason

INTERRUPTED = 130  # what shells expect after Ctrl-C
REFUSING = (*FULL, errno.EIO, errno.EBADF, errno.EAGAIN)  # what a stream that takes nothing answers
COMMAND = re.compile(r"(^|[\s`'(])(git|memdb|pip|python|ray|ulimit) ")  # something to be typed
LONG_WORD = re.compile(r"\S{399,}[^\s.:,;]")  # a value too long to be read
SUMMARIES = {name: text for texts in COMMANDS.values() for name, text in texts.items()}
Function = TypeVar("Function", bound=Callable[..., Any])


class _App(typer.Typer):
    """An application whose commands all refuse wrong usage alike."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=CarefulCommand, **options)


class _AllCommands(TyperGroup):
    """Lists every command, and completes its name, without importing it."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of the whole program."""
        return [converting_plain_values(parameter) for parameter in super().get_params(ctx)]

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*SUMMARIES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, whose module is imported if it was not."""
        if cmd_name not in self.commands:
            load(cmd_name)
            self.commands = typer.main.get_group(app).commands
        return super().get_command(ctx, cmd_name)

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write a line or two for each command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


app = _App(
    name="memdb",
    cls=_AllCommands,
    help="Which training examples did a model memorize, and which made it get a test example right?\n\n"
    "A store keeps what models trained on random subsets predicted; questions are answered from it, with "
    "intervals that tighten as models are added.\n\n"
    "Start with `memdb demo`. `memdb help COMMAND` says what a command takes, `memdb help storage` how to "
    "reach a store that is elsewhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group(name: str, about: str) -> _App:
    """Return an application for commands of two words."""
    return _App(
        name=name,
        help=about,
        short_help=about,  # which is never cut
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback
    if wanted:
        from memdb.format.documents import own_version

        typer.echo(f"memdb {own_version()}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def say_storage_help(name: str) -> NoReturn:
    """Print the help of the options for storages, of which the command of this name has all."""
    command: Any = typer.main.get_command(app)
    context = command.make_context(command.name, [], resilient_parsing=True)
    sys.stdout.write(command.commands[name].storage_help(context))
    sys.exit(0)


def say(*lines: str) -> None:
    """Print a remark to stderr: stdout is for answers. A stderr that takes nothing is left alone.

    On a terminal it breaks between words, unless it holds a command, which is to be copied as one line.
    """
    from memdb.render.tables import clean, console

    try:
        screen = console(stderr=True)
        for line in lines:
            shown = clean(without_secrets(line))
            if screen.is_terminal and not COMMAND.search(shown):
                shown = textwrap.fill(shown, screen.width, break_long_words=False, break_on_hyphens=False)
            screen.print(shown, soft_wrap=True)
    except OSError:
        silence(sys.stderr)


@contextlib.contextmanager
def interruptible(left: str | Callable[[], str]) -> Iterator[None]:
    """On Ctrl-C say what it left behind, and end as shells expect."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"Interrupted. {left if isinstance(left, str) else left()}")
        sys.exit(INTERRUPTED)


class Remarks(logging.Handler):
    """Prints what a storage says of waiting."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it, as one line."""
        say(f"{record.getMessage()} ...")


def _command_that_names(error: UnnamedCodeError) -> str:
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
        code = _called()
        sys.stdout.flush()
    except MemdbError as error:
        if os.environ.get("MEMDB_TRACEBACK"):
            raise
        hint = _command_that_names(error) if isinstance(error, UnnamedCodeError) else error.hint
        _say_error(*(in_options(text, error.parameters) for text in (str(error), hint)))
        code = 2 if isinstance(error, WrongUsageError) else 1
    except MemoryError:
        _say_error("that takes more memory than there is", "ask for less at once, or on a larger machine")
        code = 1
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        silence(sys.stdout)
        code = 0
    except OSError as error:  # of stdout, or of a path that no file system takes
        if os.environ.get("MEMDB_TRACEBACK"):
            raise
        if error.filename is None and error.errno not in REFUSING:
            raise
        if error.filename is None:
            silence(sys.stdout)
            _say_error(f"cannot write to stdout: {reason(error)}", "write to a file with --output FILE")
        else:
            _say_error(f"{error.filename}: {reason(error)}", "name another place")
        code = 1
    sys.exit(code)


def _say_error(text: str, hint: str) -> None:
    sentence = f"{text}. {hint[:1].upper()}{hint[1:]}." if hint else f"{text}."
    say(f"Error: {LONG_WORD.sub(_cut, ' '.join(sentence.split()))}")


def _called() -> int | str | None:
    """Run the command line, and return the code with which it ended."""
    try:
        app(prog_name="memdb")
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            say("Interrupted.")  # of which the command did not speak itself
        return end.code
    return 0


def _cut(word: re.Match[str]) -> str:
    return f"{word[0][:60]}... ({len(word[0]):,} characters)"
