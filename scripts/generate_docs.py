"""Write the parts of the documentation that the code knows best: docs/cli.md, and the columns in docs/sql.md.

python scripts/generate_docs.py            write them
python scripts/generate_docs.py --check    exit 1 where a page is not current
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

import memdb
from memdb import cli

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "demo", "init", "train", "info", "top-memorized", "top-influence", "score", "pairs", "sql", "plan",
    "convergence", "reliability", "classes", "class-influence", "compare", "compact", "gc", "verify", "retract",
    "update", "merge", "publish", "pull", "report", "cache", "import", "export", "membership", "lds", "experiment",
)  # fmt: skip
INSIDE = {"experiment": ("removal",)}  # commands of two words
RELATIONS = ("models", "train_examples", "test_examples", "memorization", "influence", "train_influence")
EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed, with one line on stderr that says why and what to do next; "
    "2 wrong usage, which includes values that are empty and options that would do nothing; 130 interrupted. "
    "Answers go to stdout, progress and remarks to stderr. "
    "`MEMDB_TRACEBACK=1` shows where an error was raised."
)
START, END = "<!-- generated: columns -->", "<!-- end -->"


def main() -> int:
    pages = {ROOT / "docs" / "cli.md": cli_page()}
    sql = ROOT / "docs" / "sql.md"
    before, rest = sql.read_text().split(START)
    pages[sql] = f"{before}{START}\n{columns()}{END}{rest.split(END)[1]}"
    stale = [page for page, text in pages.items() if not page.exists() or page.read_text() != text]
    if "--check" in sys.argv:
        for page in stale:
            print(f"{page.relative_to(ROOT)} is not current: run scripts/generate_docs.py")
        return 1 if stale else 0
    for page in stale:
        page.write_text(pages[page])
        print(f"wrote {page.relative_to(ROOT)}")
    return 0


def cli_page() -> str:
    parts = [
        "# Command line",
        "Written by `scripts/generate_docs.py` from the commands' own `--help`.",
        EXIT_CODES,
        f"```\n{help_of()}```",
    ]
    parts += [part for name in COMMANDS for part in (f"## memdb {name}", f"```\n{help_of(name)}```")]
    parts += [
        part
        for name, inner in INSIDE.items()
        for each in inner
        for part in (f"### memdb {name} {each}", f"```\n{help_of(name, each)}```")
    ]
    return "\n\n".join(parts) + "\n"


def help_of(*command: str) -> str:
    """Return a command's help at 80 columns; in this process, for thirty would take ten times as long."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMDB_")}
    environment |= {"COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch.object(sys, "argv", ["memdb", *command, "--help"]),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        cli.main()
    return said.getvalue().strip("\n") + "\n"


def untrained(*_: object) -> dict[str, object]:
    return {}


def columns() -> str:
    data = memdb.Dataset(np.zeros((3, 1)), [0, 1, 0], np.zeros((2, 1)), [0, 1])
    tables = []
    with tempfile.TemporaryDirectory() as folder, memdb.init(f"{folder}/s.zarr", data, untrained) as db:
        for relation in RELATIONS:
            rows = db.sql(f"DESCRIBE {relation}").fetchall()
            listed = ", ".join(f"`{name}` {kind}" for name, kind, *_ in rows)
            tables.append(f"**{relation}**: {listed}\n\n")
    return "".join(tables)


if __name__ == "__main__":
    sys.exit(main())
