"""What may a statement that a stranger sent take of this machine, and what do limits cost one's own?

Runs statements without bounds through ``memdb sql``, each in an empty folder, and prints seconds, peak memory, exit
code, what was left in the folder and what was said. The limits of every process here are those of ``--cap``, so that
a version without limits of its own does no harm. Then asks an ordinary question by turns, and prints its seconds.

    python scripts/attack_sql.py --store memdb.zarr
    python scripts/attack_sql.py --store memdb.zarr --memdb OLD/bin/memdb --memdb NEW/bin/memdb   # before and after
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMDB = str(Path(sys.executable).with_name("memdb"))
OWN = "SELECT * FROM influence WHERE test_id = {} ORDER BY influence DESC LIMIT 20"
GB = 10**9
HOSTILE = {
    "a list of 8 GB": "SELECT len(range(1000000000))",
    "two lists of 1.6 GB": "SELECT list_cosine_similarity(range(200000000)::DOUBLE[], range(200000000)::DOUBLE[])",
    "one call that does not end": "SELECT length(lpad('x', 2000000000, 'y'))",
    "one call that grows": "SELECT length(regexp_replace(repeat('a', 20000000), 'a', repeat('b', 90), 'g'))",
    "what would spill": "SELECT max(l) FROM (SELECT list(range) OVER (ORDER BY range) l FROM range(100000))",
    "recursion without end": "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t",
    "recursion that doubles": "WITH RECURSIVE t(a) AS (SELECT 'x' UNION ALL SELECT a || a FROM t) SELECT count(*) FROM t",
    "a cell of 1.9 GB": "SELECT repeat('x', 1900000000)",
    "200 million rows": "FROM range(200000000)",
    "a set of 2 billion": "SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(2000000000))",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--memdb", action="append", help="a command to try; this environment's if not given")
    parser.add_argument("--timeout", type=float, default=10.0, help="what each statement is allowed")
    parser.add_argument("--cap", type=float, default=6.0, help="GB of address space that none may pass")
    parser.add_argument("--rounds", type=int, default=9, help="of the ordinary question")
    options = parser.parse_args()
    commands = options.memdb or [MEMDB]
    store = str(options.store.absolute())
    for name, statement in HOSTILE.items():
        for command in commands:
            attacked(
                name,
                [command, "sql", statement, "--timeout", f"{options.timeout:g}", "--store", store],
                options,
            )
    own(commands, store, options.rounds)


def attacked(name: str, command: list[str], options: argparse.Namespace) -> None:
    """Print what one statement took; three times its time is as long as anybody waits."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (int(options.cap * GB),) * 2),  # noqa: PLW1509
        )  # fmt: skip
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 3 * options.timeout)
        _, status, used = os.wait4(process.pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        left = sum(1 for path in Path(folder).rglob("*") if path.is_file())
        said.seek(0)
        last = (said.read().decode(errors="replace").strip().splitlines() or [""])[-1]
    print(
        f"{time.monotonic() - began:6.1f} s {used.ru_maxrss / 1e6:5.2f} GB  exit {process.returncode:3}  "
        f"{left} files left  {name:26}  {command[0]}\n          {last[:110]}",
        flush=True,
    )


def own(commands: list[str], store: str, rounds: int) -> None:
    """Print the time that an ordinary question takes each command, by turns, and the ratio to the first."""
    taken = [[_seconds(command, store, turn) for command in commands] for turn in range(rounds + 1)][1:]
    for position, command in enumerate(commands):
        for kind, name in enumerate(("wall", "CPU")):
            seconds = statistics.median(turn[position][kind] for turn in taken)
            ratio = statistics.median(turn[position][kind] / turn[0][kind] for turn in taken)
            print(f"own question {seconds:6.3f} s {name:4}  {ratio:.3f} times the first  {command}")


def _seconds(command: str, store: str, turn: int) -> tuple[float, float]:
    began = time.monotonic()
    asked = [command, "sql", OWN.format(turn % 10), "--store", store]
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, asked
    return time.monotonic() - began, used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
