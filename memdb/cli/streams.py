"""Standard output and error as the shell left them: closed, full, or of an encoding that lacks characters."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from typing import TextIO

PLAIN = "memdb"  # the name of the error handler
LOOKALIKES = str.maketrans(
    {
        "\u00b1": "+/-", "\u00b7": "|", "\u2013": "-", "\u2026": "...", "\ufffd": "?",
        "\u25cf": "*", "\u2588": "#", "\u2592": ":", "\u2591": ".", "\u2508": "-",
        "\u2580": "^", "\u2584": "_", "\u2502": "|", "\u2500": "-", "\u2514": "+", "\u252c": "+",
    }
)  # fmt: skip


def prepare() -> None:
    """Give a closed stream a place that refuses, and let characters that an encoding lacks look alike.

    A file opened later would otherwise get the number of the closed stream, and what is printed with it.
    COLUMNS=0, which terminals of unknown width have, is taken as unset: Rich would print nothing at all.
    """
    if not os.environ.get("COLUMNS", "1").strip("0"):
        del os.environ["COLUMNS"]
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - writing fails
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - goes nowhere
    codecs.register_error(PLAIN, _plain)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # one that holds text knows no encoding
            stream.reconfigure(errors=PLAIN)  # type: ignore[union-attr]


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return ASCII look-alikes of characters that the stream cannot encode, or their escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    alike = lost.translate(LOOKALIKES)
    return alike.encode("ascii", "backslashreplace").decode("ascii"), error.end


def silence(stream: TextIO) -> None:
    """Let what a stream could not write go nowhere: Python would try again when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):
        number = stream.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        stream.flush()
