"""Addresses that lead nowhere are refused in one sentence at every command, and none is shown with its secrets."""

from __future__ import annotations

import shutil

import pytest
from support.cases import every
from support.commands import run
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.addresses import shown, without_secrets
from memdb.errors import InvalidInputError, MemdbError
from memdb.storage.urls import local_path, protocol_of
from memdb.store.open_base import followable

MALFORMED = [
    "http://[::1", "http://", "https:///x", "https://example.org:99999/", "https://example.org:port/x",
    "https://exa mple.org/x", "https://example.org/x\ny", " https://example.org/x", "http:/example.org/x",
    "ftp://127.0.0.1:9/x", "nosuch://x", "simplecache::https://example.org/x", "://x", "s3://", "s3:bucket/x",
    "gs:///x", "file://host/x", "~nouser/x", "https://me:se/cret@example.org/x", "https://me:se#cret@host/x",
    "s3://key:secret@bucket/x", "a\x01b", "a\nb",
]  # fmt: skip
NO_PATHS = [*MALFORMED, "s3://bucket/x", "memory://x"]
WITH_STORE = [
    ["info"], ["top-memorized"], ["top-influence", "--test-id", "1"], ["score", "--train-id", "1"],
    ["sql", "SELECT 1"], ["plan"], ["convergence", "--train-id", "1"], ["reliability"], ["classes"],
    ["class-influence"], ["init"], ["train", "--add", "1"], ["update"],
    ["merge", "store.zarr"], ["compact"], ["gc"], ["verify"], ["retract", "00", "--because", "x"],
    ["pairs", "--top", "1"], ["import", "runs.npz"], ["export", "x.parquet"], ["membership"],
    ["lds", "scores.npz"], ["publish", "copy"],
]  # fmt: skip
OTHERS = [
    ["publish", "ADDRESS", "-s", "store.zarr"], ["pull", "ADDRESS", "copy"], ["pull", "store.zarr", "ADDRESS"],
    ["merge", "store.zarr", "ADDRESS", "-s", "new.zarr"], ["compare", "ADDRESS", "store.zarr"],
    ["compare", "store.zarr", "ADDRESS"],
    ["init", "--extend", "ADDRESS", "-s", "new.zarr"], ["update", "--base", "ADDRESS", "-s", "extension.zarr"],
]  # fmt: skip


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """A folder with a store and one that extends it."""
    folder = tmp_path_factory.mktemp("addresses")
    shutil.copytree(trained, folder / "store.zarr")
    with memdb.open(str(folder / "store.zarr")) as base:
        base.compact()
    memdb.extend(
        str(folder / "extension.zarr"),
        str(folder / "store.zarr"),
        recipe=coin_recipe,
        dataset=small_dataset(),
    )
    return folder


def require_one_sentence(done):
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "cret" not in done.stderr


@pytest.mark.parametrize("addresses", every(2, [MALFORMED[::6], MALFORMED]), ids=["some", "all"])
@pytest.mark.parametrize(
    "command", [*([*words, "-s", "ADDRESS"] for words in WITH_STORE), *OTHERS], ids=" ".join
)
def test_every_command_refuses_an_address_that_leads_nowhere_in_one_sentence(place, command, addresses):
    before = sorted(place.rglob("*"))
    for address in MALFORMED if command[0] == "info" else addresses:
        done = run(*(address if word == "ADDRESS" else word for word in command), cwd=place)
        require_one_sentence(done)
    assert sorted(place.rglob("*")) == before


def test_a_cache_is_on_a_local_disk(place):
    for address in NO_PATHS:
        require_one_sentence(run("info", "-s", "store.zarr", "--cache-dir", address, cwd=place))


@pytest.mark.parametrize(
    "name", ["~nouser/x.npz", "http://[::1", "https://me:secret@example.org/x.npz", "no\nfile"]
)
def test_a_file_to_import_that_cannot_be_read_is_named(place, name):
    require_one_sentence(run("import", name, "-s", "new.zarr", cwd=place))
    require_one_sentence(run("import", "store.zarr", "--labels", name, "-s", "new.zarr", cwd=place))
    require_one_sentence(run("info", "-s", name, cwd=place))


def test_addresses_that_lead_somewhere_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {
        local_path(url) for url in (f"file://{tmp_path}/a b", f"file://localhost{tmp_path}/a b", "~/a b")
    } == {tmp_path / "a b"}
    assert local_path("C:odd?#name").name == "C:odd?#name"
    known = {
        "s3://bucket/with space/x#1": "s3", "az://container@account.dfs.core.windows.net/x": "az",
        "http://[::1]:80/x": "http", "hf://datasets/a/b@main/x": "hf", "./nosuch://x": "file",
    }  # fmt: skip
    assert {url: protocol_of(url) for url in known} == known
    assert {url: shown(url) for url in known} == {url: url for url in known}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://me:secret@host/x", "https://***@host/x"),
        ("https://secret@host/x", "https://***@host/x"),
        ("https://me:se@cret@host:80/a@b", "https://***@host:80/a@b"),
        ("https://me:se/cr?et@host/x", "https://***@host/x"),
        ("https://me:se cret@host/x", "https://***@host/x"),
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("https://host/x?sig=secret&se=1", "https://host/x?***"),
        ("https://host/x?X-Amz-Credential=a&X-Amz-Signature=secret", "https://host/x?***"),
        ("https://host/x#access_token=secret", "https://host/x#***"),
        ("az://container/x?sig=secret", "az://container/x?sig=***"),
    ],
)
def test_no_address_is_shown_with_its_secrets(address, expected):
    assert shown(address) == expected == shown(expected)
    if " " not in address:
        error = MemdbError(f"cannot read {address}, sorry", hint=f"run: memdb info --store '{address}'")
        assert "secret" not in f"{error} {error.hint}"
        assert expected in str(error)


def test_neither_do_other_words_tell_them():
    told = "AccountKey=s==;x api_key=s, sig=s&b --storage-option token=s secret='s' aws_secret_access_key=s"
    assert without_secrets(told) == (
        "AccountKey=***;x api_key=***, sig=***&b --storage-option token=*** secret='***' aws_secret_access_key=***"
    )
    assert without_secrets("list_of_tokens=3, k=20, profile=lab") == "list_of_tokens=3, k=20, profile=lab"


@pytest.mark.parametrize(
    "url", ["https://me:secret@host/x", "https://secret@host/x", "https://host/x?sig=secret"]
)
def test_no_store_holds_an_address_with_a_secret(url):
    with pytest.raises(InvalidInputError, match="would be written into the store") as refused:
        followable(url, "s3://bucket/x")
    assert "secret" not in f"{refused.value} {refused.value.hint}"
