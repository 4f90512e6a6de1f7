"""Servers of strangers: what is read of an answer has a bound."""

from __future__ import annotations

import contextlib
import gzip
import http.server

import pytest
from support.bombs import MIB, ZEROS, documents_info
from support.commands import serve

from memdb.errors import DamagedError, MemdbError
from memdb.storage import open_storage


class Sending(http.server.BaseHTTPRequestHandler):
    """Answers every request with a beginning and then a piece again and again, counting what it could send."""

    headers_sent: dict[str, str] = {}  # noqa: RUF012 - of a class made for one test
    beginning, piece, n_sent = b"", bytes(MIB), 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = type(self)
        kind.asked = self.headers.get("Accept-Encoding")
        try:
            self.send_response(200)
            for name, value in self.headers_sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(self.beginning)
            while kind.n_sent < 400 and self.piece:
                self.wfile.write(self.piece)
                kind.n_sent += 1
        except ConnectionError:
            pass


@pytest.fixture
def sending():
    """Serve such answers: call it with what they are like; get the URL and the class that counts."""
    with contextlib.ExitStack() as servers:

        def serve_such(**like):
            kind = type("Own", (Sending,), {**like, "n_sent": 0})
            return servers.enter_context(serve(kind)), kind

        yield serve_such


def test_an_answer_without_end_is_left_at_its_bound(sending, peak):
    url, server = sending()
    storage = open_storage(url)
    with pytest.raises(DamagedError, match="has more than the 1,000 bytes that it may have"):
        storage.read("a", most=1000)
    with pytest.raises(DamagedError, match="has more than the 1,000 bytes"):
        storage.read("a", 10, 20, most=1000)  # a server that ignores ranges
    assert server.n_sent < 100
    assert peak() < 16 * MIB


def test_an_object_that_goes_on_is_damaged(sending, peak):
    url, _ = sending()
    from memdb.store.read_arrays import read_object

    with pytest.raises(DamagedError, match="has more than the 1,000 bytes that it may have"):
        read_object(open_storage(url), "a", documents_info(1000))
    assert peak() < 16 * MIB


def test_answers_are_asked_for_as_they_are_and_packed_ones_refused(sending, peak):
    packed = gzip.compress(bytes(MIB)) * 64
    url, server = sending(headers_sent={"Content-Encoding": "gzip"}, beginning=packed, piece=b"")
    with pytest.raises(MemdbError, match="came encoded as gzip, which was not asked for"):
        open_storage(url).read("published.json")
    assert server.asked == "identity"
    assert peak() < ZEROS // 2


def test_a_range_of_a_file_is_bounded(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    storage = open_storage(str(tmp_path))
    assert storage.read("a", 10, 20) == bytes(range(10, 20))
    assert storage.read("a", 20, 10) == b""
    assert storage.read("a", 90) == bytes(range(90, 100))
    assert storage.read("a", most=100) == bytes(range(100))
    for part in ((), (0, 100), (1,)):
        with pytest.raises(DamagedError, match="more than the 98 bytes"):
            storage.read("a", *part, most=98)


def test_objects_in_a_bucket_are_asked_for_with_a_bound(s3, tmp_path):
    storage = open_storage(f"s3://bucket/{tmp_path.name}", s3)
    storage.write_all({"a": bytes(range(100)), "empty": b""})
    assert storage.read("a") == storage.read("a", most=100) == bytes(range(100))
    assert storage.read("empty") == b""
    assert storage.read("a", 90) == bytes(range(90, 100))
    with pytest.raises(DamagedError, match="more than the 98 bytes"):
        storage.read("a", most=98)
