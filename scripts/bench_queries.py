"""How long do questions to a large store take?

Makes synthetic stores through the real store code (scripts/synthetic_store.py), unless --store names one, and prints

- a cold process: ``memdb top-influence --test-id 42`` beside importing what it needs (pairs of runs, in turn)
- warm, in one process: every kind of question, median of several different examples
- ``memdb sql`` on the view beside the command that asks the same, warm, in turn; and beside the same statement
  given to its DuckDB connection directly: what checking, a timeout and presenting the rows cost
- the peak memory of both processes.

    python scripts/bench_queries.py                  # 4,000 models of 50,000 + 10,000 examples: a minute
    python scripts/bench_queries.py --confidences    # with confidences: 0.5 GB on disk, some minutes
    python scripts/bench_queries.py --large          # also 2,000 models of 1,281,167 + 50,000: 0.7 GB, minutes

Targets: cold within 2 times the imports; warm under 60 ms and sql within 1.5 times the command; at the large size
warm under 1 s, and under 2 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

MEMDB = str(Path(sys.executable).with_name("memdb"))
IMPORTS = [sys.executable, "-c", "import zarr, duckdb, typer"]
SYNTHETIC = str(Path(__file__).with_name("synthetic_store.py"))
LARGE = ["--models", "2000", "--train", "1281167", "--test", "50000", "--classes", "1000"]
SQL = "SELECT * FROM influence WHERE test_id = {} ORDER BY influence DESC, train_id LIMIT 20"
THRESHOLD = "SELECT count(*) FROM influence WHERE test_id = {} AND influence > .1 AND train_label = 3"
WARM = "--warm"


def main() -> int:
    if sys.argv[1:2] == [WARM]:
        print(json.dumps(warm(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="a store to ask instead of making one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--confidences", action="store_true", help="ask about confidences as well")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--folder", type=Path, help="where stores are made; a temporary folder if not given")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("memdb", "duckdb", "zarr", "numpy"))
    print(f"{versions}, Python {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = options.store or made(Path(folder) / "store.zarr", ["--confidences"] * options.confidences)
        met = figures(store, options.rounds, warm_target=0.06, cold_target=2.0)
        if options.confidences:
            figures(store, options.rounds, outcome="confidence")
        if options.large:
            large = made(Path(folder) / "large.zarr", LARGE)
            met &= figures(large, 3, warm_target=1.0, memory_target=2000)
    return 0 if met else 1


def made(path: Path, arguments: list[str]) -> str:
    subprocess.run([sys.executable, SYNTHETIC, str(path), *arguments], check=True, stdout=sys.stderr)
    return str(path)


def figures(
    store: str,
    rounds: int,
    *,
    outcome: str = "correct",
    warm_target: float = float("inf"),
    cold_target: float = float("inf"),
    memory_target: float = float("inf"),
) -> bool:
    """Print the figures of one store; return whether the targets are met."""
    print(f"\n{store}, outcome {outcome}", flush=True)
    command = [MEMDB, "top-influence", "--test-id", "42", "--store", store, "--outcome", outcome]
    taken = [(seconds(command), seconds(IMPORTS)) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(a / b for a, b in taken)
    cold, imports = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"cold        {cold:7.3f} s, importing zarr, duckdb and typer {imports:.3f} s: {ratio:.2f} times")
    arguments = [sys.executable, __file__, WARM, store, str(rounds), outcome]
    found = json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)
    for name, value in found["seconds"].items():
        print(f"warm        {value:7.3f} s  {name}")
    print(f"sql         {found['sql_ratio']:7.2f} times the command, on the view")
    print(f"sql         {found['work_ratio']:7.2f} times the same statement on the connection alone")
    print(
        f"peak memory {found['peak']:7,.0f} MB after all of these; {found['peak_first']:,.0f} MB after the first"
    )
    met = True
    for name, value, target in (
        ("cold, times the imports", ratio, cold_target),
        ("warm top-influence --test-id, s", found["seconds"]["top-influence --test-id"], warm_target),
        ("sql, times the command", found["sql_ratio"], 1.5 if warm_target < 1 else float("inf")),
        ("peak memory, MB", found["peak_first"], memory_target),
    ):
        if target < float("inf"):
            met &= value <= target
            print(
                f"target      {name}: at most {target:g}, is {value:.3g}: {'met' if value <= target else 'MISSED'}"
            )
    return met


def warm(store: str, rounds: int, outcome: str) -> dict[str, Any]:
    """Ask one process everything; return median seconds, the ratio of SQL to the command, and peak memory."""
    import memdb

    db = memdb.open(store)
    n_train = db.store.manifest.train.n_examples
    asked: dict[str, Callable[[int], object]] = {
        "top-influence --test-id": lambda i: db.top_influence(test_id=i, outcome=outcome),
        "top-influence --test-id --same-class": lambda i: db.top_influence(
            test_id=i, same_class=True, outcome=outcome
        ),
        "top-influence --train-id": lambda i: db.top_influence(train_id=i, outcome=outcome),
        "top-influence --target-id": lambda i: db.top_influence(target_id=i, outcome=outcome),
        "top-memorized": lambda _: db.top_memorized(outcome=outcome),
        "score --train-id --test-id": lambda i: db.score(i, test_id=i, outcome=outcome),
        "sql, a threshold and a class": lambda i: db.sql(THRESHOLD.format(i), outcome=outcome),
    }
    db.top_influence(test_id=n_train % 97, outcome=outcome)
    first = peak()
    found = {}
    for name, ask in asked.items():
        ask(7)
        found[name] = statistics.median(timed(partial(ask, i)) for i in range(11, 11 + rounds))
    ratios, of_work = [], []
    connection = db.relations(outcome).connection
    for i in range(40, 40 + rounds):
        command = timed(partial(asked["top-influence --test-id"], i))
        sql = timed(partial(db.sql, SQL.format(i), outcome=outcome))
        ratios.append(sql / command)
        of_work.append(sql / timed(connection.sql(SQL.format(i)).to_arrow_table))
    median = statistics.median
    return {
        "seconds": found, "sql_ratio": median(ratios), "work_ratio": median(of_work),
        "peak": peak(), "peak_first": first,
    }  # fmt: skip


def peak() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1e6 if sys.platform == "darwin" else 1e3)


def timed(ask: Callable[[], object]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def seconds(command: list[str]) -> float:
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))


if __name__ == "__main__":
    sys.exit(main())
