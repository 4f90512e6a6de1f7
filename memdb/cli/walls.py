"""Where the terminal shows pictures of examples."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from memdb.render.tables import console

if TYPE_CHECKING:
    from memdb.datasets.appearance import Contents
    from memdb.look.terminal import Wall


def way_of(graphics: str) -> str:
    """Return how this terminal shows pictures, given what was asked for: one of `graphics.GRAPHICS`."""
    from memdb.render.graphics import chosen

    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return chosen(graphics, os.environ, is_terminal=sys.stdout.isatty(), encoding=encoding)


def wall_of(graphics: str, contents: Contents | None) -> Wall:
    """Return a wall of this terminal to hang examples on."""
    from memdb.look.terminal import Wall

    return Wall(console(coloured=graphics == "blocks"), contents, way_of(graphics))
