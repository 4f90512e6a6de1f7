from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from memdb.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StorageError
from memdb.storage import driver_options, open_storage
from memdb.storage.retry import Patience, persistently


@pytest.fixture(params=["local", "memory"])
def storage(request, tmp_path):
    url = str(tmp_path / "place") if request.param == "local" else f"memory://{tmp_path.name}/place"
    return open_storage(url)


def test_what_was_written_is_read_back_whole_and_by_ranges(storage):
    storage.write_all({"a/b": b"0123456789", "a/c/d": b"", "e": b"x"})
    assert storage.read("a/b") == b"0123456789"
    assert storage.read("a/b", 2, 5) == b"234"
    assert storage.read("a/b", 8) == b"89"
    assert storage.read("a/c/d") == b""
    assert storage.names("a") == ["b", "c"]
    assert storage.names("nowhere") == []


def test_what_is_absent_is_named(storage):
    with pytest.raises(NotFoundError, match="nothing/here does not exist"):
        storage.read("nothing/here")


def test_creating_is_exclusive_even_in_a_race(storage):
    def attempt(number):
        try:
            storage.create("sub/claim", str(number).encode())
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(attempt, range(64)) if number is not None]
    assert len(winners) == 1
    assert storage.read("sub/claim") == str(winners[0]).encode()
    assert storage.names("sub") == ["claim"]


def test_of_several_processes_one_creates_an_object(tmp_path):
    code = (
        "import sys\nfrom memdb.storage import open_storage\nfrom memdb.errors import AlreadyExistsError\n"
        "place = open_storage(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    try: place.create(line.strip(), b'mine')\n"
        "    except AlreadyExistsError: print('late', flush=True)\n"
        "    else: print('won', flush=True)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    racers = [subprocess.Popen(command, **pipes) for _ in range(3)]
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
    for number in range(40):
        for racer in racers:
            racer.stdin.write(f"claim{number}\n")
        assert sorted(racer.stdout.readline() for racer in racers) == ["late\n", "late\n", "won\n"]
    for racer in racers:
        racer.communicate()


def test_a_local_write_is_fsynced_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    paths = {}

    def spy_fsync(descriptor):
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        events.append(("fsync", path))
        fsync(descriptor)

    def spy_rename(self, target):
        events.append(("rename", str(target)))
        replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr("pathlib.Path.replace", spy_rename)
    open_storage(str(tmp_path / "store")).write_all({"a/b": b"x"})
    paths = [path for kind, path in events]
    assert events[0][0] == "fsync"
    assert events[0][1].startswith(str(tmp_path / "store/a/.b."))
    assert events[1] == ("rename", str(tmp_path / "store/a/b"))
    assert {str(tmp_path), str(tmp_path / "store"), str(tmp_path / "store/a")} <= set(paths[2:])


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    storage = open_storage(str(tmp_path))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        storage.write_all({"a": b"1", "b": b"2"})
    assert "what was committed is safe" in caught.value.hint
    assert storage.names("") == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nope://bucket/x", "nope://bucket/x is not an address that memdb can read"),
        ("s3://", "s3:// names no bucket"),
        ("gs://bucket/x", "driver for gs:// of gs://bucket/x is not installed"),
    ],
)
def test_a_url_that_leads_nowhere_is_named(url, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InvalidInputError, match=says):
        open_storage(url)


def test_what_is_there_already_is_not_asked_for_again_whatever_status_says_so():
    asked = []

    def create(_seconds):
        asked.append(1)
        try:
            error = RuntimeError("BlobAlreadyExists")
            error.status_code = 409
            raise error
        except RuntimeError as error:
            raise FileExistsError("a") from error

    with pytest.raises(FileExistsError):
        persistently(create, Patience(attempts=3, first=0.0), 1.0)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("url", "endpoint", "options"),
    [
        ("s3://b/x", "http://127.0.0.1:1", {"endpoint_url": "http://127.0.0.1:1"}),
        ("gs://b/x", "http://127.0.0.1:1", {"endpoint_url": "http://127.0.0.1:1"}),
        ("az://b/x", "https://lab.blob.core.example/", {"account_host": "lab.blob.core.example"}),
        ("abfs://b/x", "lab.blob.core.example", {"account_host": "lab.blob.core.example"}),
    ],
)
def test_an_endpoint_is_told_to_each_driver_in_its_own_words(url, endpoint, options):
    assert driver_options(url, endpoint_url=endpoint) == options


def test_an_endpoint_that_azures_driver_cannot_have_is_refused_with_the_way_that_there_is():
    with pytest.raises(InvalidInputError, match=r"az:// is not reached over http://127\.0\.0\.1:1") as caught:
        driver_options("az://b/x", endpoint_url="http://127.0.0.1:1")
    assert "AZURE_STORAGE_CONNECTION_STRING" in caught.value.hint


def test_http_is_for_reading_and_cannot_be_listed():
    storage = open_storage("http://127.0.0.1:9/store")
    with pytest.raises(StorageError, match="127.0.0.1:9/store/a"):
        storage.read("a")
    with pytest.raises(StorageError, match="cannot be listed"):
        storage.names("segments")
    with pytest.raises(InvalidInputError, match="read-only"):
        storage.write_all({"a": b""})
    with pytest.raises(InvalidInputError, match="read-only"):
        storage.create("a", b"")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    storage = open_storage(str(tmp_path / "file"))
    with pytest.raises(AlreadyExistsError, match="is a file, not a folder"):
        storage.names("")
    with pytest.raises(NotFoundError):
        storage.read("a")
