"""`memdb pairs`: rows like those of the relation `influence`, and files that a killed run goes on with."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support import TESTS
from support.cases import every
from support.random_pairs import as_bits, random_bits
from support.stores import small_database

import memdb
from memdb.errors import InvalidInputError, NotEnoughModelsError, StorageError
from memdb.query import statistics
from memdb.query.intervals import IntervalSpec
from memdb.query.pairs import parquet, scores
from memdb.query.pairs import search as pairs
from memdb.query.pairs.kernel import Z_BINS, Z_STEP
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBlock, PairChoice

CHOICE = IntervalSpec("selected")
COLUMNS = (
    "train_id, test_id, train_label, test_label, same_class, influence, lo, hi, n_in, n_out, k_in, k_out, p_in, p_out, "
    "memorization"
)
ALL = COLUMNS.replace("influence, lo, hi", "influence, shrunk, lo, hi, q_value").split(", ")
FACTS = ["outcome", "level", "interval", "n_models"]  # the same in every row


def write(path, search, sha="a" * 64, **watch):
    return parquet.write_pairs(path, search, CHOICE, sha, **watch)


def names(folder):
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture
def search(monkeypatch):
    monkeypatch.setattr(pairs, "BLOCK", 4)
    return PairSearch(as_bits(*random_bits(5, 45, 40, 23)), PairChoice(top=6), threads=1)


@pytest.mark.parametrize(
    ("options", "filters", "ranked"),
    [
        ({"min_influence": 0.1}, "influence >= .1", "true"),
        (
            {"min_influence": 0.05, "min_memorization": 0.4, "same_class": True},
            "influence >= .05 AND memorization >= .4 AND same_class",
            "memorization >= .4 AND same_class",
        ),
        ({"top": 3, "direction": "hurts"}, "true", "true"),
    ],
)
def test_rows_are_those_of_the_relation(trained, options, filters, ranked):
    """But for the interval, whose k is what is shown and whose N is what was ranked."""
    with memdb.open(str(trained)) as db:
        found = db.pairs(**options)
        sign = "-" if options.get("direction") == "hurts" else ""
        shown = f"""
            SELECT * FROM influence WHERE {filters} AND influence IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY test_id ORDER BY {sign}influence DESC, train_id) <= {options.get("top", 10**9)}
        """  # noqa: S608 - ours
        expected = db.sql(f"""
            WITH shown AS ({shown}), counted AS (SELECT *, (SELECT count(*) FROM shown) AS k,
                (SELECT count(influence) FROM influence WHERE {ranked}) AS n FROM shown),
            scored AS (SELECT *, interval_z('selected', .05, 1.96, n_in + n_out, k, n) AS z FROM counted)
            SELECT {COLUMNS.replace("lo, hi", "score_lo(k_in, n_in, k_out, n_out, z) AS lo, score_hi(k_in, n_in, k_out, n_out, z) AS hi")}
            FROM scored ORDER BY test_id, {sign}influence DESC, train_id
        """)  # noqa: S608 - ours
        assert found.columns == [*ALL, *FACTS]
        rows = found.project(COLUMNS).fetchall()
        assert rows == expected.fetchall()
        assert len(rows) > 3


@pytest.mark.parametrize(
    ("options", "filters"),
    [
        ({"top": 2, "direction": "both"}, "true"),
        ({"min_influence": 0.01, "min_memorization": 0.01, "same_class": True},
         "influence >= .01 AND memorization >= .01 AND same_class"),
    ],
)  # fmt: skip
def test_confidences_give_the_rows_of_their_relation_to_the_last_bit(digits_store, options, filters):
    shown = "train_id, test_id, same_class, influence, n_in, n_out, s_in, s_out, q_in, q_out, p_in, p_out, memorization"
    strength = "abs(influence)" if options.get("direction") == "both" else "influence"
    with memdb.open(str(digits_store)) as db:
        found = db.pairs(outcome="confidence", **options)
        assert "k_in" not in found.columns
        expected = db.sql(
            f"""SELECT {shown} FROM influence WHERE {filters} AND influence IS NOT NULL
            QUALIFY row_number() OVER (PARTITION BY test_id ORDER BY {strength} DESC, train_id) <= {options.get("top", 10**9)}
            ORDER BY test_id, {strength} DESC, train_id""",  # noqa: S608 - ours
            outcome="confidence",
        ).fetchall()
        assert found.project(shown).fetchall() == expected
        assert len(expected) > 3


@pytest.mark.slow
def test_shrunk_scores_and_q_values_are_those_of_all_that_was_ranked(digits_store):
    """Whichever were found: the fewer, the more cautious."""
    with memdb.open(str(digits_store)) as db:
        evidence = scores.Evidence(scores.pair_bits(db.relations()))
        everything = db.pairs(min_influence=-1.0).to_arrow_table()
        block = PairBlock(0, *(everything[name].to_numpy() for name in ("train_id", "test_id", "k_in")), None)
        candidates = evidence.candidates(evidence.table([block], {"z": 1.0}))
        q = statistics.q_values(statistics.p_values(candidates))
        found = everything["q_value"].to_numpy()
        assert (found >= q * (1 - 1e-9)).all()
        assert (found <= q * 1.021).all()
        slow = statistics.shrunk(candidates)
        assert np.abs(everything["shrunk"].to_numpy() - slow).max() < 0.02
        strong = db.pairs(min_influence=0.3).to_arrow_table()
        of_all = everything.filter(pc.greater_equal(everything["influence"], 0.3))
        assert sorted(of_all.column_names) == sorted(strong.column_names)
        same, strong = (
            t.sort_by([("test_id", "ascending"), ("train_id", "ascending")]) for t in (of_all, strong)
        )
        assert len(strong) > 100
        for name in ("train_id", "test_id", "shrunk"):
            assert strong[name].equals(same[name])
        assert (strong["q_value"].to_numpy() >= same["q_value"].to_numpy() * (1 - 1e-9)).all()


def test_the_tally_of_confidences_is_that_of_their_relation(digits_store):
    with memdb.open(str(digits_store)) as db:
        found, _ = scores.search(db.relations("confidence"), {"min_influence": 0.9})
        tallied = sum(block.z_histogram for block in found.blocks())
        arms = "s_in, q_in, n_in, s_out, q_out, n_out"
        z = db.sql(
            f"SELECT same_class, influence / se AS z FROM (SELECT *, null_se({arms}) AS se FROM influence) WHERE se > 0",  # noqa: S608 - ours
            outcome="confidence",
        ).fetchnumpy()
        bins = np.clip(np.rint(z["z"] / Z_STEP) + Z_BINS // 2, 0, Z_BINS - 1).astype(int)
        slow = np.stack([np.bincount(bins[z["same_class"] == same], minlength=Z_BINS) for same in (0, 1)])
        assert (
            np.abs(np.cumsum(tallied - slow, axis=1)).max() <= 2
        )  # where a rounding falls on the edge of a bin
        assert tallied.sum() == slow.sum()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_confidences_are_not_summed_on_a_gpu(digits_store, device):
    with memdb.open(str(digits_store)) as db, pytest.raises(InvalidInputError, match="summed on the CPU"):
        db.pairs(top=1, outcome="confidence", device=device)


def test_a_store_without_models_has_no_pairs(tmp_path):
    with (
        small_database(tmp_path / "empty.zarr") as db,
        pytest.raises(NotEnoughModelsError, match="no models"),
    ):
        db.pairs(top=1)


def test_more_rows_than_memory_holds_are_refused(trained, monkeypatch):
    monkeypatch.setattr("memdb.query.pairs.scores.MAX_ROWS", 5)
    with (
        memdb.open(str(trained)) as db,
        pytest.raises(InvalidInputError, match=r"more than 5 pairs") as refused,
    ):
        db.pairs(top=3)
    assert ".parquet" in refused.value.hint


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(trained, device):
    with memdb.open(str(trained)) as db, pytest.raises(InvalidInputError, match=device):
        db.pairs(top=3, device=device)


def test_a_file_holds_the_same_rows(trained, tmp_path):
    path = tmp_path / "pairs.parquet"
    with memdb.open(str(trained)) as db:
        rows = db.pairs(top=3).project(", ".join(ALL)).fetchall()
        written = db.pairs(top=3, output=path)
        assert written.project(", ".join(ALL)).fetchall() == rows
        table = pq.read_table(path)
        assert table["n_models"].unique().to_pylist() == [37]
        assert json.loads(table.schema.metadata[b"memdb"])["models_sha256"] == db.models_sha256
    assert names(tmp_path) == ["pairs.parquet"]


def test_a_file_without_pairs_has_its_columns(trained, tmp_path):
    path = tmp_path / "none.parquet"
    with memdb.open(str(trained)) as db:
        db.pairs(min_influence=1, output=path)
    assert pq.read_table(path).column_names == [
        *ALL,
        "interval",
        "level",
        "outcome",
        "n_models",
    ]


def test_a_search_goes_on_where_it_was_stopped(search, tmp_path):
    path, whole = tmp_path / "pairs.parquet", tmp_path / "whole.parquet"
    assert write(whole, search).complete
    stopped = write(path, search, stop_requested=lambda: parquet.n_kept(path) >= 2)
    assert not stopped.complete
    assert not path.exists()
    done = write(path, search)
    assert (done.n_resumed, done.n_done, done.complete) == (stopped.n_done, 6, True)
    assert 2 <= done.n_resumed < 6
    assert path.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["pairs.parquet", "whole.parquet"]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.random_pairs import as_bits, random_bits
from memdb.query.intervals import IntervalSpec
from memdb.query.pairs import parquet, search as pairs
from memdb.query.pairs.types import PairChoice
pairs.BLOCK = 4
path = Path(sys.argv[1])
def progress(done, total):
    if parquet.n_kept(path) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
search = pairs.PairSearch(as_bits(*random_bits(5, 45, 40, 23)), PairChoice(top=6), threads=1)
parquet.write_pairs(path, search, IntervalSpec("selected"), "a" * 64, progress=progress)
"""


@pytest.mark.slow
def test_a_killed_run_is_finished_by_the_next(search, tmp_path):
    path, whole = tmp_path / "pairs.parquet", tmp_path / "whole.parquet"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(TESTS)],
        check=False,
        capture_output=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert not path.exists()
    assert parquet.n_kept(path) == 3
    assert write(path, search).n_resumed == 3
    write(whole, search)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("change", every(3, ["models", "choice", "tally"]))
def test_another_search_starts_anew(search, tmp_path, change):
    path = tmp_path / "pairs.parquet"
    write(path, search, stop_requested=lambda: parquet.n_kept(path) >= 2)
    other = {
        "models": search,
        "choice": PairSearch(search.bits, PairChoice(top=5), threads=1),
        "tally": PairSearch(search.bits, search.choice, tally=True, threads=1),
    }[change]
    assert write(path, other, "b" * 64 if change == "models" else "a" * 64).n_resumed == 0


@pytest.mark.slow
def test_a_part_that_is_not_whole_is_found_again(search, tmp_path):
    path, whole = tmp_path / "pairs.parquet", tmp_path / "whole.parquet"
    write(path, search, stop_requested=lambda: parquet.n_kept(path) >= 3)
    first, second, *_ = sorted((tmp_path / ".pairs.parquet.parts").glob("*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"")
    assert write(path, search).complete
    write(whole, search)
    assert path.read_bytes() == whole.read_bytes()


def test_a_disk_that_refuses_says_what_is_kept(search, tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="cannot write") as refused:
        write(tmp_path / "absent" / "pairs.parquet", search)
    assert "folder you may write to" in refused.value.hint
    path = tmp_path / "pairs.parquet"
    real = np.savez

    def full(file, **values):
        if parquet.n_kept(path) == 2:
            raise OSError(28, "No space left on device")
        real(file, **values)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageError, match="No space left") as refused:
        write(path, search)
    assert "2 blocks" in refused.value.hint
    assert not path.exists()


def test_z_statistics_are_of_all_that_was_ranked_in_one_run_or_two(search, tmp_path):
    tallied = PairSearch(search.bits, search.choice, tally=True, threads=1)
    whole = sum(block.z_histogram for block in tallied.blocks())
    path = tmp_path / "pairs.parquet"
    write(path, tallied, stop_requested=lambda: parquet.n_kept(path) >= 2)
    assert (write(path, tallied).totals.z_histogram == whole).all()


def test_another_suffix_is_refused(search, tmp_path):
    with pytest.raises(InvalidInputError, match=r"not a \.parquet file"):
        write(tmp_path / "pairs.csv", search)


def command(capsys, *arguments):
    from memdb.cli import main

    sys.argv = ["memdb", "pairs", *map(str, arguments)]
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err


def test_the_command_lists_the_strongest(trained, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", sys.argv)
    code, out, err = command(capsys, "--top", 3, "--store", trained)
    assert code == 0, err
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "13 more pairs" in out
    code, out, _ = command(capsys, "--top", 3, "--store", trained, "--format", "json")
    rows = json.loads(out)["rows"]
    assert len(rows) == 33
    assert list(rows[0]) == ALL


def test_the_command_writes_a_file(trained, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", sys.argv)
    path = tmp_path / "pairs.parquet"
    code, _, err = command(capsys, "--top", 3, "--same-class", "--store", trained, "-o", path)
    assert code == 0, err
    assert "Wrote 33 pairs of " in err
    assert all(pq.read_table(path)["same_class"].to_pylist())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "neither a smallest influence"),
        (["--top", 0], "--top 0"),
        (["--min-influence", 2], "--min-influence 2"),
        (["--top", 3, "--interval", "odd"], "unknown interval"),
        (["--top", 3, "-o", "pairs.txt"], "suffix"),
    ],
)
def test_the_command_refuses_what_cannot_be(trained, capsys, monkeypatch, options, said):
    monkeypatch.setattr(sys, "argv", sys.argv)
    code, _, err = command(capsys, *options, "--store", trained)
    assert code == 1
    assert said in err


def test_ctrl_c_says_what_is_kept(trained, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(pairs, "BLOCK", 2)
    path = tmp_path / "pairs.parquet"
    real = np.savez

    def interrupted(file, **values):
        if parquet.n_kept(path) == 2:
            raise KeyboardInterrupt
        real(file, **values)

    monkeypatch.setattr(np, "savez", interrupted)
    code, _, err = command(capsys, "--top", 3, "--store", trained, "-o", path)
    assert code == 130
    assert "2 blocks of test examples kept" in err
    monkeypatch.setattr(np, "savez", real)
    code, _, err = command(capsys, "--top", 3, "--store", trained, "-o", path)
    assert code == 0
    assert "Went on from 2 of 6 blocks" in err
