"""Servers that keep memdb waiting or answer something else: it says so within half a minute, with the address."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Callable

from attacks.harness import Answer, Place, case

LIMIT = 30.0  # seconds, for the first object of a question


def silent(_: Answer) -> None:
    """Accept the request and never answer."""
    time.sleep(3600)


def trickle(to: Answer) -> None:
    """One byte a second."""
    to.send_response(200)
    to.send_header("Content-Length", "100000")
    to.end_headers()
    while True:
        to.wfile.write(b" ")
        to.wfile.flush()
        time.sleep(1)


def trickle_of_headers(to: Answer) -> None:
    """One byte a second, none of them of the body."""
    to.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        to.wfile.write(b"x")
        time.sleep(1)


def headers_without_end(to: Answer) -> None:
    """Headers, as fast as they are read."""
    to.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        to.wfile.write(b"X-Long: " + b"x" * 8000 + b"\r\n")


def to_itself(to: Answer) -> None:
    """Redirect to where one is."""
    to.send_response(302)
    to.send_header("Location", to.path)
    to.send_header("Content-Length", "0")
    to.end_headers()


def to_a_file(to: Answer) -> None:
    """Redirect to a file of the client's."""
    to.send_response(302)
    to.send_header("Location", "file:///etc/passwd")
    to.send_header("Content-Length", "0")
    to.end_headers()


def page(to: Answer) -> None:
    """Every address is a page of HTML."""
    _answer(to, b"<!doctype html><title>Sign in</title>", Content_Type="text/html")


def longer_than_said(to: Answer) -> None:
    """More bytes than were announced."""
    to.send_response(200)
    to.send_header("Content-Length", "2")
    to.end_headers()
    to.wfile.write(b"{}" * 1000)


def shorter_than_said(to: Answer) -> None:
    """The connection closes before what was announced."""
    to.send_response(200)
    to.send_header("Content-Length", "1000")
    to.end_headers()
    to.wfile.write(b"{}")
    to.close_connection = True


def negative(to: Answer) -> None:
    """Answer with a negative length."""
    _answer(to, b"{}", Content_Length="-5")


def packed(to: Answer) -> None:
    """Compressed, though the client did not ask for it."""
    _answer(to, gzip.compress(b"{}"), Content_Encoding="gzip")


def no_protocol(to: Answer) -> None:
    """Not HTTP."""
    to.wfile.write(b"\x00\xff" * 1000)
    to.close_connection = True


def busy(to: Answer) -> None:
    """Come back in a minute."""
    to.send_response(503)
    to.send_header("Retry-After", "60")
    to.send_header("Content-Length", "0")
    to.end_headers()


def _answer(to: Answer, data: bytes, **headers: str) -> None:
    to.send_response(200)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    if "Content_Length" not in headers:
        to.send_header("Content-Length", str(len(data)))
    to.end_headers()
    to.wfile.write(data)


def absent_then(own: Callable[[Answer], None]) -> Callable[[Answer], None]:
    """Say that nothing is published, and answer all else in a way of its own."""
    return lambda to: to.send_error(404) if to.path.endswith("published.json") else own(to)


SERVERS: dict[str, Callable[[Answer], None]] = {
    "takes the request and says nothing": silent,
    "a byte a second": trickle,
    "a byte of a header a second": trickle_of_headers,
    "headers without end": headers_without_end,
    "404, then says nothing": absent_then(silent),
    "404, then a byte a second": absent_then(trickle),
    "503, come back in 60 s": busy,
    "redirects to itself": to_itself,
    "redirects to a local file": to_a_file,
    "200 and HTML for everything": page,
    "404, then HTML for everything": absent_then(page),
    "more than it announced": longer_than_said,
    "less than it announced": shorter_than_said,
    "a negative length": negative,
    "gzip that was not asked for": packed,
    "not HTTP": no_protocol,
}
for _name, _own in SERVERS.items():
    for _kind in ("http", "s3"):

        @case("network", f"{_kind}: {_name}", seconds=LIMIT)
        def _(place: Place, own: Callable[[Answer], None] = _own, kind: str = _kind) -> list[str]:
            return _info(place.served(place.copy, {"/": own}), kind)


def _info(url: str, kind: str) -> list[str]:
    where = [f"{url}/x"] if kind == "http" else ["s3://bucket/x", "--endpoint-url", url, "--anonymous"]
    return ["memdb", "info", "--cache-dir", "none", "--store", *where]


for _kind in ("http", "s3"):

    @case("network", f"{_kind}: a server that accepts connections and nothing more", seconds=LIMIT)
    def _(place: Place, kind: str = _kind) -> list[str]:
        server = place.servers.enter_context(
            contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=64))
        )
        return _info(f"http://127.0.0.1:{server.getsockname()[1]}", kind)


for _name, _path in {"published.json": "/published.json", "its snapshot": "/snapshots/"}.items():
    for _what, _own in {"404": lambda to: to.send_error(404), "HTML": page}.items():

        @case("network", f"a copy whose {_name} is {_what}", seconds=LIMIT)
        def _(place: Place, path: str = _path, own: Callable[[Answer], None] = _own) -> list[str]:
            return ["memdb", "info", "--cache-dir", "none", "--store", place.served(place.copy, {path: own})]


@case("network", "a password in an address is not shown", seconds=LIMIT, says="***")
def _(place: Place) -> list[str]:
    url = place.served(place.copy, {"/": lambda to: to.send_error(403)}).replace("//", "//me:secret@")
    return ["memdb", "info", "--cache-dir", "none", "--store", url]
