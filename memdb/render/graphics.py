"""How a terminal shows pictures: by a protocol of its own, in coloured half blocks, or as characters.

The environment alone tells which. A terminal that is asked may answer late, or into the next command.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from memdb.environment import install
from memdb.errors import InvalidInputError

GRAPHICS = ("auto", "kitty", "iterm", "blocks", "ascii", "none")
PROTOCOLS = ("kitty", "iterm")
CHUNK = 4096  # bytes of base64 that Kitty's protocol takes at once
CELL = (10, 20)  # pixels of a character, about, in the pictures that a protocol gets
MULTIPLEXERS = re.compile(r"^(screen|tmux)")  # which pass no pictures on
ITERM = {"iTerm.app", "WezTerm", "mintty", "rio"}
KITTY = {"ghostty", "kitty"}


def require_graphics(name: str) -> str:
    """Return the name of a way to show pictures.

    Raises:
        InvalidInputError: there is no such way, or it takes Pillow, which is not installed.
    """
    if name not in GRAPHICS:
        raise InvalidInputError(
            f"unknown graphics {name!r}", hint=f"use one of {', '.join(GRAPHICS)}", parameter="graphics"
        )
    if name in PROTOCOLS and not _can_encode():
        raise InvalidInputError(
            f"graphics {name} needs Pillow, which is not installed",
            hint=f"run: {install('pictures')}, or use blocks",
            parameter="graphics",
        )
    return name


def chosen(name: str, environment: Mapping[str, str], *, is_terminal: bool, encoding: str = "utf-8") -> str:
    """Return how to show pictures: what was asked for or, by ``auto``, what the terminal takes.

    Args:
        name: one of `GRAPHICS`.
        environment: the variables of the process.
        is_terminal: whether anybody sees it: pipes and files get none.
        encoding: of the output.
    """
    if name != "auto":
        return name
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    is_modern = bool(environment.get("WT_SESSION"))
    if not is_terminal or term == "dumb" or not (term or program or is_modern):
        return "none"
    if environment.get("NO_COLOR"):
        return "ascii"
    if not (environment.get("TMUX") or MULTIPLEXERS.match(term)) and _can_encode():
        if environment.get("KITTY_WINDOW_ID") or term in {"xterm-kitty", "xterm-ghostty"} or program in KITTY:
            return "kitty"
        if program in ITERM or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm"
    has_colours = (
        environment.get("COLORTERM", "").lower() in {"truecolor", "24bit"}
        or term.endswith(("-direct", "256color"))
        or is_modern
    )
    return "blocks" if has_colours and "utf" in encoding.lower() else "ascii"


def _can_encode() -> bool:
    return importlib.util.find_spec("PIL") is not None


def escape(protocol: str, picture: NDArray[np.uint8], columns: int, lines: int) -> str:
    """Return the sequence that shows a picture, uint8 [height, width, 3 or 4], across columns and lines."""
    data = base64.b64encode(_png(picture)).decode("ascii")
    if protocol == "iterm":
        size = f"width={columns};height={lines};preserveAspectRatio=0"
        return f"\x1b]1337;File=inline=1;{size}:{data}\x07"
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    head = f"a=T,f=100,c={columns},r={lines},"
    return "".join(  # q=2: it answers nothing that a shell would read, to no part: some look at the last
        f"\x1b_G{head * (number == 0)}q=2,m={int(number < len(parts) - 1)};{part}\x1b\\"
        for number, part in enumerate(parts)
    )


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image  # noqa: PLC0415 - comes with torchvision

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
