"""Files that commands write: whole under their names, or not there at all."""

from __future__ import annotations

import contextlib
import csv
import errno
import os

import numpy as np
import pytest
from support.cases import every
from support.commands import run

from memdb.errors import StorageError
from memdb.files import replacing, writing

resource = pytest.importorskip("resource")

WRITERS = [
    ["info", "-o", "x.json"],
    ["top-memorized", "-o", "x.ndjson"],
    ["sql", "FROM influence", "-o", "x.csv"],
    ["sql", "FROM influence", "-o", "x.parquet"],
    ["pairs", "--top", "11", "-o", "x.parquet"],
    ["export", "x.csv"],
    ["export", "x.parquet"],
    ["export", "x.npz"],
    ["export", "x.npz", "--what", "fz-pairs", "--top", "5"],
    ["export", "x.npz", "--what", "fz-classes"],
    ["export", "x.npz", "--what", "models"],
    ["export", "x", "--what", "models"],
    ["export", "x.npz", "--what", "lira"],
]
PLOTS = [["convergence", "--train-id", "3", "--plot", f"x.{kind}"] for kind in ("png", "svg")]


@contextlib.contextmanager
def disk_of(n_bytes):
    """A disk on which no file can grow beyond n_bytes, so that it looks full to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", every(2, [300, 0]))
@pytest.mark.parametrize("command", every(2, [(command,) for command in [*WRITERS, *PLOTS]]))
def test_a_full_disk_is_one_sentence_and_leaves_nothing(trained, tmp_path, command, n_bytes):
    if "--plot" in command:
        pytest.importorskip("matplotlib")
    with disk_of(n_bytes):
        done = run(*command, "-s", trained, cwd=tmp_path)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert line.startswith("Error: cannot write x")
    assert line.endswith("File too large. Free some space, or name a file on another disk.")
    assert list(tmp_path.iterdir()) == []


def test_what_stood_there_stays_where_writing_fails(trained, tmp_path):
    (tmp_path / "x.csv").write_text("before")
    with disk_of(0):
        run("top-memorized", "-o", "x.csv", "-s", trained, cwd=tmp_path)
    assert (tmp_path / "x.csv").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_models_are_written_as_they_are_by_bands_of_rows_and_of_columns(asked, tmp_path, monkeypatch):
    from memdb.store import Snapshot

    monkeypatch.setattr(Snapshot, "band_height", lambda _snapshot, _path: 5)
    asked.export(tmp_path / "folder", "models")
    asked.export(tmp_path / "one.npz", "models")
    expected = asked.snapshot.outcome_values("train/logit_confidence").T
    found = np.load(tmp_path / "folder" / "train_logit_confidence.npy")
    assert np.array_equal(found, expected)
    with np.load(tmp_path / "one.npz") as archive:
        assert np.array_equal(archive["train_logit_confidence"], expected)
        assert archive["mask"].sum(axis=1).tolist() == [16] * 37


def test_a_folder_replaces_an_empty_one_only(tmp_path):
    for name in ("empty", "held"):
        (tmp_path / name).mkdir()
    (tmp_path / "held" / "mine").touch()
    for name in ("empty", "held"):
        with contextlib.suppress(OSError), replacing(tmp_path / name) as temporary:
            temporary.mkdir()
            (temporary / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "held", "mine", "new"]


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space, or name a file on another disk"),
        (errno.EACCES, "name a file in a folder you may write to"),
    ],
)
def test_why_a_file_cannot_be_written_is_what_the_system_says(tmp_path, number, hint):
    with pytest.raises(StorageError) as failed, writing(tmp_path / "x"):
        raise OSError(number, f"[Errno {number}] of some library", "a/b/c")
    assert str(failed.value) == f"cannot write {tmp_path / 'x'}: {os.strerror(number)}"
    assert failed.value.hint == hint


NAMES = {
    "'a' || chr(27) || '[31m' || chr(8238) || chr(155)": ("a[31m", "a[31m"),
    "'a' || chr(10) || 'b' || chr(9) || chr(8232) || 'c'": ("a b  c", "a b  c"),
    "'=1+1'": ("=1+1", "'=1+1"),
    "'@SUM(A1)'": ("@SUM(A1)", "'@SUM(A1)"),
    "chr(9) || '=1'": (" =1", "' =1"),
    "chr(13) || '+a'": (" +a", "' +a"),
    "'-cmd|x'": ("-cmd|x", "'-cmd|x"),
    "chr(65309) || '1'": ("\uff1d1", "'\uff1d1"),
    "'-1.5'": ("-1.5", "-1.5"),
    "-1.5::DOUBLE": ("-1.5", "-1.5"),
    "['=1', 'b']": ('["=1", "b"]', '["=1", "b"]'),
    "'caf' || chr(233)": ("caf\u00e9", "caf\u00e9"),
}


def test_names_of_strangers_are_text_in_csv_and_in_a_spreadsheet(trained, tmp_path):
    columns = ", ".join(f'{text} AS "={place}"' for place, text in enumerate(NAMES))
    for kind, column in (("csv", 0), ("spreadsheet", 1)):
        done = run("sql", f"SELECT {columns}", "-s", trained, "-f", kind, "-o", "x.csv", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        printed = run("sql", f"SELECT {columns}", "-s", trained, "-f", kind, cwd=tmp_path).stdout
        assert printed == (tmp_path / "x.csv").read_text()
        headings, row = csv.reader(printed.splitlines())
        assert row[: len(NAMES)] == [cells[column] for cells in NAMES.values()]
        assert headings[0] == ("=0", "'=0")[column]
