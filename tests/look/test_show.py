"""Examples and galleries in a terminal, as figures and as numbers."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
import re
import shutil
import sys

import numpy as np
import pytest
from support.cases import every
from support.commands import run
from support.stores import coin_recipe, dicts
from support.storing import batch

import memdb
from memdb.datasets import appearance
from memdb.errors import InvalidInputError, MemdbError, NotFoundError

NASTY = [
    "<script>alert(1)</script>", "</td><img src=x onerror=alert(1)>", "a\nb\r\nc", "\"quoted\" & 'so'",
    "\u202egnp.1\u202c", "x" * 10_000, "\x1b[2J\x1b]0;title\x07", "\x9b31m", "$\\frac{1}{2$", "\u6f22\u5b57" * 30, "\u2028",
    "e\u0301\u200d", "[bold]markup[/]", ":smile:",
]  # fmt: skip
ESCAPE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def pictures_store(tmp_path_factory):
    """A store of 30 + 12 pictures of 12 x 10 pixels, with its data set; the first test example needs the first."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    data = memdb.Dataset(
        rng.integers(0, 256, (30, 12, 10, 3), dtype=np.uint8), labels,
        rng.integers(0, 256, (12, 12, 10, 3), dtype=np.uint8), labels[:12], ["ant", "bee", "cat"],
        train_keys=[f"train/{row}.png" for row in range(30)],
    )  # fmt: skip
    url = tmp_path_factory.mktemp("pictures") / "store.zarr"
    with memdb.init(str(url), data, coin_recipe, seed=7) as made:
        models, masks, outcomes = batch(made.store, range(80))
        outcomes["train/correct"][:, :6] = masks[:, :6]
        outcomes["test/correct"][:, 0] = masks[:, 0]
        outcomes["test/correct"][:, 4] = ~masks[:, 0]
        made.store.commit(models, masks, outcomes)
    return url, data


@pytest.fixture
def seen(pictures_store):
    """That store with its data, and no more."""
    with memdb.open(str(pictures_store[0])) as opened:
        opened.contents(dataset=pictures_store[1])
        yield opened


def lines_of(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_portrait_has_the_numbers_of_score_and_top_influence(seen):
    found = seen.portrait(train_id=0, k=3)
    (score,) = dicts(seen.score(0))
    assert (found.owner.score, found.owner.lo, found.owner.hi) == (
        score["memorization"],
        score["lo"],
        score["hi"],
    )
    for direction, tiles in (("helps", found.helps), ("hurts", found.hurts)):
        listed = dicts(seen.top_influence(train_id=0, k=3, direction=direction))
        listed = [row for row in listed if (row["influence"] > 0) == (direction == "helps")]
        assert [(tile.row, tile.score, tile.lo) for tile in tiles] == [
            (row["test_id"], row["influence"], row["lo"]) for row in listed
        ]
    assert found.helps[0].row == 0
    assert found.hurts[0].row == 4
    assert [rate.words for rate in found.rates] == [
        f"{score['n_in']} of {score['n_in']} right",
        f"0 of {score['n_out']} right",
    ]


def test_a_test_example_is_shown_with_those_that_helped_it(seen):
    found = seen.portrait(test_id=0)
    assert found.helps[0].row == 0
    assert {tile.set_name for tile in found.helps + found.hurts} == {"train"}
    assert found.rates[0].words == f"{dicts(seen.sql('FROM test_examples'))[0]['n_correct']} of 80 right"
    assert not found.score


@pytest.mark.parametrize("outcome", every(2, ["confidence", "correct"]))
def test_every_outcome_can_be_shown(digits_store, outcome):
    with memdb.open(str(digits_store)) as db:
        found = db.portrait(train_id=3, outcome=outcome)
        assert len(found.helps) == 4
        assert all(rate.mean is not None for rate in found.rates)
        assert len(db.exhibits("influence", outcome=outcome).lines) >= 1


def test_a_gallery_by_memorization_is_near_its_levels_and_the_same_each_time(seen):
    first, again, other = (seen.exhibits(k=3, seed=seed) for seed in (0, 0, 1))
    assert [line.head for line in first.lines] == [0, 0.25, 0.5, 0.75, 1]
    known = {row["train_id"]: row for row in dicts(seen.memorization())}
    for line in first.lines:
        assert all(abs(tile.score - line.head) <= 0.125 for tile in line.tiles)
        assert all(tile.score == known[tile.row]["memorization"] for tile in line.tiles)
    assert {tile.row for tile in first.lines[-1].tiles} < set(range(6))
    assert first.lines == again.lines
    assert first.lines != other.lines
    only = seen.exhibits(class_name="bee")
    assert {tile.class_name for line in only.lines for tile in line.tiles} == {"bee"}


@pytest.mark.slow
def test_a_gallery_by_influence_finds_the_surest_pair_and_has_a_control(seen):
    found = seen.exhibits("influence", k=3)
    line = found.lines[0]
    assert (line.head.row, line.tiles[0].row, line.tiles[0].score) == (0, 0, 1.0)
    assert {tile.class_name for tile in line.control} == {line.head.class_name}
    assert not {tile.row for tile in line.control} & {tile.row for tile in line.tiles}
    for tile in line.control:
        (score,) = dicts(seen.score(line.head.row, test_id=tile.row))
        assert (tile.score, tile.lo, tile.hi) == (score["influence"], score["lo"], score["hi"])
    assert seen.exhibits("influence", k=3).lines == found.lines
    assert {line.head.class_name for line in seen.exhibits("influence", class_name="2").lines} == {"cat"}


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


def terminal_of(db, data, way, show, width=80):
    from rich.console import Console

    from memdb.look.terminal import Wall

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="truecolor", highlight=False)
    show(Wall(console, appearance.of_dataset(data), way), db)
    return out.getvalue()


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


@pytest.mark.parametrize(
    "command", every(2, ["show --train-id 17", "gallery --by influence", "gallery", "show --test-id 3"])
)
def test_numbers_for_programs(digits_store, tmp_path, command):
    done = run(*command.split(), "-s", digits_store, "--format", "json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["n_models"] == 40
    assert document["rows"]
    if command == "show --train-id 17":
        assert document["example"]["class"] == "5"
        assert document["example"]["score"]["n_in"] == 30
        assert {row["direction"] for row in document["rows"]} == {"helps", "hurts"}
    assert run(*command.split(), "-s", digits_store, "-o", "rows.parquet", cwd=tmp_path).returncode == 0
    again = run(*command.split(), "-s", digits_store, "--format", "csv", cwd=tmp_path)
    assert len(again.stdout.splitlines()) == len(document["rows"]) + 1


@pytest.mark.parametrize("suffix", every(3, ["svg", "pdf", "png"]))
def test_figures_are_written_and_the_same_each_time(digits_store, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    found = set()
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        done = run("gallery", "-k", "2", "-s", digits_store, "-o", path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found.add(path.read_bytes())
    assert len(found) == 1
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert found.pop().startswith(begins[suffix])


def test_a_figure_has_the_pictures_and_reads_at_8_cm(seen):
    pytest.importorskip("matplotlib")
    figure = seen.gallery("influence", rows=1)
    line = seen.exhibits("influence", rows=1).lines[0]
    drawn = [axes.images[0].get_array() for axes in figure.axes]
    expected = [seen.contents()(tile.set_name, tile.row) for tile in (line.head, *line.tiles, *line.control)]
    assert all((a == b).all() for a, b in zip(drawn, expected, strict=True))
    assert figure.get_size_inches()[0] == pytest.approx(8 / 2.54, abs=0.01)
    texts = {text.get_text(): text for text in figure.texts}
    assert texts["+1.000"].get_fontsize() >= 8
    assert min(text.get_fontsize() for text in figure.texts) > 4
    assert any("80 models" in text for text in texts)
    assert seen.show(train_id=3)._repr_png_().startswith(b"\x89PNG")


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


def test_without_matplotlib_a_figure_is_refused_before_the_store_is_read(without, tmp_path):
    without("matplotlib")
    done = run("gallery", "-s", "nowhere.zarr", "-o", "x.png", cwd=tmp_path)
    assert done.returncode == 1
    assert "[plots]" in done.stderr


@pytest.fixture
def without(monkeypatch):
    def leave_out(package):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        assert importlib.util.find_spec(package) is None

    return leave_out


REFUSED = [
    ("show", "exactly one example"),
    ("show --train-id 1 --test-id 2", "exactly one example"),
    ("show --train-id 1437", "--train-id 1437 is out of range"),
    ("show --test-key nobody", "no test example has the key"),
    ("show --train-id 1 -k 0", "-k 0"),
    ("show --train-id 1 --graphics sixel", "unknown --graphics 'sixel'"),
    ("show --train-id 1 -o x.gif", "suffix that names no format"),
    ("show --train-id 1 -o no/such/folder/x.png", "no/such/folder"),
    ("show --train-id 1 --level 2", "level"),
    ("show --train-id 1 --outcome odd", "odd"),
    ("gallery --class owl", "no class 'owl'"),
    ("gallery --by influence --class owl", "no class 'owl'"),
    ("gallery --by age", "unknown gallery 'age'"),
    ("gallery --seed -1", "--seed -1"),
    ("gallery --by influence --rows 0", "--rows 0"),
    ("gallery -o x.jpg", "suffix that names no format"),
]
WRONG = [
    "show --train-id 1 -o x.png --graphics kitty", "show --train-id 1 --format json --graphics kitty",
    "show --train-id 1 -o x.png --format json", "gallery --rows 2", "show --train-id 1 --format csv --data-root .",
]  # fmt: skip


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_what_cannot_be_shown_is_refused_in_a_sentence(digits_store, tmp_path, command, said):
    done = run(*command.split(), "-s", digits_store, cwd=tmp_path)
    assert done.returncode == 1, done
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", WRONG)
def test_options_without_effect_are_wrong_usage(digits_store, tmp_path, command):
    assert run(*command.split(), "-s", digits_store, cwd=tmp_path).returncode == 2


def test_a_store_without_models_says_so(empty, tmp_path):
    for command in (["show", "--train-id", "1"], ["gallery"], ["gallery", "--by", "influence"]):
        done = run(*command, "-s", empty.url, cwd=tmp_path)
        assert done.returncode == 1
        assert "no models yet" in done.stderr


@pytest.mark.parametrize("command", every(2, ["show --test-id 3", "gallery --by influence"]))
def test_without_the_data_numbers_are_shown_and_why_there_are_no_pictures(trained, tmp_path, command):
    for more in (["--graphics", "blocks"], ["-o", "x.png"]):
        done = run(*command.split(), "-s", trained, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "no pictures" in done.stderr
        assert "arrays in memory" in done.stderr


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    n = len(NASTY)
    x, labels = np.zeros((n, 3, 3), np.uint8), np.arange(n)
    data = memdb.Dataset(x, labels, x, labels, NASTY, train_keys=NASTY, test_keys=NASTY)
    url = tmp_path_factory.mktemp("nasty") / "store.zarr"
    with memdb.init(str(url), data, coin_recipe, seed=1) as made:
        made.train(seeds=range(10))
        yield made


def test_no_name_moves_a_terminal(nasty, tmp_path):
    from rich.cells import cell_len

    for width, command in (
        (40, "show --train-id 6"),
        (200, "show --test-id 9"),
        (80, "gallery --by influence"),
    ):
        for graphics in ("ascii", "none") if width == 80 else ("ascii",):
            given = (*command.split(), "-k", len(NASTY), "-s", nasty.url, "--graphics", graphics)
            done = run(*given, cwd=tmp_path, COLUMNS=str(width))
            assert not ESCAPE.search(done.stdout)
            assert max(map(cell_len, lines_of(done))) <= width


def test_names_are_drawn_as_they_are(nasty, tmp_path):
    pytest.importorskip("matplotlib")
    figure = nasty.show(train_id=0, k=len(NASTY))
    figure.savefig(tmp_path / "x.svg")
    texts = [text.get_text() for text in figure.texts]
    assert not any(ESCAPE.search(text) for text in texts)
    assert "<script>" not in (tmp_path / "x.svg").read_text()


SHAPES = [
    (1, 1), (1, 1, 1), (8, 8, 4), (1, 500), (500, 1), (3, 9, 9), (2, 3000, 3), (3000, 2, 3), (700, 600, 3),
]  # fmt: skip


@pytest.mark.parametrize("shape", every(3, [(shape,) for shape in SHAPES]))
def test_pictures_of_every_shape(tmp_path, shape):
    for kind in ("float32", "bool", "uint8"):
        data = of_shape(shape, kind)
        content = appearance.of_dataset(data)("train", 1)
        assert content.dtype == np.uint8
        assert content.shape[2] in {1, 3}
    with memdb.init(str(tmp_path / "s.zarr"), data, coin_recipe, seed=1) as db:
        db.train(seeds=range(8), compact=False)
        for way in ("blocks", "ascii", "kitty", "none"):
            text = terminal_of(
                db, data, way, lambda wall, db: wall.portrait(db.portrait(train_id=1)), width=60
            )
            assert "Training example 1" in text
        assert db.show(train_id=1, k=1)._repr_png_()
        assert len(db.top_memorized()._repr_html_().encode()) <= 200_000


def of_shape(shape, kind):
    values = (np.random.default_rng(0).random((4, *shape)) * (255 if kind == "uint8" else 1)).astype(kind)
    return memdb.Dataset(values, [0, 1, 0, 1], values, [0, 1, 0, 1])


def test_transparent_pixels_are_white_and_numbers_are_stretched_alike():
    clear = np.zeros((2, 2, 2, 4), np.uint8)
    clear[1, :, :, 3] = 255
    content = appearance.of_dataset(memdb.Dataset(clear, [0, 1], clear, [0, 1]))
    assert content("train", 0).tolist() == np.full((2, 2, 3), 255).tolist()
    assert content("train", 1).tolist() == np.zeros((2, 2, 3)).tolist()
    levels = np.array([[[-1.0, 0.0]], [[1.0, np.nan]], [[np.inf, -np.inf]]])
    content = appearance.of_dataset(memdb.Dataset(levels, [0, 1, 0], levels, [0, 1, 0]))
    assert [content("test", row).ravel().tolist() for row in range(3)] == [[0, 128], [255, 128], [255, 0]]


def test_images_of_pillow_are_pictures():
    image = pytest.importorskip("PIL.Image")
    for mode, pixel, expected in (
        ("L", 7, 7),
        ("P", 0, 0),
        ("1", 1, 255),
        ("RGBA", (0, 0, 0, 0), 255),
        ("LA", (9, 255), 9),
    ):
        made = image.new(mode, (3, 2), pixel)
        content = appearance.of_dataset(memdb.Dataset([made] * 2, [0, 1], [made] * 2, [0, 1]))("train", 0)
        assert content.shape == (2, 3, 3)
        assert content[0, 0, 0] == expected


@pytest.mark.slow
def test_what_is_no_picture_is_shown_as_text(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"petal length": [1.5, 2.25, 3.0], "width\x1b[2J": [1.0, 2.0, 3.0]})
    labels = [0, 1, 0]
    cases = [
        (["a short text", "\x1b[31mred", "<b>bold</b>"], "a short text"),
        (frame, "petal length 1.5\nwidth\x1b[2J 1"),
        (np.arange(9.0).reshape(3, 3), "0 1 2"),
        (np.zeros((3, 1000)), f"{'0 ' * 15}\u2026 985 more"),
        ([[1, 2], [3], [4, 5, 6]], "1 2"),
        (np.array(["2026-01-02", "2026-01-03", "2026-01-04"], "datetime64[D]"), "2026-01-02"),
        (np.zeros((3, 5, 6, 7)), f"5 x 6 x 7: {'0 ' * 15}\u2026 195 more"),
        (np.array([1.5, 2.5, 3.5]), "1.5"),
    ]
    for x, expected in cases:
        assert appearance.of_dataset(memdb.Dataset(x, labels, x, labels))("train", 0) == expected
    for number, (x, expected) in enumerate(cases[:2]):
        data = memdb.Dataset(x, labels, x, labels)
        with memdb.init(str(tmp_path / f"{number}.zarr"), data, coin_recipe, seed=1) as db:
            db.train(seeds=range(8), compact=False)
            for way in ("blocks", "kitty", "none"):
                text = terminal_of(db, data, way, lambda wall, db: wall.portrait(db.portrait(train_id=0)))
                assert expected.split()[0] in text
                assert "\x1b[2J" not in text
                assert "\x1b[31mred" not in text
            texts = " ".join(text.get_text() for text in db.show(train_id=0).texts)
            assert expected.split()[0] in texts
            page = db.top_memorized()._repr_html_()
            assert expected.split()[0] in page
            assert "<b>" not in page


def test_a_data_set_may_say_how_its_rows_look(tmp_path):
    waves = np.random.default_rng(0).normal(size=(4, 100))
    spectrum = np.zeros((5, 7, 3))
    for shown, expected in (
        ("a wave", "a wave"),
        (spectrum, (5, 7, 3)),
        (spectrum[:, :, 0].astype(np.uint8), (5, 7, 1)),
    ):
        data = memdb.Dataset(
            waves, [0, 1, 0, 1], waves, [0, 1, 0, 1], render=lambda _wave, shown=shown: shown
        )
        content = appearance.of_dataset(data)("test", 1)
        assert (content if isinstance(content, str) else content.shape) == expected


def raises(_example):
    message = "no such codec"
    raise ValueError(message)


@pytest.mark.parametrize(
    ("render", "said"),
    [
        (raises, "no such codec"), (lambda x: None, "NoneType"), (lambda x: np.zeros(5), "array (5,)"),
        (lambda x: np.full((3, 3), 7.5), "7.5"), (lambda x: np.full((3, 3), np.nan), "nan"), (lambda: "", "argument"),
        (lambda x: sys.exit(3), "sys.exit(3)"),
    ],
)  # fmt: skip
def test_a_render_that_fails_is_said_in_a_sentence_and_costs_notebooks_the_pictures_alone(
    tmp_path, render, said
):
    waves = np.zeros((4, 100))
    data = memdb.Dataset(waves, [0, 1, 0, 1], waves, [0, 1, 0, 1], render=render)
    with pytest.raises(InvalidInputError, match=re.escape(said)) as refused:
        appearance.of_dataset(data)("test", 1)
    assert refused.value.hint
    with memdb.init(str(tmp_path / "s.zarr"), data, coin_recipe, seed=1) as db:
        db.train(seeds=range(8))
        assert "<table" in db.top_memorized()._repr_html_()


def test_other_data_than_the_stores_is_refused(pictures_store, trained):
    with memdb.open(str(trained)) as db, pytest.raises(MemdbError):
        db.show(train_id=1, dataset=pictures_store[1])
    with memdb.open(str(pictures_store[0])) as db, pytest.raises(NotFoundError, match="no train example 30"):
        db.contents(dataset=pictures_store[1])("train", 30)


def test_a_published_copy_shows_its_thumbnails(pictures_store, tmp_path, without):
    data = pictures_store[1]
    with memdb.init(str(tmp_path / "made.zarr"), data, coin_recipe, seed=7) as made:
        made.train(seeds=range(20))
        made.publish(str(tmp_path / "copy.zarr"), include=("bits", "thumbnails"))
    shutil.rmtree(tmp_path / "made.zarr")
    with memdb.open(str(tmp_path / "copy.zarr")) as copy:
        seen = copy.contents()("train", 7)
        assert seen.shape == (12, 10, 3)
        away = [abs(seen - picture.astype(float)).mean() for picture in data.train.x]
        assert int(np.argmin(away)) == 7  # whatever sheets lose of noise
        assert copy.show(train_id=7).axes
        assert "<img" in copy.top_memorized()._repr_html_()
    without("PIL")
    done = run("show", "--train-id", "7", "-s", "copy.zarr", cwd=tmp_path)
    assert (done.returncode, "memorization" in done.stdout) == (0, True)
    assert "no pictures: sheets of pictures need Pillow" in done.stderr


@pytest.mark.parametrize(
    "command", ["show --train-id 8", "show --test-id 3", "gallery", "gallery --by influence"]
)
def test_classes_of_data_without_labels_are_unknown(tmp_path, command):
    rng = np.random.default_rng(5)
    np.savez(tmp_path / "scores.npz", memorization=np.linspace(0, 1, 9), influence=rng.random((6, 9)))
    memdb.import_file(tmp_path / "scores.npz", str(tmp_path / "s.zarr"))
    done = run(*command.split(), "-s", tmp_path / "s.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unknown" in done.stdout


@pytest.mark.parametrize("columns", [32, 40, 80])
def test_long_names_are_cut_and_numbers_are_not(tmp_path, columns):
    names = [f"{'long/' * 20}{row}.png" for row in range(9)]
    labels = [f"class with a name that is long {row % 2}" for row in range(9)]
    np.savez(
        tmp_path / "scores.npz", mem=np.linspace(0, 1, 9), filename=names, tr_labels=labels, tt_labels=labels,
        influence=np.random.default_rng(5).uniform(-1, 1, (9, 9)),
    )  # fmt: skip
    memdb.import_file(tmp_path / "scores.npz", str(tmp_path / "s.zarr"))
    done = run("show", "--train-id", 8, "-s", tmp_path / "s.zarr", cwd=tmp_path, COLUMNS=str(columns))
    listed = [line for line in done.stdout.splitlines() if line.startswith("test ")]
    assert all(re.match(r"test \d +\S.* [+-]\.\d{3}\b", line) for line in listed), done.stdout
    assert len(listed) == 8
    assert max(map(len, listed)) <= columns


@pytest.mark.slow
def test_imported_scores_are_shown_without_counts(tmp_path):
    rng, labels = np.random.default_rng(5), {"tr_labels": np.arange(9) % 3, "tt_labels": np.arange(6) % 3}
    classes = {
        f"{part}_classidx_{label}": np.flatnonzero(labels[f"{part}_labels"] == label)
        for part in ("tr", "tt")
        for label in range(3)
    }
    matrices = {f"infl_matrix_class{label}": rng.random((3, 2), np.float32) for label in range(3)}
    np.savez(tmp_path / "fz.npz", tr_mem=np.linspace(0, 1, 9), **labels, **classes, **matrices)
    memdb.import_file(tmp_path / "fz.npz", str(tmp_path / "s.zarr"))
    for command in ("show --train-id 8", "show --test-id 3", "gallery", "gallery --by influence -k 2"):
        for more in ([], ["--graphics", "ascii"], ["-o", "x.png"], ["--format", "json"]):
            done = run(*command.split(), *more, "-s", tmp_path / "s.zarr", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert "[" not in done.stdout.replace("[]", "") or more == ["--format", "json"]
