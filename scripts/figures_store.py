"""What a store takes: appending by many processes, compaction, growth, and a query before and after.

Stores of the size of CIFAR-100 with random bits, on a local disk with durability as it is by default.

append   Processes commit at once, their data made and their imports done before the clock starts. It runs
         from the first process's start to the last one's end; then the models are counted.
compact  A store of small segments is compacted in a process of its own; then, at a smaller size, a store
         that grows by 64 models at a time and is compacted without ``thorough`` each time. Target: blocks of
         at most 1.05 times the bits they hold.
query    Seconds for a snapshot, and for masks and test/correct read from it, before and after compaction.

    python scripts/figures_store.py
    python scripts/figures_store.py --only compact --batch 1
    python scripts/figures_store.py --models 200 --train 2000 --test 400

Expect about two minutes on two quiet cores, and some 200 MB of disk.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from synthetic_store import model_info, new_store

from memdb.format.segment import ModelInfo
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.maintenance.compact import compact

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
PROCESSES = 8
LOOKS = 5  # of which the median counts
SYNCS = 50
GROWTH_STEP = 64  # loose segments at which `memdb train` compacts
GROWTH_EXAMPLES = (2000, 400)
SIZE_TARGET = 1.05
START_SECONDS = 120.0  # to get ready; a writer that died must not keep the others waiting
COMPACTOR = "compactor"

Batch = tuple[list[ModelInfo], NDArray[np.bool_], Mapping[str, NDArray[np.bool_]]]


@dataclass(frozen=True)
class Size:
    """How large a store is, and how many models a segment holds."""

    n_models: int
    batch: int
    n_train: int
    n_test: int

    @property
    def packed_bytes(self) -> int:
        """The bits themselves: masks, and correct of both sets."""
        return self.n_models * (2 * self.n_train + self.n_test) // 8

    def __str__(self) -> str:
        return f"{self.n_models:,} models in segments of {self.batch}, {self.n_train:,} + {self.n_test:,} examples"


def main() -> int:
    if sys.argv[1:2] == [COMPACTOR]:
        print(json.dumps(compacted(sys.argv[2])))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where; by default a temporary folder")
    parser.add_argument("--only", choices=["append", "compact", "query"])
    parser.add_argument("--models", type=int, help="1,000 for append, 4,000 for the others")
    parser.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 10],
        help="models a segment; the last one for all but append",
    )
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    options = parser.parse_args()
    parts = [options.only] if options.only else ["append", "compact", "query"]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        print_surroundings(folder)
        met = True
        if "append" in parts:
            sizes = [Size(options.models or 1000, n, options.train, options.test) for n in options.batch]
            met &= append_figures(folder, sizes)
        if {"compact", "query"} & set(parts):
            size = Size(options.models or 4000, options.batch[-1], options.train, options.test)
            met &= compaction_figures(folder / "compact.zarr", size, queries="query" in parts)
        if "compact" in parts:
            growth_figures(folder / "growth.zarr", Size(size.n_models, 1, *GROWTH_EXAMPLES))
    return 0 if met else 1


def print_surroundings(folder: Path) -> None:
    started = time.perf_counter()
    for number in range(SYNCS):
        with (folder / f"{number}.sync").open("wb") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    sync = (time.perf_counter() - started) / SYNCS
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in ("memdb", "zarr", "numpy"))
    print(f"{versions}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f} before")
    print(f"{sync * 1000:.2f} ms to write and fsync 4 KiB in {folder.parent}", flush=True)


def append_figures(folder: Path, sizes: list[Size]) -> bool:
    """Print how fast processes append; return whether nothing was lost."""
    print(f"\nappend by {PROCESSES} processes")
    print(" models  a segment    train     test   seconds  models/s   lost")
    whole = True
    for size in sizes:
        url = str(folder / f"append-{size.batch}.zarr")
        seconds = filled(url, size)
        lost = size.n_models - Store.open(open_storage(url)).snapshot().n_models
        whole &= lost == 0
        print(
            f"{size.n_models:7,} {size.batch:10,} {size.n_train:8,} {size.n_test:8,} {seconds:9.2f} "
            f"{size.n_models / seconds:9.1f} {lost:6,}",
            flush=True,
        )
    return whole


def compaction_figures(url: str | Path, size: Size, *, queries: bool) -> bool:
    """Print what compaction takes and gives, and a query before and after; return whether the size target is met."""
    filled(str(url), size)
    if queries:
        print(f"\nquery of {size}, median of {LOOKS}\n                    snapshot      mask  test/correct")
        query_figures("before compaction", str(url))
    said = subprocess.run(
        [sys.executable, __file__, COMPACTOR, str(url)], check=True, stdout=subprocess.PIPE, text=True
    )
    if queries:
        query_figures("after", str(url))
    done = json.loads(said.stdout)
    kept = kept_bytes(Store.open(open_storage(str(url))))
    ratio = kept / size.packed_bytes
    print(f"\ncompaction of {size}")
    print(f"seconds            {done['seconds']:.2f}")
    print(
        f"peak memory        {done['peak'] / 2**20:,.0f} MiB, {done['before'] / 2**20:,.0f} MiB before it began"
    )
    print(
        f"written            {done['written']:,} bytes, {done['written'] / kept:.3f} for each of the {kept:,} kept"
    )
    met = ratio <= SIZE_TARGET
    print(
        f"target at most {SIZE_TARGET} times the {size.packed_bytes:,} bytes of bits, is {ratio:.4f}: ",
        end="",
    )
    print("met" if met else "MISSED", flush=True)
    return met


def query_figures(label: str, url: str) -> None:
    store = Store.open(open_storage(url))
    snapshot = store.snapshot()
    steps: list[Callable[[], object]] = [
        store.snapshot,
        snapshot.mask,
        lambda: snapshot.outcome_bits("test/correct"),
    ]
    seconds = [statistics.median(timed(step) for _ in range(LOOKS)) for step in steps]
    print(f"{label:18} {seconds[0]:8.3f} s {seconds[1]:7.3f} s {seconds[2]:11.3f} s", flush=True)


def growth_figures(url: Path, size: Size) -> None:
    """Print how often a growing store is rewritten."""
    store = random_store(str(url), size)
    written, n_compactions, seconds = 0, 0, 0.0
    for number, batch in enumerate(batches(store, size, range(size.n_models)), 1):
        store.commit(*batch)
        if number % GROWTH_STEP == 0 or number == size.n_models:
            started = time.perf_counter()
            done = compact(store, thorough=False)
            seconds += time.perf_counter() - started
            written += done.n_bytes if done else 0
            n_compactions += done is not None
    kept = kept_bytes(store)
    blocks = [len(block.models) for block in store.snapshot().blocks]
    print(f"\ngrowth to {size}, compacted every {GROWTH_STEP}")
    print(f"compactions        {n_compactions:,} in {seconds:.1f} seconds")
    print(f"written            {written:,} bytes, {written / kept:.2f} for each of the {kept:,} kept")
    print(f"blocks             {len(blocks)}: {', '.join(map(str, blocks))} models", flush=True)


def filled(url: str, size: Size) -> float:
    """Make a store and fill it by processes at once; return the seconds from the first start to the last end."""
    store = random_store(url, size)
    spawn = multiprocessing.get_context("spawn")
    ready, times = spawn.Barrier(PROCESSES, timeout=START_SECONDS), spawn.SimpleQueue()
    workers = [
        spawn.Process(target=append, args=(store.url, size, number, ready, times))
        for number in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise SystemExit(f"a writer ended with {worker.exitcode}")
    starts, ends = zip(*[times.get() for _ in workers], strict=True)
    return float(max(ends) - min(starts))


def append(url: str, size: Size, number: int, ready: Barrier, times: Any) -> None:
    """Commit one process's share of the models."""
    store = Store.open(open_storage(url))
    mine = list(batches(store, size, range(size.n_models)[number::PROCESSES]))
    ready.wait()
    started = time.monotonic()
    for batch in mine:
        store.commit(*batch)
    times.put((started, time.monotonic()))


def compacted(url: str) -> dict[str, float]:
    """Compact a store; return seconds and bytes: written, at the peak of memory, and in it before."""
    store = Store.open(open_storage(url))
    before = peak_bytes()
    started = time.perf_counter()
    done = compact(store)
    seconds = time.perf_counter() - started
    assert done is not None, "there was nothing to compact"
    return {"seconds": seconds, "written": done.n_bytes, "peak": peak_bytes(), "before": before}


def random_store(url: str, size: Size) -> Store:
    train, test = np.zeros(size.n_train, dtype=np.int64), np.zeros(size.n_test, dtype=np.int64)
    return new_store(url, train, test, ["correct"])


def batches(store: Store, size: Size, seeds: range) -> Iterator[Batch]:
    """Yield batches of models with random bits."""
    for start in range(0, len(seeds), size.batch):
        some = seeds[start : start + size.batch]
        random = np.random.default_rng([some[0], len(some)])
        masks, train = (random_bits(random, (len(some), size.n_train)) for _ in range(2))
        test = random_bits(random, (len(some), size.n_test))
        models = [
            model_info(store, seed, mask, train[row], test[row])
            for row, (seed, mask) in enumerate(zip(some, masks, strict=True))
        ]
        yield models, masks, {"train/correct": train, "test/correct": test}


def random_bits(random: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.bool_]:
    return random.integers(0, 2, shape, dtype=np.uint8).astype(np.bool_)


def kept_bytes(store: Store) -> int:
    """Return the bytes of the blocks in force, their documents included."""
    snapshot = store.snapshot()
    documents = sum(info.document.size for info in snapshot.record.blocks) if snapshot.record else 0
    return documents + sum(item.size for block in snapshot.blocks for item in block.objects.values())


def timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def peak_bytes() -> int:
    """Return the most memory that this program has had; ``ru_maxrss`` knows its parent's as well on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
