"""A store that extends another answers as one store that has the models of both would."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from support.cases import every
from support.commands import serve_folder
from support.joined import answers, whole
from support.stores import coin_recipe, small_dataset
from support.storing import batch, contents

import memdb
from memdb.errors import (
    AlreadyExistsError,
    DamagedError,
    InvalidInputError,
    MemdbError,
    MismatchError,
    NotFoundError,
    WrongFormatError,
)
from memdb.format import subsets
from memdb.format.documents import group_metadata, sealed
from memdb.format.manifest import Manifest
from memdb.storage import open_storage
from memdb.store import Access, Store
from memdb.store import open_base as bases
from memdb.store.maintenance import verify

TRAINED = {"dataset": small_dataset(), "recipe": coin_recipe}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """The folder of a store of 12 models in a snapshot."""
    url = tmp_path_factory.mktemp("twelve") / "base.zarr"
    with memdb.init(str(url), small_dataset(), coin_recipe, seed=7) as made:
        made.train(seeds=range(12))
        made.compact()
    return url


@pytest.fixture
def base(twelve, tmp_path):
    """The same store, to do with as one likes."""
    url = shutil.copytree(twelve, tmp_path / "base.zarr")
    with memdb.open(str(url)) as opened:
        yield opened


@pytest.fixture
def extension(base, tmp_path):
    with memdb.extend(str(tmp_path / "own.zarr"), base.url, seed=8, **TRAINED) as made:
        yield made


@pytest.fixture
def served(tmp_path):
    """A web server over the folder that the stores are in."""
    with serve_folder(tmp_path) as url:
        yield url


def test_answers_are_those_of_one_store_that_trained_everything(base, extension, tmp_path):
    extension.train(seeds=range(9))
    with whole(tmp_path / "one.zarr", base.store.snapshot(), extension.store.own_snapshot()) as one:
        assert answers(extension, everything=True) == answers(one, everything=True)
        assert extension.n_models == one.n_models == 21
    extension.compact()
    assert extension.snapshot.number == 1
    assert [part.storage.url for part in extension.snapshot.selections] == [base.url, extension.url]
    with memdb.open(extension.url) as again, memdb.open(extension.url, as_of=1) as numbered:
        assert answers(again) == answers(numbered) == answers(extension)
    assert base.store.snapshot().n_models == 12


def test_its_models_have_a_seed_of_their_own_and_the_recipe_of_the_base(base, extension):
    extension.train(seeds=[3])
    own = extension.store.own_snapshot()
    assert own.models[0][1].model_id == subsets.model_id(8, 3)
    assert extension.store.manifest.recipe == base.store.manifest.recipe
    assert extension.train(seeds=[3]) == 0
    assert memdb.extend(f"{extension.url}2", base.url, **TRAINED).store.manifest.seed not in {7, 8}


@pytest.mark.slow
def test_what_its_base_gets_or_withdraws_counts_after_an_update(base, extension, tmp_path):
    extension.train(seeds=range(4))
    extension.compact()
    before = answers(extension)
    base.train(seeds=range(12, 20), **TRAINED)
    gone = base.snapshot.models[0][1].model_id
    base.retract([gone], "a broken node")
    extension.refresh()
    assert answers(extension) == before
    assert extension.update() is None
    base.compact()
    extension.refresh()
    assert extension.info().df().loc[0, ["base_snapshot", "base_newest_snapshot"]].tolist() == [1, 2]
    assert answers(extension) == before
    assert extension.update().base.snapshot == 2
    assert extension.snapshot.number is None
    with whole(tmp_path / "one.zarr", base.store.snapshot(), extension.store.own_snapshot()) as one:
        assert (answers(extension), extension.n_models) == (answers(one), 19 + 4)
    assert extension.snapshot.n_retracted == 1
    assert extension.update() is None
    with memdb.open(extension.url, as_of=1) as old:
        assert answers(old) == before
    extension.compact()
    assert extension.snapshot.number == 2
    assert verify.verify(extension.store).damages == []


def test_keeping_touches_only_what_is_its_own(base, extension):
    extension.train(seeds=range(4))
    files = {path: path.read_bytes() for path in Path(base.url).rglob("*") if path.is_file()}
    with pytest.raises(InvalidInputError, match="no models have ids"):
        extension.retract([base.snapshot.models[0][1].model_id], "not mine")
    own = extension.store.own_snapshot().models[0][1].model_id
    extension.retract([own], "mine")
    extension.compact()
    extension.gc(grace=timedelta(0), alone=True)
    report, _ = extension.verify()
    assert (report.damages, report.n_models, extension.n_models) == ([], 4, 15)
    assert {path: path.read_bytes() for path in Path(base.url).rglob("*") if path.is_file()} == files
    shutil.rmtree(base.url)
    extension.verify()
    extension.gc()
    assert extension.compact() is None


def test_a_model_of_both_counts_once_and_who_withdraws_it_withdraws_it(base, extension):
    models, masks, outcomes = batch(base.store, [50, 51])
    base.store.commit(models, masks, outcomes)
    base.compact()
    extension.update()
    extension.store.commit(models, masks, outcomes)
    extension.refresh()
    assert extension.n_models == 14
    assert len(contents(extension.snapshot)) == 14
    extension.retract([models[0].model_id], "wrong")
    assert extension.n_models == 13
    assert models[0].model_id not in contents(extension.snapshot)


def test_a_base_that_extends_another_brings_it_along(base, extension, tmp_path):
    extension.train(seeds=range(3))
    extension.compact()
    with memdb.extend(str(tmp_path / "third.zarr"), extension.url, **TRAINED) as third:
        third.train(seeds=range(2))
        assert third.n_models == 12 + 3 + 2
        stores = (base.store.snapshot(), extension.store.own_snapshot(), third.store.own_snapshot())
        with whole(tmp_path / "one.zarr", *stores) as one:
            assert answers(third) == answers(one)


@pytest.mark.slow
def test_over_http_it_is_read_as_from_disk(base, tmp_path, served):
    with memdb.extend(str(tmp_path / "far.zarr"), f"{served}/base.zarr", **TRAINED) as far:
        far.train(seeds=range(5))
        far.compact()
        assert far.n_models == 17
        base.train(seeds=[40], **TRAINED)
        base.compact()
        far.update()
        assert far.n_models == 18
        far.compact()
        with memdb.open(f"{served}/far.zarr", trust_base=True) as read_only:
            assert answers(read_only) == answers(far)


def rewritten(place, /, **changes):
    """Change what a store's manifest says of its base, as its creator could."""
    path = Path(place) / "zarr.json"
    document = json.loads(path.read_text())["attributes"]["memdb"]
    document["base"] |= changes
    path.write_bytes(group_metadata(sealed(document)))
    return Store.open(open_storage(place), Access(trust_base=True))


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    every(2, [
        ({"url": "/nowhere/base.zarr"}, NotFoundError, "the base of .* is not at /nowhere/base.zarr any more"),
        ({"url": "github://o:r@main/base.zarr"}, InvalidInputError, "such addresses are not followed"),
        ({"url": "simplecache::file:///etc"}, InvalidInputError, "such addresses are not followed"),
        ({"url": "https://me:secret@host/base.zarr"}, InvalidInputError, r"^the address of the base, https://\*\*\*@host/base.zarr, contains"),
        ({"store_id": "0" * 32}, MismatchError, "holds the store .*; .* extends 0000"),
        ({"models_sha256": "0" * 64}, DamagedError, "snapshot 1 of .* has other models than when .* was set to use it"),
        ({"snapshot": 9}, NotFoundError, "a base, has no snapshot 9 any more"),
    ]),
)  # fmt: skip
def test_a_base_that_is_not_what_was_pinned_is_named(extension, changes, kind, says):
    store = rewritten(extension.url, **changes)
    with pytest.raises(kind, match=says) as caught:
        store.snapshot()
    assert caught.value.hint
    assert "secret" not in str(caught.value)
    assert store.own_snapshot().n_models == 0


def test_an_address_is_followed_only_where_it_is_trusted(extension, monkeypatch, tmp_path):
    stranger = memdb.open(extension.url)
    assert stranger.n_models == 12  # who made it trusts it
    monkeypatch.setenv("HOME", str(tmp_path / "another_user"))
    untrusted = memdb.open(extension.url)
    with pytest.raises(InvalidInputError, match="extends .*base.zarr, whose models are part") as caught:
        untrusted.top_memorized()
    assert "trust_base=True" in caught.value.hint
    assert memdb.open(extension.url, trust_base=True).n_models == 12
    assert memdb.open(extension.url).n_models == 12


def test_a_remote_store_never_leads_to_the_local_disk(base, extension, served):
    extension.compact()
    with pytest.raises(InvalidInputError, match="names a folder of a local disk as its base"):
        memdb.open(f"{served}/own.zarr", trust_base=True).snapshot  # noqa: B018
    with pytest.raises(InvalidInputError, match="a remote store cannot"):
        bases.followable(base.url, "s3://bucket/own.zarr")


def test_bases_in_a_circle_and_without_end_are_refused(base, extension, tmp_path):
    extension.compact()
    with memdb.extend(str(tmp_path / "third.zarr"), extension.url, **TRAINED) as third:
        third.compact()
        shutil.rmtree(base.url)
        shutil.copytree(third.url, base.url)
        circle = rewritten(extension.url, store_id=third.store.manifest.store_id)
        record = replace(circle.own_snapshot().record, base=circle.base)
        (Path(extension.url) / "snapshots" / "1.json").write_bytes(
            json.dumps(record.to_document(), sort_keys=True, separators=(",", ":")).encode()
        )
        with pytest.raises(InvalidInputError, match="extends itself"):
            third.store.snapshot()


def test_a_chain_that_is_too_long_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(bases, "MOST_BASES", 2)
    below = base.url
    for number in range(2):
        with memdb.extend(str(tmp_path / f"{number}.zarr"), below, **TRAINED) as made:
            made.compact()
        below = made.url
    with pytest.raises(InvalidInputError, match="has a chain of more than 2 bases"):
        memdb.extend(str(tmp_path / "last.zarr"), below, **TRAINED).snapshot  # noqa: B018


def test_what_cannot_be_extended_leaves_nothing_behind(base, tmp_path):
    loose = memdb.init(str(tmp_path / "loose.zarr"), small_dataset(), coin_recipe)
    cases = [
        (loose.url, TRAINED, NotFoundError, "has no snapshot"),
        (str(tmp_path / "nowhere"), TRAINED, NotFoundError, "no memdb store at"),
        (
            base.url,
            {},
            InvalidInputError,
            "names the recipe support.stores:coin_recipe, which training would import",
        ),
        (base.url, {"recipe": "mlp"}, MismatchError, "has the recipe support.stores:coin_recipe, not mlp"),
        (base.url, {"dataset": small_dataset(1), "recipe": coin_recipe}, MismatchError, "the train set of"),
        (base.url, {**TRAINED, "seed": 7}, InvalidInputError, "the seed 7 is that of"),
        (base.url, {**TRAINED, "seed": -1}, InvalidInputError, "the seed -1 is out of range"),
    ]
    for url, options, kind, says in cases:
        with pytest.raises(kind, match=says):
            memdb.extend(str(tmp_path / "own.zarr"), url, **options)
        assert not (tmp_path / "own.zarr").exists()
    with pytest.raises(AlreadyExistsError):
        memdb.extend(base.url, base.url, **TRAINED)


def test_an_update_that_cannot_be_changes_nothing(base, extension, tmp_path):
    base.train(seeds=[30], **TRAINED)
    old = shutil.copytree(base.url, tmp_path / "old.zarr")
    base.compact()
    extension.update()
    before = answers(extension)
    other = memdb.init(str(tmp_path / "other.zarr"), small_dataset(), coin_recipe)
    other.compact()
    for url, says in [
        (str(old), "is an older copy"),
        (other.url, "holds the store"),
        ("ftp://x/y", "not an address that memdb can read"),
    ]:
        with pytest.raises(MemdbError, match=says):
            extension.update(url)
    with pytest.raises(InvalidInputError, match="extends no other store"):
        base.update()
    assert answers(extension) == before
    moved = shutil.move(base.url, tmp_path / "moved.zarr")
    with pytest.raises(NotFoundError, match="any more"):
        extension.update()
    extension.update(str(moved))
    assert answers(memdb.open(extension.url, trust_base=True)) == before


def test_a_reader_that_does_not_know_bases_refuses_the_store(extension):
    document = extension.store.manifest.to_document()
    assert document["required_features"] == ["base"]
    assert Manifest.from_document(document, "here") == extension.store.manifest
    for wrong in ({**document, "required_features": []}, {**document, "required_features": ["base", "x"]}):
        with pytest.raises(WrongFormatError):
            Manifest.from_document(sealed(wrong), "here")
