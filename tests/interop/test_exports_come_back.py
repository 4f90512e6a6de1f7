"""Every export comes back, and what comes in answers beside what was there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.cases import every
from support.commands import run
from support.held import LABELS, MASK, MEM, PLAIN, N, margins, matrix_arrays
from support.stores import N_TEST, N_TRAIN

from memdb.errors import InvalidInputError, MismatchError, NotFoundError
from memdb.interop.arrays import open_array
from memdb.interop.export import WRITTEN


def test_two_definitions_never_pool_not_even_by_way_of_an_export(at):
    labels = LABELS["train"]
    logits = np.zeros((N, N_TRAIN, 4), "f4")
    logits[:, np.arange(N_TRAIN), labels] = 0.3  # right by argmax, with p below one half
    p = (np.exp(logits) / np.exp(logits).sum(2, keepdims=True))[:, np.arange(N_TRAIN), labels]
    np.savez("a.npz", keep=MASK[:6], logits=logits[:6], train_labels=labels)
    np.savez("b.npz", keep=MASK[6:], scores=np.log(p / (1 - p))[6:], train_labels=labels)
    at("a.npz", "a.zarr")
    _, b = at("b.npz", "b.zarr")
    b.export("b_models", "models")
    b.export("b_models.npz", "models")
    for file in ("b.npz", "b_models", "b_models.npz"):
        with pytest.raises(MismatchError, match="correct of a.zarr is"):
            at(file, "a.zarr")
    _, again = at("b_models", "again.zarr")
    assert again.store.manifest.outcomes == b.store.manifest.outcomes
    assert again.models_sha256 == b.models_sha256


def test_margins_come_back_from_an_export_and_are_missed_aloud(at, tmp_path):
    margins(tmp_path / "dm")
    _, a = at(tmp_path / "dm", "a.zarr")
    a.export("out", "models")
    done, b = at("out", "b.zarr")
    assert b.store.manifest.outcomes == a.store.manifest.outcomes
    assert (b.snapshot.outcome_values("test/margin") == a.snapshot.outcome_values("test/margin")).all()
    assert not any("Not read" in note for note in done.notes)
    done, _ = at(tmp_path / "dm", "c.zarr", outcomes=["correct"])
    more = {**PLAIN, "mask": ~MASK | MASK[::-1]}
    at(tmp_path / "dm", "c.zarr")
    np.savez("plain.npz", **more)
    with pytest.raises(MismatchError, match="correct of c.zarr is"):
        at("plain.npz", "c.zarr")
    assert "c.zarr was made without margin, which is not imported." in at(tmp_path / "dm", "c.zarr")[0].notes


COMING_BACK = [
    what for what in WRITTEN if what != "ids"
]  # a list of ids is for `memdb init`: see test_ids.py
EXPORTS = [(what, suffix) for what in COMING_BACK for suffix in WRITTEN[what]]


@pytest.mark.parametrize(
    ("what", "suffix"), every(2, EXPORTS), ids=[f"{what}{suffix}" for what, suffix in EXPORTS]
)
def test_every_export_comes_back(asked, at, what, suffix):
    bounds = {"min_influence": -1.0} if "pairs" in what else {}
    asked.export(f"out{suffix}", what, **bounds)
    sizes = {"n_train": N_TRAIN, "n_test": N_TEST} if "pairs" in what else {}
    done, back = at(f"out{suffix}", **sizes)
    if what in {"models", "lira"}:
        assert done.n_added == asked.n_models
        assert (back.snapshot.mask() == asked.snapshot.mask()).all()
        expected = asked.memorization(outcome="confidence").fetchall()
        assert back.memorization(outcome="confidence").fetchall() == expected
        if what == "models":
            assert back.memorization().fetchall() == asked.memorization().fetchall()
            assert back.store.manifest.outcomes == asked.store.manifest.outcomes
        return
    ours = asked.sql("SELECT train_id, memorization FROM memorization ORDER BY train_id").fetchall()
    theirs = back.sql("SELECT train_id, memorization FROM memorization ORDER BY train_id").fetchall()
    assert theirs == ours
    if "pairs" in what or "classes" in what:
        sql = "SELECT train_id, test_id, influence FROM influence WHERE {} ORDER BY ALL"
        condition = "same_class" if what == "fz-classes" else "influence IS NOT NULL"
        assert back.sql(sql.format("true")).fetchall() == asked.sql(sql.format(condition)).fetchall()


def test_classes_are_exported_with_one_look_at_storage(at, monkeypatch):
    from memdb.store.read_arrays import GroupReader

    np.savez("matrix.npz", **matrix_arrays())
    _, db = at("matrix.npz")
    reads = []
    read = GroupReader.read
    monkeypatch.setattr(
        GroupReader, "read", lambda self, path, *a, **k: reads.append(path) or read(self, path, *a, **k)
    )
    db.export("back.npz", "fz-classes")
    assert sum(path == "influence" for path in reads) == 1
    with np.load("back.npz") as back:
        assert all((back[name] == values).all() for name, values in matrix_arrays().items())


def test_one_command_compares_score_tables_of_a_store_without_models(at, tmp_path):
    for name, values in (("mem", MEM), ("half", MEM / 2)):
        np.savez(f"{name}.npz", tr_mem=values)
        at(f"{name}.npz")
    statement = "SELECT max(a.memorization / b.memorization) AS ratio FROM mem.memorization a JOIN half.memorization b USING (train_id)"
    done = run("sql", statement, "--store", "s.zarr", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["rows"] == [{"ratio": 2.0}]
    assert document["level"] is document["interval"] is document["n_models"] is None
    shown = run("score", "--train-id", "3", "--scores", "mem", "--store", "s.zarr", cwd=tmp_path).stdout
    assert "95 %" not in shown
    listed = run("classes", "--store", "s.zarr", cwd=tmp_path)
    assert "score tables say nothing of single models" in listed.stderr


def test_one_statement_compares_score_tables_and_models(at):
    np.savez("mem.npz", tr_mem=MEM)
    np.savez("half.npz", tr_mem=MEM / 2)
    np.savez("runs.npz", **PLAIN)
    at("mem.npz")
    _, db = at("half.npz", scores_name="half-1.0")
    sql = 'SELECT a.memorization, b.memorization FROM mem.memorization a JOIN "half-1.0".memorization b USING (train_id)'
    rows = db.sql(sql).fetchall()
    assert len(rows) == N_TRAIN
    assert [a / 2 for a, _ in rows] == [b for _, b in rows]
    with pytest.raises(NotFoundError, match="no models and several score tables"):
        db.sql("FROM memorization")
    _, db = at("runs.npz", "both.zarr")
    at("mem.npz", "both.zarr")
    rows = db.sql(
        "SELECT m.memorization - s.memorization FROM memorization m JOIN mem.memorization s USING (train_id)"
    ).fetchall()
    ours = dict(db.sql("SELECT train_id, memorization FROM memorization").fetchall())
    assert sorted(r[0] for r in rows) == pytest.approx(sorted(ours[i] - MEM[i] for i in range(N_TRAIN)))
    with pytest.raises(InvalidInputError, match="nobody"):
        db.sql("FROM nobody.memorization")


@pytest.mark.slow
def test_outcomes_on_test_examples_alone_answer_what_is_about_those(at, tmp_path):
    (tmp_path / "dm").mkdir()
    rng = np.random.default_rng(6)
    values = rng.normal(1, 1, (60, N_TEST)).astype("f2")
    np.save(tmp_path / "dm" / "masks.npy", rng.random((60, N_TRAIN)) < 0.5)
    np.save(tmp_path / "dm" / "margins.npy", values)
    np.save(tmp_path / "scores.npy", rng.random((N_TEST, N_TRAIN)))
    done, db = at(tmp_path / "dm")
    assert (done.kind, db.n_models) == ("datamodels", 60)
    np.savez(
        "runs.npz",
        mask=np.load(tmp_path / "dm" / "masks.npy"),
        train_correct=rng.random((60, N_TRAIN)) < 0.5,
        test_correct=values > 0,
    )
    _, both = at("runs.npz", "both.zarr")
    for compacted in (False, True):
        assert compacted or db.compact()
        assert db.verify()[0].damages == []
        ours, theirs = (d.top_influence(test_id=3, k=5).fetchall() for d in (db, both))
        assert [row[:7] for row in ours] == [row[:7] for row in theirs]
        ours, theirs = (d.pairs(top=2).to_arrow_table() for d in (db, both))
        assert ours.column("influence") == theirs.column("influence")
        assert ours.column("memorization").null_count == len(ours)
        assert (db.counts(test_id=1)["k_in"] == both.counts(test_id=1)["k_in"]).all()
        assert len(db.class_influence().fetchall()) == 1
        assert len(db.lds(open_array(tmp_path / "scores.npy")).fetchall()) == N_TEST
        assert db.sql("SELECT count(memorization) FROM memorization").fetchall() == [(0,)]
        assert len(db.plan(kind="influence").fetchall()) > 1
        assert db.convergence(1, test_id=2).fetchall()
        assert db.reliability(test_id=2).fetchall()
        assert db.compare(both, test_id=1).fetchall()
        db.info()
        for ask in (
            db.top_memorized, lambda: db.pairs(top=2, min_memorization=0.1), lambda: db.top_influence(target_id=1), lambda: db.score(1), db.memorization,
            lambda: db.train_influence(train_id=1), db.plan, db.classes, lambda: db.convergence(1), db.reliability,
            lambda: db.compare(both), db.counts, lambda: db.report("r.html"),
            lambda: db.publish(str(tmp_path / "copy")), lambda: db.export("m.npz", "fz-classes"), lambda: db.export("m.csv"),
            db.membership,
        ):  # fmt: skip
            with pytest.raises(
                NotFoundError, match="keeps no outcomes on training|keeps no outcome|no logit conf"
            ):
                ask()
    db.export("again", "models")
    _, again = at("again", "again.zarr")
    assert again.models_sha256 == db.models_sha256
    with pytest.raises(MismatchError, match="correct of s.zarr is"):
        at("runs.npz", "s.zarr")
