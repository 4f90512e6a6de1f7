"""Retraction, repair, and the maintenance that training does by itself."""

from __future__ import annotations

import contextlib

import pytest
from support.maintained import NOW, clean
from support.stores import bits_of, coin_recipe, small_database, small_dataset
from support.storing import batch, contents, contents_of

import memdb
from memdb.errors import DamagedError, InvalidInputError, NotFoundError
from memdb.store.maintenance import retract
from memdb.store.maintenance.compact import compact
from memdb.training import run


@pytest.mark.parametrize(
    ("name", "n_models", "n_confidences"),
    [
        ("train/logit_confidence/c.0.0", 5, 0),
        ("train/zarr.json", 5, 5),
        ("mask/c.0.0", 0, 0),
        ("zarr.json", 0, 0),
    ],
)
def test_repair_keeps_what_a_damaged_block_still_has(tmp_path, name, n_models, n_confidences):
    with small_database(tmp_path / "s.zarr") as db:
        db.train(seeds=range(5))
        db.compact()
        expected = contents(db.snapshot)
        db.gc(grace=NOW, alone=True)
        (path,) = (tmp_path / "s.zarr" / "blocks").glob(f"*/{name}")
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        report, repaired = db.verify(repair=True)
        assert [damage.kind for damage in report.damages] == ["block"]
        assert repaired.snapshot == 2
        assert contents(db.snapshot) == (expected if n_models else {})
        if n_models:
            assert ("train/logit_confidence" in db.snapshot.segments[0].metadata) == bool(n_confidences)
        assert db.verify()[0].damages == []


def test_a_snapshot_is_had_again_after_its_blocks_are_gone(store):
    store.commit(*batch(store, [1, 2]))
    compact(store)
    retract.retract(store, [store.snapshot().models[0][1].model_id], "a reason")
    store.commit(*batch(store, [3, 1]))
    compact(store)
    clean(store)
    first = store.snapshot(as_of=1)
    assert contents(first) == contents_of(batch(store, [1, 2]))
    assert (first.number, store.snapshot().number) == (1, 2)
    assert contents(store.snapshot()) == contents_of(batch(store, [2, 3]))
    for number in (3, 0, -1):
        with pytest.raises(NotFoundError, match=f"has no snapshot {number}"):
            store.snapshot(as_of=number)


@pytest.mark.parametrize(
    ("ids", "because", "says"),
    [
        ([], "x", "no model was named"),
        (["{0}"], " ", "needs a reason"),
        (["abc"], "x", "'abc' is too short"),
        (["f" * 32], "x", "no models have ids"),
        (["{0}", "{1}"], "x", "is already retracted"),
    ],
)
def test_a_retraction_that_cannot_be_names_what_is_wrong(store, ids, because, says):
    store.commit(*batch(store, [1, 2]))
    known = [info.model_id for _, info in store.snapshot().models]
    if len(ids) == 2:
        retract.retract(store, [known[1]], "first")
    with pytest.raises(InvalidInputError, match=says):
        retract.retract(store, [name.format(*known) for name in ids], because)


def test_training_compacts_by_itself_past_some_dozens_of_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MANY_SEGMENTS", 3)
    with small_database(tmp_path / "s.zarr") as db:
        db.train(seeds=range(37))
        assert db.snapshot.record.number >= 1
        assert len(db.snapshot.loose) < 6
    with small_database(tmp_path / "t.zarr") as other:
        other.train(seeds=range(37), compact=False)
        assert other.snapshot.record is None
        for ours, theirs in zip(bits_of(db.snapshot), bits_of(other.snapshot), strict=True):
            assert (ours == theirs).all()


def test_a_commit_is_reported_before_the_store_is_compacted(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MANY_SEGMENTS", 1)
    reported = []

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "compact", interrupted)
    db = small_database(tmp_path / "s.zarr")
    with contextlib.suppress(KeyboardInterrupt):
        db.train(seeds=range(30), progress=lambda status: reported.append(status.n_committed))
    assert memdb.open(db.url).n_models == reported[-1] > 0


def test_a_retracted_model_is_not_trained_again(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        db.train(seeds=[1, 2])
        db.retract([db.snapshot.models[0][1].model_id], "a reason")
        assert db.train(seeds=[1, 2]) == 0
        assert db.n_models == 1
        db.compact()
    with memdb.open(db.url, as_of=1) as old:
        for act in (old.compact, old.gc, lambda: old.verify(repair=True), lambda: old.train(1)):
            with pytest.raises(InvalidInputError, match="snapshot 1"):
                act()


def test_training_goes_on_where_compaction_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MANY_SEGMENTS", 2)
    db = small_database(tmp_path / "s.zarr")
    db.train(seeds=range(5), compact=False)
    next((tmp_path / "s.zarr").glob("segments/*/mask/c.0.0")).unlink()
    remarks = []
    with contextlib.suppress(DamagedError):  # the widths of intervals need the mask, too
        db.train(seeds=range(5, 30), progress=lambda status: remarks.append(status.remark))
    db = memdb.open(str(tmp_path / "s.zarr"))
    _, repaired = db.verify(repair=True)
    assert len(repaired.set_aside) == 1
    assert db.train(seeds=range(30), dataset=small_dataset(), recipe=coin_recipe) == 30
    assert db.n_models == 30
