"""Copies behind web servers and in buckets: questions over plain HTTP, and pulling."""

from __future__ import annotations

import contextlib
import http.server
from functools import partial
from pathlib import Path

import pytest
from support.commands import web_server
from support.stores import dicts, files_of

import memdb
from memdb.errors import (
    AlreadyExistsError,
    InvalidInputError,
    StorageError,
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain web server; it ignores ranges."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.log.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile):
        data = source.read()
        self.server.n_bytes += len(data)
        outputfile.write(data)


class Forbidding(Quiet):
    """A server that forbids the root document, and answers 404, or also 403, for missing objects."""

    absent = 404

    def do_GET(self):
        self.send_error(403) if self.path == "/published.json" else super().do_GET()

    def send_error(self, code, message=None, explain=None):
        super().send_error(self.absent if code == 404 else code)


@pytest.fixture
def web(tmp_path):
    """Serve a folder: call it with the folder, get its URL and the server."""
    with contextlib.ExitStack() as servers:

        def serve(folder, kind=Quiet):
            server = servers.enter_context(web_server(partial(kind, directory=str(folder))))
            server.log, server.n_bytes = [], 0
            return server.url, server

        yield serve


def test_small_answers_over_plain_http_take_six_requests_four_for_names_and_no_block(published, web):
    url, server = web(published)
    asked = {
        "top-influence": lambda db: db.top_influence(test_id=4),
        "top-memorized": lambda db: db.top_memorized(),
        "score": lambda db: db.score(7),
        "info": lambda db: db.info(),
    }
    for question, ask in asked.items():
        server.log.clear()
        with memdb.open(url, cache=None) as db, memdb.open(str(published)) as here:
            assert dicts(ask(db)) == dicts(ask(here))
            assert db.relations().class_names == ("ant", "bee", "cat")
        assert not [path for path in server.log if path.startswith("/blocks")], question
        of_names = [path for path in server.log if path.startswith("/dataset/")]
        assert len(of_names) <= 4, question
        assert len(server.log) - len(of_names) <= 6, question


def test_a_forbidden_root_document_is_an_error_where_absent_ones_are_not_found(published, web):
    url, _ = web(published, Forbidding)
    with pytest.raises(StorageError, match=r"cannot read http.*/published\.json: the server answered 403"):
        memdb.open(url, cache=None)


def test_where_absent_objects_are_forbidden_a_store_that_grows_is_none_that_was_published(database, web):
    database.compact()
    url, _ = web(Path(database.url), type("Bucket", (Forbidding,), {"absent": 403}))
    with memdb.open(url, cache=None) as db:
        assert db.store.published is None
        assert db.n_models == 37


def test_a_copy_is_pulled_whole_and_again_without_a_byte(published, web, tmp_path):
    url, _ = web(published)
    done = memdb.pull(url, str(tmp_path / "here"))
    assert files_of(tmp_path / "here") == files_of(published)
    assert done.n_models == 37
    assert memdb.pull(url, str(tmp_path / "here")).n_objects == 0
    name = next(name for name in files_of(published) if "/mask/c." in name)
    (tmp_path / "here" / name).write_bytes(b"cut")
    assert memdb.pull(url, str(tmp_path / "here")).n_objects == 1
    assert files_of(tmp_path / "here") == files_of(published)


def test_bits_alone_are_pulled_into_a_store_that_grows(published, web, tmp_path):
    url, _ = web(published)
    memdb.pull(url, str(tmp_path / "mine"), only="bits")
    with memdb.open(str(tmp_path / "mine")) as mine, memdb.open(url) as theirs:
        assert mine.models_sha256 == theirs.models_sha256
        assert dicts(mine.top_influence(test_id=4)) == dicts(theirs.top_influence(test_id=4))
        report, _ = mine.verify()
        assert not report.damages
    with pytest.raises(AlreadyExistsError):
        memdb.pull(url, str(tmp_path / "mine"), only="bits")


def test_only_published_copies_are_pulled_whole(trained, tmp_path):
    with pytest.raises(InvalidInputError, match="not a published copy"):
        memdb.pull(str(trained), str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_an_object_store_is_a_destination_and_a_source(trained, s3, tmp_path):
    with memdb.open(str(trained)) as db:
        db.publish("s3://bucket/copy", storage_options=s3)
        with memdb.open("s3://bucket/copy", storage_options=s3, cache=None) as copy:
            assert dicts(copy.top_influence(test_id=4)) == dicts(db.top_influence(test_id=4))
    memdb.pull("s3://bucket/copy", str(tmp_path / "here"), storage_options=s3)
    assert memdb.open(str(tmp_path / "here")).n_models == 37
