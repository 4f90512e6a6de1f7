"""Answers name examples by key and class, and results in Python say what they are of."""

from support.stores import dicts

FACTS = {"outcome": "correct", "level": 0.9, "interval": "anytime"}


def facts_of(relation):
    return [{name: row[name] for name in (*FACTS, "n_models")} for row in dicts(relation)]


def test_lists_name_the_listed_example(asked):
    examples = {row["id"]: row for row in dicts(asked.sql("FROM train_examples"))}
    tests = {row["id"]: row for row in dicts(asked.sql("FROM test_examples"))}
    lists = [
        (asked.top_memorized(5), "train_id", examples),
        (asked.top_influence(test_id=3, k=5), "train_id", examples),
        (asked.top_influence(target_id=3, k=5), "train_id", examples),
        (asked.top_influence(train_id=3, k=5), "test_id", tests),
    ]
    for rows, listed, known in lists:
        for row in dicts(rows):
            example = known[row[listed]]
            assert (row["key"], row["class_name"]) == (example["key"], example["class_name"])


def test_a_score_names_both_examples(asked):
    (row,) = dicts(asked.score(train_id=2, test_id=3))
    named = dicts(asked.sql("SELECT key, class_name FROM train_examples WHERE id = 2"))
    named += dicts(asked.sql("SELECT key, class_name FROM test_examples WHERE id = 3"))
    assert [row["key"], row["class_name"]] == list(named[0].values())
    assert [row["test_key"], row["test_class_name"]] == list(named[1].values())
    (row,) = dicts(asked.score(train_id=2, target_id=4))
    assert row["target_key"] == dicts(asked.sql("SELECT key FROM train_examples WHERE id = 4"))[0]["key"]


def test_results_in_python_say_what_they_are_of(asked):
    chosen = {"level": 0.9, "interval": "anytime"}
    for rows in (
        asked.top_memorized(3, **chosen),
        asked.top_influence(test_id=3, k=3, **chosen),
        asked.score(train_id=2, **chosen),
        asked.memorization(**chosen),
        asked.influence(test_id=3, **chosen),
        asked.pairs(top=2, **chosen),
        asked.plan(0.1, **chosen),
    ):
        for facts in facts_of(rows):
            assert facts == {**FACTS, "n_models": asked.n_models}
