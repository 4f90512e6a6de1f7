"""Examples and galleries: their numbers, figures of them, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.cases import every
from support.commands import run
from support.stores import coin_recipe, dicts

import memdb
from memdb.errors import MemdbError, NotFoundError


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


def test_without_matplotlib_a_figure_is_refused_before_the_store_is_read(without, tmp_path):
    without("matplotlib")
    done = run("gallery", "-s", "nowhere.zarr", "-o", "x.png", cwd=tmp_path)
    assert done.returncode == 1
    assert "[plots]" in done.stderr


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
