"""Stores that keep gradient sketches of some of their models, from the first commit to a copy of a copy."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.stores import one

import memdb
from memdb.errors import DamagedError, InvalidInputError, TrainingError, WrongFormatError
from memdb.format.sketches import Projection, sketch_path, sketched_slots
from memdb.store.maintenance import merge as merging
from memdb.store.read_sketches import iterate_sketches, projection_in_use, read_sketches

N_TRAIN, N_TEST, SIZE = 12, 5, 6


def numbers(n_examples):
    return np.arange(n_examples * 2, dtype=np.float32).reshape(n_examples, 2)


def data():
    return memdb.Dataset(
        numbers(N_TRAIN),
        np.arange(N_TRAIN) % 2,
        numbers(N_TEST),
        np.arange(N_TEST) % 2,
        class_names=["a", "b"],
    )


def sketches_of(seed, n_examples, size, projection):
    """A sketch that says which model, example and projection it is of."""
    rows = np.arange(n_examples)[:, None] + np.arange(size) / 64
    return rows + (seed % 97) * 16 + (projection % 7) / 128


class Guess:
    """Guesses at random, and sketches what it is asked to; tests change how."""

    name, version, options = "guess", "1", {}
    diverged = frozenset()

    def models_per_batch(self, data, device):
        return 4

    def __call__(self, data, masks, seeds, run):
        chance = np.random.default_rng(seeds)
        found = {}
        for name, part in data.sets.items():
            found[f"{name}/correct"] = chance.random((len(seeds), len(part))) < 0.6
            if run.sketch:
                sketched = seeds[: run.sketch.n_models].tolist()
                found[f"{name}/gradient_sketch"] = np.stack(
                    [sketches_of(seed, len(part), run.sketch.size, run.sketch.seed) for seed in sketched]
                )
        return self.changed(found)

    def changed(self, found):
        return found


def store(url, **options):
    options = {"sketches": 5, "sketch_size": SIZE, **options}
    return memdb.init(url, data(), options.pop("recipe", Guess()), outcomes=["correct"], **options)


def require_whole(db, positions):
    """Check that exactly these models are sketched, each by what it is to be, in every way of reading."""
    snapshot = db.snapshot
    projection = projection_in_use(snapshot)
    for which, n_examples in (("train", N_TRAIN), ("test", N_TEST)):
        found = read_sketches(snapshot, which)
        assert found.models.tolist() == list(positions)
        assert (found.values.shape, found.values.dtype) == ((len(positions), n_examples, SIZE), np.float16)
        for place, position in enumerate(positions):
            model = snapshot.models[position][1]
            wanted = sketches_of(model.seed, n_examples, SIZE, projection.seed).astype(np.float16)
            np.testing.assert_array_equal(found.values[place], wanted)
        np.testing.assert_array_equal(read_sketches(snapshot, which, (2, 4)).values, found.values[:, 2:4])
        for place, (position, values) in enumerate(iterate_sketches(snapshot, which)):
            assert position == positions[place]
            np.testing.assert_array_equal(values, found.values[place])
    info = one(db.info())
    if not snapshot.is_published:
        assert (info["n_sketched"], info["sketch_size"]) == (len(positions), SIZE if positions else None)
        assert (info["sketch_bytes"] > 2 * SIZE * len(positions) * (N_TRAIN + N_TEST)) == bool(positions)


def test_the_first_models_are_sketched_and_later_ones_on_request(tmp_path):
    db = store(tmp_path / "a.zarr")
    require_whole(db, [])
    db.train(add=3)
    require_whole(db, range(3))
    db.train(add=8)
    require_whole(db, range(5))
    db.train(add=9, sketch=2)
    require_whole(db, [*range(5), 11, 12])
    db.compact()
    assert len(db.snapshot.segments) == 1
    require_whole(db, [*range(5), 11, 12])
    report, _ = db.verify()
    assert report.damages == []
    db.train(add=1, sketch=1)
    db.compact()
    require_whole(db, [*range(5), 11, 12, 20])


def test_a_store_made_without_sketches_takes_them_later(tmp_path):
    db = store(tmp_path / "a.zarr", sketches=None, sketch_size=None)
    db.train(add=3)
    none = read_sketches(db.snapshot, "test")
    assert (none.values.shape, none.projection) == ((0, N_TEST, 0), None)
    db.train(add=5, sketch=1, sketch_size=SIZE)
    require_whole(db, [3])
    assert projection_in_use(db.snapshot) == Projection.of_store(db.store.manifest.seed, SIZE)
    with pytest.raises(InvalidInputError, match="has sketches of 6 numbers, and others of 7 cannot join"):
        db.train(add=1, sketch=1, sketch_size=7)
    db.train(add=1, sketch=1)
    require_whole(db, [3, 8])


@pytest.mark.slow
def test_models_that_do_not_count_are_not_read(tmp_path):
    db = store(tmp_path / "a.zarr")
    db.train(add=8)
    gone = db.snapshot.models[1][1].model_id
    db.retract([gone], because="a test")
    require_whole(db, [0, 1, 2, 3])
    db.compact()
    require_whole(db, [0, 1, 2, 3])
    some = memdb.open(tmp_path / "a.zarr", exclude=[db.snapshot.models[0][1].model_id])
    require_whole(some, [0, 1, 2])
    db.train(add=4)  # there are fewer than were asked for again
    require_whole(db, [0, 1, 2, 3, 7])


def test_two_workers_keep_no_more_than_were_asked_for(tmp_path):
    """The second one commits while the first is training the models that it was to sketch."""
    first = store(tmp_path / "a.zarr")
    second = memdb.open(tmp_path / "a.zarr")

    class Interrupted(Guess):
        def changed(self, found):
            if not second.n_models:
                second.train(add=4, dataset=data(), recipe=Guess())
            return found

    first.train(add=4, recipe=Interrupted())
    require_whole(first, range(5))


@pytest.mark.slow
def test_copies_have_sketches_only_if_they_are_included(tmp_path):
    db = store(tmp_path / "a.zarr")
    db.train(add=6)
    db.publish(str(tmp_path / "plain"))
    require_whole(memdb.open(tmp_path / "plain"), [])
    db.publish(str(tmp_path / "whole"), include=["bits", "sketches"])
    require_whole(memdb.open(tmp_path / "whole"), range(5))
    memdb.pull(str(tmp_path / "whole"), str(tmp_path / "pulled"))
    require_whole(memdb.open(tmp_path / "pulled"), range(5))
    memdb.pull(str(tmp_path / "whole"), str(tmp_path / "bits"), only="bits")
    require_whole(memdb.open(tmp_path / "bits"), [])
    with pytest.raises(InvalidInputError, match="cannot publish bits, sketch"):
        db.publish(str(tmp_path / "other"), include=["bits", "sketch"])


@pytest.mark.slow
def test_a_merge_keeps_sketches_of_one_projection(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SKETCH_BYTES", 2000)  # of two models
    ours, theirs = store(tmp_path / "1.zarr", seed=1), store(tmp_path / "2.zarr", seed=2, sketches=3)
    ours.train(add=6)
    theirs.train(add=4)
    done = memdb.merge(str(tmp_path / "all.zarr"), [ours, theirs])
    assert (done.n_unsketched, done.database.n_models) == (3, 10)
    assert max(len(segment.models) for segment in done.database.snapshot.segments) < 4
    require_whole(done.database, range(5))
    assert projection_in_use(done.database.snapshot) == projection_in_use(ours.snapshot)
    done.database.train(add=2, dataset=data(), recipe=Guess(), sketch=1)
    require_whole(done.database, [*range(5), 10])
    plain = store(tmp_path / "3.zarr", seed=3, sketches=None, sketch_size=None)
    plain.train(add=2)
    again = memdb.merge(str(tmp_path / "again.zarr"), [plain, done.database])
    assert again.n_unsketched == 0
    require_whole(again.database, [*range(2, 7), 12])


def test_a_store_that_extends_another_adds_sketches_of_the_same_projection(tmp_path):
    base = store(tmp_path / "base.zarr", sketches=2)
    base.train(add=3)
    base.compact()
    db = memdb.extend(
        str(tmp_path / "more.zarr"), str(tmp_path / "base.zarr"), dataset=data(), recipe=Guess()
    )
    db.train(add=4)
    require_whole(db, [0, 1, 3, 4])


def test_sketches_of_another_projection_are_passed_over(tmp_path):
    """As after two workers began with different sizes at the same moment: the first model decides."""
    db = store(tmp_path / "a.zarr", sketches=None, sketch_size=None)
    late = memdb.open(tmp_path / "a.zarr")

    class Late(Guess):
        def changed(self, found):
            if not db.n_models:
                db.train(add=2, sketch=2, sketch_size=SIZE)
            return found

    late.train(add=2, dataset=data(), recipe=Late(), sketch=2, sketch_size=SIZE + 1)
    db.refresh()
    require_whole(db, [0, 1])
    db.compact()
    require_whole(db, [0, 1])


BAD = [
    ({"train/gradient_sketch": None}, "returned no 'train/gradient_sketch', which was asked of it"),
    ({"test/gradient_sketch": np.zeros((1, 5, 7))}, r"float64 \(1, 5, 7\); expected float \(1, 5, 6\)"),
    ({"test/gradient_sketch": np.zeros((1, 5, 6), int)}, r"as int64 \(1, 5, 6\)"),
    ({"train/gradient_sketch": np.zeros((1, 12, 6))}, "full of zeros, for model 0"),
    ({"train/gradient_sketch": np.full((1, 12, 6), np.nan)}, "numbers beyond float16, for model 0"),
    ({"train/gradient_sketch": np.full((1, 12, 6), 7e4)}, "numbers beyond float16, for model 0"),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_recipe_that_returns_other_sketches_is_told(change, said, tmp_path):
    class Bad(Guess):
        def changed(self, found):
            return {path: value for path, value in {**found, **change}.items() if value is not None}

    db = store(tmp_path / "a.zarr", recipe=Bad())
    with pytest.raises(TrainingError, match=said):
        db.train(add=1)
    assert db.n_models == 0


def test_a_model_that_diverged_has_no_sketch_and_another_takes_its_place(tmp_path):
    class Diverging(Guess):
        def changed(self, found):
            n_models = len(found["train/correct"])
            for name, n_examples in (("train", N_TRAIN), ("test", N_TEST)):
                found[f"{name}/logit_confidence"] = np.zeros((n_models, n_examples), dtype=np.float32)
                found[f"{name}/logit_confidence"][1] = np.nan
                if f"{name}/gradient_sketch" in found:
                    found[f"{name}/gradient_sketch"][1:2] = np.nan
            return found

    db = store(tmp_path / "a.zarr", recipe=Diverging())
    db.train(add=12)
    require_whole(db, [0, 2, 3, 4, 8])


def test_sketches_that_cannot_be_are_refused_before_anything_is_made(tmp_path, sklearn):
    cases = [
        ({"sketches": 0}, "sketches 0 is not a number from 1"),
        ({"sketches": -1}, "sketches -1 is not a number from 1"),
        ({"sketch_size": 0}, "a sketch of size 0 cannot be made"),
        ({"sketch_size": 10**9}, "a sketch of size 1000000000 cannot be made"),
        ({"sketches": None}, "sketch_size 6 does nothing without a number of models"),
        (
            {"recipe": "sklearn:sklearn.neighbors.KNeighborsClassifier"},
            "recipe sklearn:.* gives no gradient_sketch",
        ),
    ]
    for changed, said in cases:
        with pytest.raises(InvalidInputError, match=said):
            store(tmp_path / "a.zarr", **changed)
    with pytest.raises(InvalidInputError, match="cannot keep the outcomes"):
        memdb.init(tmp_path / "a.zarr", outcomes=["correct", "gradient_sketch"])
    assert not (tmp_path / "a.zarr").exists()
    db = store(tmp_path / "a.zarr")
    for changed, said in (
        ({"sketch": 0}, "sketch 0 is not"),
        ({"sketch_size": 3}, "sketch_size 3 does nothing"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            db.train(add=1, **changed)


@pytest.mark.parametrize("segments_are_there", [True, False])
def test_a_damaged_sketch_costs_the_sketch_at_most(segments_are_there, tmp_path):
    db = store(tmp_path / "a.zarr")
    db.train(add=6)
    db.compact()
    if not segments_are_there:  # as after `memdb gc`, a day later
        for segment in (tmp_path / "a.zarr" / "segments").glob("*Z-*"):
            shutil.rmtree(segment)
    (chunk,) = (tmp_path / "a.zarr" / "blocks").glob("*/test/gradient_sketch/1/c.*")
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert db.top_memorized(3).fetchall()  # which reads no sketches
    with pytest.raises(DamagedError, match=r"test/gradient_sketch/1"):
        read_sketches(memdb.open(tmp_path / "a.zarr").snapshot, "test")
    report, _ = db.verify(repair=True)
    assert ["test/gradient_sketch/1/c." in damage.place for damage in report.damages] == [True]
    again = memdb.open(tmp_path / "a.zarr")
    assert again.n_models == 6
    require_whole(again, range(5) if segments_are_there else [0, 2, 3, 4])


@pytest.mark.parametrize(
    ("change", "said"),
    [({"seed": "x"}, 'seed is "x"'), ({"seed": 3}, "seed is 3"), ({"size": 10**9}, "size is 1000000000"),
     ({"version": 0}, "version is 0")],
)  # fmt: skip
def test_what_a_store_says_of_a_projection_is_checked(change, said):
    told = Projection(SIZE, 3).to_document()
    assert Projection.from_attributes(told, "here") == Projection(SIZE, 3)
    with pytest.raises(WrongFormatError, match=f"here.{said}"):
        Projection.from_attributes({**told, **change}, "here")
    with pytest.raises(WrongFormatError, match=r"here.seed is missing"):
        Projection.from_attributes({}, "here")


def test_only_models_of_the_segment_with_sketches_of_all_sets_are_sketched():
    paths = [sketch_path(name, slot) for name, slot in (("train", 0), ("test", 0), ("train", 1), ("test", 2))]
    odd = ["train/gradient_sketch/9", "test/gradient_sketch/9", "train/gradient_sketch/01", "train/correct"]
    assert sketched_slots([*paths, *odd], ("train", "test"), 9) == [0]
    assert sketched_slots([*paths, *odd], ("train",), 10) == [0, 1, 9]
