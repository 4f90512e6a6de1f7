"""What was lost once must not cost more: repair and cleaning after lost documents, split segments, caches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from support.commands import serve
from support.stores import small_database
from support.storing import batch, contents, contents_of

from memdb.errors import DamagedError, InvalidInputError
from memdb.storage import Cache, open_storage
from memdb.store.grace import Stopwatch
from memdb.store.load_snapshot import load_snapshot
from memdb.store.maintenance import compact as compaction
from memdb.store.maintenance import gc, repair, retract, verify
from memdb.store.selection import Selection
from memdb.store.store import Store

NOW = timedelta(0)


@pytest.fixture
def store(tmp_path):
    return small_database(tmp_path / "s.zarr", outcomes=["correct"]).store


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(compaction, "BLOCK_MODELS", 4)


def compact(store):
    return compaction.compact(store)


def garbage(store):
    return gc.garbage(store, NOW, alone=True)


def clean(store, doomed=None):
    doomed = garbage(store) if doomed is None else doomed
    return list(gc.remove(store, doomed))


def mend(store):
    """Verify and repair; return the kinds of damage that were found. Old snapshots stay damaged."""
    report = verify.verify(store)
    repair.repair(store, report)
    left = verify.verify(store).damages
    assert all(damage.kind == "snapshot" for damage in left)
    newest = store.snapshot().record
    assert all(int(damage.identifier) < newest.number for damage in left)
    return {damage.kind for damage in report.damages}


def alter(store, pattern):
    (path,) = Path(store.url).glob(pattern)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return path


def lose(store, pattern):
    (path,) = Path(store.url).glob(pattern)
    path.unlink()


def committed(store, *batches):
    """Commit batches; return what they hold."""
    held = {}
    for seeds in batches:
        part = batch(store, seeds)
        store.commit(*part)
        held |= contents_of(part)
    return held


@pytest.mark.parametrize("n_models", [3, 6])
def test_a_lost_newest_snapshot_is_noticed_and_its_blocks_stay(store, small_blocks, n_models):
    held = {}
    for seed in range(n_models):
        held |= committed(store, [seed])
        if seed in {3, n_models - 1}:
            compact(store)
    clean(store)
    newest = store.snapshot().record.number
    lose(store, f"snapshots/{newest}.json")
    assert contents(store.snapshot()) != held
    with pytest.raises(DamagedError, match="a snapshot was lost, and nothing was removed"):
        garbage(store)
    assert mend(store) == {"snapshot"}
    assert contents(store.snapshot()) == held
    clean(store)
    assert contents(store.snapshot()) == held


def test_a_broken_snapshot_and_a_damaged_confidence_cost_no_bits(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        db.train(seeds=range(5))
        held = contents(db.snapshot)
        db.compact()
        db.gc(grace=NOW, alone=True)
        alter(db.store, "snapshots/1.json")
        alter(db.store, "blocks/*/train/logit_confidence/c.0.0")
        report, _ = db.verify(repair=True)
        assert {damage.kind for damage in report.damages} == {"snapshot", "block"}
        assert contents(db.snapshot) == held
        db.gc(grace=NOW, alone=True)
        assert contents(db.snapshot) == held
        assert len(list((tmp_path / "s.zarr").glob("blocks/*/mask"))) == 2  # the damaged one stays


@pytest.mark.parametrize("damage", ["blocks", "snapshots", "both"])
def test_a_segment_that_is_split_over_blocks_comes_back_whole(store, small_blocks, damage):
    held = committed(store, [1, 2, 3], [4, 5, 6])
    compact(store)
    assert [block.n_models for block in store.snapshot().record.blocks] == [4, 2]
    first = store.snapshot().record.blocks[0].block_id
    if damage != "snapshots":
        alter(store, f"blocks/{first}/zarr.json")
    if damage != "blocks":
        alter(store, "snapshots/1.json")
    mend(store)
    assert contents(store.snapshot()) == held
    assert store.snapshot().n_repeats == 0
    compact(store)
    clean(store)
    assert contents(store.snapshot()) == held
    assert store.snapshot().n_repeats == 0


def test_a_leftover_block_and_a_broken_snapshot_hide_no_segment(store, small_blocks):
    held = committed(store, [1, 2, 3], [4, 5, 6])
    compact(store)
    held |= committed(store, [7, 8, 9, 10])
    kept = store.snapshot()
    selections = [
        Selection(store.storage, part, (True,) * 2 + (False,) * (len(part.models) - 2)) for part in kept.loose
    ]
    compaction.write_block(store, selections, Stopwatch())  # its compactor died
    alter(store, "snapshots/1.json")
    mend(store)
    assert contents(store.snapshot()) == held
    compact(store)
    clean(store)
    assert contents(store.snapshot()) == held


def test_segments_that_a_repair_brought_back_are_not_garbage_any_more(store):
    held = committed(store, [1, 2], [3])
    compact(store)
    doomed = garbage(store)
    alter(store, "blocks/*/mask/c.0.0")
    mend(store)
    assert contents(store.snapshot()) == held
    assert clean(store, doomed) == []
    assert contents(store.snapshot()) == held


def test_cleaning_up_believes_no_cache(store, tmp_path):
    held = committed(store, [1, 2])
    compact(store)
    storage = store.storage
    storage.cache = Cache(tmp_path / "cache")
    storage.direct = lambda: open_storage(store.url)
    assert contents(load_snapshot(Store(storage, store.manifest))) == held
    lose(store, "blocks/*/zarr.json")
    with pytest.raises(DamagedError, match="is missing"):
        garbage(store)


def test_a_cut_transfer_is_no_damage(store):
    held = committed(store, [1, 2, 3])

    class Cutting:
        def __init__(self):
            self.cut = set()

        def __getattr__(self, name):
            return getattr(store.storage, name)

        def direct(self):
            return self

        def read(self, path, start=None, stop=None, **bound):
            data = store.storage.read(path, start, stop)
            if "c.0" not in path or path in self.cut:
                return data
            self.cut.add(path)
            return data[:-1]

    assert verify.verify(Store(Cutting(), store.manifest)).damages == []
    assert contents(store.snapshot()) == held


def test_a_withdrawal_outlives_its_file_and_a_repair(store, small_blocks):
    committed(store, [1, 2, 3, 4], [5, 6])
    gone = store.snapshot().models[0][1].model_id
    retract.retract(store, [gone], "a reason")
    compact(store)
    clean(store)
    lose(store, "retractions/*Z-*.json")
    alter(store, f"blocks/{store.snapshot().record.blocks[1].block_id}/mask/c.0.0")
    mend(store)
    assert gone not in contents(store.snapshot())
    assert store.snapshot().n_models == 3


def test_damage_in_a_block_and_in_what_it_took_in_leaves_the_bits(tmp_path):
    with small_database(tmp_path / "s.zarr") as db:
        db.train(seeds=range(5))
        held = contents(db.snapshot)
        db.compact()
        for folder in ("blocks", "segments"):
            alter(db.store, f"{folder}/*/train/logit_confidence/c.0.0")
        db.verify(repair=True)
        assert contents(db.snapshot) == held


def test_as_of_is_answered_from_the_newest_blocks_whatever_the_cache_holds(store, tmp_path):
    held = committed(store, [1, 2])
    compact(store)
    storage = replace(store).storage
    storage.cache = Cache(tmp_path / "cache")
    assert contents(load_snapshot(Store(storage, store.manifest), 1)) == held
    committed(store, [3])
    compact(store)
    old = store.snapshot(1)
    clean(store)
    assert contents(load_snapshot(Store(storage, store.manifest), 1)) == held
    assert contents(old) == held  # what it reads is not removed meanwhile


class Webserver(SimpleHTTPRequestHandler):
    """A server that answers something other than 404 for a missing object."""

    folder, absent = "", 403

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=self.folder)

    def log_message(self, *_):
        pass

    def send_error(self, code, message=None, explain=None):
        if code == 404 and self.absent == 200:
            page = b"<html>Welcome</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        else:
            super().send_error(self.absent if code == 404 else code)


@pytest.mark.parametrize("absent", [403, 404, 200])
def test_a_web_server_may_say_in_its_own_way_that_a_snapshot_is_not_there(store, absent):
    for seed in range(5):
        held = committed(store, range(seed + 1))
        compact(store)
    handler = type("Handler", (Webserver,), {"folder": str(Path(store.url).parent), "absent": absent})
    with serve(handler) as url:
        place = open_storage(f"{url}/s.zarr")
        assert contents(load_snapshot(Store(place, store.manifest))) == held
        assert load_snapshot(Store(place, store.manifest)).number == 5
        assert load_snapshot(Store(place, store.manifest), 2).n_models == 2
        with pytest.raises(InvalidInputError, match="cannot be compacted: it has no listings"):
            compaction.compact(Store(place, store.manifest))


def test_a_lost_or_damaged_old_snapshot_stops_nobody(store):
    for seed in range(3):
        held = committed(store, range(seed + 1))
        compact(store)
    lose(store, "snapshots/1.json")
    alter(store, "snapshots/2.json")
    assert clean(store)
    assert contents(store.snapshot()) == held


def test_repeats_alone_rewrite_no_block(store):
    committed(store, [1, 2, 3])
    compact(store)
    store.commit(*batch(store, [1, 2]))
    assert compact(store).n_models == 0
    assert store.snapshot().n_repeats == 2
    assert compact(store) is None


def test_a_leftover_block_of_another_copy_of_a_model_is_no_lost_snapshot(store):
    """Of two commits of a model the one of the older id counts, though it was finished last."""
    segments = [store.commit(*batch(store, [1])) for _ in range(2)]
    document = Path(store.url, segments[0].group, "zarr.json")
    document.rename(document.with_suffix(".later"))
    (share,) = [Selection(store.storage, part, (True,)) for part in store.snapshot().loose]
    compaction.write_block(store, [share], Stopwatch())  # its compactor died
    document.with_suffix(".later").rename(document)
    held = contents(store.snapshot())
    compact(store)
    clean(store, [item for item in garbage(store) if item.path == segments[1].group])
    assert verify.verify(store).damages == []
    assert [item.reason for item in clean(store)] == [gc.UNNAMED, gc.COMPACTED]
    assert contents(store.snapshot()) == held


class Walking:
    """A storage whose listings take so long that a segment is committed and compacted in their middle."""

    def __init__(self, store, first, second):
        self.store, self.first, self.second = store, first, second

    def __getattr__(self, name):
        return getattr(self.store.storage, name)

    def direct(self):
        return self

    def names(self, folder):
        if folder == self.second:
            self.meanwhile()
        return self.store.storage.names(folder)

    def find(self, folder):
        early = self.store.storage.find(folder)
        if folder:
            return early
        self.meanwhile()
        late = self.store.storage.find(folder)
        return [item for item in early if item.path.startswith(self.first)] + [
            item for item in late if not item.path.startswith(self.first)
        ]

    def meanwhile(self):
        committed(self.store, [7])
        compact(self.store)


def test_a_block_that_is_made_while_a_store_is_listed_is_no_lost_snapshot(store, small_blocks):
    committed(store, [1, 2, 3, 4])
    compact(store)
    walking = Store(Walking(store, "segments", "blocks"), store.manifest)
    found = gc.garbage(walking, NOW, alone=True)
    kept = contents(store.snapshot())
    list(gc.remove(walking, found))
    assert contents(store.snapshot()) == kept
    assert verify.verify(walking).damages == []


def test_a_lost_snapshot_is_noticed_where_the_segments_that_it_took_in_were_set_aside(store):
    held = committed(store, [1, 2])
    compact(store)
    alter(store, "segments/*/mask/c.0.0")
    mend(store)
    for path in Path(store.url).glob("snapshots/[0-9]*.json"):
        path.unlink()
    with pytest.raises(DamagedError, match="a snapshot was lost, and nothing was removed"):
        garbage(store)
    assert mend(store) == {"snapshot"}
    assert contents(store.snapshot()) == held


def test_a_set_aside_segment_that_a_block_took_in_stays(store):
    committed(store, [1, 2])
    compact(store)
    alter(store, "segments/*/mask/c.0.0")
    assert mend(store) == {"segment"}
    assert clean(store) == []
    assert len(store.storage.names("segments")) == 2
