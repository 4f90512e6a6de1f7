"""Print what commands show at several widths, to be looked at: are digits whole, do columns keep their meaning?

    scripts/show_tables.py                  the stores of format 1, at 60, 80 and 200 columns
    scripts/show_tables.py pairs --width 60 only commands with this word in them

A number that is cut is worse than a column that is missing: where a width does not do, columns go, or names are
elided, or rows stand as records. The script says which lines are wider than they may be, and ends with 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
import sys
import tarfile
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).parent.parent
STORES = ROOT / "tests" / "data" / "format-1" / "stores.tar.xz"
COMMANDS = (
    "info", "info --store scores.zarr", "top-memorized -k 3", "top-memorized -k 3 --outcome confidence",
    "top-memorized -k 3 --store scores.zarr --scores classwise", "top-influence --test-id 3 -k 3",
    "top-influence --train-id 3 -k 3", "top-influence --target-id 3 -k 3",
    "top-influence --test-id 3 -k 3 --outcome confidence", "score --train-id 3",
    "score --train-id 3 --test-id 3", "score --train-id 3 --test-id 3 --outcome confidence",
    "pairs --min-influence .3", "pairs --top 1", "plan", "plan --kind influence", "plan --lds 0.4",
    "convergence --train-id 3", "convergence --train-id 3 --test-id 3", "reliability", "classes",
    "class-influence", "compare trained.zarr merged.zarr", "compare trained.zarr merged.zarr --test-id 3",
    "membership -k 3", "lds scores.npy", "frontier", "show --train-id 3 --store published.zarr", "verify",
    "compact --help", "cache", "sql 'FROM memorization LIMIT 3'",
    "sql 'FROM influence WHERE test_id = 3 LIMIT 3'", "sql 'FROM models LIMIT 2'",
    "sql 'DESCRIBE influence'", "gc --dry-run", "duplicates --by content", "show --test-id 3", "gallery",
)  # fmt: skip


def shown(command: str, width: int) -> tuple[str, str]:
    """Return what a command prints for people: its table, and its remarks or error, which terminals wrap."""
    from memdb import cli

    words = shlex.split(command)
    if "--store" not in words and words[0] not in {"compare", "cache"} and "--help" not in words:
        words += ["--store", "trained.zarr"]
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(width), "MEMDB_CACHE_DIR": "none"}),
        mock.patch.object(sys, "argv", ["memdb", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.suppress(SystemExit),
    ):
        cli.main()
    return out.getvalue(), err.getvalue()


def main() -> None:
    """Print the tables; exit 1 if a line is wider than it may be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("word", nargs="?", default="", help="only commands that hold this")
    parser.add_argument("--width", type=int, nargs="+", default=[60, 80, 200])
    given = parser.parse_args()
    too_wide = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with tarfile.open(STORES) as archive:
            archive.extractall(filter="data")
        np.save("scores.npy", np.random.default_rng(0).normal(size=(20, 40)))
        for command in [command for command in COMMANDS if given.word in command]:
            for width in given.width:
                text, remarks = shown(command, width)
                print(f"=== memdb {command}  [{width}]\n{text}{remarks}")
                too_wide += [(command, width, line) for line in text.splitlines() if len(line) > width]
    for command, width, line in too_wide:
        print(f"{len(line)} > {width}: memdb {command}: {line}")
    sys.exit(bool(too_wide))


if __name__ == "__main__":
    main()
