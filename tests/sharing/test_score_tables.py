"""Imported scores travel: in published copies, in what is pulled, in what is merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.cases import every
from support.stores import N_TEST, N_TRAIN, coin_recipe, small_dataset

import memdb
from memdb.errors import AlreadyExistsError, DamagedError, InvalidInputError, WrongFormatError
from memdb.format import layout
from memdb.format.published import Published

CODE = {"dataset": small_dataset(), "recipe": coin_recipe}


def scores_file(folder, seed=0, name="theirs"):
    """Write memorization and the strongest pairs as Feldman and Zhang published theirs."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(N_TRAIN * N_TEST)[:60]
    path = folder / f"{name}.npz"
    np.savez(
        path, tr_idx=pairs // N_TEST, tt_idx=pairs % N_TEST, infl=rng.uniform(0.15, 0.6, 60),
        mem=rng.random(N_TRAIN)[pairs // N_TEST],
    )  # fmt: skip
    return path


@pytest.fixture
def database(tmp_path):
    """A store of 12 models with imported scores beside them."""
    db = memdb.init(str(tmp_path / "s.zarr"), small_dataset(), coin_recipe, seed=3)
    db.train(seeds=range(12))
    memdb.import_file(scores_file(tmp_path), db.url)
    return db


@pytest.fixture
def scores_alone(tmp_path):
    """A store of imported scores and no models."""
    url = str(tmp_path / "alone.zarr")
    memdb.import_file(scores_file(tmp_path), url, n_train=N_TRAIN, n_test=N_TEST, name="numbers")
    return url


def answers(url, **options):
    with memdb.open(str(url), cache=None, **options) as db:
        asked = [db.top_memorized(50), *(db.top_influence(test_id=z, k=50) for z in (0, 4, N_TEST - 1))]
        return [rows.fetchall() for rows in (*asked, db.pairs(top=100))]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_published_copy_answers_from_imported_scores_and_from_models(database, tmp_path):
    dest = tmp_path / "copy"
    database.publish(str(dest))
    assert answers(dest, scores="theirs") == answers(database.url, scores="theirs")
    assert answers(dest) == answers(database.url)
    assert "theirs (number 1: " in (dest / layout.README).read_text()
    assert memdb.open(str(dest)).verify()[0].damages == []
    memdb.pull(str(dest), str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(dest)


def test_scores_that_came_since_are_added_and_nothing_else_is_written(database, tmp_path):
    dest = tmp_path / "copy"
    database.publish(str(dest))
    before = files_of(dest)
    memdb.import_file(scores_file(tmp_path, 1, "more"), database.url)
    assert not database.publish(str(dest)).is_new
    after = files_of(dest)
    changed = {str(path) for path in before if after[path] != before[path]}
    assert changed == {layout.README, layout.PUBLISHED}
    assert {path.parts[0] for path in after.keys() - before.keys()} == {layout.SCORES}
    assert [table.name for table in memdb.open(str(dest)).score_tables()] == ["theirs", "more"]


def test_a_store_of_scores_alone_is_published_and_pulled(scores_alone, tmp_path):
    dest = tmp_path / "copy"
    with memdb.open(scores_alone) as db:
        db.publish(str(dest))
        assert not db.publish(str(dest)).is_new
    assert answers(dest) == answers(scores_alone)
    assert "estimated elsewhere" in (dest / layout.README).read_text()
    assert not (dest / layout.STATS / "1").exists()
    report, _ = memdb.open(str(dest)).verify()
    assert (report.damages, report.n_models) == ([], 0)
    memdb.pull(str(dest), str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(dest)


def test_a_publication_that_was_cut_off_before_its_end_goes_on(scores_alone, tmp_path):
    dest = tmp_path / "copy"
    with memdb.open(scores_alone) as db:
        db.publish(str(dest))
        whole = files_of(dest)
        (dest / layout.PUBLISHED).unlink()
        db.publish(str(dest))
    assert files_of(dest) == whole


def test_a_copy_of_other_scores_is_refused_and_left_alone(database, tmp_path):
    dest = tmp_path / "copy"
    database.publish(str(dest))
    before = files_of(dest)
    for path in sorted(Path(database.url, layout.SCORES).glob("*.json")):
        if path.name != layout.GROUP_METADATA:
            path.unlink()
    memdb.import_file(scores_file(tmp_path, 1, "others"), database.url)
    with pytest.raises(AlreadyExistsError, match="other imported scores as number 1"):
        database.publish(str(dest))
    assert files_of(dest) == before


def test_nothing_is_imported_into_a_published_copy(database, tmp_path):
    database.publish(str(tmp_path / "copy"))
    before = files_of(tmp_path / "copy")
    with pytest.raises(InvalidInputError, match="published copy, which never changes"):
        memdb.import_file(scores_file(tmp_path, 1, "more"), str(tmp_path / "copy"))
    with pytest.raises(InvalidInputError, match="published copy, which never changes"):
        memdb.merge(str(tmp_path / "copy"), [database])
    assert files_of(tmp_path / "copy") == before


@pytest.mark.parametrize("how", every(3, ["altered", "gone", "another"]))
def test_a_score_table_that_is_not_as_it_was_published_is_named(database, tmp_path, how):
    dest = tmp_path / "copy"
    database.publish(str(dest))
    path = dest / layout.score_table(1)
    if how == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(
            data.replace(b'"theirs"', b'"theirz"') if how == "altered" else data.replace(b"theirs", b"t")
        )
    with (
        memdb.open(str(dest), scores="theirs", cache=None) as db,
        pytest.raises(DamagedError, match=r"scores/1"),
    ):
        db.top_memorized()
    assert [damage.kind for damage in memdb.open(str(dest)).verify()[0].damages] == ["scores"]


def test_a_root_document_with_scores_that_cannot_be_is_refused(database, tmp_path):
    database.publish(str(tmp_path / "copy"))
    document = json.loads((tmp_path / "copy" / layout.PUBLISHED).read_text())
    for wrong in ([{"size": -1, "sha256": "0" * 64}], [{"size": 5, "sha256": "../x"}], ["x"], "x"):
        with pytest.raises(WrongFormatError, match="scores"):
            Published.from_document({**document, "scores": wrong}, "here")
    without = {name: value for name, value in document.items() if name != "scores"}
    assert Published.from_document(without, "here").scores == ()


@pytest.mark.slow
def test_merging_brings_scores_along_once(database, tmp_path):
    other = memdb.init(str(tmp_path / "b.zarr"), small_dataset(), coin_recipe, seed=4)
    other.train(seeds=range(5))
    memdb.import_file(scores_file(tmp_path, 0, "theirs"), other.url)
    memdb.import_file(scores_file(tmp_path, 1, "more"), other.url)
    merged = memdb.merge(str(tmp_path / "ab.zarr"), [database, other], **CODE)
    assert merged.scores == ("theirs", "more")
    assert merged.database.verify()[0].damages == []
    for name, source in (("theirs", database.url), ("more", other.url)):
        assert answers(merged.database.url, scores=name) == answers(source, scores=name)
    again = memdb.merge(merged.database.url, [other, database], **CODE)
    assert (again.scores, again.added) == ((), (0, 0))


def test_different_scores_of_one_name_are_not_merged(database, tmp_path):
    other = memdb.init(str(tmp_path / "b.zarr"), small_dataset(), coin_recipe, seed=4)
    other.train(seeds=range(5))
    memdb.import_file(scores_file(tmp_path, 1, "theirs"), other.url)
    with pytest.raises(
        AlreadyExistsError, match="scores named theirs of .*b.zarr are others than those of .*s.zarr"
    ):
        memdb.merge(str(tmp_path / "ab.zarr"), [database, other], **CODE)
    assert not (tmp_path / "ab.zarr" / layout.MANIFEST).exists()
