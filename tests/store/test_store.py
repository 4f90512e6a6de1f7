from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import TESTS
from support.stores import bits_of, coin_recipe, small_database, small_dataset
from support.storing import FailingStorage, batch

import memdb
from memdb.errors import (
    AlreadyExistsError,
    DamagedError,
    MismatchError,
    NotFoundError,
    StorageError,
    WrongFormatError,
)
from memdb.storage import open_storage
from memdb.store import Store


@pytest.fixture
def store(tmp_path):
    return small_database(tmp_path / "s.zarr", outcomes=["correct"]).store


def test_a_store_is_read_as_it_was_made(store):
    opened = Store.open(open_storage(store.url))
    assert opened.manifest == store.manifest
    assert opened.examples("train").keys == [f"train/{row}.png" for row in range(23)]
    assert opened.examples("test").keys == [str(row) for row in range(11)]
    assert opened.examples("train").labels.tolist() == [row % 3 for row in range(23)]
    assert opened.examples("train").class_names == ("ant", "bee", "cat")


def test_every_array_opens_with_plain_zarr(store):
    zarr = pytest.importorskip("zarr")
    store.commit(*batch(store, [1, 2, 3]))
    group = zarr.open_group(store.url, mode="r", zarr_format=3)
    (segment,) = group["segments"].group_keys()
    mask = group["segments"][segment]["mask"]
    assert mask.shape == (23, 1)
    assert str(mask.dtype) == "uint8"
    assert group["dataset/train/content_sha256"].shape == (23, 16)
    assert dict(group.attrs)["memdb"]["format"] == 1
    assert group["segments"][segment].attrs["memdb"]["n_models"] == 3


@pytest.mark.parametrize("sizes", [[1], [8], [3, 5, 8, 1], [16, 9]])
def test_a_snapshot_holds_the_models_in_order_of_commit(store, sizes):
    expected, seed = [], 0
    for size in sizes:
        _, masks, outcomes = part = batch(store, range(seed, seed + size))
        store.commit(*part)
        expected.append((masks, outcomes["train/correct"], outcomes["test/correct"]))
        seed += size
    snapshot = Store.open(open_storage(store.url)).snapshot()
    assert [info.seed for _, info in snapshot.models] == list(range(seed))
    for found, wanted in zip(bits_of(snapshot), zip(*expected, strict=True), strict=True):
        assert (found == np.concatenate(wanted)).all()


def test_a_model_committed_twice_counts_once_in_its_oldest_segment(store):
    first = batch(store, [1, 2, 3])
    store.commit(*first)
    store.commit(*batch(store, [3, 4, 1], salt=9))
    snapshot = store.snapshot()
    assert [info.seed for _, info in snapshot.models] == [1, 2, 3, 4]
    assert snapshot.n_repeats == 2
    masks, correct, _ = bits_of(snapshot)
    assert (masks[:3] == first[1]).all()
    assert (correct[:3] == first[2]["train/correct"]).all()
    assert (masks[3] == batch(store, [4], salt=9)[1][0]).all()


def test_a_model_twice_in_one_segment_counts_once_before_and_after_compaction(store):
    first = batch(store, [1, 2, 1, 3])
    store.commit(*first)
    for _ in range(2):
        snapshot = store.snapshot()
        assert [info.seed for _, info in snapshot.models] == [1, 2, 3]
        assert (bits_of(snapshot)[0] == first[1][[0, 1, 3]]).all()
        with memdb.open(store.url) as db:
            assert db.n_models == 3
            assert db.sql("SELECT max(n_in + n_out) FROM memorization").fetchall() == [(3,)]
            db.compact()


def test_a_snapshot_does_not_see_later_commits(store):
    store.commit(*batch(store, [1]))
    snapshot = store.snapshot()
    store.commit(*batch(store, [2]))
    assert snapshot.n_models == 1
    assert bits_of(snapshot)[0].shape == (1, 23)


def test_a_commit_that_fails_at_any_write_leaves_nothing_to_see(store):
    store.commit(*batch(store, [1, 2]))
    before = [a.tolist() for a in bits_of(store.snapshot())]
    for allowed in range(100):
        broken = replace(store, storage=FailingStorage(store.storage, allowed))
        try:
            broken.commit(*batch(store, [5, 6]))
        except StorageError:
            assert [a.tolist() for a in bits_of(store.snapshot())] == before
        else:
            break
    assert 8 <= allowed < 100  # every object was the failing one once
    assert store.snapshot().n_models == 4


def test_a_creation_that_fails_at_any_write_can_be_run_again(tmp_path, monkeypatch):
    url = str(tmp_path / "s.zarr")
    opened = open_storage(url)
    for allowed in range(200):
        with monkeypatch.context() as patched:
            patched.setattr(
                "memdb.store.access.open_storage",
                lambda *_, budget=allowed: FailingStorage(opened, budget),
            )
            try:
                small_database(url)
            except StorageError:
                with pytest.raises(NotFoundError):
                    Store.open(open_storage(url))
            else:
                break
    assert 10 < allowed < 200
    assert memdb.open(url).n_models == 0


def test_a_beginning_of_other_data_is_not_mixed_with(tmp_path, monkeypatch):
    url = str(tmp_path / "s.zarr")
    opened = open_storage(url)
    with monkeypatch.context() as patched:
        patched.setattr("memdb.store.access.open_storage", lambda *_: FailingStorage(opened, 5))
        with pytest.raises(StorageError):
            small_database(url)
    with pytest.raises(AlreadyExistsError, match="unfinished store of other data"):
        memdb.init(url, small_dataset(shift=1), coin_recipe)


@pytest.mark.slow
def test_of_two_creations_at_once_one_wins_and_the_store_is_whole(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import memdb\nfrom support.stores import coin_recipe, small_dataset\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    try: memdb.init(line.strip(), small_dataset(), coin_recipe)\n"
        "    except memdb.MemdbError as error: print(type(error).__name__, flush=True)\n"
        "    else: print('created', flush=True)"
    )
    command = [sys.executable, "-c", code, str(TESTS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    racers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
    for attempt in range(3):
        url = str(tmp_path / f"{attempt}.zarr")
        for racer in racers:
            racer.stdin.write(f"{url}\n")
        said = sorted(racer.stdout.readline().strip() for racer in racers)
        assert said == ["AlreadyExistsError", "AlreadyExistsError", "created"]
        assert memdb.open(url).store.examples("train").keys[0] == "train/0.png"
    for racer in racers:
        racer.communicate()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), None),
        (lambda path: (path.mkdir(), (path / "zarr.json").write_text("{}")), "already"),
        (
            lambda path: (path.mkdir(), (path / "thesis.tex").write_text("x")),
            "other things in it, such as thesis.tex",
        ),
        (lambda path: path.write_text("x"), "is a file"),
    ],
)
def test_a_store_is_created_in_a_new_or_empty_folder_only(tmp_path, make, says):
    make(tmp_path / "s.zarr")
    if says is None:
        assert small_database(tmp_path / "s.zarr").n_models == 0
    else:
        with pytest.raises(AlreadyExistsError, match=says):
            small_database(tmp_path / "s.zarr")


def test_a_deleted_chunk_does_not_read_as_zeros(store):
    store.commit(*batch(store, [1, 2]))
    (chunk,) = Path(store.url).glob("segments/*/test/correct/c.0.0")
    chunk.unlink()
    with pytest.raises(DamagedError, match="test/correct/c.0.0 is missing"):
        store.snapshot().outcome_bits("test/correct")


def test_a_segment_of_another_store_is_refused(tmp_path, store):
    other = small_database(tmp_path / "other.zarr", outcomes=["correct"]).store
    segment = other.commit(*batch(other, [1]))
    shutil.copytree(
        Path(other.url) / "segments" / segment.segment_id, Path(store.url) / "segments" / segment.segment_id
    )
    with pytest.raises(DamagedError, match="belongs to another store"):
        store.snapshot()


def test_what_lies_beside_segments_is_passed_over(store):
    store.commit(*batch(store, [1]))
    (Path(store.url) / "segments" / "notes").mkdir()
    (Path(store.url) / "segments" / "20260101T000000000Z-0123456789ab" / "mask").mkdir(parents=True)
    assert store.snapshot().n_models == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2; this memdb reads format 1"),
        ({"required_features": ["sparse"]}, "features that this memdb does not know: \\['sparse'\\]"),
        ({"seed": 5}, r"zarr.json.seed is 5"),
        (
            {"sets": [{"name": "../x", "n_examples": -1}]},
            r"sets\[0\].name is .*n_examples is -1.*fingerprint is missing",
        ),
        ({"objects": {"../../etc/passwd": [1, "0" * 64]}}, "bad entry '../../etc/passwd'"),
        ({"subsets": {"scheme": "folds", "fraction": 1.5}}, 'scheme is "folds".*fraction is 1.5'),
    ],
)
def test_a_manifest_that_is_wrong_gets_one_error_with_all_that_is(store, change, says):
    from memdb.format.documents import group_metadata, sealed

    document = sealed({**store.manifest.to_document(), **change})
    (Path(store.url) / "zarr.json").write_bytes(group_metadata(document))
    with pytest.raises(WrongFormatError, match=says):
        Store.open(open_storage(store.url))


def test_a_reader_ignores_what_it_does_not_know(store):
    from memdb.format.documents import group_metadata, sealed

    document = sealed({**store.manifest.to_document(), "colour": "green"})
    (Path(store.url) / "zarr.json").write_bytes(group_metadata(document))
    assert Store.open(open_storage(store.url)).manifest == store.manifest


def test_other_data_or_another_recipe_is_refused_with_both_fingerprints(database):
    ours = database.store.manifest
    with pytest.raises(MismatchError) as caught:
        database.train(add=1, dataset=small_dataset(shift=1))
    other = small_dataset(shift=1).tables["train"].info("train").fingerprint
    assert ours.train.fingerprint in str(caught.value)
    assert other in str(caught.value)

    def other_recipe(data, masks, seeds, run):
        return {}

    other_recipe.version = "1"
    with pytest.raises(MismatchError, match=ours.recipe.fingerprint):
        database.train(add=1, dataset=small_dataset(), recipe=other_recipe)
    assert memdb.open(database.url).n_models == 37


@pytest.mark.slow
def test_a_kill_at_any_fsync_loses_at_most_the_batch_in_flight(tmp_path):
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "import memdb\nfrom support.stores import coin_recipe, small_dataset\n"
        "left, fsync = int(sys.argv[3]), os.fsync\n"
        "def deadly(descriptor):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), 9)\n"
        "    fsync(descriptor)\n"
        "os.fsync = deadly\n"
        "db = memdb.open(sys.argv[2])\n"
        "db.train(seeds=range(10), dataset=small_dataset(), recipe=coin_recipe, device='cpu',\n"
        "         progress=lambda s: print(s.n_committed, flush=True))\n"
    )
    for allowed in (25, 10_000):
        url = str(tmp_path / f"{allowed}.zarr")
        small_database(url).close()
        command = [sys.executable, "-c", code, str(TESTS), url, str(allowed)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        acknowledged = int(run.stdout.split()[-1])
        opened = memdb.open(url)
        assert opened.n_models in {acknowledged, acknowledged + 5}
        assert run.returncode == (0 if allowed == 10_000 else -9), run.stderr
        if opened.n_models:
            assert len(opened.score(3).fetchall()) == 1
        opened.train(seeds=range(10), dataset=small_dataset(), recipe=coin_recipe)
        assert opened.n_models == 10  # the same seeds again: those that were there are skipped
        opened.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        small_database(tmp_path / "s.zarr")
    tmp_path.chmod(0o700)
