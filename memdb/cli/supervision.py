"""A command in a process of its own, which the kernel ends when it takes too long or too much memory.

The process that the user started forks before it has imported anything, and waits. Its child is the command.
Nothing inside a process is sure to end a statement that neither allocates nor returns, but an uncaught alarm
ends it on every system; a limit on data refuses it memory on Linux, and elsewhere a thread watches its use.
A process that was ended cannot say why: the one that waited does, in a sentence, and removes the file that
was left half written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

# What a user can do about a statement, or a condition in SQL, that takes too long or too much memory.
ADVICE = {
    "statement": (
        "Filter it, or raise --timeout.",
        "Ask for less at once, write its rows to a file with --output, or raise --memory.",
    ),
    "condition": (
        "Filter more, or write the ids by `memdb sql`, which has --timeout and --output.",
        "Ask for less at once, or write the ids by `memdb sql`, which has --memory and --output.",
    ),
}
CHANNEL = "MEMDB_SUPERVISED"  # to a child that was started anew: where it tells its limits
LOOK_SECONDS = 0.05
IS_LINUX = sys.platform == "linux"  # which heeds limits on data, and where a fork needs no exec
ENDED_BY_USERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else ()

_channel: int | None = None  # a child's; None in a process without a supervisor


def supervised() -> None:
    """Go on in a child process; the parent ends as it does. Does nothing where the system has no fork."""
    global _channel  # noqa: PLW0603 - it is what this process is
    if CHANNEL in os.environ:
        _channel = int(os.environ.pop(CHANNEL))
    elif hasattr(os, "fork"):
        told, _channel = os.pipe()
        child = os.fork()
        if child:
            os.close(_channel)
            _wait(child, told)
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which hands it on
        if not IS_LINUX:  # frameworks of macOS fail in a process that only forked
            os.set_inheritable(_channel, True)
            os.environ[CHANNEL] = str(_channel)
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself
    if _channel is not None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends a statement whatever it is doing
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it prints although it is in the background
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve a gigabyte at once


@contextlib.contextmanager
def limited(
    seconds: float, n_bytes: int, half_written: Path | None, what: str = "statement"
) -> Iterator[None]:
    """Have this process ended if what is done inside takes longer, or the process more memory in all.

    ``half_written`` is a file to remove then, ``what`` a key of `ADVICE`. Does nothing in a process without a
    supervisor.

    Raises:
        InvalidInputError: memory was asked for that the kernel refused.
    """
    from memdb.query.statements import out_of_memory, wants_memory

    try:
        with contextlib.nullcontext() if _channel is None else _limited(seconds, n_bytes):
            if _channel is not None:
                _tell(_channel, what, f"{seconds:g}", f"{n_bytes / 10**9:.3g} GB", half_written)
            yield
    except (MemoryError, RuntimeError, OSError) as error:
        if wants_memory(error):
            raise out_of_memory(n_bytes) from error
        raise


def _tell(channel: int, what: str, seconds: str, memory: str, half_written: Path | None) -> None:
    path = "" if half_written is None else half_written.absolute()
    os.write(channel, f"{what}\0{seconds}\0{memory}\0{path}".encode(errors="surrogateescape"))


@contextlib.contextmanager
def _limited(seconds: float, n_bytes: int) -> Iterator[None]:
    import resource  # not on every system

    _silence_libraries()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    done = threading.Event()
    threading.Thread(target=_watch, args=(done, n_bytes), daemon=True).start()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if IS_LINUX:
        least = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        done.set()


def _silence_libraries() -> None:
    """Keep what C++ prints when it ends a process away from the user; what Python prints is shown as ever."""
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    sys.stderr = os.fdopen(shown, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1)


def _watch(done: threading.Event, n_bytes: int) -> None:
    """End this process once its parent is gone or, where the kernel does not limit it, for its memory."""
    import resource

    parent, unit = os.getppid(), 1 if sys.platform == "darwin" else 1024
    while not done.wait(LOOK_SECONDS):
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if os.getppid() != parent or (not IS_LINUX and taken > n_bytes):
            os.kill(os.getpid(), signal.SIGKILL)


def _wait(child: int, told: int) -> NoReturn:
    """End as the child does, and say why where it could not."""

    def hand_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in ENDED_BY_USERS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, hand_on)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    limits = os.read(told, 2**16).decode(errors="surrogateescape").split("\0")
    what, seconds, memory, half_written = limits if len(limits) == 4 else ("statement", "", "a few GB", "")
    if half_written:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(half_written)  # noqa: PTH108 - which is imported already
    number = signal.Signals(os.WTERMSIG(status))
    if said := _said(number, what, seconds, memory):
        with contextlib.suppress(OSError):  # a stderr that is full
            os.write(2, f"{said}\n".encode())
    os._exit(128 + number if number in ENDED_BY_USERS else 1)


def _said(number: signal.Signals, what: str, seconds: str, memory: str) -> str:
    """Return the sentence on what ended a child."""
    sooner, less = ADVICE[what]
    match number:
        case signal.SIGINT:
            return "Interrupted; nothing was changed."
        case signal.SIGTERM | signal.SIGHUP:
            return ""
        case signal.SIGALRM:
            return f"Error: the {what} ran longer than {seconds} seconds. {sooner}"
        case signal.SIGKILL:
            return f"Error: the {what} needs more than {memory} of memory, or more than is free here. {less}"
        case _:
            return (
                f"Error: the {what} broke the process that ran it ({number.name}), as some do that need "
                f"more than {memory} of memory. {less}"
            )
