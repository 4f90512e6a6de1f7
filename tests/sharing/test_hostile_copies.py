"""Published copies that are damaged, and such that lie."""

from __future__ import annotations

import hashlib
import json

import pytest
from support.cases import every
from support.storing import resealed

import memdb
from memdb.errors import (
    DamagedError,
    MemdbError,
    WrongFormatError,
)
from memdb.format import layout
from memdb.format.documents import canonical_json
from memdb.format.published import Credits


def ask_all(url):
    with memdb.open(str(url)) as db:
        db.top_memorized()
        for test_id in range(11):
            db.top_influence(test_id=test_id)


DAMAGES = {
    "published.json": (WrongFormatError, DamagedError),
    "snapshots/1.json": (DamagedError,),
    "top_influence/1/pairs/c.2.0.0": (DamagedError,),
    "stats/1/train/c.0.0": (DamagedError,),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("how", every(3, ["altered", "html", "gone"]))
def test_what_is_not_as_it_was_published_is_named_and_never_answered(copy, tmp_path, name, how):
    path = copy / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(
            b"<html>Log in</html>" if how == "html" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        )
    if (name, how) == ("published.json", "gone"):
        return  # then it is a store like any other
    with pytest.raises(DAMAGES[name], match=name.split("/")[0]):
        ask_all(copy)
    with pytest.raises(MemdbError):
        memdb.pull(str(copy), str(tmp_path / "here"))
    assert not (tmp_path / "here" / layout.MANIFEST).exists()


HOSTILE = {
    "a path outside": lambda found: found["snapshot"].update(path="../../etc/passwd"),
    "another folder": lambda found: found["snapshot"].update(path="blocks/1.json"),
    "a size below nothing": lambda found: found["snapshot"].update(size=-1),
    "no sha256": lambda found: found["snapshot"].update(sha256="x"),
    "the same twice": lambda found: found["older"].append(found["snapshot"]),
    "a feature of tomorrow": lambda found: found.update(required_features=["quantum"]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_root_document_that_cannot_be_is_refused(copy, change):
    document = json.loads((copy / layout.PUBLISHED).read_text())
    change(document)
    (copy / layout.PUBLISHED).write_bytes(resealed(document))
    with pytest.raises(WrongFormatError, match=r"published\.json"):
        memdb.open(str(copy))


def train_of(derived):
    return derived["stats"]["metadata"]["train"]


SNAPSHOT_TRICKS = {
    "an object outside": lambda d: d["stats"]["objects"].update({"../../x": [1, "0" * 64]}),
    "a list of all pairs": lambda d: d.update(listed=10**12),
    "a chunk of the world": lambda d: train_of(d)["chunk_grid"]["configuration"].update(
        chunk_shape=[4, 10**12]
    ),
    "a codec of theirs": lambda d: train_of(d)["codecs"].append(
        {"name": "gzip", "configuration": {"level": 1}}
    ),
    "more examples than there are": lambda d: d.update(n_in=[[5, 10**12]]),
}


@pytest.mark.parametrize("change", SNAPSHOT_TRICKS.values(), ids=SNAPSHOT_TRICKS)
def test_a_snapshot_that_lies_is_refused_before_memory_is_taken(copy, change):
    path = copy / "snapshots" / "1.json"
    document = json.loads(path.read_text())
    change(document["derived"])
    said = canonical_json(train_of(document["derived"]))  # the array says the same of itself
    (copy / "stats" / "1" / "train" / "zarr.json").write_bytes(said)
    size_and_hash = [len(said), hashlib.sha256(said).hexdigest()]
    document["derived"]["stats"]["objects"]["train/zarr.json"] = size_and_hash
    path.write_bytes(resealed(document))
    root = json.loads((copy / layout.PUBLISHED).read_text())
    root["snapshot"].update(size=len(path.read_bytes()), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    (copy / layout.PUBLISHED).write_bytes(resealed(root))
    with pytest.raises((DamagedError, WrongFormatError)):
        ask_all(copy)


def test_names_from_elsewhere_are_no_markup_in_the_readme(trained, tmp_path):
    with memdb.open(str(trained)) as db:
        db.publish(str(tmp_path / "copy"), credit=Credits("<script>\n# x", ("![a](b)",)))
    text = (tmp_path / "copy" / layout.README).read_text()
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert text.startswith("# \\<script\\> \\# x\n")
