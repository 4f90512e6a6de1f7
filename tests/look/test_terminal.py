"""Examples and galleries in terminals of every kind and width."""

from __future__ import annotations

import io
import itertools
import re

import numpy as np
import pytest
from support.cases import every
from support.commands import run
from support.terminals import ESCAPE, lines_of, terminal_of


@pytest.mark.parametrize(
    ("graphics", "width"), every(3, itertools.product(["blocks", "ascii", "none"], [40, 60, 80, 200]))
)
def test_nothing_is_wider_than_the_terminal(digits_store, tmp_path, graphics, width):
    from rich.cells import cell_len
    from rich.text import Text

    for command in (
        ["show", "--train-id", "17"],
        ["show", "--test-id", "3", "-k", "9"],
        ["gallery", "-k", "5"],
    ):
        done = run(*command, "-s", digits_store, "--graphics", graphics, cwd=tmp_path, COLUMNS=str(width))
        shown = [Text.from_ansi(line).plain for line in lines_of(done)]
        assert max(map(cell_len, shown)) <= width
        assert any("\u2580" in line for line in shown) == (graphics == "blocks")


def test_a_picture_is_shown_in_its_own_pixels(seen, pictures_store):
    text = terminal_of(
        seen, pictures_store[1], "blocks", lambda wall, db: wall.portrait(db.portrait(train_id=3))
    )
    red, green, blue = pictures_store[1].train.x[3][0, 0]
    below = ";".join(map(str, pictures_store[1].train.x[3][0, 0]))
    assert f"\x1b[38;2;{red};{green};{blue};48;2;{below}m\u2580" in text  # 12 x 10 are shown twice as large


@pytest.mark.parametrize("protocol", ["kitty", "iterm"])
def test_a_protocol_gets_a_png_and_its_size_in_characters(seen, pictures_store, protocol):
    import base64

    from PIL import Image

    text = terminal_of(
        seen, pictures_store[1], protocol, lambda wall, db: wall.portrait(db.portrait(test_id=3, k=2))
    )
    if protocol == "kitty":
        first, *_ = re.findall(
            "\x1b_Ga=T,f=100,c=(\\d+),r=(\\d+),(q=2,m=.*?;.*?\x1b\\\\(?:\x1b_Gq=2,m=.*?\x1b\\\\)*)", text
        )
        parts = re.findall("m=(\\d);(.*?)\x1b\\\\", first[2])
        assert [more for more, _ in parts] == ["1"] * (len(parts) - 1) + ["0"]
        assert max(len(part) for _, part in parts) <= 4096
        columns, lines, data = int(first[0]), int(first[1]), "".join(part for _, part in parts)
    else:
        first = re.findall(
            "\x1b\\]1337;File=inline=1;width=(\\d+);height=(\\d+);preserveAspectRatio=0:(.*?)\x07", text
        )
        columns, lines, data = int(first[0][0]), int(first[0][1]), first[0][2]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert image.shape == (lines * 20, columns * 10, 4)
    assert (image[0, 0, :3] == pictures_store[1].test.x[3][0, 0]).all()


def test_a_pipe_gets_plain_text(digits_store, tmp_path):
    done = run(
        "show",
        "--train-id",
        "17",
        "-s",
        digits_store,
        cwd=tmp_path,
        TERM="xterm-kitty",
        COLORTERM="truecolor",
    )
    lines = lines_of(done)
    assert not ESCAPE.search(done.stdout)
    assert lines[0] == "Training example 17 \u00b7 class 5 \u00b7 digits/1129"
    assert lines[1].startswith("memorization .100 [")


TERMINALS = [
    ({"TERM": "xterm-kitty", "COLORTERM": "truecolor"}, "kitty"),
    ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
    ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app", "COLORTERM": "truecolor"}, "iterm"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm"),
    ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),  # behind ssh
    ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor", "TMUX": "socket"}, "blocks"),
    ({"TERM": "screen.xterm-256color", "LC_TERMINAL": "iTerm2"}, "blocks"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "blocks"),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "vscode"}, "blocks"),
    ({"WT_SESSION": "1"}, "blocks"),
    ({"TERM": "xterm"}, "ascii"),
    ({"TERM": "linux"}, "ascii"),
    ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "ascii"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"}, "ascii"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": ""}, "blocks"),
    ({"TERM": "dumb", "COLORTERM": "truecolor"}, "none"),
    ({}, "none"),
]


@pytest.mark.parametrize(("environment", "expected"), TERMINALS)
def test_the_environment_tells_what_a_terminal_shows(environment, expected):
    from memdb.render.graphics import chosen

    assert chosen("auto", environment, is_terminal=True) == expected
    assert chosen("auto", environment, is_terminal=False) == "none"
    assert chosen("kitty", environment, is_terminal=False) == "kitty"
    if expected == "blocks":
        assert chosen("auto", environment, is_terminal=True, encoding="ascii") == "ascii"


def test_without_pillow_no_protocol_is_chosen(without, digits_store, tmp_path):
    from memdb.render.graphics import chosen

    without("PIL")
    assert chosen("auto", {"TERM": "xterm-kitty", "COLORTERM": "truecolor"}, is_terminal=True) == "blocks"
    done = run("show", "--train-id", "1", "--graphics", "kitty", "-s", digits_store, cwd=tmp_path)
    assert done.returncode == 1
    assert "Pillow" in done.stderr
    assert (
        run("show", "--train-id", "1", "--graphics", "blocks", "-s", digits_store, cwd=tmp_path).returncode
        == 0
    )
