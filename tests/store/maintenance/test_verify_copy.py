"""Verifying a published copy finds whatever is not as it was published, over plain HTTP, too."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from support.cases import every
from support.commands import serve_folder
from support.stores import coin_recipe, small_dataset
from support.storing import resealed

import memdb
from memdb.format import layout


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A published copy of two snapshots; look, do not touch."""
    folder = tmp_path_factory.mktemp("published")
    db = memdb.init(str(folder / "s.zarr"), small_dataset(), coin_recipe, seed=3)
    for seeds in (range(9), range(9, 21)):
        db.train(seeds=seeds)
        db.publish(str(folder / "copy"))
    return folder / "copy"


@pytest.fixture
def copy(published, tmp_path):
    """A published copy to do with as one likes."""
    shutil.copytree(published, tmp_path / "copy")
    return tmp_path / "copy"


def found_in(url):
    report, repaired = memdb.open(str(url), cache=None).verify()
    assert repaired is None
    return report


def test_an_intact_copy_is_intact_with_its_older_snapshots(published):
    report = found_in(published)
    assert (report.damages, report.n_models) == ([], 21)
    unseen = {"published.json", "README.md", "zarr.json"}
    objects = {path for path in published.rglob("*") if path.is_file() and path.name not in unseen}
    assert report.n_objects >= len(objects)


def test_a_copy_behind_a_web_server_is_verified_where_it_is(published):
    with serve_folder(published) as url:
        assert found_in(url).damages == []


PARTS = {
    "stats/1/train/c.0.0": "stats",
    "top_influence/2/pairs/c.0.0.0": "top_influence",
    "top_influence/1/scores/zarr.json": "top_influence",
    "tables/1/memorization.parquet": "tables",
    "tables/2/top_influence.parquet": "tables",
    "snapshots/1.json": "snapshot",
}


@pytest.mark.parametrize(("name", "kind"), PARTS.items())
@pytest.mark.parametrize("how", every(3, ["altered", "cut", "gone"]))
def test_whatever_is_altered_is_named(copy, name, kind, how):
    path = copy / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if how == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    damages = found_in(copy).damages
    assert [damage.kind for damage in damages] == [kind]
    assert name in damages[0].place


def test_a_block_of_an_older_snapshot_alone_is_looked_at(copy):
    newest, older = (json.loads((copy / f"snapshots/{n}.json").read_text()) for n in (2, 1))
    ids = {block["block_id"] for block in older["blocks"]} - {block["block_id"] for block in newest["blocks"]}
    (copy / "blocks" / ids.pop() / "mask" / "c.0.0").write_bytes(b"cut")
    damages = found_in(copy).damages
    assert [damage.kind for damage in damages] == ["block"]
    assert len(damages[0].models) == 9


def test_counts_that_the_blocks_do_not_give_are_found_though_all_hashes_fit(copy):
    import zarr

    folder = copy / "stats" / "2"
    counts = zarr.open_array(str(folder / "train"), mode="r+")
    _, n_in, _, k_in = counts[:]
    row = int((n_in - k_in).argmax())
    counts[1, row] = k_in[row]  # which could be, as fewer could not
    path = copy / "snapshots" / "2.json"
    document = json.loads(path.read_text())
    data = (folder / "train" / "c.0.0").read_bytes()
    document["derived"]["stats"]["objects"]["train/c.0.0"] = [len(data), hashlib.sha256(data).hexdigest()]
    path.write_bytes(resealed(document))
    root = json.loads((copy / layout.PUBLISHED).read_text())
    said = path.read_bytes()
    root["snapshot"].update(size=len(said), sha256=hashlib.sha256(said).hexdigest())
    (copy / layout.PUBLISHED).write_bytes(resealed(root))
    problems = [(damage.kind, damage.problem) for damage in found_in(copy).damages]
    assert problems == [("stats", "n_in are not what the blocks add up to")]


def test_pulling_again_mends_a_copy(published, copy):
    (copy / "stats/1/train/c.0.0").unlink()
    (copy / "tables/2/memorization.parquet").write_bytes(b"cut")
    memdb.pull(str(published), str(copy))
    assert found_in(copy).damages == []
    ours, theirs = (memdb.open(str(url)).top_memorized(5).fetchall() for url in (copy, published))
    assert ours == theirs
