"""Stores of strangers: every read has a bound before it starts, and ends in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import shutil

import pytest
from support.stores import small_database

import memdb
from memdb.errors import DamagedError, InvalidInputError, WrongFormatError
from memdb.format import documents
from memdb.format.documents import MAX_DOCUMENT, canonical_json, group_metadata, sealed


@pytest.fixture(scope="module")
def copy_of_all(trained, tmp_path_factory):
    """The folder of a published copy; look, do not touch."""
    place = tmp_path_factory.mktemp("copies") / "copy"
    with memdb.open(str(trained)) as db:
        db.publish(str(place))
    return place


@pytest.fixture
def copy(copy_of_all, tmp_path):
    """A published copy to do with as one likes."""
    return shutil.copytree(copy_of_all, tmp_path / "copy")


JSON = {
    "nested deep": b"[" * 100_000 + b"]" * 100_000,
    "nested some": b"[" * 900 + b"]" * 900,
    "a number of 10,000 digits": b"9" * 10_000,
    "NaN": b"NaN",
    "infinite": b"-Infinity",
    "1e999": b"1e999",
    "half a surrogate pair": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "UTF-16": "{}".encode("utf-16"),
    "a key twice": b'1,"format":1',
    "nothing": b"",
}


@pytest.mark.parametrize("value", JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["published.json", "zarr.json", "snapshots/1.json"])
def test_json_that_is_none_is_refused_in_a_sentence(copy, name, value):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data.replace(b'"format":1', b'"format":' + value, 1))
    with pytest.raises((WrongFormatError, DamagedError), match=name):
        memdb.open(str(copy)).info()


def test_a_document_has_a_bound(copy, peak):
    with (copy / "published.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: nothing is written
    with pytest.raises(
        DamagedError, match="published.json has more than the 16,777,216 bytes that it may have"
    ):
        memdb.open(str(copy))
    assert peak() < 4 * MAX_DOCUMENT


def test_a_snapshot_of_a_hundred_thousand_models_is_read(copy):
    document = json.loads((copy / "snapshots/1.json").read_bytes())
    document["segments"] = [f"20260101T{n:09d}Z-{n:012x}" for n in range(100_000)]
    document["retracted"] = [f"{n:032x}" for n in range(100_000)]
    data = canonical_json(sealed(document))
    assert len(documents.parse_plain_document(data, "here")["segments"]) == 100_000
    assert len(data) < MAX_DOCUMENT / 2


def resealed(root, *, blocks=None, published=True, **changes):
    """Change the snapshot of a copy by functions of its document, and seal it as its owner can."""
    path = root / "snapshots/1.json"
    document = json.loads(path.read_bytes())
    for change in changes.values():
        change(document)
    data = canonical_json(sealed(document))
    path.write_bytes(data)
    root_document = json.loads((root / "published.json").read_bytes())
    root_document["snapshot"] |= {
        "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "n_models": document["n_models"]
    }  # fmt: skip
    (root / "published.json").write_bytes(canonical_json(sealed(root_document)))


CLAIMS = {
    "models without end": (lambda d: d.update(n_models=10**18), "counts 1,000,000,000,000,000,000 models"),
    "models beyond any number": (lambda d: d.update(n_models=10**30), r"n_models is 1000"),
    "a block of many": (lambda d: d["blocks"][0].update(n_models=2**20), "1,048,576 models in the"),
    "a block twice": (lambda d: d.update(blocks=d["blocks"] * 2), "names a block twice"),
    "pairs without end": (lambda d: d["derived"].update(listed=10**9), "more than its 23 training examples"),
    "ranked without end": (lambda d: d["derived"].update(n_in=[[3, 10**9]]), "more than its 23 training examples"),
    "of models without end": (lambda d: d["derived"].update(n_in=[[10**9, 1]]), "more than its 23 training examples"),
    "a time beyond all": (
        lambda d: d["derived"]["models"].update(seconds_per_model=10**400), "seconds_per_model is 1000",
    ),
    "metadata nested": (lambda d: d["derived"]["stats"].update(metadata={"a": nested(40)}), "metadata is"),
}  # fmt: skip


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("change", "problem"), CLAIMS.values(), ids=CLAIMS)
def test_a_snapshot_claims_no_more_than_it_can_hold(copy, change, problem):
    resealed(copy, change=change)
    with pytest.raises((WrongFormatError, DamagedError), match=problem):
        memdb.open(str(copy)).top_influence(test_id=1)


MANIFESTS = {
    "examples without end": (
        lambda d: d["sets"][0].update(n_examples=200_000_000), "200,000,000 train examples, and hashes of fewer",
    ),
    "a seed of digits": (lambda d: d.update(seed="9" * 100_000), "seed is"),
    "an outcome of any type": (lambda d: d["outcomes"][0].update(dtype="U100000000"), 'dtype is "U100000000"'),
    "an object beyond any number": (lambda d: d["objects"].update({"train/key/c.0": [2**70, "0" * 64]}), "bad entry"),
    "an object without end": (lambda d: d["objects"].update({"train/key/c.0": [2**50, "0" * 64]}), "1,125,899,906,842"),
    "problems without end": (
        lambda d: d.update(outcomes=[7] * 100_000), r"outcomes\[1\] is not an object.* and more",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_claims_no_more_than_it_can_hold(database, change, problem):
    from pathlib import Path

    path = Path(database.url) / "zarr.json"
    document = json.loads(path.read_bytes())["attributes"]["memdb"]
    change(document)
    path.write_bytes(group_metadata(sealed(document)))
    with pytest.raises((WrongFormatError, DamagedError), match=problem) as caught:
        memdb.open(database.url).top_memorized().fetchall()
    assert len(str(caught.value)) < 5000


def test_class_names_are_texts(database):
    from pathlib import Path

    root = Path(database.url)
    path = root / "dataset/train/label/zarr.json"
    metadata = json.loads(path.read_bytes())
    metadata["attributes"]["class_names"] = 5
    data = canonical_json(metadata)
    path.write_bytes(data)
    document = json.loads((root / "zarr.json").read_bytes())["attributes"]["memdb"]
    document["objects"]["train/label/zarr.json"] = [len(data), hashlib.sha256(data).hexdigest()]
    (root / "zarr.json").write_bytes(group_metadata(sealed(document)))
    with pytest.raises(DamagedError, match="class names that are not texts"):
        memdb.open(database.url).top_memorized(class_name="ant").fetchall()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["published.json", "zarr.json"])
def test_a_pipe_in_place_of_a_document_is_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(WrongFormatError, match=f"{name} is not a file"):
        memdb.open(str(copy))


@pytest.mark.parametrize("place", ["made", "blocks/made", "segments/x/y"])
def test_no_store_is_made_inside_another(database, trained, tmp_path, place):
    inside = f"{database.url}/{place}"
    attempts = {
        "init": lambda: small_database(inside),
        "publish": lambda: database.publish(inside),
        "extend": lambda: memdb.extend(inside, str(trained)),
        "merge": lambda: memdb.merge(inside, [database]),
        "pull": lambda: memdb.pull(str(trained), inside, only="bits"),
        "export": lambda: database.export(f"{inside}.npz", "models"),
    }
    for attempt in attempts.values():
        with pytest.raises(InvalidInputError, match=rf"is inside the store {database.url}"):
            attempt()
    assert not (tmp_path / "store.zarr" / place).exists()


def test_no_store_is_made_inside_another_in_a_bucket(s3, tmp_path):
    url = f"s3://bucket/{tmp_path.name}/s.zarr"
    small_database(url, storage_options=s3).close()
    with pytest.raises(InvalidInputError, match=rf"is inside the store {url}"):
        small_database(f"{url}/blocks/x", storage_options=s3)
    small_database(f"{url}2", storage_options=s3).close()
