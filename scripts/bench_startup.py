"""How long until ``memdb`` answers, beside what its parts take to import, or beside another checkout?

Times whole processes that take turns, after one of each to warm the file cache.

    python scripts/bench_startup.py
    python scripts/bench_startup.py --store memdb.zarr
    python scripts/bench_startup.py --store memdb.zarr --against ../before

Expect seconds. Target: ``memdb --help`` within 3 times the time of importing Typer (medians). With --store, also
whole questions, their CPU seconds beside those of ``import duckdb`` and ``import zarr``, and whether they import
pandas where it is installed; the first of them, too, beside importing what it needs.

With --against, a folder with another checkout's ``memdb`` and ``schemas``: CPU seconds of ``memdb --help``, and
of the questions, of this checkout and that one, and of a question to a store that stays open. Target: at most 1.05
times those of the other.

Bytecode is kept in a temporary folder, whatever the environment says: an installed package has some.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

MEMDB = str(Path(sys.executable).with_name("memdb"))
ROOT = Path(__file__).parent.parent
TARGET, SLOWER = 3.0, 1.05
QUESTIONS = (
    "top-influence --test-id 0",
    "top-memorized",
    "score --train-id 0 --test-id 0",
    "info",
    "plan",
    "reliability",
    "pairs --top 1 --min-memorization 0.9",
)
STATEMENT = (
    "SELECT train_id, influence FROM influence WHERE test_id = 0 ORDER BY influence DESC, train_id LIMIT 20"
)
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
"""
COMMAND = f"""{CHECKOUT}
sys.argv[0] = "memdb"
from memdb.cli import program
program()
"""
WARM = f"""{CHECKOUT}
import time, memdb
with memdb.open(sys.argv[1]) as db:
    db.top_influence(test_id=0).fetchall()
    began = time.process_time()
    for test_id in range(1, 31):
        db.top_influence(test_id=test_id).fetchall()
    print((time.process_time() - began) / 30)
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
    store = ["--store", str(options.store)]
    questions = [["--help"], *([*words.split(), *store] for words in QUESTIONS if options.store)]
    questions += [["sql", STATEMENT, *store]] if options.store else []
    with tempfile.TemporaryDirectory() as bytecode:
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        return measured(options, questions)


def measured(options: argparse.Namespace, questions: list[list[str]]) -> int:
    """Print the figures; return the exit status."""
    print(f"medians of {options.rounds} whole processes each")
    if options.against is not None:
        ratios = [
            compare(of(ROOT, words), of(options.against, words), options.rounds, cpu_seconds)
            for words in questions
        ]
        if options.store is not None:
            print("warm, top_influence of a store that stays open:")
            store = [str(options.store)]
            ours, theirs = of(ROOT, store, WARM), of(options.against, store, WARM)
            ratios.append(compare(ours, theirs, options.rounds, printed_seconds))
        return told(f"CPU at most {SLOWER:g} times that of {options.against}", max(ratios), SLOWER)
    ratio = compare([MEMDB, "--help"], import_of("typer"), options.rounds, seconds)
    if options.store is not None:
        compare([MEMDB, *questions[1]], import_of("zarr, duckdb, typer"), options.rounds, seconds)
        beside_imports(questions[1:], options.rounds)
    return told(f"memdb --help within {TARGET:g} times import typer", ratio, TARGET)


def told(target: str, value: float, most: float) -> int:
    """Print whether a target is met; return the exit status."""
    print(f"target {target}, is {value:.2f}: {'met' if value <= most else 'MISSED'}")
    return 0 if value <= most else 1


def beside_imports(questions: list[list[str]], n_rounds: int) -> None:
    """Print the median CPU seconds of questions and of two imports, in turn, and which questions import pandas."""
    commands = [import_of("duckdb"), import_of("zarr"), *([MEMDB, *words] for words in questions)]
    taken = [[cpu_seconds(command) for command in commands] for _ in range(n_rounds + 1)][1:]
    duckdb, zarr, *medians = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"CPU: import duckdb {duckdb:.3f} s, import zarr {zarr:.3f} s")
    for words, median in zip(questions, medians, strict=True):
        found = subprocess.run(
            [sys.executable, "-X", "importtime", MEMDB, *words], check=True, capture_output=True, text=True
        )
        says = ", imports pandas" if re.search(r"\| +pandas$", found.stderr, re.MULTILINE) else ""
        print(f"{median:7.3f} s  {median / duckdb:5.1f} times import duckdb{says}: {' '.join(words[:-2])}")


def import_of(modules: str) -> list[str]:
    return [sys.executable, "-c", f"import {modules}"]


def of(checkout: Path, words: Sequence[str], program: str = COMMAND) -> list[str]:
    """Return a command line that runs the ``memdb`` of a checkout on this environment's packages."""
    return [sys.executable, "-c", program, str(checkout.resolve()), *words]


def compare(
    command: list[str], reference: list[str], n_rounds: int, measure: Callable[[list[str]], float]
) -> float:
    """Print the median seconds of both commands, which take turns, and return their ratio."""
    taken = [(measure(command), measure(reference)) for _ in range(n_rounds + 1)]
    medians: list[float] = [statistics.median(column) for column in zip(*taken[1:], strict=True)]
    for shown, median in zip((command, reference), medians, strict=True):
        words = [word for word in shown[1:] if "\n" not in word]
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


def printed_seconds(command: list[str]) -> float:
    """Return the CPU time that a process says it took, once it was ready."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return float(subprocess.run(command, check=True, capture_output=True, env=one_thread).stdout)


if __name__ == "__main__":
    sys.exit(main())
