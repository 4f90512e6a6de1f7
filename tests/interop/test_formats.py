"""Files of arrays as people hold them: what is not needed is not read, what is missing is named."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from support.held import INFL, LABELS, MASK, MEM, PLAIN, RIGHT, N, shards
from support.stores import N_TRAIN, bits_of

import memdb
from memdb.errors import InvalidInputError, NotFoundError
from memdb.interop.formats import read_file
from memdb.interop.gaps import missing_note

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


def test_a_sparse_mask_is_refused_with_what_makes_an_array_of_it(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz(tmp_path / "mask.npz", sparse.csr_array(MASK))
    with pytest.raises(InvalidInputError, match="is a sparse matrix of SciPy") as refused:
        read_file(tmp_path / "mask.npz")
    assert "toarray" in refused.value.hint


def test_what_is_elsewhere_is_to_be_downloaded(tmp_path):
    with pytest.raises(NotFoundError, match="no file https://example.org/runs.npz") as refused:
        memdb.import_file("https://example.org/runs.npz", str(tmp_path / "s.zarr"))
    assert "download it" in refused.value.hint


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
    "p": (np.where(MASK, 0.9, 0.2), "holds 0.[29], not only 0 and 1", "array > 0.5"),
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
