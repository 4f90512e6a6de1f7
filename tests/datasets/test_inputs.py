"""Examples of every kind have hashes that are found again, or are refused with what to write instead."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import re

import numpy as np
import pytest

import memdb
from memdb.errors import InvalidInputError

pd = pytest.importorskip("pandas")
LABELS = [row % 2 for row in range(6)]
TEXTS = [f"review number {row}" for row in range(6)]
TOKENS = [list(range(row + 1)) for row in range(6)]


def dataset(x, labels=LABELS):
    return memdb.Dataset(x[:4], labels[:4], x[4:], labels[4:])


def hashed(x):
    return dataset(x).tables["train"].content_sha256.tobytes()


def objects(values):
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


@pytest.mark.parametrize(
    "x",
    [
        TEXTS, np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS, dtype="string"), pd.Series(TEXTS),
        pd.Series(TEXTS, dtype="category"), tuple(TEXTS),
    ],
)  # fmt: skip
def test_text_has_one_hash_whatever_holds_it(x):
    assert hashed(x) == hashed(TEXTS)
    expected = np.array(TEXTS[1])
    content = f"{expected.dtype.str}(1,)".encode() + expected.tobytes()
    assert hashed(x)[16:32] == hashlib.sha256(content).digest()[:16]


@pytest.mark.parametrize("x", [TOKENS, [np.array(row) for row in TOKENS], objects(TOKENS)])
def test_lists_of_token_ids_have_one_hash_and_may_differ_in_length(x):
    assert hashed(x) == hashed(TOKENS)


def test_what_was_hashed_before_has_the_same_hash_still():
    """Golden, of the first version: stores of numbers and dates can be trained again."""
    days = np.arange("2020-01", "2020-07", dtype="datetime64[M]").astype("datetime64[s]")
    known = {
        "floats": (np.arange(12.0).reshape(6, 2), "c00e74358f0baa34"),
        "bytes": (np.arange(24, dtype=np.uint8).reshape(6, 2, 2), "55b1318f3881ff4a"),
        "big-endian": (np.arange(6, dtype=">i2"), "d95111d100f35507"),
        "frame": (pd.DataFrame({"a": range(6), "b": np.arange(6) / 2}), "bc45042f1c77b1b9"),
        "dates": (days, "8ff92b597f2b3d59"),
        "text": (TEXTS, "fa1ebd5f8572a102"),
        "lists": ([[row, 1] for row in range(6)], "50915e45b861f4ba"),
    }
    found = {name: hashlib.sha256(hashed(x)).hexdigest()[:16] for name, (x, _) in known.items()}
    assert found == {name: digest for name, (_, digest) in known.items()}


class Pair:
    """A map-style data set as PyTorch has them."""

    def __init__(self, start, length, draw=None):
        self.start, self.length, self.draw = start, length, draw

    def __len__(self):
        return self.length

    def __getitem__(self, row):
        chance = 0.0 if self.draw is None else self.draw.random()
        return np.full((2, 2), float(self.start + row) + chance), row % 2


class Table(Pair):
    """As much of a Hugging Face data set as is looked at."""

    column_names, features = ["idx", "sentence", "label"], {}


@pytest.mark.parametrize(
    ("x", "says", "way"),
    [
        ([{"ids": [row]} for row in range(6)], "example 0 of the train set is {'ids': .*, of type dict", "item['ids']"),
        ([*TEXTS[:3], None, *TEXTS[4:]], "example 3 of the train set is None", "fillna"),
        (pd.Series([*TEXTS[:2], None, *TEXTS[3:]], dtype="string"), "example 2 .* is <NA>", "fillna"),
        ([dt.date(2020, 1, row + 1) for row in range(6)], "of type date", "datetime64[s]"),
        (pd.Series(pd.date_range("2020", periods=6, tz="UTC")), "of type Timestamp", "datetime64[s]"),
        ([decimal.Decimal(row) for row in range(6)], "of type Decimal", "content(i)"),
        ([[[1], [2, 3]]] * 6, "cannot be made an array: setting an array element", "content(i)"),
        ([(np.zeros((2, 2)), 1)] * 6, "example 0 of the train set is a pair", "memdb.Dataset.from_pairs(train, test)"),
        (np.array([[1, "a"], [2, "b"]] * 3, dtype=object), r"an array \(4, 2\) of Python objects", "x.astype(float)"),
        (pd.DataFrame({"age": range(6), "job": TEXTS}), r"columns that are no numbers: job \(", "get_dummies"),
        (pd.DataFrame({"text": TEXTS}), r"columns that are no numbers: text \(", "frame['text']"),
        (pd.DataFrame({"a": range(6), "b": [True] * 6}), r"b \(bool\)", "get_dummies"),
        (np.ma.masked_equal(np.arange(6), 1), "the train set is partly masked", "x.filled(0)"),
        (np.arange(6, dtype=np.longdouble), "the train set is of dtype", "x.astype(float)"),
        (np.zeros(6, dtype=[("a", "u1"), ("b", "f8")]), "the train set is of dtype", "structured_to_unstructured"),
        (pd.DataFrame({"a": range(6), "b": pd.date_range("2020", periods=6)}), r"b \(datetime64", "get_dummies"),
    ],
)  # fmt: skip
def test_examples_without_bytes_of_their_own_are_refused_with_what_to_write(x, says, way):
    with pytest.raises(InvalidInputError, match=says) as caught:
        dataset(x)
    assert way in caught.value.hint
    assert "\n" not in f"{caught.value}{caught.value.hint}"


def test_a_sparse_matrix_is_refused_with_what_to_write():
    sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(InvalidInputError, match="the train set is a sparse csr_array") as caught:
        dataset(sparse.csr_array(np.eye(6)))
    assert "x.toarray()" in caught.value.hint


@pytest.mark.parametrize(
    ("x", "says"),
    [
        ({"a": [1]}, "of type dict"),
        (iter(TEXTS), "of type list_iterator"),
        ({1, 2}, "of type set"),
        ("reviews.csv", "of type str"),
        (np.float64(3), "of type float64"),
        (3, "of type int"),
    ],
)
def test_what_is_no_sequence_of_examples_is_named(x, says):
    with pytest.raises(InvalidInputError, match=f"the examples of the train set are {says}, not an array"):
        memdb.Dataset(x, [0], [1], [0])


def test_an_object_that_appears_later_is_refused_when_it_is_hashed():
    class Late:
        def __len__(self):
            return 20

        def __getitem__(self, row):
            return row if row < 15 else {"row": row}

    data = memdb.Dataset(Late(), [0] * 20, [1], [0])
    with pytest.raises(InvalidInputError, match="example 15 of the train set is {'row': 15}"):
        _ = data.tables


def test_pairs_are_taken_by_a_way_of_their_own():
    with pytest.raises(InvalidInputError, match="is a pair, as PyTorch data sets have them") as caught:
        memdb.Dataset(Pair(0, 4), LABELS[:4], Pair(4, 2), LABELS[4:])
    assert caught.value.hint == "write memdb.Dataset.from_pairs(train, test)"
    data = memdb.Dataset.from_pairs(Pair(0, 4), Pair(4, 2), ["no", "yes"])
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    images = np.stack([np.full((2, 2), float(row)) for row in range(6)])
    same = memdb.Dataset(images[:4], LABELS[:4], images[4:], LABELS[4:], ["no", "yes"])
    assert [t.info("x").fingerprint for t in data.tables.values()] == [
        t.info("x").fingerprint for t in same.tables.values()
    ]


@pytest.mark.parametrize(
    ("label", "said"), [("a", "<U"), (0.5, "float64"), (float("inf"), "float64"), ((0, 1), "int64 (2, 2)"), (-1, "-1")]
)  # fmt: skip
def test_labels_of_pairs_are_whole_numbers(label, said):
    with pytest.raises(InvalidInputError, match=re.escape(said)):
        memdb.Dataset.from_pairs([(0.0, label), (1.0, label)])
    assert memdb.Dataset.from_pairs([(0.0, np.float32(1)), (1.0, "0")]).train.labels.tolist() == [1, 0]


def test_examples_that_change_whenever_they_are_read_are_refused():
    data = memdb.Dataset.from_pairs(Pair(0, 4, np.random.default_rng(0)), Pair(4, 2))
    with pytest.raises(
        InvalidInputError, match="example 0 of the train set is another one each time"
    ) as caught:
        _ = data.tables
    assert "random transforms" in caught.value.hint


def test_a_table_with_columns_is_told_to_name_them():
    with pytest.raises(InvalidInputError, match="a table with the columns idx, sentence, label") as caught:
        memdb.Dataset(Table(0, 4), LABELS[:4], Table(4, 2), LABELS[4:])
    assert caught.value.hint == (
        'write memdb.Dataset(train["idx"], train["label"], test["idx"], test["label"])'
    )


@pytest.mark.parametrize(
    ("labels", "says", "way"),
    [
        ("fraud", "are 'fraud'", "train.drop(columns='fraud'), train['fraud']"),
        (["no", "yes"] * 3, "are <U3", "numpy.unique(labels, return_inverse=True)"),
        (pd.Series(["no", "yes"] * 3, dtype="category"), "are object", "numpy.unique"),
        ([0.0, 1.0] * 3, "are float64", "labels.astype(int)"),
        (np.array([False, True] * 3), "are bool", "labels.astype(int)"),
        ([0.5] * 6, "are float64", "give integers"),
    ],
)
def test_labels_that_are_no_integers_are_told_how_to_become_some(labels, says, way):
    with pytest.raises(InvalidInputError, match=f"the labels of the train set {says}") as caught:
        memdb.Dataset(np.zeros((6, 1)), labels, np.zeros((6, 1)), labels)
    assert way in caught.value.hint


def test_the_index_of_a_data_frame_does_not_matter():
    frame = pd.DataFrame({"amount": np.arange(9.0), "hour": range(9), "y": [0, 1, 0] * 3})
    late = frame.set_index(np.arange(100, 109))
    columns = ["amount", "hour"]
    one, other = (
        memdb.Dataset(part[columns][:6], part.y[:6], part[columns][6:], part.y[6:]) for part in (frame, late)
    )
    assert one.tables["test"].info("test") == other.tables["test"].info("test")
    assert one.test.labels.tolist() == [0, 1, 0]
    with pytest.raises(InvalidInputError, match="the train set has the key 100, which is not text") as caught:
        memdb.Dataset(late[columns], late.y, late[columns], late.y, train_keys=late.index)
    assert "str(key) for key in keys" in caught.value.hint


def test_a_recipe_for_numbers_says_that_text_is_none(tmp_path):
    pytest.importorskip("sklearn")
    with (
        memdb.init(
            str(tmp_path / "s.zarr"), dataset(TEXTS), "sklearn:sklearn.tree.DecisionTreeClassifier"
        ) as db,
        pytest.raises(InvalidInputError, match="takes numbers; the train set is text") as caught,
    ):
        db.train(add=1)
    assert "data.train.x" in caught.value.hint
    assert dataset(TEXTS).train.array.tolist() == TEXTS[:4]  # for a custom recipe
