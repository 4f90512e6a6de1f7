"""Published copies: what they hold, what they answer, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.cases import every
from support.stores import bits_of, coin_recipe, dicts, files_of, small_database, small_dataset

import memdb
from memdb.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemdbError,
    NotEnoughModelsError,
    NotFoundError,
)
from memdb.format import layout
from memdb.format.published import Credits, Published
from memdb.sharing import top_influence

OPTIONS = [{}, {"k": 3}, {"k": 23, "interval": "fixed", "level": 0.9}, {"k": 5, "interval": "simultaneous"}]
BEYOND = [
    {"direction": "hurts"}, {"order": "lo"}, {"fdr": "anytime"}, {"ranks": True}, {"same_class": True},
    {"outcome": "confidence"},
]  # fmt: skip


def add_models(db):
    db.train(seeds=range(100, 107), compact=False, dataset=small_dataset(), recipe=coin_recipe)


def no_bits(monkeypatch):
    """From now on, reading a block's document fails the test."""
    from memdb.store import open_published

    def refuse(*_):
        raise AssertionError("a block was read")

    monkeypatch.setattr(open_published, "read_block", refuse)


def test_every_small_answer_equals_what_the_bits_give(trained, published, monkeypatch):
    with memdb.open(str(trained)) as bits, memdb.open(str(published)) as stored:
        no_bits(monkeypatch)
        for test_id in (0, 5, 10):
            for options in OPTIONS:
                ours = stored.top_influence(test_id=test_id, **options).to_arrow_table()
                assert ours.equals(bits.top_influence(test_id=test_id, **options).to_arrow_table())
            for interval in ("anytime", "fixed"):
                ours = stored.score(test_id, test_id=test_id, interval=interval).to_arrow_table()
                assert ours.equals(bits.score(test_id, test_id=test_id, interval=interval).to_arrow_table())
        for options in ({}, {"k": 23}, {"order": "q_value", "ranks": True}, {"class_name": "bee"}):
            ours = stored.top_memorized(**options).to_arrow_table()
            assert ours.equals(bits.top_memorized(**options).to_arrow_table())
        assert dicts(stored.score(7)) == dicts(bits.score(7))
        counted = {
            name: value
            for name, value in dicts(stored.info())[0].items()
            if "half" in name or "accur" in name
        }
        assert counted.items() <= dicts(bits.info())[0].items()


@pytest.mark.parametrize("options", every(2, BEYOND), ids=str)
def test_other_answers_come_from_the_bits_of_the_copy(trained, published, options):
    with memdb.open(str(trained)) as bits, memdb.open(str(published)) as copy:
        ours = copy.top_influence(test_id=4, **options).to_arrow_table()
        assert ours.equals(bits.top_influence(test_id=4, **options).to_arrow_table())
        assert dicts(copy.sql("FROM models ORDER BY model_id")) == dicts(
            bits.sql("FROM models ORDER BY model_id")
        )


def test_a_copy_holds_exactly_the_models_that_count(database, tmp_path):
    gone = database.snapshot.models[3][1].model_id
    database.compact()
    add_models(database)
    database.retract([gone], "a faulty disk")
    database.publish(str(tmp_path / "copy"))
    with memdb.open(str(tmp_path / "copy")) as copy:
        assert copy.models_sha256 == database.models_sha256
        assert gone not in {model.model_id for part in copy.snapshot.segments for model in part.models}
        assert len(copy.snapshot.blocks) == 1
        order = np.argsort([model.model_id for _, model in copy.snapshot.models])
        ours = np.argsort([model.model_id for _, model in database.snapshot.models])
        for found, expected in zip(bits_of(copy.snapshot), bits_of(database.snapshot), strict=True):
            assert (found[order] == expected[ours]).all()


def test_a_block_of_which_every_model_counts_is_copied_byte_for_byte(database, tmp_path):
    database.compact()
    database.publish(str(tmp_path / "copy"))
    source, copy = Path(database.url) / layout.BLOCKS, tmp_path / "copy" / layout.BLOCKS
    assert files_of(source) == files_of(copy)


@pytest.mark.slow
def test_publishing_again_writes_what_is_new_and_leaves_the_older_snapshot(database, tmp_path):
    dest = tmp_path / "copy"
    database.compact()
    first = database.publish(str(dest))
    before, answer = files_of(dest), dicts(database.top_influence(test_id=4))
    again = database.publish(str(dest))
    assert (again.is_new, again.n_written, again.snapshot) == (False, 0, first.snapshot)
    add_models(database)
    second = database.publish(str(dest), credit=Credits(licence="MIT"))
    after = files_of(dest)
    replaced = {name for name in before if after[name] != before[name]}
    assert (second.snapshot.number, replaced) == (2, {layout.PUBLISHED, layout.README})
    with memdb.open(str(dest), as_of=1) as old, memdb.open(str(dest)) as new:
        assert dicts(old.top_influence(test_id=4)) == answer
        assert dicts(new.top_influence(test_id=4)) == dicts(database.top_influence(test_id=4))
        assert dicts(old.top_influence(test_id=4, ranks=True))[0]["train_id"] == answer[0]["train_id"]
        assert new.store.published.credits.licence == "MIT"
    with pytest.raises(NotFoundError, match="no snapshot 7"), memdb.open(str(dest), as_of=7) as missing:
        missing.info()


@pytest.mark.parametrize("n_written", every(5, range(0, 60, 6)))
def test_a_publication_that_was_cut_off_shows_nothing_and_goes_on(
    trained, published, tmp_path, monkeypatch, n_written
):
    from memdb.storage.local import LocalStorage

    dest, left = tmp_path / "copy", [n_written]
    write_all = LocalStorage.write_all

    def cut_off(self, objects):
        for name, data in objects.items():
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            write_all(self, {name: data})

    with memdb.open(str(trained)) as db:
        monkeypatch.setattr(LocalStorage, "write_all", cut_off)
        with pytest.raises(KeyboardInterrupt):
            db.publish(str(dest))
        monkeypatch.undo()
        with pytest.raises(MemdbError):
            memdb.open(str(dest))
        written = files_of(dest) if dest.exists() else {}
        db.publish(str(dest), credit=Credits("Ants", ("A. Author",), "CC0-1.0", "Author 2026"))
    found, expected = files_of(dest), files_of(published)
    assert found.keys() == expected.keys()
    assert all(found[name] == data for name, data in written.items())
    assert memdb.open(str(dest)).models_sha256 == memdb.open(str(published)).models_sha256


def test_lists_that_were_made_are_not_made_again(trained, published, tmp_path, monkeypatch):
    dest = tmp_path / "copy"
    shutil.copytree(published, dest)
    for name in (layout.PUBLISHED, layout.MANIFEST, "snapshots/1.json"):
        (dest / name).unlink()
    monkeypatch.setattr(top_influence.Lists, "of", None)
    with memdb.open(str(trained)) as db:
        db.publish(str(dest))
    assert files_of(dest / layout.TOP_INFLUENCE) == files_of(published / layout.TOP_INFLUENCE)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda dest, _: (dest.mkdir(), (dest / "thesis.tex").write_text("x")),
            "other things, such as thesis.tex",
        ),
        (lambda dest, _: small_database(dest, subset_fraction=0.5), "another store"),
        (lambda dest, source: shutil.copytree(source, dest), "not a published copy"),
        (lambda dest, _: (dest.mkdir(), (dest / "blocks").mkdir()), "other things, such as blocks"),
        (lambda dest, _: dest.write_text("x"), "is a file"),
    ],
    ids=["a folder of other things", "another store", "the store itself", "a stray folder", "a file"],
)
def test_a_destination_that_holds_something_else_is_refused_and_left_alone(trained, tmp_path, make, match):
    dest = tmp_path / "dest"
    make(dest, trained)
    before = files_of(dest)
    with memdb.open(str(trained)) as db, pytest.raises(AlreadyExistsError, match=match):
        db.publish(str(dest))
    assert files_of(dest) == before


@pytest.mark.parametrize(
    ("include", "match"),
    [
        (["thumbnails"], "counted from bits"),
        (["confidence"], "counted from bits"),
        (["bits", "weights"], "weights"),
    ],
)
def test_what_cannot_be_included_is_refused_by_name(trained, tmp_path, include, match):
    with memdb.open(str(trained)) as db, pytest.raises(InvalidInputError, match=match):
        db.publish(str(tmp_path / "copy"), include=include)
    assert not (tmp_path / "copy").exists()


def test_a_copy_of_bits_alone_answers_of_bits_alone(trained, tmp_path):
    with memdb.open(str(trained)) as db:
        db.publish(str(tmp_path / "copy"), include=["bits"])
        with memdb.open(str(tmp_path / "copy")) as copy:
            ours = copy.top_influence(test_id=4, ranks=True).to_arrow_table()
            assert ours.equals(db.top_influence(test_id=4, ranks=True).to_arrow_table())
            with pytest.raises(NotFoundError, match="logit_confidence"):
                copy.top_memorized(outcome="confidence")
    assert not [name for name in files_of(tmp_path / "copy") if "logit_confidence" in name]


def test_a_store_without_models_is_not_published(tmp_path):
    with small_database(tmp_path / "empty") as db, pytest.raises(NotEnoughModelsError):
        db.publish(str(tmp_path / "copy"))


@pytest.mark.parametrize("verb", ["train", "compact", "gc", "retract"])
def test_a_published_copy_never_changes(copy, verb):
    before = files_of(copy)
    arguments = {"train": (3,), "retract": (["ab"], "because")}.get(verb, ())
    with (
        memdb.open(str(copy)) as db,
        pytest.raises(InvalidInputError, match="published copy, which never changes"),
    ):
        getattr(db, verb)(*arguments)
    assert files_of(copy) == before


def test_nothing_is_merged_or_imported_into_a_published_copy(trained, copy, tmp_path):
    more = tmp_path / "more.zarr"
    shutil.copytree(trained, more)
    with memdb.open(str(more)) as db:
        add_models(db)
        np.savez(tmp_path / "scores.npz", tr_mem=np.zeros(23))
        before = files_of(copy)
        for write in (
            lambda: memdb.merge(str(copy), [db], recipe=coin_recipe),
            lambda: memdb.import_file(tmp_path / "scores.npz", str(copy)),
            lambda: memdb.open(str(copy)).store.commit_stored(db.snapshot.segments[0].models, {}),
        ):
            with pytest.raises(InvalidInputError, match="published copy, which never changes"):
                write()
    assert files_of(copy) == before


def test_the_tables_have_what_the_questions_answer(published):
    pq = pytest.importorskip("pyarrow.parquet")
    with memdb.open(str(published)) as db:
        listed = pq.read_table(published / "tables/1/top_influence.parquet")
        asked = [
            row
            for n, row in enumerate(dicts(db.top_influence(test_id=4, k=23)))
            if n < 20 or row["q_value"] <= 0.1
        ]
        ours = [row for row in listed.to_pylist() if row["test_id"] == 4]
        for name in ("train_id", "influence", "shrunk", "q_value", "lo", "k_in", "memorization"):
            assert [row[name] for row in ours] == [row[name] for row in asked]
        memorized = pq.read_table(published / "tables/1/memorization.parquet")
        assert memorized.column("memorization").to_pylist() == [
            row["memorization"] for row in dicts(db.memorization())
        ]
        assert memorized.column("key")[3].as_py() == "train/3.png"
        assert memorized.schema.metadata[b"memdb.models_sha256"].decode() == db.models_sha256


def test_every_array_opens_with_plain_zarr(published):
    import zarr

    group = zarr.open_group(str(published), mode="r")
    assert group["top_influence/1/pairs"].shape == (11, 8, 23)
    assert group["stats/1/train"][1:].max() <= 37
    assert group["stats/1/train"].attrs["rows"] == ["label", "n_in", "n_correct", "k_in"]


def test_the_root_document_comes_back_as_it_was_written(published):
    document = json.loads((published / layout.PUBLISHED).read_text())
    assert Published.from_document(document, "here").to_document() == document


@pytest.mark.slow
def test_a_store_that_extends_another_is_merged_before_it_is_published(published, tmp_path):
    code = {"dataset": small_dataset(), "recipe": coin_recipe}
    own = memdb.extend(str(tmp_path / "own.zarr"), str(published), **code)
    own.train(seeds=range(5))
    with pytest.raises(InvalidInputError, match="extends another store, and a copy stands alone") as refused:
        own.publish(str(tmp_path / "copy"))
    assert "memdb merge" in refused.value.hint
    assert not (tmp_path / "copy").exists()
    merged = memdb.merge(str(tmp_path / "merged.zarr"), [own], **code).database
    merged.publish(str(tmp_path / "copy"))
    with memdb.open(str(tmp_path / "copy")) as copy:
        assert copy.n_models == own.n_models == 42
        assert dicts(copy.top_influence(test_id=4)) == dicts(merged.top_influence(test_id=4))
