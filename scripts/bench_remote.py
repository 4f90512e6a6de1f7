"""What questions to a published store cost over plain HTTP, and what such a store weighs.

Serves a published copy from loopback with a wait before the first byte of every answer, and asks it cold (nothing
cached), then again with what the first time left in the cache: requests, bytes and seconds until the rows are there,
of a process that has imported everything.

    python scripts/synthetic_store.py big.zarr
    python scripts/bench_remote.py big-published --store big.zarr
    python scripts/bench_remote.py big-published --ignore-ranges

With ``--store`` it is published first, where it is not yet, which prints seconds and CPU seconds; and what the copy
has stored is compared, to the last digit, with what the bits of the store give.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import memdb
from memdb.storage import Cache

QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "top-influence --test-id 42 -k 20": lambda db: db.top_influence(test_id=42),
    "top-influence --test-id 42 -k 50000": lambda db: db.top_influence(test_id=42, k=50_000),
    "top-memorized": lambda db: db.top_memorized(),
    "score --train-id 7": lambda db: db.score(7),
    "score, a strong pair": lambda db: db.score(*strong_pair(db)[:1], test_id=42),
    "score, any pair": lambda db: db.score(7, test_id=42),
    "info": lambda db: db.info(),
}


def strong_pair(db: Any) -> tuple[int, ...]:
    return tuple(db.top_influence(test_id=42, k=1).fetchall()[0][:2])


class Slow(http.server.SimpleHTTPRequestHandler):
    """A web server that waits before it answers, and counts."""

    protocol_version = "HTTP/1.1"
    wait, ranges = 0.03, True
    n_requests, n_bytes = 0, 0
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send an object, or a range of it."""
        time.sleep(self.wait)
        path = Path(self.translate_path(self.path))
        data = path.read_bytes() if path.is_file() else None
        status, start, stop = 200, 0, len(data or b"")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if data is not None and wanted and self.ranges:
            status, start = 206, int(wanted[1])
            stop = min(stop, int(wanted[2]) + 1) if wanted[2] else stop
        body = b"absent" if data is None else data[start:stop]
        self.send_response(404 if data is None else status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data or b'')}")
        self.end_headers()
        self.wfile.write(body)
        with Slow.lock:
            Slow.n_requests += 1
            Slow.n_bytes += len(body)


@contextlib.contextmanager
def served(folder: Path, wait: float, *, ranges: bool) -> Iterator[str]:
    Slow.wait, Slow.ranges = wait, ranges
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def asked(url: str, question: str, cache: Cache) -> tuple[int, int, float]:
    Slow.n_requests = Slow.n_bytes = 0
    started = time.perf_counter()
    with memdb.open(url, cache=cache) as db:
        QUESTIONS[question](db).fetchall()
        seconds = time.perf_counter() - started
    return Slow.n_requests, Slow.n_bytes, seconds


def publish(source: str, folder: Path) -> None:
    started = time.perf_counter(), time.process_time()
    with memdb.open(source) as db:
        db.publish(str(folder))
    seconds, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    print(f"published in {seconds:.0f} seconds, {cpu:.0f} CPU seconds")


def n_unequal(source: str, folder: Path, n_tests: int) -> int:
    """Return how many of the stored answers are not those that bits give."""
    unequal = n_asked = 0
    with memdb.open(source) as bits, memdb.open(str(folder)) as copy:
        n_test = copy.store.manifest.set_named("test").n_examples
        questions: list[Callable[[Any], Any]] = [lambda db: db.top_memorized(k=1000), lambda db: db.score(7)]
        for test_id in range(0, n_test, max(1, n_test // n_tests)):
            train_id = copy.top_influence(test_id=test_id, k=256).fetchall()[-1][0]
            questions += [
                partial(memdb.Database.top_influence, test_id=test_id, k=256),
                partial(memdb.Database.top_influence, test_id=test_id),
                partial(memdb.Database.score, train_id=train_id, test_id=test_id),
            ]
        for question in questions:
            stored, counted = (question(db).to_arrow_table() for db in (copy, bits))
            unequal += not stored.equals(counted)
            n_asked += 1
    print(f"{n_asked - unequal} of {n_asked} stored answers equal those of the bits")
    return unequal


def print_sizes(folder: Path) -> None:
    sizes: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            part = path.relative_to(folder).parts[0]
            sizes[part] = sizes.get(part, 0) + path.stat().st_size
    with memdb.open(str(folder)) as db:
        n_train, n_test = (db.store.manifest.set_named(name).n_examples for name in ("train", "test"))
        one_class = db.sql(
            "SELECT sum(a.n * b.n) FROM (SELECT label, count(*) n FROM train_examples GROUP BY label) a "
            "JOIN (SELECT label, count(*) n FROM test_examples GROUP BY label) b USING (label)"
        ).fetchall()[0][0]
        print(f"{db.n_models:,} models, {n_train:,} training and {n_test:,} test examples\n")
    for part, size in [
        *sorted(sizes.items(), key=lambda item: -item[1]),
        ("all", sum(sizes.values())),
        ("dense float32 matrix", 4 * n_train * n_test),
        ("class-wise float32 matrices", 4 * int(one_class)),
    ]:
        print(f"{part:32}{size / 1e6:>12,.3f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a published copy")
    parser.add_argument("--wait", type=float, default=0.03, help="seconds to the first byte")
    parser.add_argument("--ignore-ranges", action="store_true", help="answer with whole objects")
    parser.add_argument("--store", help="what it is a copy of: published first, and compared")
    parser.add_argument("--compared", type=int, default=100, help="test examples whose answers are compared")
    options = parser.parse_args()
    if options.store and not (options.folder / "published.json").exists():
        publish(options.store, options.folder)
    if options.store and n_unequal(options.store, options.folder, options.compared):
        return 1
    print_sizes(options.folder)
    print(f"\n{'':38}{'cold':>30}{'cached':>28}")
    print(f"{'':38}" + f"{'requests':>10}{'kB':>10}{'s':>8}" * 2)
    with (
        served(options.folder, options.wait, ranges=not options.ignore_ranges) as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        asked(url, "info", Cache(Path(folder) / "warm-up"))
        for position, question in enumerate(QUESTIONS):
            cache = Cache(Path(folder) / str(position))
            found = [asked(url, question, cache) for _ in range(2)]
            print(f"{question:38}" + "".join(f"{n:>10}{b / 1000:>10,.1f}{s:>8.2f}" for n, b, s in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
