"""Lists of training examples: which a condition writes, and the stores that are made with and without them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from support.commands import run
from support.stores import N_TRAIN, bits_of, coin_recipe, dicts, small_dataset

import memdb
from memdb.datasets import ImageFiles
from memdb.errors import InvalidInputError, MemdbError, MismatchError, NotFoundError
from memdb.format.documents import group_metadata, sealed
from memdb.format.manifest import Manifest
from memdb.interop.ids import Named, named, part_of

KEYS = [f"train/{row}.png" for row in range(N_TRAIN)]
SOME = [2, 5, 11]


def without(url, given, **options):
    return memdb.init(str(url), small_dataset(), coin_recipe, seed=7, without_ids=given, **options)


# Conditions


def test_a_condition_lists_the_examples_that_sql_finds(db, tmp_path):
    wanted = dicts(db.sql("SELECT train_id, key FROM memorization JOIN train_examples ON id = train_id "
                          "WHERE memorization > .5 AND class_name <> 'cat'"))  # fmt: skip
    condition = "memorization > .5 and class_name <> 'cat'"
    for suffix in (".csv", ".parquet", ".json", ".ndjson", ".txt", ""):
        path = tmp_path / f"ids{suffix}"
        db.export(path, "ids", drop=condition)
        listed = named(path, "without_ids")
        assert listed.names == [row["key"] for row in wanted]
        assert listed.by == "key"
    document = json.loads((tmp_path / "ids.json").read_text())
    assert document["condition"] == condition
    assert document["models_sha256"] == db.models_sha256
    assert [row["train_id"] for row in document["rows"]] == [row["train_id"] for row in wanted]


def test_a_condition_may_name_the_columns_of_a_ranked_list(db, tmp_path):
    top = dicts(db.top_memorized(N_TRAIN))
    least = sorted(row["q_value"] for row in top)[4]
    db.export(tmp_path / "q.json", "ids", keep=f"q <= {least} and shrunk > 0")
    rows = json.loads((tmp_path / "q.json").read_text())["rows"]
    expected = {row["train_id"]: row for row in top if row["q_value"] <= least and row["shrunk"] > 0}
    assert {row["train_id"] for row in rows} == set(expected)
    assert all(row["q_value"] == expected[row["train_id"]]["q_value"] for row in rows)


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("memorization > 5", "no training example"),
        ("NULL", "no training example"),
        ("1 = 1", "every training example"),
        ("label", "neither true nor false"),
        ("no_such_column > 1", "no_such_column"),
        ("memorization > .5) OR (1 = 1", "not one expression"),
        ("true; DROP TABLE models", "not one expression"),
        ("true UNION SELECT 1", "not one expression"),
        ("label IN (SELECT label FROM read_csv('/etc/passwd'))", "disabled"),
        ("memorization > $x", "x"),
        ("COLUMNS('lo|hi') > 0", "not one value"),  # of which the first alone would count
        ("unnest([true, false])", "not one value"),
        ("", "not one expression"),
        ("\ud800", "not valid UTF-8"),
    ],
)
def test_a_condition_that_selects_nothing_sensible_is_one_sentence(db, tmp_path, condition, said):
    with pytest.raises(InvalidInputError, match=said) as caught:
        db.export(tmp_path / "ids", "ids", drop=condition)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_condition_lists_examples_by_imported_scores(tmp_path):
    (tmp_path / "theirs.csv").write_text("train_id,memorization\n0,0.9\n1,0.2\n2,0.6\n")
    memdb.import_file(tmp_path / "theirs.csv", str(tmp_path / "scores.zarr"))
    with memdb.open(str(tmp_path / "scores.zarr")) as scores:
        scores.export(tmp_path / "ids.json", "ids", drop="memorization > .5")
    rows = json.loads((tmp_path / "ids.json").read_text())["rows"]
    assert [(row["train_id"], row["memorization"], row["shrunk"]) for row in rows] == [
        (0, 0.9, None), (2, 0.6, None),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_commands_make_a_store_of_the_rest(digits_store, db, tmp_path):
    store = ("--store", digits_store)
    done = run("export", "ids", "--drop", "memorization > .5", *store, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "memdb init --without-ids ids" in done.stderr
    made = run("init", "--without-ids", "ids", "--store", "rest.zarr", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    n_listed = len((tmp_path / "ids").read_text().splitlines()) - 1
    assert f"{1437 - n_listed:,} of 1,437 train" in made.stderr
    both = run("export", "a.csv", "--drop", "1=1", "--keep", "1=1", *store, cwd=tmp_path)
    idle = run("export", "a.csv", "--what", "pairs", "--drop", "1=1", *store, cwd=tmp_path)
    assert (both.returncode, idle.returncode) == (1, 2)
    in_memory = run("export", "b.csv", "--drop", "memorization > .5", "--store", db.url, cwd=tmp_path)
    assert "memdb.init(url, dataset, recipe, without_ids='b.csv')" in in_memory.stderr  # no command can


# Stores of a part


def test_a_store_of_a_part_trains_what_is_left_under_the_keys_that_it_had(tmp_path):
    whole = small_dataset()
    left = [row for row in range(N_TRAIN) if row not in SOME]
    with without(tmp_path / "rest.zarr", [KEYS[row] for row in SOME]) as db:
        assert dicts(db.info())[0]["n_left_out"] == len(SOME)
        db.train(seeds=range(5), progress=False)
        keys = [row["key"] for row in dicts(db.sql("SELECT key FROM train_examples ORDER BY id"))]
        assert keys == [KEYS[row] for row in left]
    with memdb.open(str(tmp_path / "rest.zarr")) as db:  # given the whole, it takes its part
        db.train(seeds=range(10), dataset=whole, recipe=coin_recipe, progress=False)
        assert db.n_models == 10
        mask, _, _ = bits_of(db.snapshot)
        assert mask.shape == (10, len(left))
        part = whole.only(np.array(left))
        np.testing.assert_array_equal(part.train.array, whole.train.array[left])
        manifest = db.store.manifest
        assert manifest.require_same(part.infos, manifest.recipe, db.url) is None
        assert Manifest.from_document(manifest.to_document(), "here") == manifest
        with pytest.raises(MismatchError):
            db.train(1, dataset=small_dataset(shift=1), recipe=coin_recipe, progress=False)


@pytest.mark.parametrize("rows", ["", "not base64", "twice"])
def test_verify_notices_that_a_store_no_longer_says_which_part_it_is_of(tmp_path, rows):
    with without(tmp_path / "rest.zarr", SOME) as db:
        assert not db.verify()[0].damages
        said = db.store.manifest.kept.text
    path = tmp_path / "rest.zarr" / "zarr.json"
    document = json.loads(path.read_bytes())["attributes"]["memdb"]
    document["kept"]["rows"] = 2 * said if rows == "twice" else rows
    path.write_bytes(group_metadata(sealed(document)))
    with memdb.open(str(tmp_path / "rest.zarr")) as db:
        (damage,) = db.verify()[0].damages
    assert (damage.kind, damage.identifier) == ("dataset", "train")
    assert "which 20 of 23 training examples" in damage.problem


def test_stores_of_different_parts_do_not_merge_and_equal_ones_do(tmp_path):
    parts = [
        without(tmp_path / f"{name}.zarr", ids) for name, ids in (("a", SOME), ("b", SOME), ("c", [1, 3]))
    ]
    for seed, db in enumerate(parts):
        db.train(seeds=[seed], progress=False)
    whole = memdb.init(str(tmp_path / "whole.zarr"), small_dataset(), coin_recipe, seed=7)
    for other in (parts[2], whole):
        with pytest.raises(MismatchError, match="train sets differ"):
            memdb.merge(str(tmp_path / "bad.zarr"), [parts[0], other], recipe=coin_recipe)
    merged = memdb.merge(str(tmp_path / "m.zarr"), parts[:2], dataset=small_dataset(), recipe=coin_recipe)
    assert merged.database.n_models == 2
    merged.database.train(seeds=[9], progress=False)
    assert merged.database.store.manifest.kept == parts[0].store.manifest.kept


@pytest.mark.parametrize(
    "x",
    [
        [np.full((2, 2), row, dtype=np.uint8) for row in range(4)],
        ("one", "two", "three", "four"),
        memdb.datasets.inputs.FirstOfPairs([(np.array([row]), row) for row in range(4)]),
    ],
    ids=["list", "text", "lazy"],
)
def test_every_kind_of_input_can_be_a_part(x):
    data = memdb.Dataset(x, [0, 1, 0, 1], x, [0, 1, 0, 1])
    part = data.only(np.array([1, 3]))
    assert [part.train[row][1] for row in range(2)] == [1, 1]
    for row, whole in ((0, 1), (1, 3)):
        np.testing.assert_array_equal(part.train.x[row], x[whole])
    hashes, all_hashes = (d.tables["train"].content_sha256 for d in (part, data))
    np.testing.assert_array_equal(hashes, all_hashes[[1, 3]])
    assert part.train.keys == ["1", "3"]
    assert len(part.test) == 4


def test_image_files_are_read_where_they_lie(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    paths = [tmp_path / f"{row}.png" for row in range(3)]
    for row, path in enumerate(paths):
        pillow.fromarray(np.full((2, 2, 3), 50 * row, dtype=np.uint8)).save(path)
    part = memdb.Dataset(ImageFiles(paths), [0, 1, 0]).only(np.array([0, 2]))
    assert part.train.x[1].max() == 100
    assert part.train.x.content(1) == paths[2].read_bytes()
    assert part.tables["train"].info("train").n_examples == 2


# Lists


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "names no example"),
        ([3, 99], "'99'"),
        ([-1], "'-1'"),
        (["train/99.png"], "train/99.png"),
        ([3, 4, 3], "more than once"),
        (list(range(N_TRAIN)), "excludes every training example"),
        (list(range(0, N_TRAIN, 3)), "training examples of class ant"),
        ([1.5], "float"),
        ([True, False], "bool"),
        ([1, "train/2.png"], "int, str"),
    ],
)
def test_lists_that_leave_no_sensible_part_are_refused(tmp_path, given, said):
    with pytest.raises(InvalidInputError, match=said) as caught:
        without(tmp_path / "a.zarr", given)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", "names no example"),
        ("a.csv", "train_id\n", "names no example"),
        ("a.csv", "", "no column"),
        ("a.csv", "label\n3\n", "no column train_id or key but label"),
        ("a.csv", "train_id,label\n1\n", "same number of cells"),
        ("a.csv", "train_id\n1.0\n", "'1.0'"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "3", "neither a list"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", "[[1]]", "list"),
        ("a.json", '[{"key": ["train/2.png"]}]', "no such training example"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.txt", b"\xff\xfe", "cannot be read"),
        ("a.csv", "train_id,action\n1,keep\n", "lists examples to keep"),
    ],
)
def test_files_that_do_not_hold_a_list_are_one_sentence(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidInputError, match=said) as caught:
        without(tmp_path / "a.zarr", path)
    assert "\n" not in str(caught.value)
    for absent in (tmp_path / "absent.csv", "~nobody-of-this-name/ids"):
        with pytest.raises(NotFoundError):
            without(tmp_path / "a.zarr", absent)


def test_both_lists_at_once_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="both given"):
        without(tmp_path / "a.zarr", [1], only_ids=[2])


def test_numbers_that_are_keys_of_some_and_rows_of_others_have_to_say_which():
    keys = ["2", "1", "0", "a"]
    data = memdb.Dataset(np.zeros((4, 1)), [0, 0, 0, 0], train_keys=keys)
    for text, expected in (("key\n2\n", [0]), ("train_id\n2\n", [2]), ("1\n", [1]), ("a\n", [3])):
        listed = Named(
            "f", text.split()[-1:], {"key": "key", "train_id": "train_id"}.get(text.split()[0], "")
        )
        assert part_of(data, "d", listed, None).tolist() == expected
    with pytest.raises(MemdbError, match="keys of d and rows of others"):
        part_of(data, "d", Named("f", ["2"], ""), None)


@pytest.mark.parametrize("text", ["\ufeffkey\r\ntrain/2.png\r\n\r\n", " 2 \n", "train/2.png"])
def test_text_is_taken_as_people_write_it(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text, newline="")
    left = part_of(small_dataset(), "d", None, named(path, "without_ids")).tolist()
    assert left == [row for row in range(N_TRAIN) if row != 2]


def test_conditions_are_asked_of_imported_scores_which_have_no_q_values(tmp_path):
    np.savez(tmp_path / "scores.npz", memorization=np.linspace(0, 1, 9))
    memdb.import_file(tmp_path / "scores.npz", str(tmp_path / "s.zarr"), n_test=3)
    with memdb.open(str(tmp_path / "s.zarr")) as db:
        db.export(tmp_path / "ids.csv", "ids", drop="memorization > .5 and q IS NULL")
        with pytest.raises(InvalidInputError, match="are of ids, and memorization is asked for"):
            db.export(tmp_path / "all.csv", drop="memorization > .5")
    rows = csv.DictReader((tmp_path / "ids.csv").read_text().splitlines())
    assert [row["train_id"] for row in rows] == ["5", "6", "7", "8"]
