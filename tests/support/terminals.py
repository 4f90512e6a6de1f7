"""What a terminal is shown."""

from __future__ import annotations

import io
import re

from memdb.datasets import appearance

ESCAPE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def lines_of(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def terminal_of(db, data, way, show, width=80):
    from rich.console import Console

    from memdb.look.terminal import Wall

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="truecolor", highlight=False)
    show(Wall(console, appearance.of_dataset(data), way), db)
    return out.getvalue()
