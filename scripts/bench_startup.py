"""How long until ``memdb`` answers, beside what its parts take to import?

Times whole processes that take turns, after one of each to warm the file cache.

    python scripts/bench_startup.py
    python scripts/bench_startup.py --store memdb.zarr

Expect seconds. Target: ``memdb --help`` within 3 times the time of importing Typer (medians). With --store, a
small one, also a whole query beside importing what it needs; that has no target.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

MEMDB = str(Path(sys.executable).with_name("memdb"))
TARGET = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="also time a query to this store")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()

    print(f"medians of {options.rounds} whole processes each")
    ratio = compare([MEMDB, "--help"], import_of("typer"), options.rounds)
    if options.store is not None:
        query = [MEMDB, "top-influence", "--test-id", "0", "--store", str(options.store)]
        compare(query, import_of("zarr, duckdb, typer"), options.rounds)
    met = ratio <= TARGET
    print(
        f"target memdb --help within {TARGET:g} times import typer, is {ratio:.2f}: {'met' if met else 'MISSED'}"
    )
    return 0 if met else 1


def import_of(modules: str) -> list[str]:
    return [sys.executable, "-c", f"import {modules}"]


def compare(command: list[str], reference: list[str], n_rounds: int) -> float:
    """Print the median seconds of both commands and return their ratio."""
    taken: list[tuple[float, float]] = [(seconds(command), seconds(reference)) for _ in range(n_rounds + 1)]
    medians: list[float] = [statistics.median(column) for column in zip(*taken[1:], strict=True)]
    for shown, median in zip((command, reference), medians, strict=True):
        print(f"{median:7.3f} s  {' '.join([Path(shown[0]).name, *shown[1:]])}")
    print(f"{medians[0] / medians[1]:7.2f}    times")
    return medians[0] / medians[1]


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
