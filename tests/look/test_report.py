"""The report: what is in the file."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from support.cases import every
from support.nasty import NASTY, nasty_store
from support.stores import dicts

import memdb
from memdb import cli
from memdb.errors import InvalidInputError, MemdbError, StorageError
from memdb.look import contents
from memdb.look.codes import MISSING
from memdb.render.sheets import PicturesOf, sheets, tile_size


def words_on(sheet):
    """The texts on a sheet of a report."""
    return json.loads(base64.b64decode(sheet))


def inert(text):
    """The elements of a report that hold data, by their ids."""
    return dict(re.findall(r'<script type="text/plain" id="data/([^"]*)">([^<]*)</script>', text))


def array(elements, name):
    kind, data = elements[name].split(" ")
    return np.frombuffer(base64.b64decode(data), kind)


@pytest.fixture(scope="module")
def written(asked, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return asked.report(path), path.read_text("utf-8")


def columns(elements, name, n):
    """Numbers of all examples, whose bytes lie apart."""
    n_columns = {"train": 6, "test": 3}[name]
    planes = array(elements, f"{name}/columns").reshape(-1, n_columns, n).astype(int)
    return sum(plane * 256**place for place, plane in enumerate(planes))


def scores_in(codes):
    """What two bytes say of a score: thousandths, and its sign."""
    return np.where(codes == MISSING, np.nan, (codes >> 1) / 1000 * np.where(codes & 1, -1, 1))


def test_a_report_has_the_counts_of_every_example(asked, written):
    elements = inert(written[1])
    rows = dicts(asked.top_memorized(k=asked.store.manifest.train.n_examples))
    assert array(elements, "train/order").tolist() == [row["train_id"] for row in rows]
    label, n_in, wrong_in, wrong_out, shrunk, q_value = columns(elements, "train", len(rows))
    counted = {
        "label": label,
        "n_in": n_in,
        "k_in": n_in - wrong_in,
        "k_out": asked.n_models - n_in - wrong_out,
    }
    for name, values in counted.items():
        assert values.tolist() == [row[name] for row in rows]
    for row, code, q in zip(rows, scores_in(shrunk), q_value, strict=True):
        assert np.isnan(code) if row["shrunk"] is None else f"{code:.3f}" == f"{row['shrunk']:.3f}"
        if row["q_value"] is not None:
            assert (bool(q & 1), (q >> 1) / 1000) == (
                row["q_value"] > 0.1, 0 if row["q_value"] < 0.001 else float(f"{row['q_value']:.3f}"),
            )  # fmt: skip
    facts = json.loads(elements["facts"])
    assert facts["models_sha256"] == asked.models_sha256
    assert json.loads(elements["keys"])["train"][3] == "train/3.png"


@pytest.mark.parametrize("of", every(2, ["test", "train"]))
def test_a_reports_lists_are_those_of_top_influence(asked, written, of):
    elements = inert(written[1])
    facts = json.loads(elements["facts"])
    shown, groups = facts["shown"], facts["groups"][of]
    n = {name: asked.store.manifest.set_named(name).n_examples for name in ("train", "test")}
    labels = {name: columns(elements, name, n[name])[0] for name in n}
    labels["train"] = labels["train"][np.argsort(array(elements, "train/order"))]
    if of == "train":
        owners = array(elements, "train/listed").tolist()
    else:
        owners = np.argsort(columns(elements, "test", n["test"])[2]).tolist()
    assert sorted(owners) == list(range(facts["n_listed"][of]))
    every = array(elements, f"{of}/partners").reshape(-1, len(groups), shown, 3)
    for owner, found in zip(owners, every, strict=True):
        for name, rows in zip(groups, found, strict=True):
            listed = rows[rows[:, 0] > 0]
            column = "test_id" if of == "train" and name != "peers" else "train_id"
            ids = (listed[:, 0].astype(int) - 1).tolist()
            if name == "random":
                assert {labels[column[:-3]][i] for i in ids} <= {labels[of][owner]}
                expected = [dicts(asked.score(**{f"{of}_id": owner, column: i}))[0] for i in ids]
            else:
                fixed = {"target_id" if name == "peers" else f"{of}_id": owner}
                direction = "hurts" if name == "hurts" else "helps"
                expected = dicts(asked.top_influence(**fixed, k=shown, direction=direction))
                assert ids == [row[column] for row in expected]
                for row, q in zip(expected, listed[:, 2], strict=True):
                    assert q == MISSING if row["q_value"] is None else bool(q & 1) == (row["q_value"] > 0.1)
            assert listed[:, 1].tolist() == [row["k_in"] for row in expected]


def test_how_scores_settled_is_what_convergence_says(asked, written):
    elements = inert(written[1])
    looks = json.loads(elements["facts"])["looks"]
    sums = array(elements, "train/settled").reshape(-1, len(looks), 3)
    for place, train_id in list(enumerate(array(elements, "train/order").tolist()))[::7]:
        rows = dicts(asked.convergence(train_id))
        assert [row["n_models"] for row in rows] == looks
        expected = [[row["n_in"], row["k_in"], row["k_in"] + row["k_out"]] for row in rows]
        assert sums[place].tolist() == expected


def test_pairs_are_those_of_the_command(digits_store, monkeypatch):
    monkeypatch.setattr(contents, "MIN_INFLUENCE", 0.4)
    monkeypatch.setattr(contents, "MIN_MEMORIZATION", 0.3)
    with memdb.open(str(digits_store)) as db:
        (n_found, *_), *found = contents.strongest_pairs(db.relations()).tolist()
        rows = dicts(db.pairs(min_influence=0.4, min_memorization=0.3))
    rows.sort(key=lambda row: (-row["influence"], row["train_id"], row["test_id"]))
    assert (n_found, len(found)) == (len(rows), min(len(rows), contents.MOST_PAIRS))
    assert [pair[:3] for pair in found] == [
        [row["train_id"], row["test_id"], row["k_in"]] for row in rows[: len(found)]
    ]


def test_arrays_in_memory_are_shown_without_pictures(written):
    assert "arrays in memory" in written[0].without_pictures
    assert written[0].n_pictures == 0
    assert "sheet" not in " ".join(inert(written[1]))


@pytest.mark.slow
def test_pictures_lie_on_sheets_in_order_of_rank(digits_report):
    db, path = digits_report
    pictures = db._shown(None, None)["train"]
    elements = inert(path.read_text("utf-8"))
    order = array(elements, "train/order")
    from PIL import Image

    for rank in (0, 63, 64, len(order) - 1):
        sheet = Image.open(io.BytesIO(base64.b64decode(elements[f"train/sheet/{rank // 64}"])))
        y, x = divmod(rank % 64, 8)
        tile = np.asarray(sheet)[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8]
        np.testing.assert_array_equal(tile, pictures.chosen([int(order[rank])])[0, :, :, 0])


def test_tiles_of_colour_do_not_bleed():
    from PIL import Image

    colours = np.random.default_rng(0).integers(0, 256, (70, 1, 1, 3), dtype=np.uint8)
    pictures = PicturesOf((10, 20, 3), lambda rows: np.broadcast_to(colours[rows], (len(rows), 10, 20, 3)))
    assert tile_size(pictures.shape) == (16, 32)
    found = [np.asarray(Image.open(io.BytesIO(sheet))) for sheet in sheets(pictures, range(70))]
    assert [sheet.shape for sheet in found] == [(128, 256, 3)] * 2
    for row in range(70):
        y, x = divmod(row % 64, 8)
        tile = found[row // 64][y * 16 + 1 : y * 16 + 10, x * 32 + 1 : x * 32 + 20].astype(int)
        assert np.abs(tile - colours[row]).max() <= 6


@pytest.mark.parametrize("given", ["report.txt", "report", "missing/report.html"])
def test_a_report_that_cannot_be_written_is_refused(asked, tmp_path, given):
    with pytest.raises((InvalidInputError, StorageError)) as refused:
        asked.report(tmp_path / given)
    assert refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_data_root_that_was_given_has_to_have_the_data(asked, tmp_path):
    with pytest.raises(MemdbError):
        asked.report(tmp_path / "report.html", data_root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_report(trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.application()(["report", "-s", str(trained), "-o", str(tmp_path / "r.html"), "--no-pictures"])
    assert not done.value.code
    assert "Wrote" in capsys.readouterr().err
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_names_never_end_an_element(tmp_path):
    with nasty_store(tmp_path) as db:
        db.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    keys = json.loads(inert(text)["keys"])["train"]
    assert [name if len(name) < 200 else "x" * 10_000 for name in keys] == NASTY
    order, words = array(inert(text), "train/order"), words_on(inert(text)["train/sheet/0"])
    assert words == [NASTY[row] if len(NASTY[row]) < 300 else f"{'x' * 299}\u2026" for row in order]
    assert "<img" not in text
    assert text.count("<script>") == 1  # the page's own
