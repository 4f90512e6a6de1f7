"""Compaction and cleaning in the real world: stalls, clocks, full disks, and what blocks hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from support.maintained import clean, garbage
from support.stores import coin_recipe, small_database
from support.storing import batch, contents, contents_of

import memdb
from memdb.database import Database
from memdb.errors import DamagedError, InvalidInputError, NotFoundError, StorageError
from memdb.format import bits
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store import grace as timing
from memdb.store.block_counts import BlockCounter
from memdb.store.maintenance import compact as compaction
from memdb.store.maintenance import gc, retract, verify
from memdb.store.maintenance.compact import compact


def test_the_arrays_of_an_import_of_scores_that_was_cut_off_go_and_those_of_others_stay(tmp_path):
    url, runs = str(tmp_path / "s.zarr"), tmp_path / "runs"
    runs.mkdir()
    for name, value in (("kept", 0.1), ("cut_off", 0.2)):
        np.savez(runs / f"{name}.npz", tr_mem=np.full(9, value))
        memdb.import_file(runs / f"{name}.npz", url)
    Path(url, "scores", "2.json").unlink()  # as if the import had been killed before its last write
    store = Store.open(open_storage(url))
    assert [item.reason for item in garbage(store)] == [gc.UNTABLED]
    assert gc.garbage(store) == []  # it may be an import that is going on
    (gone,) = clean(store)
    assert not Path(url, gone.path).exists()
    with memdb.open(url, scores="kept") as db:
        assert db.verify()[0].damages == []
        assert db.top_memorized(k=1).fetchall()[0][2] == 0.1


def test_scores_that_were_named_since_they_were_found_stay(tmp_path):
    np.savez(tmp_path / "fz.npz", tr_mem=np.full(9, 0.1))
    url, document = str(tmp_path / "s.zarr"), tmp_path / "s.zarr" / "scores" / "1.json"
    memdb.import_file(tmp_path / "fz.npz", url)
    store, said = Store.open(open_storage(url)), document.read_bytes()
    document.unlink()
    doomed = garbage(store)
    document.write_bytes(said)
    assert (len(doomed), list(gc.remove(store, doomed))) == (1, [])


class Interrupted:
    """A storage that lets something happen before it writes an object of a given name, for the first n times."""

    def __init__(self, inner, name, happening, times=1):
        self.inner, self.name, self.happening, self.times = inner, name, happening, times

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def direct(self):
        return self

    def write_all(self, objects):
        if self.times and any(path.endswith(self.name) for path in objects):
            self.times -= 1
            self.happening()
        self.inner.write_all(objects)


@pytest.fixture
def clock(monkeypatch):
    """A clock of the machine that only the test moves, in seconds."""
    hands = [1000.0]
    monkeypatch.setattr(timing, "_now", lambda: hands[0])
    return hands


@pytest.mark.parametrize("at", ["mask/c.0.0", "segments_document"])
def test_a_writer_that_stalls_past_the_grace_period_writes_its_batch_again(store, clock, at):
    part = batch(store, [1, 2])

    def sleep_while_gc_runs():
        clock[0] += 13 * 3600
        clean(store)

    storage = Interrupted(store.storage, "c.0.0", sleep_while_gc_runs)
    if at == "segments_document":
        storage = Interrupted(store.storage, "zarr.json", sleep_while_gc_runs, times=1)
        storage.write_all = lambda objects: documents_last(storage, objects)
    replace(store, storage=storage).commit(*part)
    assert contents(store.snapshot()) == contents_of(part)
    assert verify.verify(store).damages == []


def documents_last(storage, objects):
    """Let it happen between a writer's last look and the write that makes its segment exist."""
    if storage.times and {Path(path).name for path in objects} == {"zarr.json"} and len(objects) == 1:
        storage.times -= 1
        storage.happening()
    storage.inner.write_all(objects)


def test_a_writer_that_always_stalls_says_so_and_leaves_nothing_to_see(store, clock):
    def sleep():
        clock[0] += 13 * 3600

    slow = replace(store, storage=Interrupted(store.storage, "mask/c.0.0", sleep, times=99))
    with pytest.raises(StorageError, match="was written 3 times and was incomplete"):
        slow.commit(*batch(store, [1]))
    assert store.snapshot().n_models == 0
    assert {item.reason for item in clean(store)} == {gc.LEFTOVER}
    assert store.storage.names("segments") == ["zarr.json"]


def test_gc_that_takes_a_batch_in_flight_away_makes_its_writer_start_again(store):
    part = batch(store, [1, 2])
    storage = Interrupted(store.storage, "mask/c.0.0", lambda: clean(store))
    replace(store, storage=storage).commit(*part)
    assert contents(store.snapshot()) == contents_of(part)


def test_a_compactor_that_stalls_changes_nothing(store, clock):
    store.commit(*batch(store, [1, 2]))

    def sleep():
        clock[0] += 13 * 3600

    with pytest.raises(StorageError, match="was incomplete"):
        compact(Store(Interrupted(store.storage, "mask/c.0.0", sleep, times=9), store.manifest))
    assert store.snapshot().number is None
    assert store.snapshot().n_models == 2


def test_of_two_compactors_the_slower_begins_again_from_the_faster(store):
    store.commit(*batch(store, [1, 2]))
    slow = Interrupted(
        store.storage, "mask/c.0.0", lambda: (store.commit(*batch(store, [3])), compact(store))
    )
    done = compact(Store(slow, store.manifest))
    assert done is None
    assert store.snapshot().number == 1
    assert contents(store.snapshot()) == contents_of(batch(store, [1, 2, 3]))
    doomed = {item.reason for item in garbage(store)}
    assert doomed == {gc.UNNAMED, gc.COMPACTED}
    clean(store)
    assert contents(store.snapshot()) == contents_of(batch(store, [1, 2, 3]))


def test_gc_that_was_killed_half_way_goes_on_where_it_was(store):
    for seed in range(3):
        store.commit(*batch(store, [seed]))
        compact(store)
    for item in garbage(store):
        store.storage.remove(item.objects[:1] if item.objects[0].endswith("zarr.json") else item.objects[-1:])
    clean(store)
    assert garbage(store) == []
    assert contents(store.snapshot()) == contents_of(batch(store, range(3)))


def test_a_compaction_during_the_listing_of_gc_alarms_nobody(store):
    """Object storages list blocks before snapshots: the new snapshot must not be taken for the older one."""
    store.commit(*batch(store, [1]))

    class Slow(Interrupted):
        def find(self, folder):
            found = self.inner.find(folder)
            if folder == "" and self.times:
                self.times -= 1
                self.happening()
                found += self.inner.find("snapshots")
            return found

    slow = Slow(store.storage, None, lambda: compact(store))
    assert gc.garbage(Store(slow, store.manifest)) == []
    assert store.snapshot().number == 1


def test_young_leftovers_stay(store):
    store.commit(*batch(store, [1]))
    compact(store)
    assert garbage(store, timing.GRACE) == []
    with pytest.raises(InvalidInputError, match="shorter than the 1 day"):
        gc.garbage(store, timedelta(hours=1))


def test_the_storages_clock_decides_not_the_writers(store, monkeypatch):
    """A writer whose clock is set back by years commits a segment that is neither old nor first."""
    store.commit(*batch(store, [1]))
    compact(store)

    class Past(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime(1999, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("memdb.store.store.datetime", Past)
    store.commit(*batch(store, [2]))
    store.commit(*batch(store, [1], salt=5))
    assert garbage(store, timing.GRACE) == []
    assert contents(store.snapshot()) == contents_of(batch(store, [1, 2]))
    compact(store)
    clean(store)
    assert contents(store.snapshot()) == contents_of(batch(store, [1, 2]))


def test_gc_keeps_segments_whose_block_is_damaged(store):
    store.commit(*batch(store, [1]))
    compact(store)
    (chunk,) = Path(store.url).glob("blocks/*/mask/c.0.0")
    content = chunk.read_bytes()
    chunk.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(DamagedError, match=r"mask/c.0.0 was altered"):
        clean(store)
    chunk.write_bytes(content[:-1])
    with pytest.raises(DamagedError, match=r"mask/c.0.0 is missing or cut: nothing was removed"):
        garbage(store)
    assert len(store.storage.names("segments")) == 2


def test_a_query_that_began_before_gc_is_answered_or_fails_never_wrong(store):
    store.commit(*batch(store, [1, 2]))
    early = store.snapshot()
    compact(store)
    clean(store, timing.GRACE)
    assert contents(early) == contents_of(batch(store, [1, 2]))
    clean(store)
    with pytest.raises(DamagedError, match="is missing"):
        early.mask()
    assert contents(store.snapshot()) == contents_of(batch(store, [1, 2]))


def test_full_blocks_are_never_written_again(store, monkeypatch):
    monkeypatch.setattr(compaction, "BLOCK_MODELS", 4)
    written = {}
    for seed in range(13):
        store.commit(*batch(store, [seed]))
        record = compact(store).record
        for block in record.blocks:
            if block.n_models == 4:
                written.setdefault(tuple(record.blocks).index(block), block.block_id)
                assert written[tuple(record.blocks).index(block)] == block.block_id
    assert [block.n_models for block in record.blocks] == [4, 4, 4, 1]


def test_a_growing_store_is_rewritten_a_few_times_only(store):
    n_written = sum(
        compact(store, thorough=False).n_models for seed in range(16) if store.commit(*batch(store, [seed]))
    )
    assert n_written <= 16 * 5  # log2(16) + 1; gathering all each time would be 136
    assert [block.n_models for block in store.snapshot().record.blocks] == [16]
    assert compact(store) is None


def test_confidences_of_some_models_only_end_a_block(tmp_path):
    store = small_database(tmp_path / "s.zarr").store
    for seed in range(4):
        models, masks, outcomes = batch(store, [seed])
        if seed in {1, 2}:
            outcomes |= {
                f"{name}/logit_confidence": np.full((1, n), seed) for name, n in [("train", 23), ("test", 11)]
            }
        store.commit(models, masks, outcomes)
    assert [block.n_models for block in compact(store).record.blocks] == [1, 2, 1]
    snapshot = store.snapshot()
    assert contents(snapshot) == contents_of(batch(store, range(4)))
    with pytest.raises(NotFoundError, match="have no test/logit_confidence"):
        snapshot.outcome_values("test/logit_confidence")
    some = [info.model_id for _, info in snapshot.models if info.seed in {0, 3}]
    retract.retract(store, some, "no confidences")
    assert store.snapshot().outcome_values("test/logit_confidence").tolist() == [[1, 2]] * 11


WITHOUT_POWERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root that obeys permissions


@pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
def test_a_read_only_folder_can_be_asked_and_not_changed(database):
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere")
    folder = Path(database.url)
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    code = (
        "import sys, memdb\ndb = memdb.open(sys.argv[1])\nprint(len(db.top_memorized(3).fetchall()))\n"
        "print(db.gc(), db.verify()[0].damages)\n"
        "for act in (db.compact, lambda: db.retract([db.snapshot.models[0][1].model_id], 'x')):\n"
        "    try: act()\n"
        "    except memdb.MemdbError as error: print(type(error).__name__, error)\n"
    )
    command = [*(WITHOUT_POWERS if os.geteuid() == 0 else []), sys.executable, "-c", code, database.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o755)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["3", "[] []"], done.stderr
    assert [line.split()[0] for line in lines[2:]] == ["StorageError"] * 2
    assert all("Permission denied" in line for line in lines[2:])


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own with 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_disk_that_fills_up_loses_nothing_that_was_acknowledged(small_disk):
    store = small_database(small_disk / "s.zarr", outcomes=["correct"]).store
    committed = []

    def commit_for_ever():
        for seed in range(1000):
            store.commit(*batch(store, [seed]))
            committed.append(seed)

    with pytest.raises(StorageError, match="No space left on device") as caught:
        commit_for_ever()
    assert "free some space" in caught.value.hint
    assert len(committed) > 3
    with pytest.raises(StorageError, match="No space left on device"):
        compact(store)
    again = Store.open(open_storage(store.url))
    assert contents(again.snapshot()) == contents_of(batch(store, committed))
    assert verify.verify(again).damages == []
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    compact(again)
    clean(again)
    store.commit(*batch(store, [5000]))
    assert contents(again.snapshot()) == contents_of(batch(store, [*committed, 5000]))


def test_totals_come_from_the_counts_of_blocks_and_the_bits_of_what_has_none(store):
    store.commit(*batch(store, range(1, 12)))
    compact(store)
    store.commit(*batch(store, range(12, 15)))  # a segment beside the block

    def counted():
        with Database(store) as db:
            rows = db.sql("SELECT n_in, n_correct, k_in FROM train_examples ORDER BY id").fetchall()
            return rows, db.snapshot

    def from_bits(snapshot):
        mask, right = (
            bits.unpack(packed, snapshot.n_models)
            for packed in (snapshot.mask(), snapshot.outcome_bits("train/correct"))
        )
        columns = (mask.sum(axis=0), right.sum(axis=0), (mask & right).sum(axis=0))
        return [tuple(map(int, row)) for row in zip(*columns, strict=True)]

    rows, snapshot = counted()
    assert snapshot.counted == (True, False)
    assert rows == from_bits(snapshot)
    retracted = snapshot.segments[0].models[3].model_id
    retract.retract(store, [retracted], "its node had bad memory")
    rows, snapshot = counted()
    assert snapshot.counted == (False, False)
    assert rows == from_bits(snapshot)


def test_counts_that_the_bits_do_not_give_are_found_by_verify(store, monkeypatch):
    store.commit(*batch(store, range(9)))
    right = BlockCounter.arrays
    monkeypatch.setattr(BlockCounter, "arrays", lambda self: {path: n + 1 for path, n in right(self).items()})
    compact(store)
    monkeypatch.undo()
    (damage,) = verify.verify(store).damages
    assert damage.kind == "block"
    assert "counts/train is not what its bits add up to" in damage.problem


def test_bits_in_blocks_take_little_more_than_their_packed_size(tmp_path):
    n_train, n_test, n_models = 50_000, 10_000, 128
    data = memdb.Dataset(
        np.zeros((n_train, 1)), np.zeros(n_train, int), np.zeros((n_test, 1)), np.zeros(n_test, int)
    )
    store = memdb.init(str(tmp_path / "s.zarr"), data, coin_recipe, outcomes=["correct"], seed=1).store
    store.commit(*batch(store, range(n_models)))
    done = compact(store)
    packed = n_models * (n_train / 8 + (n_train + n_test) / 8)
    (block,) = store.snapshot().segments
    counts = sum(info.size for name, info in block.objects.items() if name.startswith("counts/"))
    assert done.n_bytes - counts <= 1.05 * packed
    assert counts <= 2 * (3 * n_train + n_test)  # bytes: as many for 1,024 models
