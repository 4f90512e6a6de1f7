"""Small pictures of the examples, in published copies whose owner includes them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil

import numpy as np
import pytest
from support.stores import coin_recipe, dicts
from support.storing import resealed

import memdb
from memdb.datasets import Dataset, ImageFiles
from memdb.errors import DamagedError, InvalidInputError, MismatchError, NotFoundError
from memdb.format import layout
from memdb.format.documents import canonical_json, group_metadata, sealed
from memdb.sharing import pictures as sharing_pictures
from memdb.sharing import thumbnails
from memdb.sharing.thumbnails import Words, appearances_of
from memdb.store import thumbnails as store_thumbnails
from memdb.store.published_sheets import PublishedSheets

N_TRAIN, N_TEST = 23, 11
FIRST = {"sheets": "0.png", "thumbnails": "c.0.0.0.0"}  # the first object of a set


def pictures(train_x, test_x=None):
    test_x = train_x[: len(train_x) // 2] if test_x is None else test_x
    return Dataset(train_x, np.arange(len(train_x)) % 3, test_x, np.arange(len(test_x)) % 3)


def rgb(n=N_TRAIN, height=9, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def shown(data, name=layout.TRAIN):
    those = appearances_of(data)[name]
    found = np.concatenate([those.rows(0, 3), those.rows(3, those.shape[0])])
    assert found.shape == those.shape
    return found


def test_bytes_of_small_pictures_are_what_they_are():
    x = rgb()
    assert (shown(pictures(x)) == x).all()
    assert (shown(pictures(x[..., 0]))[..., 0] == x[..., 0]).all()
    assert (shown(pictures(np.moveaxis(x, 3, 1))) == x).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint16])
def test_other_numbers_are_stretched_from_black_to_white_alike_in_both_sets(dtype):
    x = np.linspace(-3, 7, 23 * 8 * 8).reshape(23, 8, 8).astype(dtype)
    both = pictures(x, x[:11])
    found = shown(both)
    assert (found.min(), found.max()) == (0, 255)
    assert (shown(both, layout.TEST) == found[:11]).all()
    flat = found[..., 0].ravel().astype(int)
    assert (np.diff(flat[np.argsort(x.ravel(), kind="stable")]) >= 0).all()


def test_what_is_no_number_is_black_and_a_blank_set_is_blank():
    x = np.ones((4, 5, 5))
    x[0, 0, 0] = np.nan
    x[1, 0, 0] = 0
    assert shown(pictures(x))[0, 0, 0, 0] == 0
    assert shown(pictures(np.full((4, 5, 5), 300.0))).std() == 0


def test_large_pictures_keep_their_shape_and_colours():
    x = np.zeros((4, 200, 100, 3), dtype=np.uint8)
    x[:, :100, :, 0] = 200
    found = shown(pictures(x))
    assert found.shape == (4, 64, 32, 3)
    assert (found[:, 2, 5] == [200, 0, 0]).all()
    assert (found[:, 60, 5] == 0).all()


def test_image_files_of_any_size_are_fitted_into_a_square(tmp_path):
    from PIL import Image

    paths = []
    for n, size in enumerate([(200, 100), (10, 30), (64, 64)]):
        paths.append(tmp_path / f"{n}.png")
        Image.new("RGB", size, (9, 99, 199)).save(paths[-1])
    found = shown(pictures(ImageFiles(paths), ImageFiles(paths[:1])))
    assert found.shape == (3, 64, 64, 3)
    inside = (found == [9, 99, 199]).all(axis=3)
    assert [(int(flags.any(1).sum()), int(flags.any(0).sum())) for flags in inside] == [
        (32, 64), (30, 10), (64, 64),
    ]  # fmt: skip
    assert (found[~inside] == 0).all()


@pytest.mark.parametrize("shape", [(4,), (4, 5, 6), (2, 5, 6, 3), (0, 6)])
def test_what_is_no_picture_is_shown_as_words(shape):
    found = appearances_of(pictures(np.zeros((8, *shape))))["test"]
    assert isinstance(found, Words)
    assert all(found.chosen([3, 0]))


def test_one_that_is_no_picture_among_pictures_is_named():
    x = [np.zeros((5, 5)), np.zeros((5, 5)), np.zeros(7)]
    with pytest.raises(InvalidInputError, match=r"example 2 has shape \(7,\), which is not a picture"):
        appearances_of(pictures(x, x[:2]))


@pytest.mark.parametrize(
    ("sides", "expected"), [([(32, 32)] * 3, (32, 32)), ([(9, 40), (30, 12), (5, 5)], (30, 40))]
)
def test_files_are_as_large_as_the_largest_of_them(tmp_path, sides, expected):
    from PIL import Image

    paths = [tmp_path / f"{n}.png" for n in range(len(sides))]
    for path, (height, width) in zip(paths, sides, strict=True):
        Image.new("RGB", (width, height), (9, 99, 199)).save(path)
    assert shown(pictures(ImageFiles(paths), ImageFiles(paths[:1]))).shape == (3, *expected, 3)


@pytest.fixture(scope="module")
def data():
    """Grey pictures, which sheets keep as they are."""
    return pictures(rgb()[..., :1], rgb(N_TEST, seed=1)[..., :1])


@pytest.fixture(scope="module")
def database(data, tmp_path_factory):
    """A store of pictures; look, do not touch."""
    db = memdb.init(str(tmp_path_factory.mktemp("pictures") / "s.zarr"), data, coin_recipe, seed=3)
    db.train(seeds=range(5))
    return db


@pytest.fixture(scope="module", params=["sheets", "thumbnails"])
def form(request):
    """The folder that pictures are written to: with Pillow, and without it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "thumbnails":
            for module in (sharing_pictures, store_thumbnails):
                patch.setattr(module, "has_pillow", lambda: False)
        yield request.param


@pytest.fixture(scope="module")
def published(database, form, tmp_path_factory):
    """A copy of it with its pictures; look, do not touch."""
    dest = tmp_path_factory.mktemp("published") / "copy"
    database.publish(str(dest), include=("bits", "thumbnails"))
    return dest


@pytest.fixture
def copy(published, tmp_path):
    """The same, to do with as one likes."""
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_read_by_their_rows(copy, data, form):
    with memdb.open(str(copy)) as db:
        assert (db.thumbnails("train", [3, 22, 3]) == data.train.x[[3, 22, 3]]).all()
        assert (db.thumbnails("test", range(N_TEST)) == data.test.x).all()
        assert db.thumbnails("test", []).shape == (0, 9, 7, 1)
        with pytest.raises(NotFoundError, match="no test example 11"):
            db.thumbnails("test", [11])
    assert f"{form}/" in (copy / layout.README).read_text()


def test_pictures_are_planned_made_once_and_kept(database, copy, tmp_path, monkeypatch):
    plan = database.plan_publication(str(tmp_path / "other"), include=("bits", "thumbnails"))
    assert 0 < next(part.size for part in plan.parts if part.name == "thumbnails") <= 34 * 9 * 7
    assert not (tmp_path / "other").exists()
    before = files_of(copy)
    for name in ("rows", "chosen"):
        monkeypatch.setattr(thumbnails.Thumbnails, name, lambda *_: pytest.fail("made again"))
    database.publish(str(copy), include=("bits", "thumbnails"))
    database.publish(str(copy), include=("bits",))
    assert files_of(copy) == before


def test_a_publication_cut_off_in_its_pictures_goes_on(database, copy, form):
    whole = files_of(copy)
    for name in ("published.json", f"{form}/zarr.json", f"{form}/test/{FIRST[form]}"):
        (copy / name).unlink()
    database.publish(str(copy), include=("bits", "thumbnails"))
    assert files_of(copy) == whole


def test_a_copy_with_pictures_is_pulled_and_verified_with_them(copy, form, tmp_path):
    memdb.pull(str(copy), str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(copy)
    assert memdb.open(str(copy)).verify()[0].damages == []
    path = copy / form / "train" / FIRST[form]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert [damage.kind for damage in memdb.open(str(copy)).verify()[0].damages] == [form]
    with pytest.raises(DamagedError, match=f"{form}/train/{FIRST[form]}"):
        memdb.open(str(copy), cache=None).thumbnails("train", [3])


def test_without_pictures_the_owner_is_told_how_to_add_them(database, tmp_path):
    database.publish(str(tmp_path / "copy"))
    for url in (database.url, str(tmp_path / "copy")):
        with pytest.raises(NotFoundError, match="no pictures of its examples") as error:
            memdb.open(url).thumbnails("train", [0])
        assert "--include thumbnails" in error.value.hint


def test_pictures_of_other_examples_are_refused_before_anything_is_written(
    database, tmp_path, data, monkeypatch
):
    with memdb.open(database.url) as stranger, pytest.raises(InvalidInputError, match="arrays in memory"):
        stranger.publish(str(tmp_path / "copy"), include=("bits", "thumbnails"))
    monkeypatch.setattr(database, "_dataset", pictures(rgb(seed=5), data.test.x))
    with pytest.raises(MismatchError, match="fingerprint"):
        database.publish(str(tmp_path / "copy"), include=("bits", "thumbnails"))
    assert not (tmp_path / "copy").exists()


def test_words_of_a_copy_are_shown_as_words(tmp_path, monkeypatch):
    texts = [f"text {row} <b>\u2028\u05d0" + "x" * (row * 200) for row in range(N_TRAIN)]
    data = pictures(texts, texts[:N_TEST])
    with memdb.init(str(tmp_path / "store"), data, coin_recipe, seed=3) as db:
        db.train(seeds=range(5))
        monkeypatch.setattr(sharing_pictures, "has_pillow", lambda: False)  # which words do not need
        db.publish(str(tmp_path / "copy"), include=("bits", "thumbnails"))
        assert db.publish(str(tmp_path / "copy"), include=("bits", "thumbnails")).n_written == 0
    with memdb.open(str(tmp_path / "copy")) as copy:
        shown = copy.contents()
        for row in (0, 1, N_TRAIN - 1):
            assert shown("train", row) == (texts[row] if row < 2 else f"{texts[row][:299]}\u2026")
        with pytest.raises(NotFoundError, match="words"):
            copy.thumbnails("train", [0])
        assert copy.verify()[0].damages == []
    (tmp_path / "copy/sheets/train/0.json").write_text('["one"]')
    listed_anew(tmp_path / "copy", "sheets", lambda document: document["objects"].update(
        {"train/0.json": [7, hashlib.sha256(b'["one"]').hexdigest()]}
    ))  # fmt: skip
    with (
        memdb.open(str(tmp_path / "copy"), cache=None) as copy,
        pytest.raises(DamagedError, match="of words"),
    ):
        copy.contents()("train", 0)
    with (
        memdb.open(str(tmp_path / "copy"), cache=None) as copy,
        pytest.raises(DamagedError, match="of words"),
    ):
        copy.report(tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_nothing_that_a_copy_names_is_loaded_for_its_pictures(database, tmp_path):
    database.publish(str(tmp_path / "copy"))
    with memdb.open(str(tmp_path / "copy")) as db, pytest.raises(InvalidInputError, match="published copy"):
        db.publish(str(tmp_path / "again"), include=("bits", "thumbnails"))


TRICKS = {
    "a side of a million": lambda found: found["shape"].__setitem__(1, 10**6),
    "five channels": lambda found: found["shape"].__setitem__(3, 5),
    "other examples": lambda found: found["shape"].__setitem__(0, 10**9),
    "a chunk of the world": lambda found: found["chunk_grid"]["configuration"]["chunk_shape"].__setitem__(
        0, 10**9
    ),
    "no chunks": lambda found: found.pop("chunk_grid"),
}


def listed_anew(copy, form, change, data=b""):
    """Change the document that lists a copy's pictures, and what names it."""
    path = copy / form / "zarr.json"
    document = json.loads(path.read_text())["attributes"]["memdb"]
    change(document)
    data = group_metadata(sealed(document))
    path.write_bytes(data)
    root = json.loads((copy / layout.PUBLISHED).read_text())
    root[form] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / layout.PUBLISHED).write_bytes(resealed(root))


@pytest.mark.parametrize("form", ["thumbnails"], indirect=True)
@pytest.mark.parametrize("change", TRICKS.values(), ids=TRICKS)
def test_pictures_that_cannot_be_are_refused_before_memory_is_taken(copy, form, change):
    listed_anew(copy, form, lambda document: change(document["metadata"]["train"]))
    with (
        memdb.open(str(copy), cache=None) as db,
        pytest.raises(DamagedError, match="not an array of pictures"),
    ):
        db.thumbnails("train", [0])


def png(width, height):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["sheets"], indirect=True)
@pytest.mark.parametrize("sheet", [b"<html>", png(56, 71), png(20_000, 20_000), png(56, 72)[:-30]], ids=len)
def test_what_is_no_sheet_is_refused(copy, form, sheet):
    (copy / form / "train" / "0.png").write_bytes(sheet)
    info = [len(sheet), hashlib.sha256(sheet).hexdigest()]
    listed_anew(copy, form, lambda document: document["objects"].update({"train/0.png": info}))
    with (
        memdb.open(str(copy), cache=None) as db,
        pytest.raises(DamagedError, match="not a sheet of pictures"),
    ):
        db.thumbnails("train", [0])


@pytest.mark.parametrize("form", ["sheets"], indirect=True)
@pytest.mark.parametrize("height", [0, 257, 10**9, "9", None])
def test_sheets_of_no_size_are_refused(copy, form, height):
    path = copy / form / "train" / "order" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["height"] = height
    data = canonical_json(metadata)
    path.write_bytes(data)

    def change(document):
        document["metadata"]["train/order"] = metadata
        document["objects"]["train/order/zarr.json"] = [len(data), hashlib.sha256(data).hexdigest()]

    listed_anew(copy, form, change)
    with memdb.open(str(copy), cache=None) as db, pytest.raises(DamagedError, match="no size"):
        db.thumbnails("train", [0])


@pytest.mark.parametrize("form", ["sheets"], indirect=True)
def test_colours_are_close_to_what_they_are(form, tmp_path):
    x = np.broadcast_to(
        np.random.default_rng(1).integers(0, 256, (70, 1, 1, 3), dtype=np.uint8), (70, 9, 7, 3)
    )
    with memdb.init(str(tmp_path / "s.zarr"), pictures(x), coin_recipe, seed=3) as db:
        db.train(seeds=range(5))
        db.publish(str(tmp_path / "copy"), include=("bits", "thumbnails"))
        ranks = [row["train_id"] for row in dicts(db.top_memorized(k=70))]
    with memdb.open(str(tmp_path / "copy"), cache=None) as copy:
        found = copy.thumbnails("train", range(70)).astype(int)
        assert np.abs(found - x)[:, 1:, 1:].max() <= 6  # at the edges decoders smooth what neighbours share
        sheets = PublishedSheets.of(copy.store, "train")
        assert sheets.order.tolist() == ranks  # a first screen takes one of them
        assert len(sheets.objects) == 2
