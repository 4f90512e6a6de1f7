"""Files as people hold them: each format under its names, each quirk with its right outcome, each export back again."""

from __future__ import annotations

import itertools
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from support.cases import every
from support.commands import run
from support.stores import N_TEST, N_TRAIN, bits_of

import memdb
from memdb.errors import InvalidInputError, MismatchError, NotFoundError
from memdb.interop.arrays import open_array
from memdb.interop.export import WRITTEN
from memdb.interop.formats import read_file
from memdb.interop.gaps import missing_note

N = 12  # models
RNG = np.random.default_rng(0)
MASK = np.stack([np.isin(np.arange(N_TRAIN), RNG.choice(N_TRAIN, 16, replace=False)) for _ in range(N)])
RIGHT = {"train": RNG.random((N, N_TRAIN)) < 0.8, "test": RNG.random((N, N_TEST)) < 0.7}
LABELS = {"train": np.arange(N_TRAIN) % 3, "test": np.arange(N_TEST) % 3}
PLAIN = {"mask": MASK, "train_correct": RIGHT["train"], "test_correct": RIGHT["test"]}
MEM = RNG.uniform(-0.2, 1, N_TRAIN)
INFL = RNG.uniform(-0.5, 0.5, (N_TEST, N_TRAIN))


def matrix_arrays():
    found = {"tr_mem": MEM, "tr_labels": LABELS["train"], "tt_labels": LABELS["test"]}
    for k in range(3):
        rows, columns = (np.flatnonzero(values == k) for values in LABELS.values())
        found |= {f"tr_classidx_{k}": rows, f"tt_classidx_{k}": columns}
        found[f"infl_matrix_class{k}"] = INFL[np.ix_(columns, rows)].T
    return found


PAIRS = {"tr_idx": [1, 4], "tt_idx": [1, 4], "infl": INFL[[1, 4], [1, 4]], "mem": MEM[[1, 4]]}


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Import what is in a folder into a store of some name; what was imported, and the store opened."""
    monkeypatch.chdir(tmp_path)

    def imported(path, store="s.zarr", **said):
        done = memdb.import_file(path, store, **said)
        return done, memdb.open(store)

    return imported


# What is not needed may be anything

UNNEEDED = {
    "a number": np.array(40),
    "bytes": np.array([b"n1.JPEG", b"n2.JPEG"]),
    "objects": np.array({"lr": 0.1}, dtype=object),
    "complex numbers": np.zeros(3, complex),
    "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    "records": np.zeros(2, dtype=[("a", int), ("b", float)]),
}


@pytest.mark.parametrize("unneeded", UNNEEDED.values(), ids=UNNEEDED.keys())
def test_an_array_that_is_not_needed_is_named_and_not_read(at, unneeded):
    np.savez("runs.npz", **PLAIN, **{"other thing": unneeded})
    done, db = at("runs.npz")
    assert (done.n_added, done.notes) == (N, ("Not read: other thing.",))
    assert (bits_of(db.snapshot)[0] == MASK).all()


def test_what_systems_leave_beside_arrays_is_passed_over(at, tmp_path):
    for name, values in PLAIN.items():
        np.save(f"{name}.npy", values)
    (tmp_path / "._mask.npy").write_bytes(b"Mac OS X")
    (tmp_path / "notes.npy").write_bytes(b"not an array")
    done, _ = at(tmp_path)
    assert done.notes == ("Not read: notes.",)


@pytest.mark.parametrize("name", ["mask", "train_correct"])
def test_objects_that_are_needed_are_refused_and_never_unpickled(at, name):
    np.savez("runs.npz", **{**PLAIN, name: np.array([print], dtype=object)})
    with pytest.raises(InvalidInputError, match=rf"runs.npz: {name} holds pickled Python objects"):
        at("runs.npz")


@pytest.mark.parametrize("name", ["train_labels", "train_keys", "class_names"])
def test_what_is_said_of_examples_is_not_needed_either(at, name):
    np.savez("runs.npz", **{**PLAIN, name: np.array([{}] * N_TRAIN, dtype=object)})
    assert f"Not read: {name}." in at("runs.npz")[0].notes


NO_LABELS = {
    "a number": np.array(1),
    "one-hot": np.eye(3)[LABELS["train"]],
    "bytes in another encoding": np.array([b"caf\xe9"] * N_TRAIN),
    "missing": np.where(LABELS["train"] == 0, np.nan, LABELS["train"]),
}


@pytest.mark.parametrize("labels", NO_LABELS.values(), ids=NO_LABELS.keys())
def test_what_is_no_list_of_labels_is_named_and_not_read(tmp_path, labels):
    np.savez(tmp_path / "runs.npz", **PLAIN, train_labels=labels, test_keys=np.array("no list"))
    runs = read_file(tmp_path / "runs.npz")
    assert (runs.n_models, runs.notes) == (N, ("Not read: test_keys, train_labels.",))
    assert runs.names.labels == {}


@pytest.mark.parametrize("text", ["", "a,b\n1\n2,3,4\n", "epoch,loss\n1,2\n"])
def test_a_log_beside_runs_is_not_read_whatever_is_in_it(tmp_path, text):
    np.savez(tmp_path / "runs.npz", **PLAIN)
    (tmp_path / "log.csv").write_text(text)
    assert read_file(tmp_path).notes == ("Not read: log.csv.",)


def test_checkpoints_of_editors_are_no_shards(at, tmp_path):
    for folder in (".ipynb_checkpoints", "__MACOSX", ".trash/old"):
        (tmp_path / folder).mkdir(parents=True)
        np.savez(tmp_path / folder / "runs.npz", **{**PLAIN, "test_correct": ~RIGHT["test"]})
    np.savez(tmp_path / "runs.npz", **PLAIN)
    assert (at(tmp_path)[0].n_models, at(tmp_path)[0].notes) == (N, ())


SERIES = {
    ("shard_0.npz", "shard_1.npz", "shard_3.npz"): "shard_2.npz",
    ("shard_01.npz", "shard_03.npz"): "shard_02.npz",
    ("runs-00000-of-00003.npz", "runs-00002-of-00003.npz"): "runs-00001-of-00003.npz",
    ("runs-1-of-3.npz", "runs-2-of-3.npz"): "runs-3-of-3.npz",
    tuple(f"{n}.npz" for n in range(20) if n not in {3, 5, 7, 9}): "3.npz, 5.npz, 7.npz and 1 more",
}
NO_SERIES = [
    ["shard_0.npz", "shard_1.npz"], ["1.npz", "2.npz"], ["a.npz", "b.npz"], ["seed_42.npz", "seed_4242.npz"],
    ["runs_1_10.npz", "runs_2_20.npz"], ["run_0_8.npz", "run_1_8.npz"], ["one.npz"], [],
]  # fmt: skip


@pytest.mark.parametrize("names", SERIES)
def test_a_shard_that_is_missing_is_named(names):
    assert missing_note(names) == (f"Not there, by their numbers: {SERIES[names]}.",)


@pytest.mark.parametrize("names", NO_SERIES)
def test_what_is_no_series_lacks_nothing(names):
    assert missing_note(names) == ()


def test_shards_and_folders_of_models_are_series(at, tmp_path):
    shards(tmp_path, one_model=True)
    (tmp_path / "shard_7.npz").unlink()
    assert at(tmp_path)[0].notes == ("Not there, by their numbers: shard_7.npz.",)
    for model in range(N - 1):
        (tmp_path / "lira" / f"experiment-{model}_{N}").mkdir(parents=True)
        np.save(tmp_path / "lira" / f"experiment-{model}_{N}" / "keep.npy", MASK[model])
        np.save(
            tmp_path / "lira" / f"experiment-{model}_{N}" / "scores.npy",
            np.where(RIGHT["train"][model], 1.0, -1.0),
        )
    assert f"Not there, by their numbers: experiment-{N - 1}_{N}." in read_file(tmp_path / "lira").notes


def test_a_folder_that_was_packed_is_read_like_its_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "runs.npz", "w") as archive:
        archive.mkdir("runs")
        archive.writestr("__MACOSX/runs/._mask.npy", b"Mac OS X")
        for name, values in PLAIN.items():
            with archive.open(f"runs/{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
    assert (read_file(tmp_path / "runs.npz").n_models, read_file(tmp_path / "runs.npz").notes) == (N, ())


NO_BITS = {  # where a mask belongs, what is said of it, and what to do
    "text": (MASK.astype(int).astype(str), "is text", "array == '1'"),
    "words": (MASK.astype(str), "is text, such as '(True|False)'", "array == '1'"),
    "1 and -1": (np.where(MASK, 1, -1), "holds -1, not only 0 and 1", "array > 0"),
    "0 and 255": (MASK.astype("u1") * 255, "holds 255, not only 0 and 1", "array > 0"),
    "NaN": (np.where(MASK, 1, np.nan), "holds nan, not only 0 and 1", "NaN would be true"),
    "indices": (np.nonzero(MASK)[1].reshape(N, -1), "lists the examples of each subset", "put_along_axis"),
}


@pytest.mark.parametrize("given", NO_BITS)
def test_what_is_no_mask_is_refused_with_what_makes_one_of_it(tmp_path, given):
    mask, said, hint = NO_BITS[given]
    np.savez(tmp_path / "runs.npz", **{**PLAIN, "mask": mask})
    with pytest.raises(InvalidInputError, match=said) as refused:
        memdb.import_file(tmp_path / "runs.npz", str(tmp_path / "s.zarr"))
    assert hint in refused.value.hint


def test_an_archive_of_something_else_is_not_taken_for_one_of_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"never read")
    for name in ("model.pt", "model.npz"):
        (tmp_path / "model.pt").rename(tmp_path / name)
        with pytest.raises(InvalidInputError, match=f"{name} is a PyTorch file"):
            read_file(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "model.pt")


def test_estimates_beside_shards_are_not_read(at, tmp_path):
    (tmp_path / "runs").mkdir()
    shards(tmp_path / "runs")
    np.savez(tmp_path / "runs" / "infl_mem.npz", memorization=MEM, influence=INFL)
    done, _ = at(tmp_path / "runs")
    assert (done.n_added, done.notes[-1]) == (N, "Not read: infl_mem.npz.")
    (tmp_path / "runs" / "shard_2.npz").write_bytes(b"cut off")
    with pytest.raises(InvalidInputError, match=r"shard_2\.npz is not a"):
        at(tmp_path / "runs")


# Definitions


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


def margins(folder):
    folder.mkdir()
    rng = np.random.default_rng(4)
    np.save(folder / "train_masks.npy", MASK)
    for name, n in (("train", N_TRAIN), ("test", N_TEST)):
        np.save(folder / f"{name}_margins.npy", rng.normal(1, 1, (N, n)).astype("f2"))


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


# Order

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


def test_the_last_epoch_is_the_one_with_the_highest_number(at, tmp_path):
    np.save("y_train.npy", LABELS["train"])
    for model in range(N):
        folder = tmp_path / "run" / f"experiment-{model}_{N}"
        (folder / "logits").mkdir(parents=True)
        np.save(folder / "keep.npy", MASK[model])
        right = np.zeros((N_TRAIN, 1, 1, 3), "f4")
        right[np.arange(N_TRAIN), 0, 0, LABELS["train"]] = 5
        np.save(folder / "logits" / "10.npy", right)
        np.save(folder / "logits" / "9.npy", -right)
        np.save(folder / "logits" / "best.npy", -right)
    (tmp_path / "run" / "experiment-3_12" / "logits" / "9.npy").write_bytes(b"of no last epoch")
    done, db = at(tmp_path / "run", labels="y_train.npy")
    assert done.notes == ("There are no test examples: all questions are about training examples.",)
    assert db.sql("SELECT avg(p_in), avg(p_out) FROM memorization").fetchall() == [(1.0, 1.0)]
    assert (np.unpackbits(db.snapshot.mask(), axis=1, count=N, bitorder="little").T == MASK).all()


def test_models_that_stopped_at_another_epoch_are_named(at, tmp_path):
    for model in range(N):
        (tmp_path / "run" / str(model)).mkdir(parents=True)
        np.save(tmp_path / "run" / str(model) / "keep.npy", MASK[model])
        name = "scores_9.npy" if model == 4 else "scores_10.npy"
        np.save(tmp_path / "run" / str(model) / name, np.where(RIGHT["train"][model], 1.0, -1.0))
    said = "The last epoch is scores_10.npy for 11 models and another for 1, such as "
    assert any(note.startswith(said) for note in at(tmp_path / "run")[0].notes)


# Unknown classes


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


# Infinity and rounding


def soft(value, dtype="f8"):
    values = np.full((N, N_TRAIN), 0.5, dtype)
    values[0, 0] = value
    return values


OVER_ONE = {"f4": np.nextafter(np.float32(1), np.float32(2)), "f2": np.float16(1.001), "f8": 1 + 1e-7}
INFINITE_LOGITS = np.zeros((N, N_TRAIN, 3), "f4")
INFINITE_LOGITS[0, 0, LABELS["train"][0]] = np.inf
ENDS = {
    "p": {**PLAIN, "train_confidence": soft(1), "test_confidence": np.full((N, N_TEST), 0.0)},
    "logit": {**PLAIN, "train_logit_confidence": soft(np.inf), "test_logit_confidence": np.full((N, N_TEST), -np.inf)},
    "lira": {"keep": MASK, "scores": soft(np.inf)},
    "logits": {"keep": MASK, "logits": INFINITE_LOGITS, "train_labels": LABELS["train"]},
} | {
    f"p of {kind}": {**PLAIN, "train_confidence": soft(over, kind), "test_confidence": np.zeros((N, N_TEST), kind)}
    for kind, over in OVER_ONE.items()
}  # fmt: skip


@pytest.mark.parametrize("given", ENDS.values(), ids=ENDS.keys())
def test_certainty_is_the_largest_confidence_in_every_format(at, given):
    np.savez("runs.npz", **given)
    _, db = at("runs.npz")
    assert db.snapshot.outcome_values("train/logit_confidence")[0, 0] == 30
    if "test_correct" in given:
        assert (db.snapshot.outcome_values("test/logit_confidence") == -30).all()


def test_infinite_margins_become_the_largest(at, tmp_path):
    margins(tmp_path / "dm")
    np.save(tmp_path / "dm" / "train_margins.npy", soft(np.inf, "f2"))
    _, db = at(tmp_path / "dm")
    assert db.snapshot.outcome_values("train/margin")[0, 0] == np.finfo("f2").max


@pytest.mark.parametrize(
    ("value", "said"), [(1.01, "1.01, which is not a probability"), (-0.5, "-0.5, which"), (np.nan, "nan")]
)
def test_what_no_rounding_explains_is_refused(at, value, said):
    np.savez("p.npz", **PLAIN, train_confidence=soft(value), test_confidence=np.zeros((N, N_TEST)))
    with pytest.raises(InvalidInputError, match=said):
        at("p.npz")


# Runs by the names that people use


def shards(folder, *, one_model=False, floats=False):
    kind = "f4" if floats else bool
    names = {
        "trainset_mask": MASK,
        "trainset_correctness": RIGHT["train"],
        "testset_correctness": RIGHT["test"],
    }
    parts = range(N) if one_model else (slice(0, 5), slice(5, N))
    for place, part in enumerate(parts):
        np.savez(folder / f"shard_{place}.npz", **{n: v[part].astype(kind) for n, v in names.items()})


def aux(folder):
    for model in range(N):
        (folder / "0.7" / str(model)).mkdir(parents=True)
        index = {"train": np.flatnonzero(MASK[model])[::-1], "removed": np.flatnonzero(~MASK[model])}
        index["test"] = np.random.default_rng(model).permutation(N_TEST)
        right = {k: RIGHT["test" if k == "test" else "train"][model][v] for k, v in index.items()}
        arrays = {f"index_{k}": v for k, v in index.items()} | {
            f"correctness_{k}": v for k, v in right.items()
        }
        np.savez(folder / "0.7" / str(model) / "aux_arrays.npz", **arrays, subsample_idx=index["train"])


RUNS = {
    "one file": lambda folder: np.savez(folder / "runs.npz", trainset_mask=MASK, trainset_correctness=RIGHT["train"], testset_correctness=RIGHT["test"]),
    "shards": shards,
    "a shard a model": lambda folder: shards(folder, one_model=True),
    "shards of floats": lambda folder: shards(folder, floats=True),
    "aux_arrays": aux,
    "floats in the plain format": lambda folder: np.savez(folder / "runs.npz", **{n: v.astype("f4") for n, v in PLAIN.items()}),
    "other names": lambda folder: np.savez(folder / "runs.npz", Masks=MASK, correct_train=RIGHT["train"], Test_Correctness=RIGHT["test"]),
    "plain shards": lambda folder: [np.savez(folder / f"{k}.npz", **{n: v[k::2] for n, v in PLAIN.items()}) for k in range(2)],
}  # fmt: skip


@pytest.mark.parametrize("write", RUNS.values(), ids=RUNS.keys())
def test_runs_come_in_by_the_names_that_people_use(at, tmp_path, write):
    (tmp_path / "runs").mkdir()
    write(tmp_path / "runs")
    done, db = at(tmp_path / "runs")
    assert done.n_added == N
    np.savez("plain.npz", **PLAIN)
    assert db.models_sha256 == at("plain.npz", "plain.zarr")[1].models_sha256


def test_the_datamodels_tool_says_which_models_are_done(at, tmp_path):
    margins(tmp_path / "dm")
    done = np.arange(N) % 3 != 0
    np.save(tmp_path / "dm" / "_completed.npy", done[:, None])
    for name in ("train_margins", "test_margins"):
        values = np.load(tmp_path / "dm" / f"{name}.npy")
        values[~done] = np.nan
        np.save(tmp_path / "dm" / f"{name}.npy", values)
    imported, db = at(tmp_path / "dm")
    assert db.n_models == done.sum()
    assert "4 of 12 models are not completed, and not imported." in imported.notes
    assert (bits_of(db.snapshot)[0] == MASK[done]).all()


@pytest.mark.parametrize(("name", "where"), [("train", (3, 5)), ("test", (0, 0))])
def test_a_model_with_a_margin_that_is_nan_is_left_out_with_a_word(at, tmp_path, name, where):
    margins(tmp_path / "dm")
    values = np.load(tmp_path / "dm" / f"{name}_margins.npy")
    values[where] = np.nan
    np.save(tmp_path / "dm" / f"{name}_margins.npy", values)
    imported, db = at(tmp_path / "dm")
    assert db.n_models == N - 1
    assert "1 of 12 models is without a number for each margin (NaN), and not imported." in imported.notes
    assert (bits_of(db.snapshot)[0] == np.delete(MASK, where[0], axis=0)).all()
    np.save(tmp_path / "dm" / f"{name}_margins.npy", values * np.nan)
    with pytest.raises(InvalidInputError, match="holds no finished model: 12 of 12 models are without"):
        at(tmp_path / "dm", "none.zarr")


@pytest.mark.parametrize("turned", [False, True])
def test_signals_of_privacy_meter_have_models_on_axis_1(at, tmp_path, turned):
    p = np.random.default_rng(1).random((N_TRAIN, N))
    for folder, name, values in (
        ("models", "memberships", MASK.T if turned else MASK),
        ("signals", "rmia_signals", p),
        ("signals", "rmia_signals_pop", p[:3]),
    ):
        (tmp_path / "log" / folder).mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "log" / folder / f"{name}.npy", values)
    done, db = at(tmp_path / "log")
    assert (done.kind, db.n_models, db.store.manifest.train.n_examples) == ("privacy_meter", N, N_TRAIN)
    assert "Axis 1 of rmia_signals is models: 12 models of 23 examples." in done.notes
    correct = np.unpackbits(db.snapshot.outcome_bits("train/correct"), axis=1, count=N, bitorder="little")
    assert (correct == (p > 0.5)).all()


def test_arrays_that_may_be_turned_do_not_come_in_without_a_word(at):
    rng = np.random.default_rng(5)
    np.savez("turned.npz", mask=rng.random((60, 40)) < 0.7, train_correct=rng.random((60, 40)) < 0.8)
    assert any("60 models of 40 training examples" in note for note in at("turned.npz")[0].notes)


# Scores by the names that people use


def csv(columns, name="scores.csv"):
    return lambda folder: pa_csv.write_csv(pa.table(columns), folder / name)


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


# Labels, keys and axes


LABELLED = {
    "whole floats": {"train_labels": LABELS["train"] * 1.0, "test_labels": LABELS["test"] * 1.0},
    "names": {"trainset_labels": np.array(list("abc"))[LABELS["train"]], "testset_labels": np.array(list("abc"))[LABELS["test"]]},
    "columns": {"y_train": LABELS["train"][:, None], "y_test": LABELS["test"][:, None]},
}  # fmt: skip


@pytest.mark.parametrize("labels", LABELLED.values(), ids=LABELLED.keys())
def test_labels_come_as_people_keep_them(at, labels):
    np.savez("runs.npz", **PLAIN, **labels)
    done, db = at("runs.npz")
    assert done.notes == ()
    assert all((db.relations().labels(name) == values).all() for name, values in LABELS.items())
    assert db.relations().class_names in {(), ("a", "b", "c")}


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ({"train_labels": LABELS["train"]}, "Labels of the train set alone are not imported: give those of both sets."),
        ({"train_labels": -np.ones(N_TRAIN, int), "test_labels": -np.ones(N_TEST, int)}, None),
    ],
    ids=["one set", "minus one"],
)  # fmt: skip
def test_classes_are_known_or_not_and_questions_about_them_say_so(at, labels, note):
    np.savez("runs.npz", **PLAIN, **labels)
    done, db = at("runs.npz")
    assert done.notes == (() if note is None else (note,))
    for ask in (lambda: db.top_memorized(class_name="0"), lambda: db.pairs(top=1, same_class=True)):
        with pytest.raises(NotFoundError, match="no class is known"):
            ask()
    assert db.sql("SELECT count(same_class) FROM influence WHERE test_id = 0").fetchall() == [(0,)]


KEYS = {"train_keys": np.array([f"a{i}" for i in range(N_TRAIN)]), "test_keys": np.array([f"b{i}" for i in range(N_TEST)])}  # fmt: skip


def test_examples_may_be_named_by_their_keys_in_any_order(at, tmp_path):
    np.savez("runs.npz", **PLAIN, **KEYS)
    at("runs.npz")
    csv({"filename": KEYS["train_keys"][::-1], "memorization": MEM[::-1]}, "turned.csv")(tmp_path)
    csv({"train_key": ["a3", "a1"], "test_key": ["b2", "b0"], "influence": [0.5, -0.25]}, "few.csv")(tmp_path)
    csv({"train_key": ["a3", "nobody"], "test_key": ["b2", "b0"], "influence": [0.5, -0.25]}, "odd.csv")(
        tmp_path
    )
    at("turned.csv")
    _, db = at("few.csv")
    found = db.sql("SELECT train_id, memorization FROM turned.memorization ORDER BY 1").fetchall()
    assert found == list(enumerate(MEM.tolist()))
    pairs = "SELECT train_id, test_id, influence FROM few.influence ORDER BY 1"
    assert db.sql(pairs).fetchall() == [(1, 0, -0.25), (3, 2, 0.5)]
    with pytest.raises(MismatchError, match="train example 'nobody', and no example has that key"):
        at("odd.csv")
    _, new = at("few.csv", "new.zarr")
    assert new.sql("SELECT key FROM train_examples ORDER BY id").fetchall() == [("a1",), ("a3",)]


@pytest.mark.parametrize("names", ["1 0 10 2 3 4 5 6 7 8 9", "k1 k0 k10 k2 k3 k4 k5 k6 k7 k8 k9"])
def test_keys_of_pairs_are_never_taken_for_places(at, names):
    np.savez("runs.npz", mask=np.eye(11, dtype=bool), train_correct=np.eye(11, dtype=bool))
    np.savez("infl.npz", train_key=names.split(), test_id=[0] * 11, infl=np.arange(11) / 20)
    at("runs.npz")
    if names.startswith("k"):
        with pytest.raises(MismatchError, match="train example 'k0', and no example has that key"):
            at("infl.npz", n_test=1)
        return
    _, db = at("infl.npz", n_test=1)
    strength = db.sql("SELECT influence FROM infl.influence ORDER BY train_id").fetchall()
    assert strength == [(n / 20,) for n in (1, 0, 3, 4, 5, 6, 7, 8, 9, 10, 2)]


def test_keys_of_a_table_decide_whatever_pandas_numbers_its_rows(at, tmp_path):
    np.savez("runs.npz", **PLAIN, **KEYS)
    at("runs.npz")
    turned = {"": np.arange(N_TRAIN), "filename": KEYS["train_keys"][::-1], "mem": MEM[::-1]}
    csv(turned, "turned.csv")(tmp_path)
    done, db = at("turned.csv")
    assert done.notes == ()
    found = db.sql("SELECT memorization FROM turned.memorization ORDER BY train_id").fetchall()
    assert [m for (m,) in found] == MEM.tolist()


def test_numbers_that_are_keys_are_read_as_text(at, tmp_path):
    (tmp_path / "keyed.csv").write_text("filename,mem\n002,0.2\n000,0.0\n001,0.1\n")
    _, db = at("keyed.csv")
    assert db.sql("SELECT key FROM train_examples ORDER BY id").fetchall() == [("002",), ("000",), ("001",)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mem,mem\n0.1,0.5\n0.2,0.6\n", "mem is there twice"),
        ("id,mem_std\n0,0.1\n1,0.2\n", "none of the formats"),
    ],
)
def test_columns_that_may_be_other_scores_are_not_taken_for_them(at, tmp_path, text, said):
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        at("odd.csv")


def test_labels_that_are_fractions_are_said_to_be_not_read(at, tmp_path):
    (tmp_path / "odd.csv").write_text("label,mem\n0.5,0.1\n1,0.2\n")
    assert at("odd.csv")[0].notes == ("Not read: label.",)


def test_the_axes_of_matrices_by_class_are_told_from_all_classes_at_once(at):
    lists = {"tr_classidx_0": [0, 1, 2], "tt_classidx_0": [0, 1], "tr_classidx_1": [3, 4], "tt_classidx_1": [2, 3]}  # fmt: skip
    square = np.array([[0.1, 0.2], [0.3, 0.4]])
    np.savez("infl.npz", infl_matrix_class0=np.zeros((2, 3)), infl_matrix_class1=square, **lists)
    _, db = at("infl.npz")
    pair = "SELECT influence FROM influence WHERE train_id = 4 AND test_id = 2"
    assert db.sql(pair).fetchall() == [(0.2,)]


def test_labels_that_are_names_are_compared_as_names(at):
    """A file numbers them by the alphabet, or by its own list of classes, and a store may do so otherwise."""
    labels = {"train_labels": np.arange(N_TRAIN) % 2, "test_labels": np.arange(N_TEST) % 2}
    names = np.array(["dog", "cat"])
    np.savez("runs.npz", **PLAIN, **labels, class_names=names)
    np.savez("same.npz", influence=INFL, **{name: names[rows] for name, rows in labels.items()})
    np.savez("other.npz", influence=INFL, **{name: names[1 - rows] for name, rows in labels.items()})
    at("runs.npz")
    at("same.npz")
    with pytest.raises(MismatchError, match="test example 0 the label 'cat', .* 'dog'"):
        at("other.npz")
    np.savez("own.npz", influence=INFL, **{n: names[rows] for n, rows in labels.items()}, class_names=names)
    done, db = at("own.npz", "own.zarr")
    assert done.notes == ()
    found = db.sql("SELECT label, class_name FROM train_examples ORDER BY id LIMIT 2").fetchall()
    assert found == [(0, "dog"), (1, "cat")]


def test_sizes_that_are_known_say_which_axis_is_which(at):
    np.savez("infl.npz", influence=INFL.T)
    np.savez("runs.npz", **PLAIN)
    at("runs.npz", "known.zarr")
    for store, sizes in (("said.zarr", {"n_train": N_TRAIN, "n_test": N_TEST}), ("known.zarr", {})):
        done, db = at("infl.npz", store, **sizes)
        assert done.notes == ("The influence of infl.npz is [train, test].",)
        one = "SELECT influence FROM infl.influence WHERE train_id = 7 AND test_id = 2"
        assert db.sql(one).fetchall() == [(INFL[2, 7],)]
    with pytest.raises(InvalidInputError, match=r"is of 11 train examples, not of 50"):
        at("infl.npz", "other.zarr", n_train=50)


def test_of_a_matrix_with_too_many_pairs_the_strongest_come_in(at, monkeypatch):
    from memdb.interop import matrices

    monkeypatch.setattr(matrices, "MOST_PAIRS", 50)
    monkeypatch.setattr(matrices, "BAND_BYTES", 500)
    np.savez("infl.npz", influence=INFL)
    done, db = at("infl.npz")
    strongest = sorted(np.abs(INFL).ravel())[-50:]
    found = sorted(abs(i) for (i,) in db.sql("SELECT influence FROM influence").fetchall())
    assert found == strongest
    assert done.notes[1].startswith("infl.npz: influence holds 253 pairs. Only the 50 strongest are imported")
    np.savez("ones.npz", influence=np.ones((N_TEST, N_TRAIN)))
    with pytest.raises(InvalidInputError, match="253 of them 1 or -1, and a score table at most 50"):
        at("ones.npz", "ones.zarr")


def test_a_table_without_a_header_is_told_apart(at, tmp_path):
    (tmp_path / "influence.csv").write_text("0.1,0.2\n0.3,0.4\n")
    with pytest.raises(InvalidInputError, match="holds numbers, and no names of columns"):
        at("influence.csv")


# Every export comes back

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
