"""plan, convergence, reliability, classes, class-influence and compare, as they are typed."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from support.cases import every
from support.commands import run
from support.stores import small_database, small_dataset

import memdb
from memdb.render.answer import ROW_FACTS
from memdb.render.curves import curve


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two stores of one data set, of 60 and 20 models, one of other data, and an empty one."""
    folder = tmp_path_factory.mktemp("place")
    for name, seeds, fraction in (("a", range(60), 0.7), ("b", range(100, 120), 0.5)):
        with small_database(folder / f"{name}.zarr", subset_fraction=fraction) as made:
            made.train(seeds=seeds)
    small_database(folder / "empty.zarr").close()
    from support.stores import coin_recipe

    memdb.init(str(folder / "other.zarr"), small_dataset(shift=1), coin_recipe).close()
    return folder


def test_that_no_pair_is_so_strong_is_an_answer(place):
    done = run("pairs", "--min-influence", "1", "-s", "a.zarr", cwd=place)
    assert (done.returncode, "0 pairs of a.zarr" in done.stdout) == (0, True), done.stderr


def dicts(relation):
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


@pytest.mark.parametrize(
    ("command", "verb", "arguments"),
    every(3, [
        (["plan", "--half-width", "0.1"], "plan", {"half_width": 0.1}),
        (["plan", "--train-id", "3", "--test-key", "4", "--kind", "influence"], "plan", {"train_id": 3, "test_id": 4, "kind": "influence"}),
        (["plan", "--settle", "0.5", "--threshold", "0.4", "--interval", "selected", "-k", "3", "--n-ranked", "9"], "plan", {"settle": 0.5, "threshold": 0.4, "interval": "selected", "k": 3, "n_ranked": 9}),
        (["convergence", "--train-id", "3"], "convergence", {"train_id": 3}),
        (["convergence", "--train-key", "train/3.png", "--target-id", "5", "--outcome", "confidence", "--level", "0.8"], "convergence", {"train_id": 3, "target_id": 5, "outcome": "confidence", "level": 0.8}),
        (["reliability", "-k", "3", "-k", "9", "--splits", "2", "--seed", "4"], "reliability", {"k": [3, 9], "splits": 2, "seed": 4}),
        (["reliability", "--test-id", "3", "--threshold", "0.1", "--outcome", "confidence"], "reliability", {"test_id": 3, "threshold": 0.1, "outcome": "confidence"}),
        (["classes", "--threshold", "0.4"], "classes", {"threshold": 0.4}),
        (["class-influence", "--outcome", "confidence"], "class_influence", {"outcome": "confidence"}),
    ]),
)  # fmt: skip
def test_a_command_gives_the_rows_of_the_method_of_its_name(place, command, verb, arguments):
    done = run(*command, "-s", "a.zarr", "-f", "json", cwd=place)
    assert done.returncode == 0, done.stderr
    with memdb.open(str(place / "a.zarr")) as db:
        document = json.loads(done.stdout)
        facts = {name: value for name, value in document.items() if name in ROW_FACTS}
        expected = dicts(getattr(db, verb)(**arguments))
        assert [facts | row for row in document["rows"]] == expected
        assert (document["store"], document["models_sha256"]) == ("a.zarr", db.models_sha256)
    assert document["outcome"] == arguments.get("outcome", "correct")
    assert ("interval" in document) == (verb in {"plan", "convergence"})


@pytest.mark.slow
def test_compare_says_once_what_the_stores_have_in_common(place):
    done = run("compare", "a.zarr", "b.zarr", "-k", 3, "-f", "json", cwd=place)
    document = json.loads(done.stdout)
    with memdb.open(str(place / "a.zarr")) as a, memdb.open(str(place / "b.zarr")) as b:
        rows = dicts(a.compare(b, k=3))
        assert [
            row | {name: document[name] for name in row if name in document} for row in document["rows"]
        ] == [{name: value for name, value in row.items() if name not in document} for row in rows]
        assert {name: rows[0][name] for name in rows[0] if name in document} == {
            name: document[name] for name in rows[0] if name in document
        }
        hashes = (document["models_sha256"], document["other_models_sha256"])
        assert hashes == (a.models_sha256, b.models_sha256)
    assert (document["jaccard"], document["n_models_b"]) == (rows[0]["jaccard"], 20)
    assert "Their subset fractions differ" in done.stderr
    lines = run("compare", "a.zarr", "b.zarr", "-k", 3, "-f", "csv", cwd=place).stdout
    found = list(csv.DictReader(io.StringIO(lines)))
    assert [float(row["jaccard"]) for row in found] == [row["jaccard"] for row in rows]


def test_compare_remarks_on_nothing_where_recipe_and_fraction_are_the_same(place):
    done = run("compare", "a.zarr", "a.zarr", cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 of them the same" in done.stdout


@pytest.mark.parametrize(
    "command",
    every(2, [
        ["plan"], ["plan", "--train-id", "22", "--target-key", "train/10.png"], ["convergence", "--train-id", "3"],
        ["convergence", "--train-id", "3", "--test-id", "4", "--outcome", "confidence"], ["reliability"],
        ["reliability", "--test-id", "3", "--outcome", "confidence"], ["classes"], ["class-influence"],
        ["compare", "a.zarr", "b.zarr", "--test-id", "3"],
    ]),
)  # fmt: skip
def test_tables_fit_into_80_columns_and_stay_whole(place, command):
    store = [] if command[0] == "compare" else ["-s", "a.zarr"]
    done = run(*command, *store, cwd=place)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "…" not in done.stdout


def test_a_plan_needs_no_store(place, tmp_path):
    done = run("plan", "--half-width", "0.1", cwd=tmp_path)
    assert done.returncode == 0
    assert "1,124" in done.stdout
    assert "No store at memdb.zarr: planning one with subsets of 0.7." in done.stderr
    done = run("plan", "--subset-fraction", "0.5", "-s", "a.zarr", "-f", "json", cwd=place)
    document = json.loads(done.stdout)
    assert (document["store"], document["n_models"], len(document["rows"])) == (None, 0, 1)
    done = run("plan", "-s", "empty.zarr", cwd=place)
    assert "for any score" in done.stdout
    assert "From 50 models on" in done.stderr


REFUSED = [
    (["plan", "--half-width", "3"], "--half-width 3 is not between 0 and 1"),
    (["plan", "-s", "nowhere"], "no memdb store at nowhere"),
    (["plan", "-s", "empty.zarr", "--train-id", "3"], "has 0 models: the rates of one score are not known"),
    (["plan", "--train-id", "3", "--subset-fraction", "0.5"], "no store is read"),
    (["plan", "--subset-fraction", "1.5"], "the subset fraction 1.5"),
    (["plan", "--subset-fraction", "0.5", "--interval", "selected"], "Say so with --n-ranked"),
    (["convergence"], "name exactly one example"),
    (["convergence", "--train-id", "23"], "--train-id 23 is out of range. This store has 0 to 22."),
    (["convergence", "--train-id", "3", "-s", "empty.zarr"], "has no models yet"),
    (["convergence", "--train-id", "3", "--plot", "x.pdf"], "Use one of .svg, .png."),
    (["convergence", "--train-id", "3", "--plot", "no/such/x.svg"], "cannot write no/such/x.svg"),
    (["reliability", "-k", "24"], "-k 24 is not a number from 1 to 23"),
    (["reliability", "-s", "empty.zarr"], "too few for two halves"),
    (["classes", "-s", "empty.zarr"], "has 0 models"),
    (["class-influence", "-s", "empty.zarr"], "has 0 models"),
    (["compare", "a.zarr", "nowhere"], "no memdb store at nowhere"),
    (["compare", "a.zarr", "empty.zarr"], "empty.zarr has no models yet"),
    (["compare", "a.zarr", "other.zarr"], "the test sets differ: a.zarr has 11 examples with fingerprint"),
    (["compare", "a.zarr", "b.zarr", "-k", "0"], "-k 0 is not a number"),
    (["compare", "a.zarr", "b.zarr", "--test-id", "11"], "--test-id 11 is out of range"),
]


@pytest.mark.parametrize(
    ("command", "message"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_what_cannot_be_is_refused_in_one_line(place, command, message):
    store = [] if "-s" in command or command[0] == "compare" else ["-s", "a.zarr"]
    done = run(*command, *store, cwd=place)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_curve_is_drawn_to_a_file_whole_and_the_same_again(place, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg", "one.png"):
        done = run("convergence", "--train-id", 3, "-s", "a.zarr", "--plot", tmp_path / name, cwd=place)
        assert done.returncode == 0, done.stderr
        assert f"Drew {tmp_path / name}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "one.svg", "two.svg"]
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "one.svg").read_text()


def test_without_matplotlib_a_plot_is_refused_before_anything_is_asked(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("convergence", "--train-id", 3, "-s", "nowhere", "--plot", "x.svg", cwd=place)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "--plot x.svg needs Matplotlib, which is not installed. Run: pip install 'memdb-scores[plots]' (in a clone: pip install -e '.[plots]')."
        in done.stderr
    )


def row_of(n, score, half):
    ends = {
        f"{kind}_{end}": score + sign * half * width
        for kind, width in (("fixed", 1), ("anytime", 2))
        for end, sign in (("lo", -1), ("hi", 1))
    }
    return {"n_models": n, "memorization": score} | ends


def test_a_curve_shows_the_estimate_between_its_intervals():
    picture = str(
        curve([row_of(n, 0.5, 10 / n) for n in (50, 100, 200, 500, 1000)], "memorization", 0.95, 60)
    )
    lines = picture.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[-2].split() == ["models", "50", "100", "1,000"]
    left, right = ([line[at : at + 1] for line in lines[:15]] for at in (8, 59))
    for column in (left, right):
        assert column.count("●") == 1
    assert left.count("▒") > right.count("▒")
    assert left.count("░") > right.count("░")


def test_a_curve_without_a_score_says_so_and_one_model_is_a_point():
    row = row_of(1, 0.5, 0.1)
    assert "No score yet" in str(curve([dict.fromkeys(row) | {"n_models": 1}], "memorization", 0.95, 80))
    assert "●" in str(curve([row], "memorization", 0.95, 80))
