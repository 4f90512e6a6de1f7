"""Near-duplicates by influence against loops over models, and what is said of pairs that are found."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from support import oracle, twins
from support.cases import every
from support.commands import run
from support.stores import bits_of, dicts

import memdb
from memdb.analysis.near_duplicates import lookalikes
from memdb.analysis.near_duplicates.similar import Directions
from memdb.analysis.near_duplicates.twins import pairs_within
from memdb.errors import InvalidInputError, NotEnoughModelsError, NotFoundError
from memdb.query.informed.prior import Kernel

PAIRS = {(0, 24), (1, 25)}
LOOSE = {"alpha": 1.0, "min_share": 0.05, "min_influence": 0.05}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    where = tmp_path_factory.mktemp("twins") / "store.zarr"
    twins.database(where).close()
    return where


@pytest.fixture(scope="module")
def twin_db(url):
    with memdb.open(str(url)) as opened:
        yield opened


def ids(rows):
    """The pairs in rows of training examples, the smaller id first."""
    return {tuple(sorted((r["train_id"], r["target_id"]))) for r in rows if r["target_id"] is not None}


def arm_counts(masks, correct, target, other):
    """Counts of `oracle.counts`, over the models that hold the target out."""
    held = [(mask, right) for mask, right in zip(masks, correct, strict=True) if not mask[target]]
    return oracle.counts(*zip(*held, strict=True), other, target)


def by_loops(masks, correct, labels, bounds):
    """Of each pair of a class that is mutual, by loops over models: what each does for the other."""
    found = {}
    for a, b in itertools.combinations(range(len(labels)), 2):
        if labels[a] != labels[b]:
            continue
        both_ways = []
        for target, other in ((a, b), (b, a)):
            n_in, n_out, k_in, k_out = arm_counts(masks, correct, target, other)
            own = [right[target] for mask, right in zip(masks, correct, strict=True) if mask[target]]
            influence = oracle.score(n_in, n_out, k_in, k_out)
            if influence is None:
                break
            gain = sum(own) / len(own) - k_out / n_out
            both_ways.append((influence, influence / gain if gain > 0 else None, (n_in, n_out, k_in, k_out)))
        if len(both_ways) == 2 and all(
            e >= bounds["min_influence"] and share is not None and share >= bounds["min_share"]
            for e, share, _ in both_ways
        ):
            found[a, b] = both_ways
    return found


def test_pairs_found_by_influence_are_those_that_loops_over_models_find(db, stats):
    masks, train, _ = bits_of(db.snapshot)
    labels = db.relations().examples["train"].labels
    expected = by_loops(masks.tolist(), train.tolist(), labels, LOOSE)
    rows = dicts(db.duplicates(by="influence", between="train", **LOOSE))
    assert ids(rows) == expected.keys()
    assert len(rows) == 2 * len(expected) > 20
    n_ranked = sum(int(n * (n - 1) / 2) for n in np.bincount(labels))
    p = {}
    for pair, both_ways in expected.items():
        tails = []
        for _, _, (n_in, n_out, k_in, k_out) in both_ways:
            n, k = n_in + n_out, k_in + k_out
            z = (k_in / n_in - k_out / n_out) / np.sqrt(k * (n - k) / (n * (n - 1)) * (1 / n_in + 1 / n_out))
            exact = stats.hypergeom.sf(k_in - 1, n, k, n_in)
            tails.append(min(1, 2 * (exact if z > 3 else stats.norm.sf(z))))
        p[pair] = max(tails)
    for row in rows:
        pair = tuple(sorted((row["train_id"], row["target_id"])))
        influence, share, counted = expected[pair][row["target_id"] == pair[1]]
        assert (row["n_in"], row["n_out"], row["k_in"], row["k_out"]) == counted
        assert row["influence"] == pytest.approx(influence)
        assert row["share"] == pytest.approx(share)
        n = counted[0] + counted[1]
        z = oracle.z_of("selected", n, 0.95, len(rows), 2 * n_ranked)
        assert (row["lo"], row["hi"]) == pytest.approx(oracle.interval(*counted, z))
        no_better = sorted(value for value in p.values() if value >= p[pair])
        at_most = [value * n_ranked / sum(other <= value for other in p.values()) for value in no_better]
        assert row["q_value"] == pytest.approx(min(1, *at_most, 1), rel=0.01)


def test_twins_are_found_both_ways_and_what_they_hide_with_them(twin_db):
    rows = dicts(twin_db.duplicates(dataset=twins.dataset()))
    assert ids(rows) == PAIRS
    masks, train, _ = (part.tolist() for part in bits_of(twin_db.snapshot))
    for row in (row for row in rows if row["target_id"] is not None):
        assert row["found_by"] == "influence+content"
        assert row["share"] == pytest.approx(1, abs=0.1)
        target, twin = row["target_id"], row["train_id"]
        assert row["hidden_by"] == twin
        assert row["memorization"] == pytest.approx(
            oracle.score(*oracle.counts(masks, train, target, target))
        )
        without = [
            (m, r) for m, r in zip(masks, train, strict=True) if m[target] or not (m[target] or m[twin])
        ]
        counted = oracle.counts(*zip(*without, strict=True), target, target)
        assert row["pair_memorization"] == pytest.approx(oracle.score(*counted))
        assert row["pair_memorization"] > 0.7 > row["memorization"] + 0.2  # without the twin it is .95
        z = oracle.z_of("selected", counted[0] + counted[1], 0.95)  # all that are alike are shown
        assert (row["pair_lo"], row["pair_hi"]) == pytest.approx(oracle.interval(*counted, z))
        assert (row["n_own_in"], row["n_out"]) == counted[:2]
    (between,) = (row for row in rows if row["test_id"] is not None)
    assert (between["train_id"], between["target_id"], between["test_id"]) == (2, None, 0)
    assert between["found_by"] == "influence+content"
    assert between["hidden_by"] is between["memorization"] is None
    influence = twin_db.influence(train_id=2, test_id=0)
    assert between["influence"] == dicts(influence)[0]["influence"]


@pytest.mark.parametrize(
    ("options", "pairs", "n_test"),
    every(2, [
        ({"by": "influence"}, PAIRS, 1),
        ({"by": "content"}, PAIRS, 1),
        ({"between": "train"}, PAIRS, 0),
        ({"between": "test"}, set(), 1),
        ({"max_distance": 0.0, "by": "content"}, {(0, 24)}, 1),  # moved, but else as it was
        ({"min_influence": 1.0, "by": "influence"}, set(), 0),
        ({"k": 1, "between": "train"}, None, 0),
    ]),
)  # fmt: skip
def test_what_counts_can_be_chosen(twin_db, options, pairs, n_test):
    rows = dicts(twin_db.duplicates(dataset=twins.dataset(), **options))
    assert ids(rows) == pairs or (pairs is None and len(rows) == 2)
    assert sum(row["test_id"] is not None for row in rows) == n_test


@pytest.fixture(scope="module")
def sketched_db(tmp_path_factory):
    where = tmp_path_factory.mktemp("sketched") / "store.zarr"
    with memdb.init(
        str(where), twins.dataset(), twins.recipe, outcomes=["correct"], sketches=2, sketch_size=256, seed=3
    ) as made:
        made.train(seeds=range(12), progress=False)
        yield made


def test_few_models_tell_twins_by_sketches_without_pictures(sketched_db):
    rows = dicts(sketched_db.duplicates(by="sketches"))
    assert ids(rows) == PAIRS
    (between,) = (row for row in rows if row["test_id"] is not None)
    assert (between["train_id"], between["test_id"]) == (2, 0)
    assert {row["found_by"] for row in rows} == {"sketches"}
    assert all(0.7 <= row["similarity"] <= 1 and row["distance"] is None for row in rows)
    assert ids(dicts(sketched_db.duplicates(by="sketches", between="train", min_similarity=1.0))) == set()


def test_what_is_found_in_several_ways_is_listed_once_and_first(sketched_db):
    said = []
    rows = dicts(sketched_db.duplicates(remark=said.append, dataset=twins.dataset(), between="train"))
    assert ids(rows) == PAIRS
    assert {row["found_by"] for row in rows} == {"sketches+content"}
    assert any("too few to find twins in training by influence" in sentence for sentence in said)


def test_without_sketches_the_command_says_how_to_get_them(twin_db):
    with pytest.raises(NotFoundError, match="no gradient sketches") as refused:
        twin_db.duplicates(by="sketches")
    assert "memdb train --sketch" in refused.value.hint


@pytest.mark.slow
def test_the_command_shows_pairs_side_by_side(url, tmp_path):
    pytest.importorskip("matplotlib")
    store = ("--store", url, "--dataset", "support.twins:dataset", "--between", "train")
    shown = run("duplicates", *store, "--graphics", "ascii", "-k", "1", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    captions = [
        line for line in shown.stdout.splitlines() if line.count("train ") == line.count("\u00b7") == 2
    ]
    assert len(captions) == 1
    assert "influence, content \u00b7 distance" in shown.stdout
    drawn = run("duplicates", *store, "-o", "pairs.svg", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "pairs.svg").stat().st_size > 1000
    assert not drawn.stdout


def test_sketches_are_compared_as_loops_compare_them(sketched_db):
    relations = sketched_db.relations()
    directions = Directions.of(relations)
    numbers, labels = directions.kernels["train"].numbers.astype(float), relations.labels("train")
    expected = {}
    for a, b in itertools.combinations(range(len(numbers)), 2):
        cosine = numbers[a] @ numbers[b] / np.linalg.norm(numbers[a]) / np.linalg.norm(numbers[b])
        if labels[a] == labels[b]:
            expected[a, b] = 1 - cosine
    near = {pair: value for pair, value in expected.items() if value <= 1 - 0.3}
    ninth = [sorted(v for pair, v in expected.items() if row in pair)[8] for row in range(len(numbers))]
    near = {p: v for p, v in near.items() if v <= 0.4 * min(ninth[p[0]], ninth[p[1]])}
    found = directions.alike("train", 0.3, lambda *_: None)
    got = dict(
        zip(zip(found.first.tolist(), found.second.tolist(), strict=True), found.distance, strict=True)
    )
    assert got == pytest.approx(near, abs=1e-5)


def test_without_models_content_alone_is_looked_at(tmp_path):
    with memdb.init(str(tmp_path / "empty.zarr"), twins.dataset(), twins.recipe) as empty:
        rows = dicts(empty.duplicates(by="content"))
        assert ids(rows) == PAIRS
        assert {row["influence"] for row in rows} == {row["q_value"] for row in rows} == {None}
        with pytest.raises(NotEnoughModelsError, match="no models yet"):
            empty.duplicates()


def test_few_models_are_said_to_be_few(asked):
    with pytest.raises(NotEnoughModelsError, match="too few") as refused:
        asked.duplicates(by="influence", alpha=1e-9)
    assert "memdb train --add" in refused.value.hint
    said = []
    assert dicts(asked.duplicates(alpha=1e-9, between="train", remark=said.append)) == []
    assert any("too few" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "magic"}, "by 'magic'"),
        ({"between": "us"}, "between 'us'"),
        ({"min_share": 0}, "min_share 0 "),
        ({"min_influence": -1}, "min_influence -1 "),
        ({"alpha": 2}, "alpha 2 "),
        ({"max_distance": 7}, "max_distance 7 "),
        ({"k": 0}, "k 0 "),
        ({"level": 2}, "level 2 "),
        ({"interval": "narrow"}, "unknown interval"),
    ],
)
def test_bad_values_are_refused(twin_db, options, said):
    with pytest.raises(InvalidInputError, match=said):
        twin_db.duplicates(**options)


def test_without_the_package_for_pictures_equal_content_is_found(twin_db, monkeypatch):
    monkeypatch.setattr(lookalikes, "missing_package", lambda: "SciPy")
    said = []
    rows = dicts(twin_db.duplicates(dataset=twins.dataset(), remark=said.append))
    assert {row["found_by"] for row in rows} == {"influence"}
    assert any("SciPy" in sentence and "pip install" in sentence for sentence in said)
    with pytest.raises(NotFoundError, match="SciPy"):
        twin_db.duplicates(by="content", dataset=twins.dataset())


def test_examples_other_than_pictures_are_equal_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lookalikes, "missing_package", lambda: "SciPy")  # which compares none of them
    words = ["a", "b", "a", "c"]
    data = memdb.Dataset(words, [0, 1, 0, 1], ["c", "d"], [0, 1])
    with memdb.init(str(tmp_path / "words.zarr"), data, twins.recipe) as store:
        said = []
        rows = dicts(store.duplicates(by="content", remark=said.append))
        assert ids(rows) == {(0, 2)}
        (between,) = (row for row in rows if row["test_id"] is not None)
        assert (between["train_id"], between["test_id"], between["same_class"]) == (3, 0, False)
        assert "not pictures" in said[0]


def test_the_command_says_what_a_twin_hides(url, tmp_path):
    shown = run(
        "duplicates", "--store", url, "--dataset", "support.twins:dataset", cwd=tmp_path, COLUMNS="80"
    )
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "train\u00a024" in shown.stdout
    assert "Memorization that a twin hides" in shown.stdout
    first = run("duplicates", "--store", url, "--dataset", "support.twins:dataset", "-k", "1", cwd=tmp_path)
    assert first.stdout.splitlines()[0].split(" of ")[0] == shown.stdout.splitlines()[0].split(" of ")[0]
    assert "2 more pairs; -k N shows more" in first.stdout
    asked = run(
        "duplicates", "--store", url, "--by", "influence", "-f", "json", "--exclude", "diverged", cwd=tmp_path
    )
    found = json.loads(asked.stdout)
    assert (found["interval"], found["n_models"]) == ("selected", 150)
    assert ids(found["rows"]) == PAIRS
    idle = run("duplicates", "--store", url, "--by", "influence", "--max-distance", ".1", cwd=tmp_path)
    assert idle.returncode == 2
    assert "--max-distance does nothing without" in idle.stderr


@pytest.mark.slow
def test_a_published_copy_answers_by_its_thumbnails(url, twin_db, tmp_path):
    pytest.importorskip("scipy")
    with memdb.open(str(url)) as source:
        source.load_dataset(dataset="support.twins:dataset")
        plan = source.plan_publication(
            str(tmp_path / "copy"), include=["bits", "thumbnails"], dataset="support.twins:dataset"
        )
        source.publish(plan)
    with memdb.open(str(tmp_path / "copy")) as copy:
        rows = dicts(copy.duplicates())
    expected = dicts(twin_db.duplicates(dataset=twins.dataset()))
    assert ids(rows) == ids(expected)
    assert [row["influence"] for row in rows] == [row["influence"] for row in expected]


def test_thousands_of_examples_that_teach_the_same_are_refused_too(monkeypatch):
    monkeypatch.setattr(lookalikes, "MAX_EQUAL", 40 * 39 // 2 - 1)
    kernel, labels = Kernel(np.ones((40, 64), np.int8), np.ones(40, np.float32)), np.zeros(40, np.int32)
    same = Directions({"train": kernel}, {"train": labels}, {"train": np.full(40, 8.0, np.float32)})
    with pytest.raises(InvalidInputError, match="780 pairs of examples have gradient sketches"):
        same.alike("train", 0.7, lambda *_: None)
    monkeypatch.undo()
    assert len(same.alike("train", 0.7, lambda *_: None)) == 780


def test_pairs_of_a_class_are_counted_without_memory_for_labels_that_nobody_has():
    labels = np.array([5, 2**31 - 1, 5, 5, 2**31 - 1], np.int32)
    assert pairs_within(labels, same_class=True) == 3 + 1
    assert pairs_within(labels, same_class=False) == 10
