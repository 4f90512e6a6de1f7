"""Other people's files: what is read into a store, what is refused, and what comes out again."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest
from support.stores import N_TEST, N_TRAIN, bits_of, small_dataset

import memdb
from memdb import cli
from memdb.errors import AlreadyExistsError, InvalidInputError, MismatchError, NotFoundError
from memdb.interop import arrays

N_MODELS = 40


def runs(seed=0, n_models=N_MODELS, fraction=0.7):
    rng = np.random.default_rng(seed)
    return {
        "mask": rng.random((n_models, N_TRAIN)) < fraction,
        "train_correct": rng.random((n_models, N_TRAIN)) < 0.7,
        "test_correct": rng.random((n_models, N_TEST)) < 0.6,
    }


def published(rng):
    """All pairs of one class, as Feldman and Zhang published theirs."""
    labels = {"tr_labels": np.arange(N_TRAIN) % 3, "tt_labels": np.arange(N_TEST) % 3}
    found = {"tr_mem": rng.random(N_TRAIN), **labels}
    for label in range(3):
        rows, columns = (np.flatnonzero(values == label) for values in labels.values())
        found[f"tr_classidx_{label}"], found[f"tt_classidx_{label}"] = rows, columns
        matrix = rng.uniform(-0.3, 0.6, (len(rows), len(columns)))
        found[f"infl_matrix_class{label}"] = matrix.astype(np.float32)
    return found


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command line in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments):
        monkeypatch.setattr(sys, "argv", ["memdb", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run_here


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_plain_file_becomes_a_store_of_its_counts_and_adds_nothing_twice(run, tmp_path, save):
    given = runs()
    save("runs.npz", **{**given, "mask": np.asfortranarray(given["mask"])})
    code, _, err = run("import", "runs.npz", "--store", "s.zarr")
    assert (code, "Added 40 models of 40 (plain)" in err) == (0, True)
    with memdb.open("s.zarr") as db:
        for found, expected in zip(bits_of(db.snapshot), given.values(), strict=True):
            assert (found == expected).all()
        assert db.verify()[0].damages == []
        assert (db.store.manifest.subset_scheme, db.store.manifest.subset_fraction) == ("imported", 0.7)
        before = db.models_sha256
    code, _, err = run("import", "runs.npz", "--store", "s.zarr")
    assert "Added 0 models of 40 (plain) to s.zarr; 40 of them were there already" in err
    np.savez("more.npz", **{name: np.concatenate([given[name], runs(1)[name]]) for name in given})
    assert memdb.import_file("more.npz", "s.zarr").n_added == N_MODELS
    with memdb.open("s.zarr") as db:
        assert db.n_models == 2 * N_MODELS
        assert db.models_sha256 != before


def test_a_run_that_stands_twice_in_a_file_counts_once(tmp_path):
    np.savez(tmp_path / "runs.npz", **{name: np.concatenate([v, v[7:9]]) for name, v in runs().items()})
    done = memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "s.zarr"))
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        assert (done.n_models, done.n_added, db.n_models) == (N_MODELS + 2, N_MODELS, N_MODELS)
        assert {len(part.models) for part in db.snapshot.segments} == {N_MODELS}
        assert (bits_of(db.snapshot)[0] == runs()["mask"]).all()


@pytest.mark.slow
def test_exported_runs_come_back_as_the_same_counts_of_the_same_data(database, tmp_path):
    for target in ("runs.npz", "runs"):
        database.export(tmp_path / target, "models")
        url = str(tmp_path / f"{target}.zarr")
        memdb.import_file(tmp_path / target, url, dataset=small_dataset())
        with memdb.open(url) as back:
            for found, expected in zip(bits_of(back.snapshot), bits_of(database.snapshot), strict=True):
                assert (found == expected).all()
            for outcome in ("correct", "confidence"):
                ours = database.memorization(outcome=outcome).fetchall()
                assert back.memorization(outcome=outcome).fetchall() == ours
            differs = back.compare(database).fetchall()
            assert {row[4] for row in differs} == {0.0}


def test_datamodels_are_right_where_the_margin_is_above_0(tmp_path):
    rng = np.random.default_rng(3)
    margins = {
        name: rng.normal(size=(N_MODELS, n)).astype(np.float16)
        for name, n in (("train", N_TRAIN), ("test", N_TEST))
    }
    np.save(tmp_path / "train_masks_50pct.npy", runs(fraction=0.5)["mask"])
    for name, values in margins.items():
        np.save(tmp_path / f"{name}_margins_50pct.npy", values)
    done = memdb.import_file(tmp_path, str(tmp_path / "s.zarr"))
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        assert done.kind == "datamodels"
        assert (bits_of(db.snapshot)[2] == (margins["test"] > 0)).all()
        assert (margins["test"] == db.snapshot.outcome_values("test/margin").T).all()
        assert db.store.manifest.subset_fraction == 0.5
    np.save(tmp_path / "train_masks_10pct.npy", runs()["mask"])
    with pytest.raises(
        InvalidInputError, match="several subset fractions: train_masks_10pct, train_masks_50pct"
    ):
        memdb.import_file(tmp_path, str(tmp_path / "t.zarr"))


@pytest.mark.parametrize("kind", ["scores", "logits"])
def test_lira_folders_become_a_store_without_test_examples(run, tmp_path, kind):
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, N_TRAIN)
    logits = rng.normal(size=(N_MODELS, N_TRAIN, 1, 2, 3)) * 3
    others = np.where(np.arange(3) == labels[:, None], -np.inf, logits[:, :, 0, 0])
    own = np.take_along_axis(logits[:, :, 0, 0], labels[None, :, None], 2)[:, :, 0]
    confidence = own - np.log(np.exp(others).sum(axis=2))
    keep = runs(fraction=0.5)["mask"]
    for model in range(N_MODELS):
        folder = tmp_path / "exp" / f"experiment-{model:03d}_{N_MODELS}"
        (folder / kind).mkdir(parents=True)
        np.save(folder / "keep.npy", keep[model])
        np.save(folder / kind / "0000000001.npy", np.zeros(3))
        saved = logits[model] if kind == "logits" else np.stack([confidence[model], own[model]], axis=1)
        np.save(folder / kind / "0000000100.npy", saved)
    if kind == "logits":
        with pytest.raises(InvalidInputError, match="the labels are not known"):
            memdb.import_file("exp", "s.zarr")
    np.save(tmp_path / "exp" / "y_train.npy", labels)
    code, _, err = run("import", "exp", "--store", "s.zarr")
    assert code == 0, err
    assert ("above one half" in err) == (kind == "scores")
    with memdb.open("s.zarr") as db:
        mask, correct = (db.snapshot.mask(), db.snapshot.outcome_bits("train/correct"))
        right = confidence > 0 if kind == "scores" else logits[:, :, 0, 0].argmax(axis=2) == labels
        assert (keep == np.unpackbits(mask, axis=1, count=N_MODELS, bitorder="little").T).all()
        assert (right == np.unpackbits(correct, axis=1, count=N_MODELS, bitorder="little").T).all()
        stored = db.snapshot.outcome_values("train/logit_confidence").T
        assert np.abs(stored - confidence).max() < 0.02
        for compacted in (False, True):
            assert db.sql("SELECT count(*) FROM influence").fetchall() == [(0,)]
            assert len(db.top_influence(target_id=3, k=5).fetchall()) == 5
            assert db.verify()[0].damages == []
            for ask in (db.class_influence, lambda: db.pairs(top=3), lambda: db.top_influence(test_id=0)):
                with pytest.raises(NotFoundError, match="has no test examples"):
                    ask()
            db.report(tmp_path / f"{compacted}.html")
            assert compacted or db.compact() is not None
        db.export("again", "lira")
        assert (np.load("again/keep.npy") == keep).all()
        assert (np.load("again/scores.npy") == stored).all()


REFUSED = {
    "wrong keys": ({"masks": runs()["mask"]}, "none of the formats"),
    "no outcomes": ({"mask": runs()["mask"]}, "train_correct and test_correct are missing"),
    "float mask": ({**runs(), "mask": runs()["mask"] * 0.5}, "mask holds 0.5, not only 0 and 1"),
    "not 0 or 1": ({**runs(), "mask": runs()["mask"] * 2}, "holds 2, not only 0 and 1"),
    "other models": ({**runs(), "test_correct": runs(n_models=9)["test_correct"]}, r"has shape \(9, 11\); expected \(40, any\)"),
    "other examples": ({**runs(), "train_correct": runs()["test_correct"]}, r"expected \(40, 23\)"),
    "NaN": (
        {**runs(), "train_confidence": np.full((N_MODELS, N_TRAIN), np.nan), "test_confidence": np.ones((N_MODELS, N_TEST))},
        r"train_confidence holds nan at \[0, 0\]",
    ),
    "no probability": (
        {**runs(), "train_confidence": np.full((N_MODELS, N_TRAIN), 2.0), "test_confidence": np.ones((N_MODELS, N_TEST))},
        "which is not a probability",
    ),
    "one set's": ({**runs(), "train_confidence": np.ones((N_MODELS, N_TRAIN))}, "of the train set alone"),
    "pickled": ({**runs(), "test_correct": np.array([object()] * N_MODELS)}, "pickled Python objects"),
    "everything in": ({**runs(), "mask": np.ones((N_MODELS, N_TRAIN), bool)}, "was trained on 23 of 23"),
    "one subset twice": (
        {**runs(), "mask": np.concatenate([runs()["mask"][:-1], runs()["mask"][:1]])},
        "models 0 and 39 .* the same subset and other outcomes",
    ),
    "two fractions": (
        {**runs(), "mask": np.stack([np.roll(np.arange(N_TRAIN) < (21 if m % 2 else 3), m) for m in range(N_MODELS)])},
        "hold 3 to 21 of 23 examples",
    ),
    "no models": ({name: values[:0] for name, values in runs().items()}, "holds no models"),
    "labels": ({**runs(), "train_labels": np.zeros(5, int), "test_labels": np.zeros(N_TEST, int)}, r"expected \(23\)"),
    "a set of nothing": ({**runs(), "test_correct": np.ones((N_MODELS, 0), bool)}, "the test arrays .* are of no examples"),
    "no queries": (
        {"keep": runs()["mask"], "logits": np.zeros((N_MODELS, N_TRAIN, 0, 3)), "train_labels": np.zeros(N_TRAIN, int)},
        "has shape .* and so no numbers",
    ),
    "one class": (
        {"keep": runs()["mask"], "logits": np.zeros((N_MODELS, N_TRAIN, 1)), "train_labels": np.zeros(N_TRAIN, int)},
        "whose softmax is not a number",
    ),
    "infinite logits": (
        {"keep": runs()["mask"], "logits": np.full((N_MODELS, N_TRAIN, 3), np.inf), "train_labels": np.zeros(N_TRAIN, int)},
        "whose softmax is not a number",
    ),
    "no scores": ({"tr_mem": np.zeros(0)}, "holds no scores"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_imported_is_named_and_nothing_is_written(tmp_path, given, message):
    np.savez(tmp_path / "bad.npz", **given)
    with pytest.raises(InvalidInputError, match=message) as error:
        memdb.import_file(tmp_path / "bad.npz", str(tmp_path / "s.zarr"))
    assert str(tmp_path / "bad.npz") in str(error.value)
    assert not (tmp_path / "s.zarr").exists()


def header(shape, dtype="|b1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no archive", r"(?m)is not a NumPy archive \(.npz\)$"),
        ({"mask.npy": header((10**9, 10**9))}, "which is 1,000,000,000,000,000,000 bytes, and holds 0"),
        ({"mask.npy": header((40, 23)) + b"\1" * 919}, "which is 920 bytes, and holds 919"),
        ({"mask.npy": b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535}, "cannot be read"),
        ({"../mask.npy": header((1,)) + b"\1"}, "has ../mask: none of the formats"),
        ({"mask.npy": header((4 << 20, 1)) + bytes(4 << 20)}, "would swell from"),
    ],
    ids=["no zip", "huge", "cut", "long header", "path", "bomb"],
)
def test_hostile_files_are_refused_before_anything_is_allocated(tmp_path, monkeypatch, data, message):
    monkeypatch.setattr(arrays, "SWELLING_MATTERS", 1 << 20)
    path = tmp_path / "bad.npz"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in data.items():
                archive.writestr(name, content)
    with pytest.raises(InvalidInputError, match=message):
        memdb.import_file(path, str(tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("name", ["runs.xyz", "runs"])
def test_a_file_of_another_kind_is_refused_by_what_it_is_not(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(
        InvalidInputError, match=r"not a NumPy archive \(.npz\), and its name is not"
    ) as refused:
        memdb.import_file(tmp_path / name, str(tmp_path / "s.zarr"))
    assert "a table (.csv, .tsv, .parquet, .json)" in str(refused.value)


def test_an_id_takes_no_memory_before_there_is_such_an_example(tmp_path, monkeypatch):
    def refuse(n, *_, **__):
        raise AssertionError(f"memory for {n} examples")

    pairs = {"tt_idx": np.arange(2), "infl": np.zeros(2), "mem": np.zeros(2)}
    np.savez(tmp_path / "fz.npz", tr_idx=np.array([0, 2_000_000_000]), **pairs)
    monkeypatch.setattr(np, "full", refuse)
    with pytest.raises(InvalidInputError, match="names train example 2,000,000,000, and there are 50,000"):
        memdb.import_file(tmp_path / "fz.npz", str(tmp_path / "s.zarr"), n_train=50_000, n_test=10_000)
    assert not (tmp_path / "s.zarr").exists()


def test_what_does_not_belong_to_a_store_is_refused(database, tmp_path):
    url = str(tmp_path / "s.zarr")
    np.savez(tmp_path / "runs.npz", **runs())
    with pytest.raises(MismatchError, match="holds models that memdb trained"):
        memdb.import_file(tmp_path / "runs.npz", database.url)
    memdb.import_file(tmp_path / "runs.npz", url)
    for changed, error, message in (
        ({"test_correct": runs()["test_correct"][:, :7]}, MismatchError, "of 7 test examples, .* has 11"),
        ({"train_correct": ~runs()["train_correct"]}, InvalidInputError, "has the subset of model"),
        (
            {"mask": runs(5, fraction=0.2)["mask"]},
            InvalidInputError,
            "not all were drawn with a fraction of 0.7",
        ),
    ):
        np.savez(tmp_path / "other.npz", **{**runs(), **changed})
        with pytest.raises(error, match=message):
            memdb.import_file(tmp_path / "other.npz", url)
    with pytest.raises(MismatchError, match="models of the recipe imported, not resnet"):
        memdb.import_file(tmp_path / "runs.npz", url, recipe="resnet")
    with memdb.open(url) as db:
        assert db.n_models == N_MODELS
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(AlreadyExistsError, match="other things in it, such as thesis.tex"):
        memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "full"))
    with pytest.raises(AlreadyExistsError, match="not an empty folder"):
        database.export(tmp_path / "full", "models")


def test_options_that_a_file_leaves_nothing_to_do_are_refused(run, tmp_path):
    np.savez("runs.npz", **runs())
    np.savez("fz.npz", **published(np.random.default_rng(5)))
    for path, option, held in (("runs.npz", "--n-test", "models"), ("fz.npz", "--outcomes", "scores")):
        code, _, err = run("import", path, option, 11, "--store", "s.zarr")
        assert (code, err.count("\n")) == (1, 1)
        assert f"{path} holds {held}, which {option} does not describe. Omit it." in err
    assert not (tmp_path / "s.zarr").exists()


def test_published_scores_answer_every_list_without_intervals(run, tmp_path):
    given = published(np.random.default_rng(5))
    np.savez_compressed("fz.npz", **given)
    code, _, err = run("import", "fz.npz", "--store", "s.zarr")
    assert (code, "23 memorization scores" in err) == (0, True)
    code, out, err = run("top-memorized", "--store", "s.zarr", "-k", 23, "--format", "json")
    document = json.loads(out)
    order = np.argsort(-given["tr_mem"], kind="stable").tolist()
    assert [row["train_id"] for row in document["rows"]] == order
    assert [row["memorization"] for row in document["rows"]] == given["tr_mem"][order].tolist()
    assert {row["lo"] for row in document["rows"]} == {None}
    assert (document["scores"], document["interval"]) == ("fz", None)
    assert "imported scores come without counts" in document["why_no_interval"]
    with memdb.open("s.zarr") as db:
        assert db.verify()[0].damages == []
        for label in range(3):
            rows, columns = given[f"tr_classidx_{label}"], given[f"tt_classidx_{label}"]
            for place, test_id in enumerate(columns.tolist()):
                found = {row[0]: row[5] for row in db.top_influence(test_id=test_id, k=23).fetchall()}
                expected = given[f"infl_matrix_class{label}"][:, place].astype(np.float64)
                assert found == dict(zip(rows.tolist(), expected.tolist(), strict=True))
        assert db.score(0, test_id=3).fetchall()[0][5] == pytest.approx(
            float(given["infl_matrix_class0"][0, 1])
        )
        with pytest.raises(NotFoundError, match="no influence of training example 0 on test example 1"):
            db.score(0, test_id=1)
        with pytest.raises(InvalidInputError, match="no q-values and no ranks"):
            db.top_memorized(order="q_value")
        top = db.sql("SELECT train_id FROM memorization ORDER BY memorization DESC LIMIT 3").fetchall()
        assert [row[0] for row in top] == order[:3]
        db.export("back.npz", "fz-classes")
    with np.load("back.npz") as back:
        assert all((back[name] == values).all() for name, values in given.items())
    code, _, err = run("import", "fz.npz", "--store", "s.zarr", "--scores-name", "again")
    assert "has these scores already, as fz" in err


def test_assumed_models_give_the_widest_intervals_that_fit_a_score(tmp_path):
    np.savez(tmp_path / "fz.npz", **published(np.random.default_rng(6)))
    url = str(tmp_path / "s.zarr")
    memdb.import_file(tmp_path / "fz.npz", url)
    with memdb.open(url, assume=(1000, 0.7)) as db:
        rows = db.sql(
            "SELECT memorization, lo, hi, max(score_hi(s, 700, r, 300, z) - score_lo(s, 700, r, 300, z)) FROM ("
            "SELECT memorization, lo, hi, r, (memorization + r / 300) * 700 AS s, anytime_z(1000, 0.05) AS z "
            "FROM memorization, (SELECT unnest(range(0, 301, 5)) AS r)) WHERE s <= 700 GROUP BY ALL"
        ).fetchall()
    assert len(rows) == N_TRAIN
    for score, lo, hi, widest in rows:
        assert lo <= score <= hi
        assert hi - lo >= widest - 1e-3


@pytest.mark.slow
def test_our_pairs_are_read_by_code_for_theirs_and_compare_with_the_store(database, run, tmp_path):
    database.export("pairs.npz", "fz-pairs", min_influence=0.1)
    expected = database.pairs(min_influence=0.1).fetchall()
    with np.load("pairs.npz", allow_pickle=False) as saved:
        assert {name: saved[name].dtype.str for name in saved} == {
            "tr_idx": "<i8", "tt_idx": "<i8", "infl": "<f8", "mem": "<f8",
        }  # fmt: skip
        assert list(zip(saved["tr_idx"], saved["tt_idx"], saved["infl"], strict=True)) == [
            (row[0], row[1], row[5]) for row in expected
        ]
    with pytest.raises(InvalidInputError, match="does not say how many train and test examples"):
        memdb.import_file("pairs.npz", "s.zarr")
    memdb.import_file("pairs.npz", database.url)
    code, out, err = run(
        "compare", database.url, database.url, "--scores-b", "pairs", "--test-id", 3, "-f", "json"
    )
    assert code == 0, err
    assert {row["difference"] for row in json.loads(out)["rows"]} == {0.0}
    code, out, err = run("top-memorized", "--store", database.url, "-k", 3)
    assert "imported scores" not in out
    assert run("info", "--store", database.url)[1].count("pairs (") == 1


def test_columns_are_written_as_the_suffix_says(database, tmp_path):
    import pyarrow.parquet as pq

    rows = database.memorization().fetchall()
    for name in ("m.parquet", "m.csv", "m.npz"):
        database.export(tmp_path / name)
    table = pq.read_table(tmp_path / "m.parquet")
    assert table.column("memorization").to_pylist() == [row[2] for row in rows]
    assert set(table.column("interval").to_pylist()) == {"anytime"}
    assert len((tmp_path / "m.csv").read_text().splitlines()) == N_TRAIN + 1
    with np.load(tmp_path / "m.npz") as saved:
        assert saved["k_in"].tolist() == [row[7] for row in rows]
    for name, what in (
        ("m.txt", "memorization"),
        ("m.csv", "models"),
        ("m.parquet", "fz-pairs"),
        ("m.npz", "all"),
    ):
        with pytest.raises(InvalidInputError, match="cannot"):
            database.export(tmp_path / name, what)
