"""Merged stores answer as one that trained everything; what does not belong together is refused, by name."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.joined import answers, whole
from support.stores import coin_recipe, small_dataset
from support.storing import FailingStorage, batch, contents, contents_of

import memdb
from memdb.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemdbError,
    MismatchError,
    NotFoundError,
    StorageError,
)
from memdb.format import subsets
from memdb.storage import open_storage
from memdb.store import access
from memdb.store.maintenance import merge, verify

CODE = {"dataset": small_dataset(), "recipe": coin_recipe}


def made(place, seed, seeds=(), **options):
    db = memdb.init(str(place), small_dataset(), coin_recipe, seed=seed, **options)
    if seeds:
        db.train(seeds=seeds)
    return db


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two stores of 9 and 6 models."""
    folder = tmp_path_factory.mktemp("two")
    made(folder / "a.zarr", 1, range(9)).close()
    made(folder / "b.zarr", 2, range(6)).close()
    return folder


@pytest.fixture
def pair(two, tmp_path):
    """The same, opened, to do with as one likes."""
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)
    return tuple(memdb.open(str(tmp_path / name)) for name in ("a.zarr", "b.zarr"))


def test_answers_are_those_of_one_store_in_either_order(pair, tmp_path):
    a, b = pair
    a.compact()
    before = [{p: p.read_bytes() for p in Path(db.url).rglob("*") if p.is_file()} for db in pair]
    merged = memdb.merge(str(tmp_path / "ab.zarr"), [a, b], **CODE)
    assert (merged.added, merged.present, merged.n_retracted, merged.dropped) == ((9, 6), (0, 0), 0, ())
    one = whole(tmp_path / "one.zarr", a.snapshot, b.snapshot)
    assert answers(merged.database, everything=True) == answers(one, everything=True)
    merged.database.compact()
    assert answers(merged.database) == answers(one)
    other = memdb.merge(str(tmp_path / "ba.zarr"), [b, a], **CODE).database
    assert other.models_sha256 == one.models_sha256
    assert contents(other.snapshot) == contents(one.snapshot)
    assert other.top_memorized(23).fetchall() == one.top_memorized(23).fetchall()
    assert [{p: p.read_bytes() for p in Path(db.url).rglob("*") if p.is_file()} for db in pair] == before


def test_a_model_keeps_its_id_and_the_seed_that_its_mask_comes_from(pair, tmp_path):
    db = memdb.merge(str(tmp_path / "ab.zarr"), pair, **CODE).database
    assert db.store.manifest.seed not in {1, 2}
    db.train(seeds=[1])
    db.compact()
    masks = {
        info.model_id: content[0] for (_, info), content in zip(db.snapshot.models, masks_of(db), strict=True)
    }
    for _, info in db.snapshot.models:
        seed = db.store.manifest.seed if info.store_seed is None else info.store_seed
        assert info.model_id == subsets.model_id(seed, info.seed)
        assert masks[info.model_id] == subsets.subset_mask(seed, info.seed, 23, 16).tolist()
    assert {info.store_seed for _, info in db.snapshot.models} == {1, 2, None}
    assert verify.verify(db.store).damages == []


def masks_of(db):
    found = contents(db.snapshot)
    return [found[info.model_id] for _, info in db.snapshot.models]


def test_a_model_of_several_is_kept_once_and_a_second_merge_adds_nothing(pair, tmp_path):
    a, b = pair
    ab = memdb.merge(str(tmp_path / "ab.zarr"), [a, b], **CODE).database
    b.train(seeds=[77], **CODE)
    again = memdb.merge(str(tmp_path / "ab.zarr"), [a, ab_copy(ab, tmp_path), b], **CODE)
    assert (again.added, again.present) == ((0, 0, 1), (9, 15, 6))
    assert again.database.n_models == 16
    assert again.database.snapshot.n_repeats == 0


def ab_copy(db, tmp_path):
    import shutil

    return memdb.open(str(shutil.copytree(db.url, tmp_path / "copy.zarr")))


def test_a_store_that_is_named_twice_is_merged_once(pair, tmp_path):
    a, _ = pair
    done = memdb.merge(str(tmp_path / "c"), [a, a], **CODE)
    assert (done.added, done.present) == ((a.n_models, 0), (0, a.n_models))
    assert done.database.models_sha256 == a.models_sha256


def test_what_was_retracted_anywhere_is_retracted_whatever_comes_later(pair, tmp_path):
    a, b = pair
    ab = memdb.merge(str(tmp_path / "ab.zarr"), [a, b], **CODE).database
    gone = a.snapshot.models[2][1].model_id
    copy = ab_copy(ab, tmp_path)
    a.retract([gone], "a broken node")
    merged = memdb.merge(ab.url, [copy, a], **CODE)
    assert (merged.added, merged.n_retracted, merged.database.n_models) == ((0, 0), 1, 14)
    (told,) = [item.because for item in merged.database.snapshot.retractions]
    assert told == f"withdrawn in store {a.store.manifest.store_id[:8]}: a broken node"
    assert memdb.merge(str(tmp_path / "new.zarr"), [a, copy], **CODE).database.n_models == 14
    late = memdb.merge(str(tmp_path / "late.zarr"), [a], **CODE).database
    assert memdb.merge(late.url, [copy], **CODE).database.n_models == 14
    assert memdb.merge(late.url, [a], **CODE).n_retracted == 0


def test_an_extension_is_merged_with_its_base_and_merged_into(pair, tmp_path):
    a, b = pair
    a.compact()
    own = memdb.extend(str(tmp_path / "own.zarr"), a.url, dataset=small_dataset(), recipe=coin_recipe)
    own.train(seeds=range(3))
    flat = memdb.merge(str(tmp_path / "flat.zarr"), [own], **CODE).database
    assert flat.store.manifest.base is None
    assert answers(flat) == answers(own)
    into = memdb.merge(own.url, [a, b], **CODE)
    assert (into.added, into.present) == ((0, 6), (9, 0))
    assert (into.database.n_models, into.database.store.own_snapshot().n_models) == (18, 9)


def test_outcomes_that_some_models_lack_are_left_out_of_a_new_store(pair, tmp_path):
    a, _ = pair
    lean = made(tmp_path / "lean.zarr", 3, range(4), outcomes=["correct"])
    merged = memdb.merge(str(tmp_path / "new.zarr"), [a, lean], **CODE)
    assert merged.dropped == ("logit_confidence",)
    assert "train/logit_confidence" not in merged.database.store.manifest.arrays()
    assert merged.database.n_models == 13
    with pytest.raises(
        MismatchError, match=r"a.zarr keeps the outcome logit_confidence, which models of .*lean.zarr"
    ):
        memdb.merge(a.url, [lean], **CODE)


def tree(seeds):
    def recipe(data, masks, seeds, run):
        return coin_recipe(data, masks, seeds, run)

    recipe.version = seeds
    return recipe


@pytest.mark.parametrize(
    ("other", "kind", "says"),
    [
        ({"subset_fraction": 0.5}, MismatchError, r"the subsets differ: .*a.zarr draws 0.7 .*exact; .*b.zarr 0.5, exact"),
        ({"recipe": tree("2")}, MismatchError, r"the recipes differ: .*coin_recipe 0, fingerprint .*recipe 2, fing"),
        ({"dataset": small_dataset(1)}, MismatchError, r"the test sets differ: .* has 11 examples with fingerprint"),
    ],
)  # fmt: skip
def test_stores_that_do_not_belong_together_are_refused_before_anything_is_written(
    tmp_path, other, kind, says
):
    a = made(tmp_path / "a.zarr", 1, range(2))
    options = {"dataset": small_dataset(), "recipe": coin_recipe, **other}
    b = memdb.init(str(tmp_path / "b.zarr"), seed=2, **options)
    with pytest.raises(kind, match=says) as caught:
        memdb.merge(str(tmp_path / "ab.zarr"), [a, b], **CODE)
    assert "memdb compare" in caught.value.hint
    assert not (tmp_path / "ab.zarr").exists()
    with pytest.raises(kind, match="differ"):
        memdb.merge(a.url, [b], **CODE)


def committed(db, seeds, salt=0, change=lambda *_: None):
    models, masks, outcomes = batch(db.store, seeds, salt)
    change(models, masks, outcomes)
    db.store.commit(models, masks, outcomes)
    db.refresh()
    return db


def test_dependent_and_contradictory_models_are_refused_by_name(tmp_path):
    bits = {"outcomes": ["correct"]}
    a = committed(made(tmp_path / "a.zarr", 1, **bits), range(4))
    masks_again = committed(made(tmp_path / "b.zarr", 2, **bits), [3, 9])
    with pytest.raises(
        InvalidInputError, match=r"model \w{32} of .*b.zarr has the mask of model \w{32} of .*a.zarr"
    ):
        memdb.merge(str(tmp_path / "ab.zarr"), [a, masks_again], **CODE)
    assert not (tmp_path / "ab.zarr").exists()
    other_result = committed(made(tmp_path / "c.zarr", 1, **bits), [2, 11], change=flipped)
    with pytest.raises(
        MismatchError, match=r"model \w{32} of .*c.zarr has another mask or other outcomes than in .*a.z"
    ):
        memdb.merge(a.url, [other_result], **CODE)
    assert a.store.snapshot().n_models == 4
    other_result.retract([subsets.model_id(1, 2)], "not reproducible")
    merged = memdb.merge(a.url, [other_result], **CODE)
    assert (merged.added, merged.n_retracted, merged.database.n_models) == ((1,), 1, 4)


def flipped(models, masks, outcomes):
    outcomes["test/correct"][0, 0] ^= True
    models[0] = replace(models[0], test_accuracy=float(outcomes["test/correct"][0].mean()))


def test_other_bad_destinations_and_names(pair, tmp_path):
    a, b = pair
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "thesis.txt").write_text("mine")
    cases = [
        (a.url, [b, a], CODE, InvalidInputError, "both a source and the destination"),
        (
            str(tmp_path / "things"),
            [a, b],
            CODE,
            AlreadyExistsError,
            "other things in it, such as thesis.txt",
        ),
        (
            str(tmp_path / "new"),
            [a, b],
            {},
            InvalidInputError,
            "names the recipe support.stores:coin_recipe, which",
        ),
        (str(tmp_path / "new"), [], CODE, InvalidInputError, "no store to merge"),
        ("http://127.0.0.1:9/x", [a], CODE, MemdbError, "127.0.0.1:9"),
    ]
    for url, sources, names, kind, says in cases:
        with pytest.raises(kind, match=says):
            memdb.merge(url, sources, **names)
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotFoundError):
        memdb.open(str(tmp_path / "nowhere")).snapshot  # noqa: B018


@pytest.mark.slow
def test_a_merge_that_dies_anywhere_goes_on_where_it_was(pair, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "_models_at_once", lambda _: 4)
    a, b = pair
    a.retract([a.snapshot.models[0][1].model_id], "a broken node")
    expected = contents(a.snapshot) | contents(b.snapshot)
    n_died = 0
    for allowed in range(0, 400, 13):
        url = str(tmp_path / f"{allowed}.zarr")
        storage = FailingStorage(open_storage(url), allowed, lasting=True)
        monkeypatch.setattr(access, "open_storage", lambda *_, to=storage: to)
        try:
            memdb.merge(url, [a, b], **CODE)
        except StorageError:
            n_died += 1
        monkeypatch.setattr(access, "open_storage", open_storage)
        merged = memdb.merge(url, [a, b], **CODE)
        assert contents(merged.database.snapshot) == expected
        assert merged.database.snapshot.n_repeats == 0
        assert merged.database.verify()[0].damages == []
        if storage.allowed >= 0:
            break
    assert n_died > 5, storage.done
    assert sum(merged.added) == 0


def test_large_parts_are_cut_and_small_ones_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "_models_at_once", lambda _: 7)
    monkeypatch.setattr(merge, "BAND_BYTES", 64)
    a = committed(committed(made(tmp_path / "a.zarr", 1, outcomes=["correct"]), range(10)), [20, 21])
    seen = []
    db = memdb.merge(
        str(tmp_path / "b.zarr"), [a], **CODE, progress=lambda *progress: seen.append(progress)
    ).database
    assert [len(part.models) for part in db.snapshot.segments] == [7, 5]
    assert seen == [(0, 12), (7, 12), (12, 12)]
    assert contents(db.snapshot) == contents_of(batch(a.store, [*range(10), 20, 21]))
    assert np.all([info.store_seed == 1 for _, info in db.snapshot.models])
