from __future__ import annotations

import datetime as dt
import decimal
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from memdb.render import images as pictures
from memdb.render import tables
from memdb.render.analysis import grid
from memdb.render.answer import Answer
from memdb.render.fitted import Column, Fitted
from memdb.render.progress import TrainingProgress, bar_of_training, can_draw
from memdb.render.tables import clean, number, plain
from memdb.training.run import TrainingStatus


def shown(renderable, width=80, **options):
    out = io.StringIO()
    Console(file=out, width=width, **options).print(renderable)
    return out.getvalue()


def test_json_has_numbers_as_numbers_and_null_for_what_is_none():
    table = pa.table(
        {
            "score": [0.5, float("nan"), None],
            "n": pa.array([decimal.Decimal(3), None, decimal.Decimal(-1)], pa.decimal128(38, 0)),
            "day": [dt.date(2026, 1, 2), None, None],
            "list": [[1, 2], None, []],
            "bytes": [b"\x01", None, b""],
        }
    )
    text = Answer(table, {"store": "s"}).text("json")
    assert json.loads(text) == {
        "store": "s",
        "rows": [
            {"score": 0.5, "n": 3, "day": "2026-01-02", "list": [1, 2], "bytes": "01"},
            {"score": None, "n": None, "day": None, "list": None, "bytes": None},
            {"score": None, "n": -1, "day": None, "list": [], "bytes": ""},
        ],
    }
    assert "NaN" not in text


def test_an_answer_without_rows_is_still_a_document():
    empty = Answer(pa.table({"a": pa.array([], pa.int32())}), {"n_models": 3})
    assert json.loads(empty.text("json")) == {"n_models": 3, "rows": []}
    assert empty.text("csv") == "a,n_models\n"
    assert empty.text("ndjson") == ""


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(0.12345, "", "0.123"), (0.5, "+", "+0.500"), (None, "", "–"), (-1.0, "+", "-1.000")],
)
def test_scores_have_three_decimals(value, sign, text):
    assert number(value, sign) == text


def test_text_from_a_store_cannot_control_the_terminal():
    assert clean("a\x1b[2Jb\n\u202e") == "a�[2Jb��"
    assert clean("abcdefgh", 4) == "abc…"


@pytest.mark.parametrize(
    ("shape", "dtype", "columns", "lines"),
    [
        ((8, 8), float, 16, 8),
        ((28, 28), np.uint8, 28, 14),
        ((32, 32, 3), np.uint8, 32, 16),
        ((15, 15, 1), float, 15, 8),
    ],
)
def test_a_picture_shows_every_pixel(shape, dtype, columns, lines):
    example = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    for color in (True, False):
        text = pictures.picture(example, color=color)
        rows = text.plain.split("\n")
        assert [len(row) for row in rows] == [columns] * lines
    assert pictures.is_picture(example)
    assert not pictures.is_picture(np.zeros(5))


def test_the_colours_of_a_picture_are_its_pixels():
    example = np.zeros((16, 16, 3), dtype=np.uint8)
    example[0, 0], example[1, 0] = (255, 0, 0), (0, 0, 255)
    text = shown(pictures.picture(example, color=True), force_terminal=True, color_system="truecolor")
    assert "\x1b[38;2;255;0;0;48;2;0;0;255m▀" in text


def test_a_dark_picture_is_blank_and_a_bright_one_is_not():
    assert set(pictures.picture(np.zeros((16, 16), np.uint8), color=False).plain) == {" ", "\n"}
    assert "@" in pictures.picture(np.full((16, 16), 255, np.uint8), color=False).plain


def test_a_gallery_breaks_into_rows_that_fit():
    images = [pictures.picture(np.eye(16), color=False) for _ in range(5)]
    text = shown(pictures.gallery(images, [f"train {n}" for n in range(5)], 60), width=60)
    assert max(len(line) for line in text.splitlines()) <= 60
    captions = [line.split() for line in text.splitlines() if "train" in line]
    assert captions == [["train", "0", "train", "1", "train", "2"], ["train", "3", "train", "4"]]


def test_progress_is_a_line_a_commit_where_there_is_no_terminal():
    out = io.StringIO()
    with TrainingProgress(Console(file=out, width=80)) as progress:
        progress(TrainingStatus(20, 0, 0.0, None, None))
        progress(TrainingStatus(20, 0, 5.0, None, None))
        progress(TrainingStatus(20, 10, 0.0, 0.9831, 0.1234))
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().startswith("10/20 models, ")
    assert out.getvalue().endswith("test accuracy 0.983, mean half-width of memorization 0.123\n")


def test_the_rate_is_that_since_the_first_progress_if_there_was_any(monkeypatch):
    """Imports and the set-up of a GPU happen once; a recipe may report whole batches only."""
    for statuses, rate in (
        ([(10, 0, 1.0), (30, 0, 900.0), (35, 1000, 1.0)], "40.0/s"),
        ([(10, 0, 1.0), (20, 1, 0.0)], "20.0 s each"),
        ([(20, 1000, 0.0)], "50.0/s"),
        ([(20, 1000, 0.0), (40, 2000, 0.0)], "50.0/s"),
    ):
        now, out = [0.0], io.StringIO()
        monkeypatch.setattr("memdb.render.progress.time.monotonic", lambda now=now: now[0])
        with TrainingProgress(Console(file=out, width=80)) as progress:
            for now[0], n_committed, n_in_flight in statuses:
                progress(TrainingStatus(2000, n_committed, n_in_flight, 0.9, None))
        assert f", {rate}," in out.getvalue().splitlines()[-1]


def test_progress_is_a_bar_that_fits_into_a_terminal_of_80_columns():
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with TrainingProgress(console) as progress:
        progress(TrainingStatus(2000, 500, 12.5, 0.9831, 0.1234))
    last = out.getvalue().split("\r")[-1].split("\n")[0]
    assert "500/2000 models" in last
    assert "test 0.983 ±0.123" in last
    assert "/s" in last
    assert len(last.replace("\x1b[2K", "").replace("\x1b[?25h", "")) <= 80


def test_training_shows_one_bar_where_it_can_be_drawn_and_nothing_elsewhere():
    statuses = [TrainingStatus(1, 0, part / 10, None, None) for part in range(10)]
    statuses.append(TrainingStatus(1, 1, 0.0, 0.9, 0.05))
    drawn, doubts = io.StringIO(), []
    terminal = Console(file=drawn, force_terminal=True, width=80)
    with bar_of_training(terminal, doubts.append) as shown:
        for status in statuses:
            shown(status)
    assert "1/1 model " in drawn.getvalue()
    assert drawn.getvalue().count("\n") <= 2  # redrawn in place
    assert doubts == statuses
    assert can_draw(terminal)
    assert not can_draw(Console(file=io.StringIO()))


def fitted(**options):
    columns = [
        Column("train"),
        Column("influence", short="infl."),
        Column("95 % selected"),
        Column("shrunk", rank=1),
        Column("memor.", rank=2),
        Column("key", right=False, least=6, tail=True, rank=3, is_extra=True),
    ]
    rows = [
        ["12345", "+.593", "[+.319, +.792]", "+.588", ".787", "folder/of/pictures/258.png"],
        ["7", "-.117", "[-.130, +.377]", "+.001", ".000", "folder/of/pictures/7.png"],
    ]
    return Fitted(columns, rows, **options), rows


@pytest.mark.parametrize("width", [200, 80, 60, 45, 30])
def test_a_table_leaves_columns_out_and_cuts_no_number(width):
    table, rows = fitted()
    said = shown(table, width)
    assert max(map(len, said.splitlines())) <= width
    for row in rows:
        assert all(cell in said for cell in row[:3])
    for name, cells in (("shrunk", ("+.588", "+.001")), ("memor.", (".787", ".000"))):
        in_table = all(cell in said.replace(f": {name}", "") for cell in cells)
        assert in_table or name in said  # which says that it is not shown
    assert ("258.png" in said) == (width >= 60)
    assert ("folder/of" in said) == (width >= 80)


def test_rows_that_chance_explains_are_dim_on_a_terminal_alone():
    table, _ = fitted(dim=[False, True])
    assert "\x1b" not in shown(table)
    lines = shown(table, force_terminal=True).splitlines()
    assert ["\x1b[2m" in line for line in lines if "pictures" in line] == [False, True]


@pytest.mark.parametrize(("width", "is_table"), [(80, True), (70, False)])
def test_an_id_is_not_broken_to_make_a_column_narrower(width, is_table):
    ids = {"model_id": ["76108f84396dc2d72ce275fdb0e0ef37"], "said": ["a remark of several words"]}
    answer = Answer(pa.table({**ids, "trained_at": ["2026-11-26T03:50:47+00:00"]}), {})
    text = shown(plain(answer), width)
    assert ids["model_id"][0] in text
    assert "2026-11-26T03:50:47+00:00" in text
    assert all(len(line) <= width for line in text.splitlines())
    assert ("model_id  " in text.splitlines()[0] and "trained_at" in text.splitlines()[0]) == is_table


def test_many_columns_stand_as_records():
    answer = Answer(pa.table({f"column_{n}": [1.5 + n, 100.25 * n] for n in range(30)}), {})
    said = shown(plain(answer)).splitlines()
    assert [line.split() for line in said if "column_7 " in line] == [
        ["column_7", "8.5"],
        ["column_7", "701.75"],
    ]


@pytest.mark.parametrize("keeps_empty", [False, True])
def test_records_have_lines_for_values_that_are_there(keeps_empty):
    columns = [Column(heading, right=False) for heading in ("name", "n" * 50, "m" * 50)]
    said = shown(Fitted(columns, [["a", "1", ""], ["b", "", "2"]], keeps_empty=keeps_empty))
    labelled = [line.split() for line in said.splitlines() if line.strip()]
    assert [len(parts) for parts in labelled] == ([2, 2, 1, 2, 1, 2] if keeps_empty else [2, 2, 2, 2])


def test_markdown_and_lines_hold_untrusted_names():
    table = pa.table({"key": ["a|b", "<img src=x>", "two\nlines"], "score": [0.123456789, None, -1.0]})
    answer = Answer(table, {"level": 0.95, "outcome": "correct"})
    assert answer.text("markdown").splitlines() == [
        "| key | score |", "|---|---:|", "| a\\|b | 0.123457 |", "| \\<img src=x\\> |  |", "| two lines | -1 |",
        "", "level 0.95 \u00b7 outcome correct",
    ]  # fmt: skip
    lines = answer.text("line").splitlines()
    assert lines[:4] == ["    key = a|b", "  score = 0.123456789", "  level = 0.95", "outcome = correct"]


def test_a_title_may_be_wider_than_facts_and_ids_stand_like_numbers():
    title = "Linear datamodeling score of some scores in a file"
    printed = Console(width=80)
    with printed.capture() as text:
        printed.print(tables.facts({"mean": "0.1"}, title))
        printed.print(grid("", ("test", "class", "LDS"), [["3", "0", "+.1"], ["12", "1", "+.2"]], n_left=2))
    lines = [line.rstrip() for line in text.get().splitlines()]
    assert lines[0] == title
    assert lines[-2:] == ["   3  0      +.1", "  12  1      +.2"]
