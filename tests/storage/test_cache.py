"""What is kept of remote stores on the local disk, and what is not asked for again."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from support import ROOT
from support.commands import serve_folder
from support.fault_proxy import FaultProxy
from support.stores import coin_recipe, small_dataset

import memdb
from memdb.errors import InvalidInputError
from memdb.files import half_written
from memdb.storage import Cache


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_is_found_and_what_is_damaged_is_not(tmp_path):
    cache = Cache(tmp_path)
    assert cache.find("a") is None
    cache.keep("a", b"content")
    assert cache.find("a") == b"content"
    (kept,) = tmp_path.glob("*/*.obj")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert cache.find("a") is None
    assert not kept.exists()


def test_the_longest_unread_goes_first(tmp_path):
    import os

    cache = Cache(tmp_path, limit=10_000)
    for number in range(8):
        cache.keep(str(number), bytes(1000))
        os.utime(cache._path(str(number)), (number, number))
    assert cache.find("0") == bytes(1000)
    cache.shrink(5000)
    assert [number for number in range(8) if cache.find(str(number))] == [0, 5, 6, 7]
    assert cache.usage().n_objects == 4
    assert cache.usage().size <= 5000


def test_a_cache_stays_below_its_limit_and_takes_nothing_that_fills_it(tmp_path):
    cache = Cache(tmp_path, limit=20_000)
    for number in range(100):
        cache.keep(str(number), bytes(1000))
    assert cache.usage().size <= 22_000
    cache.keep("large", bytes(15_000))
    assert cache.find("large") is None


def test_a_cache_stays_below_its_limit_where_each_process_keeps_little(tmp_path):
    for number in range(100):
        Cache(tmp_path, limit=20_000).keep(str(number), bytes(700))
    assert Cache(tmp_path).usage().size <= 30_000


def test_what_a_killed_process_left_half_written_is_counted_and_goes(tmp_path):
    cache = Cache(tmp_path)
    cache.keep("a", b"content")
    (kept,) = tmp_path.glob("*/*.obj")
    half_written(kept).write_bytes(bytes(500))
    assert cache.usage().n_objects == 2
    assert cache.shrink(0) == 500 + 32 + len(b"content")
    assert list(tmp_path.glob("*/*")) == []


def test_a_cache_that_cannot_be_written_fails_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file")
    cache.keep("a", b"content")
    assert cache.find("a") is None
    assert cache.usage().n_objects == 0


@pytest.mark.slow
def test_many_readers_may_share_a_cache(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom memdb.storage import Cache\n"
        "cache = Cache(Path(sys.argv[1]), limit=40_000)\n"
        "for round in range(5):\n"
        "    for number in range(40):\n"
        "        content = bytes([number]) * 2000\n"
        "        assert cache.find(str(number)) in (None, content)\n"
        "        cache.keep(str(number), content)\n"
    )
    readers = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(3)]
    assert [reader.wait() for reader in readers] == [0] * 3


@pytest.mark.slow
def test_a_second_query_reads_only_what_it_has_not_seen(s3, tmp_path):
    port = int(s3["endpoint_url"].rsplit(":", 1)[1])
    with FaultProxy("127.0.0.1", port) as proxy:
        options = s3 | {"endpoint_url": proxy.url}
        url = f"s3://bucket/{tmp_path.name}/s.zarr"
        with memdb.init(url, small_dataset(), coin_recipe, seed=7, storage_options=options) as db:
            db.train(seeds=range(10))
        cache = Cache(tmp_path / "cache")
        answers, n_requests = [], []
        for place in (cache, cache, Cache(tmp_path / "other")):
            proxy.log.clear()
            with memdb.open(url, storage_options=options, cache=place) as db:
                answers.append(db.sql("FROM influence").fetchall())
            n_requests.append(len(proxy.log))
    assert answers[0] == answers[1] == answers[2]
    assert n_requests[1] <= 6 < n_requests[0] == n_requests[2]


def test_local_stores_are_not_copied_into_the_cache(trained, tmp_path):
    with memdb.open(str(trained), cache=Cache(tmp_path)) as db:
        db.top_memorized().fetchall()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_questions_stay_within_their_budget_of_requests():
    pytest.importorskip("moto.server")
    figures = script("figures_requests")
    questions = ["info", "top-influence --test-id 4"]
    found, n_blocks = figures.measure(6, 3, 60, 20, questions)
    parts = {"segments": 6, "segments, cached": 6, "blocks": n_blocks, "blocks, cached": n_blocks}
    assert n_blocks == 1
    for question, costs in found.items():
        for state, cost in costs.items():
            fixed, each = figures.BUDGET[state]
            assert cost.n_requests <= fixed + each * parts[state], (question, state)
            assert cost.n_bytes < 60_000, (question, state)


@pytest.mark.parametrize(
    ("variables", "folder", "limit"),
    [
        ({}, "default", 10 * 2**30),
        ({"MEMDB_CACHE_DIR": "", "MEMDB_CACHE_SIZE": ""}, "default", 10 * 2**30),
        ({"MEMDB_CACHE_DIR": "~/mine"}, "home/mine", 10 * 2**30),
        ({"MEMDB_CACHE_DIR": "none"}, None, None),
        ({"MEMDB_CACHE_SIZE": "500MB"}, "default", 500_000_000),
    ],
)
def test_the_environment_names_a_users_cache(tmp_path, monkeypatch, variables, folder, limit):
    for name in ("MEMDB_CACHE_DIR", "MEMDB_CACHE_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": str(tmp_path / "home"), **variables}.items():
        monkeypatch.setenv(name, value)
    found = Cache.of_user(tmp_path / "default")
    assert (found and (found.folder, found.limit)) == (folder and (tmp_path / folder, limit))


def test_a_limit_of_the_environment_that_is_no_size_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMDB_CACHE_SIZE", "much")
    with pytest.raises(InvalidInputError, match=r"\$MEMDB_CACHE_SIZE 'much' is not a size"):
        Cache.of_user(tmp_path)


@pytest.fixture
def served(database):
    """The URL of a compacted store on a web server."""
    database.compact()
    with serve_folder(database.url) as url:
        yield url


def test_python_keeps_objects_where_the_command_does(served, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    monkeypatch.setenv("MEMDB_CACHE_DIR", str(kept))
    with memdb.open(served) as db:
        db.counts(test_id=4)
    n_objects = len(list(kept.rglob("*.obj")))
    assert n_objects > 0
    with memdb.open(served, cache=None) as db, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "keep", None)  # never called
        db.counts(test_id=4)
    monkeypatch.setenv("MEMDB_CACHE_DIR", "none")
    with memdb.open(served) as db:
        assert db.store.storage.cache is None
