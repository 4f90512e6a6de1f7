from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support import DATA, oracle
from support.stores import bits_of, coin_recipe, dicts, small_database, small_dataset
from support.storing import batch, model

import memdb
from memdb.errors import NotEnoughModelsError

MEMORIZATION = [
    "train_id",
    "label",
    "memorization",
    "lo",
    "hi",
    "n_in",
    "n_out",
    "k_in",
    "k_out",
    "p_in",
    "p_out",
]
INFLUENCE = [
    "train_id", "test_id", "train_label", "test_label", "same_class", "influence", "lo", "hi", "n_in", "n_out",
    "k_in", "k_out", "p_in", "p_out", "memorization",
]  # fmt: skip


def expected_pair(masks, train, target, i, z, kind="anytime", level=0.95, **shares):
    row = oracle.counts(masks, target, i, z)
    lo, hi = oracle.interval(*row, oracle.z_of(kind, len(masks), level, **shares))
    own = oracle.counts(masks, train, i, i)
    return {
        "influence": oracle.score(*row), "lo": lo, "hi": hi, "n_in": row[0], "n_out": row[1], "k_in": row[2],
        "k_out": row[3], "memorization": oracle.score(*own),
    }  # fmt: skip


def assert_same(found, expected):
    for name, value in expected.items():
        assert found[name] == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value), name


@pytest.mark.parametrize("kind", ["anytime", "fixed", "simultaneous"])
def test_every_memorization_is_the_oracles(asked, kind):
    masks, train, _ = bits_of(asked.snapshot)
    relation = asked.sql("FROM memorization ORDER BY train_id", interval=kind, level=0.9)
    assert relation.columns == MEMORIZATION
    found = dicts(relation)
    assert len(found) == 23
    for i, row in enumerate(found):
        expected = expected_pair(masks, train, train, i, i, kind, 0.9, n_ranked=23)
        del expected["influence"]
        assert_same(row, expected)
        assert row["label"] == i % 3
        assert row["p_in"] == pytest.approx(row["k_in"] / row["n_in"])


@pytest.mark.parametrize("kind", ["anytime", "fixed", "simultaneous"])
def test_every_influence_is_the_oracles(asked, kind):
    masks, train, test = bits_of(asked.snapshot)
    relation = asked.sql("FROM influence", interval=kind)
    assert relation.columns == INFLUENCE
    found = dicts(relation)
    assert {(row["train_id"], row["test_id"]) for row in found} == {
        (i, z) for i in range(23) for z in range(11)
    }
    for row in found:
        i, z = row["train_id"], row["test_id"]
        assert_same(row, expected_pair(masks, train, test, i, z, kind, n_ranked=23 * 11))
        assert row["same_class"] == (i % 3 == z % 3)
        assert (row["train_label"], row["test_label"]) == (i % 3, z % 3)


def test_every_influence_between_training_examples_is_the_oracles(asked):
    masks, train, _ = bits_of(asked.snapshot)
    relation = asked.sql("FROM train_influence")
    assert relation.columns == [name.replace("test", "target") for name in INFLUENCE]
    for row in dicts(relation):
        assert_same(row, expected_pair(masks, train, train, row["train_id"], row["target_id"]))


def test_memorization_is_the_influence_on_oneself(asked):
    same = asked.sql(
        "SELECT count(*), bool_and(i.influence IS NOT DISTINCT FROM m.memorization AND i.lo = m.lo AND i.hi = m.hi)"
        " FROM train_influence i JOIN memorization m USING (train_id) WHERE i.train_id = i.target_id"
    ).fetchall()
    assert same == [(23, True)]


@pytest.mark.parametrize(
    "filters",
    [
        "test_id = 4", "train_id = 7", "test_id = 4 AND train_id = 7", "test_id IN (1, 5)", "train_id BETWEEN 3 AND 8",
        "same_class", "influence > 0.1", "test_id = 4 AND influence > 0", "train_label = 1 AND test_id < 3",
        "test_id IN (SELECT id FROM test_examples WHERE label = 2)", "lo > 0 OR hi < 0",
    ],
)  # fmt: skip
def test_a_filter_keeps_the_rows_it_says_and_changes_none(asked, filters):
    everything = asked.sql("FROM influence").to_arrow_table()
    import duckdb

    con = duckdb.connect()
    con.register("everything", everything)
    filters_here = filters.replace(
        "SELECT id FROM test_examples WHERE label = 2", "SELECT test_id FROM everything WHERE test_label = 2"
    )
    expected = con.sql(f"FROM everything WHERE {filters_here} ORDER BY test_id, train_id").fetchall()
    con.close()
    assert asked.sql(f"FROM influence WHERE {filters} ORDER BY test_id, train_id").fetchall() == expected


def test_influence_of_a_list_is_the_influence_of_each(asked):
    listed = asked.sql("FROM influence_of([2, 9]) ORDER BY test_id, train_id").fetchall()
    assert listed == asked.sql("FROM influence WHERE test_id IN (2, 9) ORDER BY test_id, train_id").fetchall()
    assert len(listed) == 46


@pytest.mark.parametrize("kind", ["fixed", "anytime", "selected", "simultaneous"])
@pytest.mark.parametrize("k", [1, 5, 23, 100])
def test_top_memorized_ranks_all_and_says_so_in_its_intervals(asked, kind, k):
    masks, train, _ = bits_of(asked.snapshot)
    found = dicts(asked.top_memorized(k, order="memorization", interval=kind, level=0.9))
    order = sorted(range(23), key=lambda i: (-oracle.score(*oracle.counts(masks, train, i, i)), i))
    assert [row["train_id"] for row in found] == order[:k]
    for row in found:
        counts = oracle.counts(masks, train, row["train_id"], row["train_id"])
        z = oracle.z_of(kind, 37, 0.9, n_shown=min(k, 23), n_ranked=23)
        assert (row["lo"], row["hi"]) == pytest.approx(oracle.interval(*counts, z), abs=1e-12)


def test_top_memorized_of_a_class_ranks_that_class_only(asked):
    masks, train, _ = bits_of(asked.snapshot)
    found = dicts(asked.top_memorized(4, class_name="bee"))
    assert found == dicts(asked.top_memorized(4, class_name="1"))
    assert {row["label"] for row in found} == {1}
    counts = oracle.counts(masks, train, found[0]["train_id"], found[0]["train_id"])
    z = oracle.z_of("selected", 37, 0.95, n_shown=4, n_ranked=8)  # 8 of the 23 are bees
    assert (found[0]["lo"], found[0]["hi"]) == pytest.approx(oracle.interval(*counts, z), abs=1e-12)


@pytest.mark.parametrize(
    ("question", "listed", "n_ranked"),
    [({"test_id": 4}, "train_id", 23), ({"train_id": 7}, "test_id", 11), ({"target_id": 5}, "train_id", 22)],
)
@pytest.mark.parametrize("direction", ["helps", "hurts", "both"])
def test_top_influence_ranks_the_side_that_is_not_named(asked, question, listed, n_ranked, direction):
    masks, train, test = bits_of(asked.snapshot)
    target = train if "target_id" in question else test
    (fixed, row) = next(iter(question.items()))
    found = dicts(asked.top_influence(**question, k=6, direction=direction, order="influence"))
    scores = {}
    for other in range(11 if listed == "test_id" else 23):
        i, z = (row, other) if fixed == "train_id" else (other, row)
        if not (fixed == "target_id" and i == z):  # memorization is not an influence of another example
            scores[other] = oracle.score(*oracle.counts(masks, target, i, z))
    strength = {"helps": lambda s: -s, "hurts": lambda s: s, "both": lambda s: -abs(s)}[direction]
    assert [r[listed] for r in found] == sorted(scores, key=lambda o: (strength(scores[o]), o))[:6]
    assert len(scores) == n_ranked
    for r in found:
        i, z = r["train_id"], r.get("test_id", r.get("target_id"))
        shares = {"n_shown": 6, "n_ranked": n_ranked}
        assert_same(r, expected_pair(masks, train, target, i, z, "selected", **shares))


def test_same_class_only_ranks_pairs_that_share_their_label(asked):
    found = dicts(asked.top_influence(test_id=4, k=50, same_class=True))
    assert len(found) == 8
    assert all(row["same_class"] for row in found)


def test_examples_can_be_named_by_their_keys(asked):
    by_key = asked.top_influence(train_key="train/7.png", k=3).fetchall()
    assert by_key == asked.top_influence(train_id=7, k=3).fetchall()
    assert (
        asked.score(train_key="train/7.png", test_key="4").fetchall() == asked.score(7, test_id=4).fetchall()
    )


def test_scores_of_examples_never_in_or_never_out_are_null_and_come_last(tmp_path):
    db = small_database(tmp_path / "s.zarr", outcomes=["correct"])
    infos, masks, outcomes = batch(db.store, range(12))
    masks[:, 3], masks[:, 8] = True, False
    outcomes["train/correct"][:, 3] = True
    db.store.commit(infos, masks, outcomes)
    assert dicts(db.score(3))[0]["memorization"] is None
    ranked = dicts(db.top_memorized(100))
    assert [row["train_id"] for row in ranked[-2:]] == [3, 8]
    assert all(ranked[-1][name] is None for name in ("memorization", "lo", "hi", "p_in"))
    assert ranked[-2]["p_out"] is None
    z = oracle.z_of("selected", 12, 0.95, n_shown=21, n_ranked=21)  # N counts the scores that are there
    first = ranked[0]
    counts = (first["n_in"], first["n_out"], first["k_in"], first["k_out"])
    assert (first["lo"], first["hi"]) == pytest.approx(oracle.interval(*counts, z), abs=1e-12)
    influences = dicts(db.top_influence(test_id=0, k=100))
    assert [row["train_id"] for row in influences[-2:]] == [3, 8]
    assert influences[-1]["influence"] is None


def test_the_mini_store_of_the_specification(tmp_path):
    mini = json.loads((DATA / "golden-statistics.json").read_text())["mini"]
    data = memdb.Dataset(np.arange(4), [0, 0, 1, 1], np.arange(2), [0, 1])

    def recipe(data, masks, seeds, run):
        raise NotImplementedError

    recipe.version = "1"
    db = memdb.init(str(tmp_path / "s.zarr"), data, recipe, outcomes=["correct"], seed=1)
    outcomes = {
        name: np.array(mini[name.replace("/", "_")], dtype=bool) for name in ("train/correct", "test/correct")
    }
    db.store.commit(
        [
            model(db.store, s, *rows)
            for s, rows in enumerate(
                zip(
                    np.array(mini["mask"], dtype=bool),
                    outcomes["train/correct"],
                    outcomes["test/correct"],
                    strict=True,
                )
            )
        ],
        np.array(mini["mask"], dtype=bool),
        outcomes,
    )
    found = dicts(db.sql("FROM memorization ORDER BY train_id"))
    assert [row["n_in"] for row in found] == mini["n_in"]
    assert [row["memorization"] for row in found] == pytest.approx(mini["mem"])
    pairs = dicts(db.sql("FROM influence ORDER BY train_id, test_id"))
    assert [row["influence"] for row in pairs] == pytest.approx([v for row in mini["infl"] for v in row])


def test_the_order_of_models_and_their_segments_changes_no_score(tmp_path):
    answers = []
    for sizes, order in (([30], 1), ([1, 8, 13, 8], 1), ([7, 23], -1)):
        db = small_database(tmp_path / f"{len(answers)}.zarr", outcomes=["correct"])
        seeds = list(range(30))[::order]
        for size in sizes:
            db.store.commit(*batch(db.store, seeds[:size]))
            seeds = seeds[size:]
        rows = [db.sql(f"FROM {name} ORDER BY ALL").fetchall() for name in ("influence", "memorization")]
        answers.append((rows, db.models_sha256))
    assert answers[0] == answers[1] == answers[2]


def test_counts_of_a_union_are_the_sums_of_counts(tmp_path):
    halves = []
    union = small_database(tmp_path / "u.zarr", outcomes=["correct"])
    for number in range(2):
        db = small_database(tmp_path / f"{number}.zarr", outcomes=["correct"])
        part = range(number * 20, number * 20 + 20)
        db.store.commit(*batch(db.store, part))
        union.store.commit(*batch(union.store, part))
        halves.append(
            db.sql("SELECT n_in, n_out, k_in, k_out FROM influence ORDER BY train_id, test_id").fetchall()
        )
    whole = union.sql("SELECT n_in, n_out, k_in, k_out FROM influence ORDER BY train_id, test_id").fetchall()
    assert whole == [tuple(a + b for a, b in zip(x, y, strict=True)) for x, y in zip(*halves, strict=True)]


def test_what_is_true_of_all_counts(asked):
    facts = asked.sql(
        "SELECT bool_and(n_in + n_out = 37), sum(n_in), bool_and(k_in <= n_in AND k_out <= n_out),"
        " bool_and(lo <= memorization AND memorization <= hi) FROM memorization"
    ).fetchall()
    assert facts == [(True, 37 * 16, True, True)]  # 16 = floor(.7 * 23 + .5) examples in every subset


def test_models_and_examples_are_relations(asked):
    models = dicts(asked.sql("FROM models"))
    assert [row["seed"] for row in models] == list(range(37))
    assert {row["subset_size"] for row in models} == {16}
    assert len({row["segment"] for row in models}) == 8
    train = dicts(asked.sql("FROM train_examples"))
    assert train[4]["key"] == "train/4.png"
    assert train[4]["class_name"] == "bee"
    assert [row["id"] for row in dicts(asked.sql("FROM test_examples"))] == list(range(11))


def test_a_store_without_models_says_what_to_do(tmp_path):
    db = small_database(tmp_path / "s.zarr")
    for ask in (db.top_memorized, lambda: db.top_influence(test_id=1), lambda: db.score(1)):
        with pytest.raises(NotEnoughModelsError) as caught:
            ask()
        assert "memdb train" in caught.value.hint
    (row,) = dicts(db.info())
    assert (row["n_models"], row["n_scored"], row["mean_half_width"], row["test_accuracy"]) == (
        0,
        0,
        None,
        None,
    )
    assert db.sql("SELECT count(*), count(memorization) FROM memorization").fetchall() == [(23, 0)]


def test_info_counts_what_is_there(asked):
    masks, train, _ = bits_of(asked.snapshot)
    scores = [oracle.score(*oracle.counts(masks, train, i, i)) for i in range(23)]
    z = oracle.z_of("fixed", 37, 0.9)
    widths = [oracle.interval(*oracle.counts(masks, train, i, i), z) for i in range(23)]
    (row,) = dicts(asked.info(interval="fixed", level=0.9))
    assert row["n_memorized_25"] == sum(score >= 0.25 for score in scores)
    assert row["n_memorized_50"] == sum(score >= 0.5 for score in scores)
    assert row["mean_half_width"] == pytest.approx(sum(hi - lo for lo, hi in widths) / 46, abs=1e-12)
    assert (row["n_models"], row["n_segments"], row["n_train"], row["n_test"], row["n_classes"]) == (
        37,
        8,
        23,
        11,
        3,
    )


def test_answers_are_of_the_models_that_were_there_until_refreshed(database):
    other = memdb.open(database.url)
    before = database.score(3).fetchall(), database.models_sha256
    other.train(add=5, dataset=small_dataset(), recipe=coin_recipe)
    assert (database.score(3).fetchall(), database.models_sha256) == before
    database.refresh()
    assert database.n_models == 42
    assert database.models_sha256 != before[1]


def test_answers_leave_no_threads_and_a_database_goes_with_its_bits(asked):
    import gc
    import weakref

    for _ in range(3):
        asked.top_memorized(3).fetchall()
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir())) if tasks.exists() else 0
    for _ in range(20):
        assert len(asked.top_memorized(3).fetchall()) == 3
    if before:
        assert len(list(tasks.iterdir())) <= before + 4
    other = memdb.open(asked.url)
    other.score(3)
    gone = weakref.ref(other.relations())
    del other
    gc.collect()
    assert gone() is None


def test_simultaneous_counts_the_scores_that_are_there(tmp_path):
    db = small_database(tmp_path / "s.zarr", outcomes=["correct"])
    infos, masks, outcomes = batch(db.store, range(12))
    masks[:, 3] = True
    db.store.commit(infos, masks, outcomes)
    for relation, n_ranked in (("memorization", 22), ("influence", 22 * 11), ("train_influence", 22 * 23)):
        row = dicts(db.sql(f"FROM {relation} WHERE train_id = 5 LIMIT 1", interval="simultaneous"))[0]
        counts = (row["n_in"], row["n_out"], row["k_in"], row["k_out"])
        expected = oracle.interval(*counts, oracle.z_of("simultaneous", 12, 0.95, n_ranked=n_ranked))
        assert (row["lo"], row["hi"]) == pytest.approx(expected, abs=1e-12)
