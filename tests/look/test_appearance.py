"""What rows of a data set look like: pictures of every shape, texts, and a rendering of one's own."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from support.cases import every
from support.stores import coin_recipe
from support.terminals import terminal_of

import memdb
from memdb.datasets import appearance
from memdb.errors import InvalidInputError

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
