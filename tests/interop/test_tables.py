"""Tables as people hold them: each quirk of CSV, Parquet and JSON with its right outcome."""

from __future__ import annotations

import bz2
import gzip
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.stores import N_TEST, N_TRAIN

import memdb
from memdb.errors import InvalidInputError, MismatchError
from memdb.interop import by_name
from memdb.interop.formats import read_file
from memdb.interop.tables import open_table

MEM = np.random.default_rng(0).uniform(-0.2, 1, N_TRAIN)
IDS = np.arange(N_TRAIN)
HEADER = "train_id,memorization\n"
ROWS = "".join(f"{i},{m!r}\n" for i, m in enumerate(MEM.tolist()))
TURNED = "".join(f"{i},{m!r}\n" for i, m in reversed(list(enumerate(MEM.tolist()))))
PLAIN = HEADER + ROWS
RECORDS = [{"train_id": i, "memorization": m} for i, m in enumerate(MEM.tolist())]


def parquet(**columns):
    def write(path):
        pq.write_table(pa.table(columns), path)

    return write


def pandas_index(path):
    pytest.importorskip("pandas").DataFrame({"memorization": MEM[::-1]}, index=IDS[::-1]).to_parquet(path)


HELD = {  # what is in a file, by its name
    "bom.csv": "\ufeff" + PLAIN,
    "utf16.csv": PLAIN.encode("utf-16"),
    "crlf.csv": PLAIN.replace("\n", "\r\n"),
    "cr.csv": PLAIN.replace("\n", "\r"),
    "semicolons.csv": PLAIN.replace(",", ";"),
    "decimal-comma.csv": PLAIN.replace(",", ";").replace(".", ","),
    "decimal-comma.tsv": PLAIN.replace(",", "\t").replace(".", ","),
    "tabs.csv": PLAIN.replace(",", "\t"),
    "pipes.csv": PLAIN.replace(",", "|"),
    "spaces.csv": PLAIN.replace(",", " , "),
    "quotes.csv": '"train_id","memorization"\n' + ROWS,
    "single-quotes.csv": "'train_id','memorization'\n" + ROWS,
    "capitals.CSV": "Train ID,Memorization-Score\n" + ROWS,
    "comments.csv": "# made by hand\n# twice\n" + PLAIN,
    "blank-lines.csv": "\n# made by hand\n\n" + PLAIN.replace(",", ";").replace(".", ","),
    "other-ends-of-line.csv": "# made\x0b#by\u2028#hand\n" + PLAIN,
    "savetxt.csv": "# made by hand\n# train_id,memorization\n" + ROWS,
    "index.csv": "index,mem\n" + TURNED,
    "pandas.csv": ",mem\n" + TURNED,
    "pandas-again.csv": "Unnamed: 0,mem\n" + TURNED,
    "excel.csv": "sep=;\r\n" + PLAIN.replace(",", ";").replace(".", ",").replace("\n", "\r\n"),
    "packed.csv.gz": gzip.compress(PLAIN.replace(",", ";").encode()),
    "packed.tsv.bz2": bz2.compress(PLAIN.replace(",", "\t").encode()),
    "packed.csv.zst": pa.Codec("zstd").compress(PLAIN.encode(), asbytes=True),
    "records.json": json.dumps(RECORDS),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(RECORDS).encode(),
    "lines-within.jsonl": "\r\n".join('{"note": "\u2028", ' + json.dumps(row)[1:] for row in RECORDS),
    "document.json": json.dumps({"level": 0.95, "rows": RECORDS}),
    "columns.json": json.dumps({"memorization": MEM.tolist(), "epoch": 3}),
    "lines.json": "\n".join(map(json.dumps, RECORDS)),
    "pandas.json": json.dumps({"memorization": {str(i): MEM[i] for i in reversed(range(N_TRAIN))}}),
    "lines.ndjson": "\n".join(map(json.dumps, RECORDS)),
    "lines.jsonl.gz": gzip.compress("\n".join(map(json.dumps, RECORDS)).encode()),
    "dictionary.parquet": parquet(train_id=pa.array(IDS).dictionary_encode(), memorization=MEM),
    "decimals.parquet": parquet(train_id=IDS, mem=pa.array(MEM).cast(pa.decimal128(20, 17), safe=False)),
    "empty-lists.parquet": parquet(
        train_id=IDS, mem=MEM, other=pa.array([[]] * N_TRAIN, pa.list_(pa.float64()))
    ),
    "nested.parquet": parquet(train_id=IDS, mem=pa.array([[m] for m in MEM]), other=[{"a": 1}] * N_TRAIN),
    "fixed.parquet": parquet(train_id=IDS, mem=pa.array([[m] for m in MEM], pa.list_(pa.float64(), 1))),
    "pandas.parquet": pandas_index,
}


@pytest.mark.parametrize("name", HELD)
def test_tables_are_read_as_people_hold_them(tmp_path, name):
    held = HELD[name]
    path = tmp_path / name
    if callable(held):
        held(path)
    else:
        path.write_bytes(held if isinstance(held, bytes) else held.encode())
    scores = read_file(path)
    memorized = np.arange(N_TRAIN) if scores.memorized is None else scores.memorized
    found = np.full(N_TRAIN, np.nan)
    found[memorized] = scores.scores.memorization
    assert found == pytest.approx(MEM, abs=1e-12)


KEYS = [f"a{i}" for i in IDS]
KEYED = {
    "text": pa.array(KEYS),
    "views of text": pa.array(KEYS, pa.string_view()),
    "bytes": pa.array([key.encode() for key in KEYS]),
    "dictionary": pa.array(KEYS).dictionary_encode(),
    "numbers": pa.array(IDS + 100),
}


@pytest.mark.parametrize("keys", KEYED.values(), ids=KEYED.keys())
@pytest.mark.parametrize("name", ["key", "train_key", "train_id", "__index_level_0__"])
def test_keys_are_keys_whatever_their_type(tmp_path, keys, name):
    pq.write_table(pa.table({name: keys, "memorization": MEM}), tmp_path / "keyed.parquet")
    scores = read_file(tmp_path / "keyed.parquet")
    if pa.types.is_integer(keys.type) and name not in {"key", "train_key"}:
        assert scores.memorized.tolist() == keys.to_pylist()
        return
    expected = [k.decode() if isinstance(k, bytes) else str(k) for k in keys.to_pylist()]
    assert scores.keyed == {"train": expected}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN + "mean,0.3\n", "train_id holds 'mean' among numbers"),
        (HEADER + '"1,000",0.5\n0,.5\n', "train_id holds '1,000' among numbers"),
        ("train_id;memorization\n1,000;0,5\n2;,5\n", "train_id holds '1,000' among numbers"),
        ("train_id;test_id;influence\n1,000;2;0,5\n3;4;0,5\n", "train_id holds '1,000' among numbers"),
        (HEADER + '"1,000",0.5\n"1,001",.5\n', "train_id holds '1,000' among numbers"),
        ("\0".join(PLAIN), "holds bytes that are 0, and is not text"),
        (HEADER + "0,50%\n1,3%\n", "memorization is text, such as '50%'; expected floats"),
        (HEADER + "0,0.5\n0,.4\n", "names an example twice"),
        (HEADER + "-1,0.5\n", "holds -1, and ids are whole numbers from 0"),
        (HEADER + "99999999999,0.5\n", "holds 99999999999, and ids"),
        (HEADER + "0.5,0.5\n", "holds 0.5, and ids are whole numbers"),
        (HEADER + "1,2,3\n4\n", "cannot be read: CSV parse error"),
        (HEADER, "holds no scores"),
        ("train_id,target_id,influence\n1,2,.5\n", "holds a list of influences on training examples"),
        ("train_id,influence\n1,.5\n", "does not name the pairs that it is of"),
        ("label,memorization\nbird,.5\ncat,.4\n", "has 2 rows of as many classes"),
        ("test_id,memorization\n1,.5\n0,.4\n", "test_id says that .* is of test examples"),
        ("test_key,memorization\na,.5\nb,.4\n", "test_key says that .* is of test examples"),
        ("", "cannot be read: Empty CSV file"),
        ("train_id,test_id,influence\n1,2,.5\n1,2,.5\n", "has the pair .* twice"),
    ],
)
def test_what_is_no_table_of_scores_is_refused_by_what_is_wrong(tmp_path, text, said):
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=said) as refused:
        memdb.import_file(tmp_path / "odd.csv", str(tmp_path / "s.zarr"), n_train=N_TRAIN, n_test=N_TEST)
    assert refused.value.hint or "is there twice" in said


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"rows": 3}', '"text"', '{"mem": [1, "a"]}', '{"mem": [1], "id": [1, 2]}', "\xff",
     '[{"mem": 1' + 30 * "0" + "}]"],
)  # fmt: skip
def test_json_that_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "odd.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r"odd\.json cannot be read"):
        open_table(tmp_path / "odd.json")


@pytest.mark.parametrize("text", ["3\n4", "[1]\n[2]", "{}\n{", "\xff"])
def test_lines_that_are_no_objects_are_refused(tmp_path, text):
    (tmp_path / "odd.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError, match=r"odd\.jsonl cannot be read"):
        open_table(tmp_path / "odd.jsonl")


def test_an_index_of_text_is_keys(tmp_path):
    (tmp_path / "index.json").write_text('{"mem": {"007": 0.5, "010": 0.25}, "epoch": {"007": 3}}')
    scores = read_file(tmp_path / "index.json")
    assert (scores.keyed, scores.scores.memorization.tolist()) == ({"train": ["007", "010"]}, [0.5, 0.25])


def test_objects_have_the_columns_of_all_of_them(tmp_path):
    (tmp_path / "rows.json").write_text('[{"train_id": 0}, {"train_id": 1, "memorization": 0.5}]')
    assert np.array_equal(
        read_file(tmp_path / "rows.json").scores.memorization, [np.nan, 0.5], equal_nan=True
    )


def test_ids_beside_a_matrix_are_those_of_its_rows(tmp_path):
    """They were not looked at: rows in another order were other test examples."""
    rows = np.random.default_rng(1).uniform(-0.5, 0.5, (N_TEST, N_TRAIN))
    for name, order in (("sorted", slice(None)), ("turned", slice(None, None, -1))):
        held = {"test_id": np.arange(N_TEST)[order], "influence": rows[order].tolist()}
        pq.write_table(pa.table(held), tmp_path / f"{name}.parquet")
    assert (
        read_file(tmp_path / "sorted.parquet").scores.influence.reshape(rows.shape).tolist() == rows.tolist()
    )
    with pytest.raises(InvalidInputError, match="test_id is not 0, 1, 2, ..."):
        read_file(tmp_path / "turned.parquet")


def test_zeros_before_a_key_are_part_of_it_however_its_column_is_spelled(tmp_path):
    for name in ("key", "Key ", '"Key"', "Train-Filenames"):
        (tmp_path / "keyed.csv").write_text(f"{name};memorization\n007;0,5\n010;0,25\n")
        assert read_file(tmp_path / "keyed.csv").keyed == {"train": ["007", "010"]}


def test_missing_scores_are_missing_in_every_spelling(tmp_path):
    spelled = ["0.5", "", "NA", "nan", "None", "<NA>"]
    rows = "".join(f"{i};{text.replace('.', ',')}\n" for i, text in enumerate(spelled))
    (tmp_path / "m.csv").write_text("train_id;memorization\n" + rows)
    (tmp_path / "n.csv").write_text(HEADER + "".join(f"{i},{text}\n" for i, text in enumerate(spelled)))
    for name in ("m.csv", "n.csv"):
        scores = read_file(tmp_path / name).scores.memorization
        assert scores[0] == 0.5
        assert np.isnan(scores[1:]).all()


def test_what_swells_is_refused_before_it_is_in_memory(tmp_path, monkeypatch):
    from memdb.interop import tables

    monkeypatch.setattr(tables, "SWELLING_MATTERS", 1 << 16)
    monkeypatch.setattr(tables, "READ_BYTES", 1 << 14)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress((HEADER + "0,0\n" * 100_000).encode()))
    with pytest.raises(InvalidInputError, match="swells from"):
        open_table(tmp_path / "bomb.csv.gz")
    monkeypatch.setattr(tables, "MAX_WHOLE_BYTES", 1 << 20)
    rows = pa.table({"memorization": np.zeros(200_000)})
    pq.write_table(rows, tmp_path / "bomb.parquet")
    with pytest.raises(InvalidInputError, match="holds 200,000 values"):
        open_table(tmp_path / "bomb.parquet")
    monkeypatch.setattr(tables, "MAX_WHOLE_BYTES", 1 << 16)
    long = pa.table({"key": ["x" * 100_000], "memorization": [0.5]})
    pq.write_table(long, tmp_path / "long.parquet", use_dictionary=False)
    with pytest.raises(InvalidInputError, match="takes 100,"):
        open_table(tmp_path / "long.parquet")
    (tmp_path / "names.json").write_text(json.dumps([{str(i): 1} for i in range(200)]))
    with pytest.raises(InvalidInputError, match="200 objects with 200 names"):
        open_table(tmp_path / "names.json")
    monkeypatch.setattr(tables, "MAX_WHOLE_BYTES", 1 << 20)
    wide = pa.table({"key": ["x" * 10_000, *"y" * 100], "memorization": np.zeros(101)})
    pq.write_table(wide, tmp_path / "wide.parquet")
    assert open_table(tmp_path / "wide.parquet")["key"].problem is not None


def test_a_table_in_parts_is_one_and_its_parts_say_so_where_they_differ(tmp_path):
    for part in range(2):
        rows = {"train_id": IDS[part::2], "memorization": MEM[part::2]}
        pq.write_table(pa.table(rows), tmp_path / f"part-{part}.parquet")
    scores = read_file(tmp_path)
    assert scores.scores.memorization.tolist() == MEM.tolist()
    pq.write_table(pa.table({"train_id": [0], "memorization": ["x"]}), tmp_path / "part-2.parquet")
    with pytest.raises(InvalidInputError, match="another type in other parts"):
        read_file(tmp_path)


def test_tables_that_do_not_name_their_examples_are_not_put_together(tmp_path):
    """They may be two estimates of the same ones."""
    for part in range(2):
        (tmp_path / f"{part}.csv").write_text("memorization\n" + f"0.{part + 1}\n" * 3)
    with pytest.raises(MismatchError, match=r"1\.csv has another memorization than .*0\.csv"):
        read_file(tmp_path)


def test_a_folder_tells_which_file_is_in_the_way(tmp_path):
    for part in range(2):
        np.savez(tmp_path / f"{part}.npz", subset_idx=IDS[part:], trainset_correctness=part < IDS)
    with pytest.raises(InvalidInputError, match=r"0\.npz has subset_idx, trainset_correctness: none"):
        read_file(tmp_path)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "mem.csv").write_text(PLAIN)
    assert read_file(tmp_path).scores.memorization.tolist() == MEM.tolist()
    for name in ("pipe.csv", "zero.csv"):
        with pytest.raises(InvalidInputError, match="is a pipe or a device"):
            read_file(tmp_path / name)


SPELLED = {
    "capitals": "Train_Correct",
    "hyphens": "train-correct",
    "camel": "trainCorrect",
    "space": "train correct ",
}


@pytest.mark.parametrize("correct", SPELLED.values(), ids=SPELLED.keys())
def test_names_may_be_spelled_in_other_ways(correct):
    found = by_name.spelled([correct, "mask", "Mask"])
    assert found["train_correct"] == correct
    assert found["mask"] == "mask"


@pytest.mark.parametrize(
    ("name", "content", "said", "hint"),
    [
        ("scores.txt", b"0 0.5\n1 0.25\n", "is text", "numpy.loadtxt"),
        ("scores.csv.xz", b"\xfd7zXZ\0", "is packed", "unpack it"),
        ("scores.csv", b"ARROW1\0\0\xff\xff", "is a Feather or Arrow file", "read_feather"),
        ("scores.FEATHER", b"", "is a Feather or Arrow file", "to_parquet"),
        ("scores.mat", b"MATLAB 5.0 MAT-file", "is a MATLAB file", "scipy.io.loadmat"),
        ("scores.npz", b"\x89HDF\r\n\x1a\n", "is an HDF5 file", "h5py"),
        ("scores.pkl", b"\x80\x04.", "is a pickle, which memdb never loads", "numpy.savez"),
        ("scores.xlsx", b"PK", "is a workbook", "CSV"),
        (
            "scores.csv",
            b"version https://git-lfs.github.com/spec/v1\nsize 1\n",
            "is a pointer of Git LFS",
            "pull",
        ),
        ("scores.npz", b"<!DOCTYPE html>", "is a web page", "sign in"),
        ("scores.csv", b"<!DOCTYPE html>\n<html>404, not found", "is a web page", "an error"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_how_to_make_one_that_is_read(
    tmp_path, name, content, said, hint
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError) as refused:
        read_file(tmp_path / name)
    assert f"{name} {said}" in str(refused.value)
    assert hint in refused.value.hint
