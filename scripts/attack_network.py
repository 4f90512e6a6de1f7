"""Servers that keep memdb waiting, with its real limits: how long `memdb info` takes to say so, and what it says.

    python scripts/attack_network.py

A case holds if the command ends with exit 1 within half a minute, names the address and prints no traceback.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MEMDB = str(Path(sys.executable).with_name("memdb"))
LIMIT = 30.0  # seconds
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server whose every GET is answered by a function."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
    """One byte a second."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(1)


def trickle_of_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    """One byte a second, none of them of the body."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        handler.wfile.write(b"x")
        time.sleep(1)


def absent_then_silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Nothing is published, and the manifest never comes."""
    if handler.path.endswith("published.json"):
        handler.send_error(404)
    else:
        time.sleep(3600)


def absent_then_trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Nothing is published, and the manifest comes a byte a second."""
    handler.send_error(404) if handler.path.endswith("published.json") else trickle(handler)


def busy(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Come back in a minute."""
    handler.send_response(503)
    handler.send_header("Retry-After", "60")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


CASES: dict[str, Callable[[], contextlib.AbstractContextManager[str]]] = {
    "says nothing": silent,
    "a byte a second": lambda: answering(trickle),
    "a byte of a header a second": lambda: answering(trickle_of_headers),
    "404, then says nothing": lambda: answering(absent_then_silent),
    "404, then a byte a second": lambda: answering(absent_then_trickle),
    "503, come back in 60 s": lambda: answering(busy),
}


def main() -> int:
    """Run every case over HTTP and as S3, and print what came of it."""
    n_broken = 0
    for name, server in CASES.items():
        for kind in ("http", "s3"):
            with server() as url:
                address = f"{url}/x" if kind == "http" else "s3://bucket/x"
                place = [] if kind == "http" else ["--endpoint-url", url, "--anonymous"]
                command = [MEMDB, "info", "--store", address, "--cache-dir", "none", *place]
                begun = time.monotonic()
                done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
                seconds = time.monotonic() - begun
            last = done.stderr.strip().splitlines()[-1]
            holds = (
                done.returncode == 1
                and seconds < LIMIT
                and address in last
                and "Traceback" not in done.stderr
            )
            n_broken += not holds
            print(
                f"{'held' if holds else 'BROKEN':6}  {kind:4}  {seconds:5.1f} s  {name}: {last[:110]}",
                flush=True,
            )
    return min(1, n_broken)


if __name__ == "__main__":
    sys.exit(main())
