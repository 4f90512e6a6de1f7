from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest
from support.stores import coin_recipe

import memdb
from memdb import datasets
from memdb.errors import InvalidInputError, NotFoundError


def test_digits_are_those_of_scikit_learn_split_by_a_fixed_seed():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    data, bunch = datasets.load("digits"), load_digits()
    assert (len(data.train), len(data.test), data.n_classes) == (1437, 360, 10)
    rows = np.random.default_rng(0).permutation(1797)
    assert (data.train.array == (bunch.images[rows[:1437]] / 16).astype(np.float32)).all()
    assert data.test.labels.tolist() == bunch.target[rows[1437:]].tolist()
    assert data.train.keys[0] == f"digits/{rows[0]}"
    assert data.tables["train"].info("train") == datasets.load("digits").tables["train"].info("train")


def test_a_data_set_of_arrays_has_row_numbers_for_keys():
    data = memdb.Dataset(np.zeros((3, 2)), [0, 1, 0], np.zeros((2, 2)), [1, 1])
    assert data.train.keys == ["0", "1", "2"]
    assert data.train[1][1] == 1
    assert data.class_names == ()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([1, 2], [0], [1], [0]), "2 examples, 1 label and 1 key"),
        (([[1.0]], [0.5], [[1.0]], [0]), "labels of the train set are float64"),
        (([[1.0]], [-1], [[1.0]], [0]), "has the label -1"),
        (([[1.0]], [0], [[1.0]], [2**31]), "the test set has the label 2147483648"),
        (([[1.0]], [[0]], [[1.0]], [0]), r"int64 \(1, 1\)"),
        (([[1.0]], [3], [[1.0]], [0], ["a", "b"]), "label 3 has no name among the 2 class names"),
        (([], [], [1], [0]), "labels of the train set"),
    ],
)
def test_a_data_set_that_does_not_fit_together_is_refused(arguments, says):
    with pytest.raises(InvalidInputError, match=says):
        memdb.Dataset(*arguments)


def test_a_key_given_twice_is_named():
    data = memdb.Dataset([[1], [2]], [0, 0], [[1]], [0], train_keys=["ant", "ant"])
    with pytest.raises(InvalidInputError, match="2 examples have the key 'ant'"):
        _ = data.tables


def test_every_change_of_the_data_changes_its_fingerprint():
    base = {
        "train_x": np.arange(6.0).reshape(3, 2),
        "train_y": [0, 1, 0],
        "test_x": np.ones((1, 2)),
        "test_y": [0],
    }
    changes = [
        {}, {"train_x": np.arange(6.0).reshape(3, 2) + 1}, {"train_x": np.arange(6.0, dtype=np.float32).reshape(3, 2)},
        {"train_y": [0, 1, 1]}, {"train_keys": ["a", "b", "c"]}, {"train_keys": ["ab", "", "c"]},
        {"train_x": np.arange(6.0).reshape(3, 2)[::-1]},
    ]  # fmt: skip
    prints = [
        memdb.Dataset(**{**base, **change}).tables["train"].info("train").fingerprint for change in changes
    ]
    assert len(set(prints)) == len(changes)


def test_examples_may_be_read_lazily_and_hash_their_own_content():
    class Files:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full((2, 2), index)

        def content(self, index):
            return f"file {index}".encode()

    data = memdb.Dataset(Files(), [0, 1], Files(), [0, 1])
    hashes = data.tables["train"].content_sha256
    assert hashes[1].tobytes() == hashlib.sha256(b"file 1").digest()[:16]
    assert data.train.array.tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]


def test_examples_of_different_shapes_cannot_be_one_array():
    data = memdb.Dataset([np.zeros(2), np.zeros(3)], [0, 0], [np.zeros(2)], [0], train_keys=["a", "b"])
    with pytest.raises(InvalidInputError, match=r"example b has shape \(3,\), example a has \(2,\)"):
        _ = data.train.array


def write_images(root, sizes=((6, 5),)):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 255, (*sizes[number % len(sizes)], 3), dtype=np.uint8)
                image.fromarray(pixels).save(root / part / name / f"{number}.png")


def test_an_image_folder_has_its_paths_for_keys(tmp_path):
    pytest.importorskip("torchvision")
    write_images(tmp_path)
    data = datasets.load("imagefolder", str(tmp_path))
    assert data.train.keys[4] == "train/dog/1.png"
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.array.shape == (6, 6, 5, 3)
    content = (tmp_path / "train/dog/1.png").read_bytes()
    assert data.tables["train"].content_sha256[4].tobytes() == hashlib.sha256(content).digest()[:16]


def test_an_image_folder_that_lacks_a_class_or_has_a_broken_image_is_named(tmp_path):
    pytest.importorskip("torchvision")
    write_images(tmp_path)
    (tmp_path / "train/dog/1.png").write_bytes(b"no image")
    data = datasets.load("imagefolder", str(tmp_path))
    with pytest.raises(InvalidInputError, match=r"dog/1.png cannot be decoded"):
        _ = data.train.array
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "eel")
    with pytest.raises(InvalidInputError, match="only one of train/ and test/: dog, eel"):
        datasets.load("imagefolder", str(tmp_path))
    with pytest.raises(NotFoundError, match="nowhere"):
        datasets.load("imagefolder", str(tmp_path / "nowhere"))


def write_mnist(root, n_train=20, n_test=10):
    """A tiny data set in MNIST's own file format."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 255, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">iiii", 2051, n, 28, 28) + images.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, n) + labels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"x"))


def test_mnist_is_read_from_its_files_and_never_downloaded_unasked(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(NotFoundError, match=f"MNIST is not complete in {tmp_path}") as caught:
        datasets.load("mnist", str(tmp_path))
    assert "download=True" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    write_mnist(tmp_path)
    data = datasets.load("mnist", str(tmp_path))
    assert data.train.array.shape == (20, 28, 28)
    assert data.class_names[3] == "3 - three"


@pytest.mark.parametrize(
    ("name", "root", "says"),
    [
        ("cifar11", None, "unknown data set 'cifar11'"),
        ("mnist", None, "a folder that was not named"),
        ("no.such.module:make", None, "cannot be imported: ModuleNotFoundError"),
        ("test_datasets:nothing", None, "no attribute 'nothing'"),
        ("test_datasets:NOT_CALLABLE", None, "is of type int"),
        ("test_datasets:failing", "x", "failed: KeyError: 'x'"),
        ("test_datasets:wrong", None, "returned a list"),
    ],
)
def test_a_name_that_leads_to_no_data_is_explained(name, root, says):
    with pytest.raises(InvalidInputError, match=says) as caught:
        datasets.load(name, root)
    assert caught.value.hint


NOT_CALLABLE = 3


def failing(root):
    raise KeyError(root)


def wrong(root):
    return [root]


def own(root):
    return memdb.Dataset(np.zeros((4, 1)), [0, 1, 0, 1], np.zeros((2, 1)), [0, 1], ["no", root or "none"])


def test_a_callable_of_ones_own_gets_the_root():
    assert datasets.load("test_datasets:own", "here").class_names == ("no", "here")
    assert datasets.load("test_datasets:own").class_names == ("no", "none")


def test_a_data_set_without_a_test_set_trains_and_says_so(tmp_path):
    data = memdb.Dataset(np.random.default_rng(0).random((20, 4)), np.arange(20) % 2)
    assert (list(data.sets), len(data.test), data.test.array.shape) == (["train"], 0, (0, 4))
    with memdb.init(tmp_path / "s.zarr", data, coin_recipe) as db:
        db.train(6)
        assert db.n_models == 6
        assert len(db.top_influence(target_id=3, k=4).fetchall()) == 4
        assert db.sql("SELECT count(*) FROM influence").fetchall() == [(0,)]
        for ask in (
            lambda: db.top_influence(test_id=0),
            lambda: db.top_influence(train_id=0),
            lambda: db.score(0, test_id=0),
            lambda: db.pairs(top=1),
            db.class_influence,
            lambda: db.export(tmp_path / "fz.npz", "fz-classes"),
        ):
            with pytest.raises(NotFoundError, match="has no test examples"):
                ask()
        db.compact()
        db.publish(str(tmp_path / "copy"))
        assert db.verify()[0].damages == []
    with memdb.open(tmp_path / "copy") as copy:
        assert len(copy.top_memorized(k=3).fetchall()) == 3
    with pytest.raises(InvalidInputError, match="the test set has no labels"):
        memdb.Dataset(np.zeros((3, 1)), [0, 1, 0], np.zeros((2, 1)))
    with pytest.raises(InvalidInputError, match="the labels of the train set"):
        memdb.Dataset(np.zeros((0, 1)), np.zeros(0, int))
