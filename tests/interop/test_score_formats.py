"""Scores as people hold them: each format under its names, and files that belong together."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.cases import every
from support.held import INFL, LABELS, MEM, PLAIN, csv, matrix_arrays
from support.stores import N_TEST, N_TRAIN

import memdb
from memdb.errors import MismatchError, NotFoundError
from memdb.interop.formats import read_file

PAIRS = {"tr_idx": [1, 4], "tt_idx": [1, 4], "infl": INFL[[1, 4], [1, 4]], "mem": MEM[[1, 4]]}


FILES = ("mem", "pairs", "matrix")


@pytest.mark.parametrize("order", every(3, [(order,) for order in itertools.permutations(range(3))]))
def test_files_of_one_publication_fit_in_any_order(at, order):
    np.savez("mem.npz", tr_mem=MEM)
    np.savez("pairs.npz", **PAIRS)
    np.savez("matrix.npz", **matrix_arrays())
    for place in order:
        sizes = {"n_train": N_TRAIN, "n_test": N_TEST} if FILES[place] == "pairs" else {}
        at(f"{FILES[place]}.npz", **sizes)
    answers = {}
    for name in FILES:
        with memdb.open("s.zarr", scores=name) as db:
            top = db.top_memorized(k=3).fetchall()
            answers[name] = top, db.sql("FROM influence ORDER BY ALL").fetchall()
            assert db.verify()[0].damages == []
    assert [row[4] for row in answers["pairs"][1]] == [True, True]  # same class: known from the matrix
    assert len(answers["matrix"][1]) == sum(
        len(m) * m.shape[1] for n, m in matrix_arrays().items() if "infl" in n
    )
    assert answers["mem"][0][0][0] == int(MEM.argmax())
    np.savez("other.npz", tr_mem=MEM / 2, tr_labels=(LABELS["train"] + 1) % 3, tt_labels=LABELS["test"])
    with pytest.raises(MismatchError, match="train example 0 the label 1"):
        at("other.npz")


def test_unknown_classes_are_unknown(at):
    np.savez("pairs.npz", **PAIRS)
    np.savez("runs.npz", **PLAIN)
    _, given = at("pairs.npz", "given.zarr", n_train=N_TRAIN, n_test=N_TEST)
    _, counted = at("runs.npz", "counted.zarr")
    for db in (given, counted):
        row = db.score(1, test_id=1).fetchall()[0]
        assert row[2:5] == (None, None, None)
        assert {r[4] for r in db.top_influence(test_id=1, k=3).fetchall()} == {None}
        assert {r[4] for r in db.pairs(min_influence=-1).fetchall()} == {None}
        for ask in (
            lambda: db.pairs(min_influence=-1, same_class=True),  # noqa: B023 - asked at once
            lambda: db.top_influence(test_id=1, same_class=True),  # noqa: B023
            lambda: db.influence(test_id=1, same_class=True),  # noqa: B023
            lambda: db.export("m.npz", "fz-classes"),  # noqa: B023
        ):
            with pytest.raises(NotFoundError, match="imported without labels"):
                ask()
    counted.export("again.npz", "models")
    with np.load("again.npz") as saved:
        assert not {"train_labels", "class_names"} & set(saved)


EVERY_PAIR = [(a, b) for a in range(N_TEST) for b in range(N_TRAIN)]
SCORES = {
    "Feldman and Zhang's code": lambda f: np.savez(f / "infl_mem.npz", memorization=MEM.astype("f4"), influence=INFL.astype("f4")),
    "turned": lambda f: np.savez(f / "infl_mem.npz", memorization=MEM, influence=INFL.T),
    "short names": lambda f: np.savez(f / "est.npz", mem=MEM, infl=INFL),
    "two .npy": lambda f: [np.save(f / "memorization.npy", MEM), np.save(f / "influence.npy", INFL)],
    "memorization.npy": lambda f: np.save(f / "cifar10_mem.npy", MEM),
    "two .npy by the word in them": lambda f: [np.save(f / "c10_mem.npy", MEM[:, None]), np.save(f / "my-influence.npy", INFL)],
    "semicolons": lambda f: (f / "m.csv").write_text("train_id;memorization\n" + "".join(f"{i};{m!r}\n" for i, m in enumerate(MEM.tolist()))),
    "decimals": lambda f: pq.write_table(pa.table({"train_id": np.arange(N_TRAIN), "memorization": pa.array(MEM).cast(pa.decimal128(12, 10), safe=False)}), f / "m.parquet"),
    "matrices turned": lambda f: np.savez(f / "matrix.npz", **{n: v.T if "infl" in n else v for n, v in matrix_arrays().items()}),
    "csv": csv({"index": np.arange(N_TRAIN)[::-1], "memorization": MEM[::-1]}),
    "csv of pandas": csv({"": np.arange(N_TRAIN), "mem": MEM}),
    "csv in order": csv({"Memorization_Score": MEM, "name": [f"n{i}" for i in range(N_TRAIN)]}),
    "tsv": lambda f: (f / "m.tsv").write_text("train_id\tmemorization\n" + "".join(f"{i}\t{m!r}\n" for i, m in enumerate(MEM.tolist()))),
    "parquet of pairs": lambda f: pq.write_table(
        pa.table({"test_idx": [p[0] for p in EVERY_PAIR], "train_idx": [p[1] for p in EVERY_PAIR], "influence": INFL.ravel(), "memorization": [MEM[p[1]] for p in EVERY_PAIR]}),
        f / "pairs.parquet",
    ),
    "C-scores": lambda f: np.savez(f / "cscores-orig-order.npz", labels=LABELS["train"], scores=1 - np.abs(MEM)),
    "C-scores with names": lambda f: np.savez(f / "cscores.npz", filenames=np.array([b"n%d" % i for i in range(N_TRAIN)]), scores=1 - np.abs(MEM)),
    "matrix and index": lambda f: [
        np.savez(f / "imagenet_infl_matrix.npz", **{n: v for n, v in matrix_arrays().items() if "classidx" in n or "infl" in n}),
        np.savez(f / "imagenet_index.npz", **{n: v for n, v in matrix_arrays().items() if not ("classidx" in n or "infl" in n)}, tr_filenames=np.array([b"a%d" % i for i in range(N_TRAIN)])),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", every(2, SCORES))
def test_scores_come_in_by_the_names_that_people_use(at, tmp_path, name):
    (tmp_path / "given").mkdir()
    SCORES[name](tmp_path / "given")
    files = sorted((tmp_path / "given").iterdir())
    sizes = {"n_train": N_TRAIN, "n_test": N_TEST} if name == "parquet of pairs" else {}
    _, db = at(files[0] if len(files) == 1 else tmp_path / "given", **sizes)
    expected = np.abs(MEM) if name.startswith("C-scores") else MEM
    found = dict(db.sql("SELECT train_id, memorization FROM memorization").fetchall())
    assert [found[row] for row in range(N_TRAIN)] == pytest.approx(expected, abs=1e-6)
    pairs = db.sql("SELECT test_id, train_id, influence FROM influence").fetchall()
    assert all(influence == pytest.approx(INFL[test, train], abs=1e-6) for test, train, influence in pairs)
    if len(files) == 2:
        assert len(at(files, "together.zarr")[1].sql("FROM influence").fetchall()) == len(pairs) > 0


def test_a_list_may_lie_in_a_row(tmp_path):
    np.save(tmp_path / "mem.npy", MEM[None])
    assert read_file(tmp_path / "mem.npy").scores.memorization.tolist() == MEM.tolist()


def test_ids_order_the_labels_of_the_training_set_alone(tmp_path):
    labels = np.arange(N_TRAIN)
    beside = {"index": labels[::-1], "tr_labels": labels[::-1]}
    for n_test in (N_TRAIN, N_TEST):
        np.savez(tmp_path / "mem.npz", mem=MEM[::-1], **beside, tt_labels=labels[:n_test])
        found = read_file(tmp_path / "mem.npz").names.labels
        assert [values.tolist() for values in found.values()] == [[*range(N_TRAIN)], [*range(n_test)]]


def test_labels_of_all_examples_beside_pairs_say_how_many_there_are(tmp_path):
    labels = {"tr_labels": LABELS["train"], "tt_labels": LABELS["test"]}
    np.savez(tmp_path / "pairs.npz", **PAIRS, **labels)
    assert read_file(tmp_path / "pairs.npz").sizes == {"train": N_TRAIN, "test": N_TEST}
    np.savez(tmp_path / "pairs.npz", **PAIRS, **{name: values[:2] for name, values in labels.items()})
    assert read_file(tmp_path / "pairs.npz").sizes == {}  # a label of each pair


def test_a_matrix_without_labels_has_those_of_its_lists(at):
    np.savez("matrix.npz", **{n: v for n, v in matrix_arrays().items() if "classidx" in n or "infl" in n})
    _, db = at("matrix.npz")
    assert (db.answers().relations.examples["train"].labels == LABELS["train"]).all()
    np.savez("index.npz", tr_mem=MEM, tr_labels=LABELS["train"], tt_labels=LABELS["test"])
    assert at("index.npz")[0].table.n_memorization == N_TRAIN


def test_scores_that_are_missing_are_missing(at):
    influence = INFL.copy()
    influence[0, 0] = np.nan
    np.savez("e.npz", memorization=np.where(np.arange(N_TRAIN) == 3, np.nan, MEM), influence=influence)
    done, db = at("e.npz")
    assert done.table.n_influence == INFL.size - 1
    assert db.score(3).fetchall()[0][2] is None
    assert "1 score is NaN in e.npz: influence, and so missing." in done.notes
