"""Names that are long, or escape sequences, or markup."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.commands import run
from support.stores import coin_recipe
from support.terminals import ESCAPE, lines_of

import memdb

NASTY = [
    "<script>alert(1)</script>", "</td><img src=x onerror=alert(1)>", "a\nb\r\nc", "\"quoted\" & 'so'",
    "\u202egnp.1\u202c", "x" * 10_000, "\x1b[2J\x1b]0;title\x07", "\x9b31m", "$\\frac{1}{2$", "\u6f22\u5b57" * 30, "\u2028",
    "e\u0301\u200d", "[bold]markup[/]", ":smile:",
]  # fmt: skip


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
