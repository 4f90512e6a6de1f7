"""Every object lost and every byte altered: noticed, never answered with, and set aside by a repair."""

from __future__ import annotations

import itertools
import shutil
from datetime import timedelta
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from support.cases import every
from support.stores import coin_recipe
from support.storing import batch, contents, contents_of

import memdb
from memdb.errors import DamagedError, MemdbError, NotFoundError
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.encoding import ArrayData, describe, encode_group
from memdb.store.maintenance import compact, gc, retract
from memdb.store.maintenance.repair import repair
from memdb.store.maintenance.verify import verify
from memdb.store.read_arrays import GroupReader

SETS = ("train", "test")
EMPTY_GROUPS = {f"{group}/zarr.json" for group in ("blocks", "retractions", "segments", "snapshots")}


class Tiny:
    """A folder with a block of two segments, a loose segment, a retraction and two snapshots.

    The first of the block's segments is cleaned up by default; the second still lies there.
    """

    def __init__(self, url, *, cleaned=True):
        rng = np.random.default_rng(0)
        labels = np.arange(6) % 2
        data = memdb.Dataset(rng.random((6, 2)), labels, rng.random((4, 2)), labels[:4], ["ant", "bee"])
        store = memdb.init(str(url), data, coin_recipe, seed=7).store
        self.url, self.store, self.committed = Path(url), store, {}
        gone, taken = self.commit(1, 2), self.commit(3)
        compact.compact(store)
        if cleaned:
            shutil.rmtree(self.url / gone.group)
        self.retracted = gone.models[0].model_id
        retracted = retract.retract(store, [self.retracted], "a reason")
        compact.compact(store)
        loose = self.commit(4)
        self.groups = {"gone": gone, "taken": taken, "loose": loose}
        (block,) = store.snapshot().blocks
        self.names = {
            "loose": loose.segment_id, "taken": taken.segment_id, "block": block.segment_id,
            "retraction": retracted.retraction_id,
        }  # fmt: skip

    def commit(self, *seeds):
        part = models, masks, outcomes = batch(self.store, seeds)
        values = {f"{n}/logit_confidence": np.where(outcomes[f"{n}/correct"], 2.0, -2.0) for n in SETS}
        self.committed |= contents_of(part)
        return self.store.commit(models, masks, outcomes | values)

    def models(self, *groups):
        return {model.model_id for group in groups for model in self.groups[group].models}

    def path(self, pattern):
        return pattern.format(**self.names)

    def copy(self, folder):
        shutil.copytree(self.url, folder)
        return Altered(folder, self.store.manifest)


class Altered:
    """A copy of a store, to do damage to."""

    def __init__(self, folder, manifest):
        self.folder, self.storage = folder, open_storage(str(folder))
        self.store = Store(self.storage, manifest)  # whose manifest was read before any damage

    def files(self):
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def answer(self):
        """Everything that a store answers from: models with all that is known of them, and examples."""
        store = Store.open(self.storage)
        snapshot = store.snapshot()
        bits = contents(snapshot)
        values = [snapshot.outcome_values(f"{name}/logit_confidence") for name in SETS]
        models = {
            info.model_id: (info, bits[info.model_id], [part[:, row].tolist() for part in values])
            for row, (_, info) in enumerate(snapshot.models)
        }
        examples = [store.examples(name) for name in SETS]
        return models, [(part.keys, part.labels.tolist(), part.class_names) for part in examples]

    def asked(self):
        """The answer, or None where the store says that it cannot give one."""
        try:
            return self.answer()
        except MemdbError:
            return None

    def verified(self):
        return verify(self.store)

    def found_damaged(self):
        """The places that a verification names, relative to the store, a group's own for its document."""
        return {damage.place.removeprefix(f"{self.folder}/") for damage in self.verified().damages}


def notices(places, path):
    return path in places or path.removesuffix("/zarr.json") in places


def flipped(data, position):
    """The data with one bit of the byte at a position the other way."""
    return (
        data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]
        if position < len(data)
        else data
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return Tiny(tmp_path_factory.mktemp("tiny") / "s.zarr")


@pytest.fixture
def altered(tiny, tmp_path):
    return tiny.copy(tmp_path / "s.zarr")


def test_the_unaltered_answer_is_what_was_committed(tiny, altered):
    models, _ = altered.answer()
    assert {name: bits for name, (_, bits, _) in models.items()} == {
        name: bits for name, bits in tiny.committed.items() if name != tiny.retracted
    }
    assert altered.verified().damages == []


UNNOTICED = {
    "segments/{loose}/zarr.json": "without its last write a segment was never committed",
    "segments/{taken}/zarr.json": "the same, and its models are in the block",
    "retractions/{retraction}.json": "its models are retracted by the snapshot after it, too",
    "snapshots/2.json": "the one before it names the same block",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", every(3, range(3)))
def test_a_lost_object_is_noticed_but_those_that_nothing_else_names(tiny, altered, first):
    right = altered.answer()
    unnoticed = {tiny.path(pattern) for pattern in UNNOTICED}
    for path, data in itertools.islice(altered.files().items(), first, None, 3):
        (altered.folder / path).unlink()
        answer, places = altered.asked(), altered.found_damaged()
        (altered.folder / path).write_bytes(data)
        if path in unnoticed:
            assert places == set()
            ids = set(right[0])
            ids -= tiny.models("loose") if path == tiny.path("segments/{loose}/zarr.json") else set()
            assert set(answer[0]) == ids, path
            assert answer[1] == right[1]
        else:
            assert answer is None or notices(places, path), f"nothing noticed that {path} is gone"
            assert answer in (None, right), f"a wrong answer without {path}"


def verified_everywhere(altered, step):
    """Flip bits in all objects that do not hide one another at once, at every position; return the unnoticed."""
    files = altered.files()
    documents = {path for path, data in files.items() if b'"self_sha256"' in data}
    newest = "snapshots/2.json"
    together = [set(files) - documents - EMPTY_GROUPS, documents - {newest, "zarr.json"}, {newest}]
    missed, n_bytes = [], 0
    for paths in together:
        for position in range(0, max(len(files[path]) for path in paths), step):
            hit = {path for path in paths if position < len(files[path])}
            for path in hit:
                (altered.folder / path).write_bytes(flipped(files[path], position))
            places = altered.found_damaged()
            missed += [(path, position) for path in hit if not notices(places, path)]
            n_bytes += len(hit)
            for path in hit:
                (altered.folder / path).write_bytes(files[path])
    for position in range(0, len(files["zarr.json"]), step):
        (altered.folder / "zarr.json").write_bytes(flipped(files["zarr.json"], position))
        missed += [("zarr.json", position)] if altered.asked() is not None else []
        n_bytes += 1
    (altered.folder / "zarr.json").write_bytes(files["zarr.json"])
    print(f"{n_bytes} bytes altered, {len(missed)} not noticed")
    return missed


def answers_elsewhere(altered, step):
    """Flip a bit of one byte at a time; return those with which the store gave another answer."""
    right, wrong, n_bytes = altered.answer(), [], 0
    for number, (path, data) in enumerate(altered.files().items()):
        for position in range(number % step % len(data), len(data), step):
            (altered.folder / path).write_bytes(flipped(data, position))
            answer = altered.asked()
            if answer not in ((right,) if path in EMPTY_GROUPS else (None, right)):
                wrong.append((path, position))
            n_bytes += 1
        (altered.folder / path).write_bytes(data)
    print(f"{n_bytes} bytes altered, {len(wrong)} wrong answers")
    return wrong


def test_a_flipped_bit_anywhere_is_found_by_verify_or_at_opening(altered):
    assert verified_everywhere(altered, step=167) == []


@pytest.mark.slow
def test_a_flipped_bit_never_changes_an_answer(altered):
    assert answers_elsewhere(altered, step=499) == []


@pytest.mark.slow
def test_every_flipped_byte_is_found_by_verify_or_at_opening(altered):
    assert verified_everywhere(altered, step=1) == []


@pytest.mark.slow
def test_no_flipped_byte_changes_an_answer(altered):
    assert answers_elsewhere(altered, step=1) == []


@pytest.mark.parametrize(
    ("damaged", "kind", "named", "lost"),
    [
        ("segments/{loose}/mask/c.0.0", "segment", ["loose"], ["loose"]),
        ("segments/{loose}/zarr.json", "segment", [], ["loose"]),
        ("segments/{taken}/train/correct/c.0.0", "segment", ["taken"], []),
        ("blocks/{block}/test/correct/c.0.0", "block", ["gone", "taken"], ["gone"]),
        ("blocks/{block}/zarr.json", "block", [], ["gone"]),
        ("snapshots/2.json", "snapshot", [], []),
    ],
)
@pytest.mark.parametrize("damage", every(2, ["altered", "cut"]))
def test_a_repair_sets_aside_what_is_damaged_and_loses_nothing_else(
    tiny, altered, damaged, kind, named, lost, damage
):
    models, examples = altered.answer()
    path = altered.folder / tiny.path(damaged)
    path.write_bytes(flipped(path.read_bytes(), 5) if damage == "altered" else path.read_bytes()[:-3])
    report, before = altered.verified(), altered.files()
    (found,) = report.damages
    assert (found.kind, set(found.models)) == (kind, tiny.models(*named))
    done = repair(altered.store, report)
    assert done.left == ()
    assert before.items() <= altered.files().items()  # nothing is removed or changed
    left = {tiny.path(damaged)} if kind == "snapshot" else set()  # the next one took its place
    assert altered.found_damaged() == left
    kept = {name: model for name, model in models.items() if name not in tiny.models(*lost)}
    assert altered.answer() == (kept, examples)
    compact.compact(altered.store)
    assert altered.answer() == (kept, examples)


def test_a_block_without_confidence_keeps_its_models(tiny, altered):
    right = contents(tiny.store.snapshot())
    path = altered.folder / tiny.path("blocks/{block}/test/logit_confidence/c.0.0")
    path.unlink()
    report = altered.verified()
    assert {name for damage in report.damages for name in damage.models} == tiny.models("gone", "taken")
    assert repair(altered.store, report).left == ()
    snapshot = Store.open(altered.storage).snapshot()
    assert contents(snapshot) == right
    with pytest.raises(NotFoundError, match="have no test/logit_confidence"):
        snapshot.outcome_values("test/logit_confidence")
    assert altered.found_damaged() == set()


@pytest.mark.parametrize("damaged", ["blocks/{block}/mask/c.0.0", "blocks/{block}/zarr.json"])
def test_a_damaged_block_comes_back_from_its_segments(tmp_path, damaged):
    whole = Tiny(tmp_path / "whole.zarr", cleaned=False)
    altered = whole.copy(tmp_path / "s.zarr")
    right = altered.answer()
    path = altered.folder / whole.path(damaged)
    path.write_bytes(flipped(path.read_bytes(), 5))
    assert altered.asked() is None
    repair(altered.store, altered.verified())
    assert altered.answer() == right
    assert altered.found_damaged() == set()


@pytest.mark.parametrize("damaged", ["segments/{loose}/mask/c.0.0", "blocks/{block}/mask/c.0.0"])
def test_cleaning_up_leaves_what_a_repair_set_aside(tiny, altered, damaged):
    path = altered.folder / tiny.path(damaged)
    path.write_bytes(flipped(path.read_bytes(), 5))
    done = repair(altered.store, altered.verified())
    doomed = gc.garbage(altered.store, timedelta(0), alone=True)
    assert {item.path for item in doomed}.isdisjoint(done.set_aside)
    list(gc.remove(altered.store, doomed))
    assert path.exists()


@pytest.mark.parametrize(
    ("damaged", "answers"),
    [
        ("dataset/train/label/c.0", False),
        ("retractions/{retraction}.json", False),
        ("snapshots/1.json", True),
    ],
)
def test_what_only_a_copy_can_mend_is_left_and_named(tiny, altered, damaged, answers):
    path = altered.folder / tiny.path(damaged)
    path.write_bytes(flipped(path.read_bytes(), 5))
    report, before = altered.verified(), altered.files()
    done = repair(altered.store, report)
    assert (done.set_aside, done.snapshot, done.left) == ((), None, tuple(report.damages))
    assert [damage.place for damage in done.left] == [str(path)]
    assert altered.files() == before
    assert (altered.asked() is not None) == answers


def test_an_object_that_claims_to_swell_beyond_all_memory_is_damaged(tmp_path):
    objects = encode_group({"values": ArrayData(np.arange(20, dtype=np.float32).reshape(4, 5))})
    claim = b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + b"\x01\x00\x00"  # a frame of zstd
    checksum = google_crc32c.value(claim).to_bytes(4, "little")
    altered = {**objects, "values/c.0.0": claim + checksum}
    storage = open_storage(str(tmp_path))
    storage.write_all({f"group/{name}": data for name, data in altered.items()})
    with pytest.raises(
        DamagedError, match=f"group/values cannot be decoded: a chunk of 80 bytes becomes {2**62:,} bytes"
    ):
        GroupReader(storage, "group", describe(altered)).read("values", (4, 5), "float32")
