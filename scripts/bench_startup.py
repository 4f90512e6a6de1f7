"""How long until ``memdb`` answers, beside what its parts take to import, or beside another checkout?

Times whole processes that take turns, after one of each to warm the file cache.

    python scripts/bench_startup.py
    python scripts/bench_startup.py --store memdb.zarr
    python scripts/bench_startup.py --store memdb.zarr --against ../before

Expect seconds. Target: ``memdb --help`` within 3 times the time of importing Typer (medians). With --store, a
small one, also a whole query beside importing what it needs; that has no target.

With --against, a folder with another checkout's ``memdb`` and ``schemas``: CPU seconds of ``memdb --help``, and
of the query, of this checkout and that one. Target: at most 1.05 times those of the other.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MEMDB = str(Path(sys.executable).with_name("memdb"))
ROOT = Path(__file__).parent.parent
TARGET, SLOWER = 3.0, 1.05
CHECKOUT = """
import importlib.machinery, sys
root = sys.argv.pop(1)
class Schemas:  # which installing puts into the package, and a checkout has beside it
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "memdb.schemas":
            return importlib.machinery.PathFinder.find_spec("schemas", [root])
sys.meta_path.insert(0, Schemas)
sys.path.insert(0, root)
sys.argv[0] = "memdb"
from memdb.cli import program
program()
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="also time a query to this store")
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.against is not None and not (options.against / "memdb" / "__init__.py").is_file():
        parser.error(f"{options.against} has no memdb: name a checkout, such as one of `git worktree add`")
    query = ["top-influence", "--test-id", "0", "--store", str(options.store)]
    questions = [["--help"], *([query] if options.store else [])]

    print(f"medians of {options.rounds} whole processes each")
    if options.against is not None:
        ratios = [
            compare(of(ROOT, words), of(options.against, words), options.rounds, cpu_seconds)
            for words in questions
        ]
        return told(f"CPU at most {SLOWER:g} times that of {options.against}", max(ratios), SLOWER)
    ratio = compare([MEMDB, "--help"], import_of("typer"), options.rounds, seconds)
    if options.store is not None:
        compare([MEMDB, *query], import_of("zarr, duckdb, typer"), options.rounds, seconds)
    return told(f"memdb --help within {TARGET:g} times import typer", ratio, TARGET)


def told(target: str, value: float, most: float) -> int:
    """Print whether a target is met; return the exit status."""
    print(f"target {target}, is {value:.2f}: {'met' if value <= most else 'MISSED'}")
    return 0 if value <= most else 1


def import_of(modules: str) -> list[str]:
    return [sys.executable, "-c", f"import {modules}"]


def of(checkout: Path, words: Sequence[str]) -> list[str]:
    """Return a command line that runs the ``memdb`` of a checkout on this environment's packages."""
    return [sys.executable, "-c", CHECKOUT, str(checkout.resolve()), *words]


def compare(
    command: list[str], reference: list[str], n_rounds: int, measure: Callable[[list[str]], float]
) -> float:
    """Print the median seconds of both commands, which take turns, and return their ratio."""
    taken = [(measure(command), measure(reference)) for _ in range(n_rounds + 1)]
    medians: list[float] = [statistics.median(column) for column in zip(*taken[1:], strict=True)]
    for shown, median in zip((command, reference), medians, strict=True):
        words = [word for word in shown[1:] if word != CHECKOUT]
        print(f"{median:7.3f} s  {' '.join([Path(shown[0]).name, *words])}")
    print(f"{medians[0] / medians[1]:7.2f}    times")
    return medians[0] / medians[1]


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def cpu_seconds(command: list[str]) -> float:
    """Return the CPU time of a process and of those that it waits for: other work on the machine counts less."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
