"""Labels, keys and axes: which example is which, and what is not guessed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.held import INFL, LABELS, MEM, PLAIN, csv
from support.stores import N_TEST, N_TRAIN

from memdb.errors import InvalidInputError, MismatchError, NotFoundError

LABELLED = {
    "whole floats": {"train_labels": LABELS["train"] * 1.0, "test_labels": LABELS["test"] * 1.0},
    "names": {"trainset_labels": np.array(list("abc"))[LABELS["train"]], "testset_labels": np.array(list("abc"))[LABELS["test"]]},
    "columns": {"y_train": LABELS["train"][:, None], "y_test": LABELS["test"][:, None]},
}  # fmt: skip


@pytest.mark.parametrize("labels", LABELLED.values(), ids=LABELLED.keys())
def test_labels_come_as_people_keep_them(at, labels):
    np.savez("runs.npz", **PLAIN, **labels)
    done, db = at("runs.npz")
    assert done.notes == ()
    assert all((db.relations().labels(name) == values).all() for name, values in LABELS.items())
    assert db.relations().class_names in {(), ("a", "b", "c")}


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ({"train_labels": LABELS["train"]}, "Labels of the train set alone are not imported: give those of both sets."),
        ({"train_labels": -np.ones(N_TRAIN, int), "test_labels": -np.ones(N_TEST, int)}, None),
    ],
    ids=["one set", "minus one"],
)  # fmt: skip
def test_classes_are_known_or_not_and_questions_about_them_say_so(at, labels, note):
    np.savez("runs.npz", **PLAIN, **labels)
    done, db = at("runs.npz")
    assert done.notes == (() if note is None else (note,))
    for ask in (lambda: db.top_memorized(class_name="0"), lambda: db.pairs(top=1, same_class=True)):
        with pytest.raises(NotFoundError, match="no class is known"):
            ask()
    assert db.sql("SELECT count(same_class) FROM influence WHERE test_id = 0").fetchall() == [(0,)]


KEYS = {"train_keys": np.array([f"a{i}" for i in range(N_TRAIN)]), "test_keys": np.array([f"b{i}" for i in range(N_TEST)])}  # fmt: skip


def test_examples_may_be_named_by_their_keys_in_any_order(at, tmp_path):
    np.savez("runs.npz", **PLAIN, **KEYS)
    at("runs.npz")
    csv({"filename": KEYS["train_keys"][::-1], "memorization": MEM[::-1]}, "turned.csv")(tmp_path)
    csv({"train_key": ["a3", "a1"], "test_key": ["b2", "b0"], "influence": [0.5, -0.25]}, "few.csv")(tmp_path)
    csv({"train_key": ["a3", "nobody"], "test_key": ["b2", "b0"], "influence": [0.5, -0.25]}, "odd.csv")(
        tmp_path
    )
    at("turned.csv")
    _, db = at("few.csv")
    found = db.sql("SELECT train_id, memorization FROM turned.memorization ORDER BY 1").fetchall()
    assert found == list(enumerate(MEM.tolist()))
    pairs = "SELECT train_id, test_id, influence FROM few.influence ORDER BY 1"
    assert db.sql(pairs).fetchall() == [(1, 0, -0.25), (3, 2, 0.5)]
    with pytest.raises(MismatchError, match="train example 'nobody', and no example has that key"):
        at("odd.csv")
    csv({"train_key": ["a3", "a1", "a3"], "memorization": [0.5, 0.25, 0.4]}, "twice.csv")(tmp_path)
    with pytest.raises(InvalidInputError, match="train example 'a3' twice"):
        at("twice.csv")
    _, new = at("few.csv", "new.zarr")
    assert new.sql("SELECT key FROM train_examples ORDER BY id").fetchall() == [("a1",), ("a3",)]


@pytest.mark.parametrize("names", ["1 0 10 2 3 4 5 6 7 8 9", "k1 k0 k10 k2 k3 k4 k5 k6 k7 k8 k9"])
def test_keys_of_pairs_are_never_taken_for_places(at, names):
    np.savez("runs.npz", mask=np.eye(11, dtype=bool), train_correct=np.eye(11, dtype=bool))
    np.savez("infl.npz", train_key=names.split(), test_id=[0] * 11, infl=np.arange(11) / 20)
    at("runs.npz")
    if names.startswith("k"):
        with pytest.raises(MismatchError, match="train example 'k0', and no example has that key"):
            at("infl.npz", n_test=1)
        return
    _, db = at("infl.npz", n_test=1)
    strength = db.sql("SELECT influence FROM infl.influence ORDER BY train_id").fetchall()
    assert strength == [(n / 20,) for n in (1, 0, 3, 4, 5, 6, 7, 8, 9, 10, 2)]


def test_keys_of_a_table_decide_whatever_pandas_numbers_its_rows(at, tmp_path):
    np.savez("runs.npz", **PLAIN, **KEYS)
    at("runs.npz")
    turned = {"": np.arange(N_TRAIN), "filename": KEYS["train_keys"][::-1], "mem": MEM[::-1]}
    csv(turned, "turned.csv")(tmp_path)
    done, db = at("turned.csv")
    assert done.notes == ()
    found = db.sql("SELECT memorization FROM turned.memorization ORDER BY train_id").fetchall()
    assert [m for (m,) in found] == MEM.tolist()


def test_numbers_that_are_keys_are_read_as_text(at, tmp_path):
    (tmp_path / "keyed.csv").write_text("filename,mem\n002,0.2\n000,0.0\n001,0.1\n")
    _, db = at("keyed.csv")
    assert db.sql("SELECT key FROM train_examples ORDER BY id").fetchall() == [("002",), ("000",), ("001",)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mem,mem\n0.1,0.5\n0.2,0.6\n", "mem is there twice"),
        ("id,mem_std\n0,0.1\n1,0.2\n", "none of the formats"),
    ],
)
def test_columns_that_may_be_other_scores_are_not_taken_for_them(at, tmp_path, text, said):
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        at("odd.csv")


def test_labels_that_are_fractions_are_said_to_be_not_read(at, tmp_path):
    (tmp_path / "odd.csv").write_text("label,mem\n0.5,0.1\n1,0.2\n")
    assert at("odd.csv")[0].notes == ("Not read: label.",)


@pytest.mark.parametrize("label", [1e308, np.uint64(2**63 + 5), 2**31])
def test_a_label_without_a_place_in_an_integer_is_not_another_one(at, label):
    labels = np.full(N_TRAIN, label)
    np.savez("huge.npz", **PLAIN, train_labels=labels, test_labels=LABELS["test"])
    with pytest.raises(InvalidInputError, match=re.escape(f"huge.npz: train_labels holds {labels[0]}")):
        at("huge.npz")


def test_the_axes_of_matrices_by_class_are_told_from_all_classes_at_once(at):
    lists = {"tr_classidx_0": [0, 1, 2], "tt_classidx_0": [0, 1], "tr_classidx_1": [3, 4], "tt_classidx_1": [2, 3]}  # fmt: skip
    square = np.array([[0.1, 0.2], [0.3, 0.4]])
    np.savez("infl.npz", infl_matrix_class0=np.zeros((2, 3)), infl_matrix_class1=square, **lists)
    _, db = at("infl.npz")
    pair = "SELECT influence FROM influence WHERE train_id = 4 AND test_id = 2"
    assert db.sql(pair).fetchall() == [(0.2,)]


def test_labels_that_are_names_are_compared_as_names(at):
    """A file numbers them by the alphabet, or by its own list of classes, and a store may do so otherwise."""
    labels = {"train_labels": np.arange(N_TRAIN) % 2, "test_labels": np.arange(N_TEST) % 2}
    names = np.array(["dog", "cat"])
    np.savez("runs.npz", **PLAIN, **labels, class_names=names)
    np.savez("same.npz", influence=INFL, **{name: names[rows] for name, rows in labels.items()})
    np.savez("other.npz", influence=INFL, **{name: names[1 - rows] for name, rows in labels.items()})
    at("runs.npz")
    at("same.npz")
    with pytest.raises(MismatchError, match="test example 0 the label 'cat', .* 'dog'"):
        at("other.npz")
    np.savez("own.npz", influence=INFL, **{n: names[rows] for n, rows in labels.items()}, class_names=names)
    done, db = at("own.npz", "own.zarr")
    assert done.notes == ()
    found = db.sql("SELECT label, class_name FROM train_examples ORDER BY id LIMIT 2").fetchall()
    assert found == [(0, "dog"), (1, "cat")]


def test_sizes_that_are_known_say_which_axis_is_which(at):
    np.savez("infl.npz", influence=INFL.T)
    np.savez("runs.npz", **PLAIN)
    at("runs.npz", "known.zarr")
    for store, sizes in (("said.zarr", {"n_train": N_TRAIN, "n_test": N_TEST}), ("known.zarr", {})):
        done, db = at("infl.npz", store, **sizes)
        assert done.notes == ("The influence of infl.npz is [train, test].",)
        one = "SELECT influence FROM infl.influence WHERE train_id = 7 AND test_id = 2"
        assert db.sql(one).fetchall() == [(INFL[2, 7],)]
    with pytest.raises(InvalidInputError, match=r"is of 11 train examples, not of 50"):
        at("infl.npz", "other.zarr", n_train=50)


def test_of_a_matrix_with_too_many_pairs_the_strongest_come_in(at, monkeypatch):
    from memdb.interop import matrices

    monkeypatch.setattr(matrices, "MOST_PAIRS", 50)
    monkeypatch.setattr(matrices, "BAND_BYTES", 500)
    np.savez("infl.npz", influence=INFL)
    done, db = at("infl.npz")
    strongest = sorted(np.abs(INFL).ravel())[-50:]
    found = sorted(abs(i) for (i,) in db.sql("SELECT influence FROM influence").fetchall())
    assert found == strongest
    assert done.notes[1].startswith("infl.npz: influence holds 253 pairs. Only the 50 strongest are imported")
    np.savez("ones.npz", influence=np.ones((N_TEST, N_TRAIN)))
    with pytest.raises(InvalidInputError, match="253 of them 1 or -1, and a score table at most 50"):
        at("ones.npz", "ones.zarr")


def test_a_table_without_a_header_is_told_apart(at, tmp_path):
    (tmp_path / "influence.csv").write_text("0.1,0.2\n0.3,0.4\n")
    with pytest.raises(InvalidInputError, match="holds numbers, and no names of columns"):
        at("influence.csv")
