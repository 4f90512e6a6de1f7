"""Copies that meet other copies, or are of odd stores: older snapshots, excluded models, no test examples."""

from __future__ import annotations

import numpy as np
import pytest
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, InvalidInputError
from memdb.format import layout


@pytest.fixture
def database(tmp_path):
    """A store of two snapshots, of 9 and of 21 models."""
    db = memdb.init(str(tmp_path / "s.zarr"), small_dataset(), coin_recipe, seed=3)
    for seeds in (range(9), range(9, 21)):
        db.train(seeds=seeds)
        db.compact()
    return db


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_bits_are_not_pulled_onto_a_published_copy_or_its_beginning(database, tmp_path):
    database.publish(str(tmp_path / "a"))
    database.publish(str(tmp_path / "b"))
    for names in ((), (layout.PUBLISHED,), (layout.MANIFEST,)):
        for name in names:
            (tmp_path / "b" / name).unlink()
        before = files_of(tmp_path / "b")
        with pytest.raises(AlreadyExistsError, match="published copy"):
            memdb.pull(str(tmp_path / "a"), str(tmp_path / "b"), only="bits")
        assert files_of(tmp_path / "b") == before


@pytest.mark.slow
def test_a_publication_cut_off_twice_goes_on(database, tmp_path):
    dest = tmp_path / "copy"
    for seeds in (range(21, 23), range(23, 25), range(25, 27)):
        database.train(seeds=seeds)
        database.publish(str(dest))
        (dest / layout.PUBLISHED).unlink()
    database.publish(str(dest))
    with memdb.open(str(dest)) as copy:
        assert copy.models_sha256 == database.models_sha256
        assert copy.verify()[0].damages == []


@pytest.mark.slow
def test_an_older_snapshot_does_not_become_the_newest(database, tmp_path):
    dest = str(tmp_path / "copy")
    with memdb.open(database.url, as_of=1) as older:
        older.publish(dest)
        database.publish(dest)
        before = files_of(tmp_path / "copy")
        with pytest.raises(InvalidInputError, match="has 21 models already, snapshot 1 only 9"):
            older.publish(dest)
    assert files_of(tmp_path / "copy") == before


@pytest.mark.slow
def test_a_plan_is_published_as_it_was_made_and_not_over_anothers(database, tmp_path):
    with memdb.open(database.url, as_of=1) as older:
        plan = older.plan_publication(str(tmp_path / "copy"))
        assert {part.name for part in plan.parts} == {"dataset", "blocks", "stats", "top_influence", "tables"}
        assert not (tmp_path / "copy").exists()
        older.publish(str(tmp_path / "first"))
        other = memdb.open(str(tmp_path / "first"))
        with pytest.raises(InvalidInputError, match=r"s\.zarr was planned to be published, not .*first"):
            other.publish(plan)
        with pytest.raises(InvalidInputError, match="a plan has its include and credit already"):
            older.publish(plan, include=("bits",), credit=None)
        stale = database.plan_publication(str(tmp_path / "copy"))
        assert older.publish(plan).snapshot.n_models == 9
        before = files_of(tmp_path / "copy")
        for late in (stale, plan):
            with pytest.raises(AlreadyExistsError, match="published to after this was planned"):
                database.publish(late)
    assert files_of(tmp_path / "copy") == before
    assert database.publish(database.plan_publication(str(tmp_path / "copy"))).snapshot.number == 2


def test_models_are_not_left_out_of_a_copy_silently(database, tmp_path):
    one = database.snapshot.models[0][1].model_id
    with (
        memdb.open(database.url, exclude=[one]) as some,
        pytest.raises(InvalidInputError, match="without some models") as refused,
    ):
        some.publish(str(tmp_path / "copy"))
    assert "retract" in refused.value.hint
    assert not (tmp_path / "copy").exists()


def test_a_readme_is_made_and_not_copied(database, tmp_path):
    database.publish(str(tmp_path / "copy"))
    made = (tmp_path / "copy" / layout.README).read_text()
    (tmp_path / "copy" / layout.README).unlink()
    (tmp_path / "private").write_text("a key")
    (tmp_path / "copy" / layout.README).symlink_to(tmp_path / "private")
    memdb.pull(str(tmp_path / "copy"), str(tmp_path / "here"))
    assert (tmp_path / "here" / layout.README).read_text() == made


def test_a_store_without_test_examples_is_published_and_answers_as_before(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "lira.npz", keep=rng.random((20, 50)) < 0.5, scores=rng.normal(size=(20, 50)))
    url = str(tmp_path / "s.zarr")
    memdb.import_file(tmp_path / "lira.npz", url, name="theirs")
    with memdb.open(url) as db:
        db.publish(str(tmp_path / "copy"))
        with memdb.open(str(tmp_path / "copy")) as copy:
            assert copy.top_memorized(50).fetchall() == db.top_memorized(50).fetchall()
            assert copy.score(3).fetchall() == db.score(3).fetchall()
            ours, theirs = (found.top_influence(target_id=3).fetchall() for found in (copy, db))
            assert ours == theirs
            assert copy.verify()[0].damages == []
    assert "top_influence" not in (tmp_path / "copy" / layout.README).read_text()
    memdb.pull(str(tmp_path / "copy"), str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(tmp_path / "copy")
