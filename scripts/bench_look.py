"""What the page costs in a browser, and whether it says what the commands say.

Writes a report of a store, opens it in Chromium and prints sizes and seconds; looks at random cells; and, given a
published copy with a page (``memdb publish --site``), counts what the page asks a web server for.

    python scripts/synthetic_store.py big.zarr --models 2000
    python scripts/bench_look.py big.zarr
    python scripts/bench_look.py big.zarr --pictures train.npy test.npy     uint8 [examples, height, width, channels]
    python scripts/bench_look.py big.zarr --copy big-published
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import memdb
from memdb.look.report import write_report
from memdb.render.sheets import PicturesOf
from memdb.render.tables import brief

CELLS = 1000
JUMPS = 60


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store")
    parser.add_argument("--copy", type=Path, help="a published copy with a page")
    parser.add_argument("--report", type=Path, help="one that was written before")
    parser.add_argument("--pictures", nargs=2, metavar="NPY", help="of the training and test examples")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, memdb.open(args.store) as db:
        path = args.report or written(db, Path(folder) / "report.html", args.pictures)
        print(f"report: {path.stat().st_size / 1e6:.1f} MB")
        browser = chromium(folder)
        try:
            measure(browser, path)
            compare(browser, db)
            if args.copy:
                walk(browser, args.copy)
        finally:
            browser.quit()
    return 0


def written(db: memdb.Database, path: Path, given: list[str] | None) -> Path:
    pictures = {}
    for name, file in zip(("train", "test"), given or (), strict=False):
        pixels = np.load(file, mmap_mode="r")
        pictures[name] = PicturesOf(pixels.shape[1:], functools.partial(chosen, pixels))
    wall, cpu = time.perf_counter(), time.process_time()
    write_report(path, db.relations(), 0.95, pictures, lambda _done, _total: None)
    print(f"written in {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU")
    return path


def chosen(pixels: Any, rows: Any) -> Any:
    return pixels[list(rows)]


def chromium(folder: str) -> Any:
    from selenium import webdriver as selenium_webdriver

    webdriver: Any = selenium_webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    arguments = [
        "headless=new",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1440,950",
        "js-flags=--expose-gc",
    ]
    arguments += [f"user-data-dir={folder}/chromium", "enable-precise-memory-info"]
    for argument in arguments + ["no-sandbox"] * (os.geteuid() == 0):
        options.add_argument(f"--{argument}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


def measure(browser: Any, path: Path) -> None:
    """Print what a report costs: three cold loads, filters, and jumps to places all over the list."""
    loads = []
    for _ in range(3):
        browser.get("about:blank")
        browser.get(path.resolve().as_uri())
        timing = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        loads.append(browser.execute_script(f"return {timing}"))
    print(f"DOMContentLoaded: {statistics.median(loads):.0f} ms")
    print(f"sheets of the first screen: {browser.execute_script('return sheetsSeen.size')}")
    for name, n, script in (
        ("filter", 20, "change({label: String(i % 10), range: i % 2 ? [0.1, 1] : null})"),
        ("jump", JUMPS, "grid.activate(Math.floor(left.length * i / n), 0)"),
    ):
        took = browser.execute_async_script(
            "const [n, done] = arguments, took = [];"
            "(async () => { for (let i = 0; i < n; i++) { const began = performance.now();"
            f"{script}; document.body.offsetHeight; took.push(performance.now() - began);"
            "await new Promise((next) => requestAnimationFrame(next)); } done(took); })()",
            n,
        )
        print(f"{name}: median {statistics.median(took):.1f} ms of {n}, at most {max(took):.1f}")
        browser.execute_script("change({label: '', range: null})")
    heap = browser.execute_script("gc(); return performance.memory.usedJSHeapSize")
    print(f"heap: {heap / 1e6:.0f} MB")


def signed(value: float | None) -> str:
    """Return a score as the page shows it."""
    return brief(value).replace("-", "\u2212")


def compare(browser: Any, db: Any) -> None:
    """Compare random cells of the list with the rows of `top-memorized`."""
    table = db.top_memorized(k=db.store.manifest.train.n_examples)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    wrong = n_seen = 0
    while n_seen < CELLS:
        row = rows[int(np.random.default_rng(n_seen).integers(len(rows)))]
        browser.execute_script("grid.goTo(arguments[0])", row["train_id"])
        script = f"return Object.fromEntries([...document.querySelector('.rows [data-row=\"{row['train_id']}\"]').children].map((c) => [c.classList[1], c.textContent]))"
        shown = browser.execute_script(script)
        q_value = "<.001" if row["q_value"] is not None and row["q_value"] < 0.001 else signed(row["q_value"])
        expected = {
            "memorization": signed(row["memorization"]), "interval": f"[{signed(row['lo'])}, {signed(row['hi'])}]",
            "shrunk": signed(row["shrunk"]), "q": q_value, "in": f"{row['k_in']}/{row['n_in']}",
            "out": f"{row['k_out']}/{row['n_out']}",
        }  # fmt: skip
        differing = {name for name, text in expected.items() if shown[name] != text and "\u2013" not in text}
        if differing:
            print(f"train {row['train_id']}: {differing}: {shown}, expected {expected}", file=sys.stderr)
        wrong += len(differing)
        n_seen += len(expected)
    print(f"cells that differ from the command's: {wrong} of {n_seen}")


class Counting(http.server.SimpleHTTPRequestHandler):
    """Any static web server, which notes what it sends."""

    sent: list[tuple[str, int]] = []  # noqa: RUF012 - of the process

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send an object."""
        data = source.read()
        self.sent.append((self.path, len(data)))
        outputfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def walk(browser: Any, copy: Path) -> None:
    """Count requests and bytes of a first view, and of clicks."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Counting, directory=str(copy))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    steps = {
        "first view": None, "an example": "location.hash = `#train=${train.order[0]}`",
        "its first partner": "document.querySelector('.partners .card').click()", "back": "document.getElementById('back').click()",
        "pairs": "location.hash = '#view=pairs'", "classes": "location.hash = '#view=classes'",
        "an example without lists": "location.hash = `#train=${train.order.at(-1)}`",
    }  # fmt: skip
    for name, script in steps.items():
        if script is None:
            browser.get(f"http://localhost:{server.server_port}/")
        else:
            browser.execute_script(script)
        before = -1
        while before != len(Counting.sent):
            before = len(Counting.sent)
            time.sleep(1)
        n_bytes = sum(size for _, size in Counting.sent)
        print(f"site, {name}: {len(Counting.sent)} requests, {n_bytes / 1e3:.0f} kB")
        Counting.sent.clear()
    complaint = browser.execute_script("return document.getElementById('problem-text').textContent")
    if complaint:
        print(json.dumps(complaint), file=sys.stderr)
    server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
