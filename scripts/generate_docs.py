"""Write the parts of the documentation that the code knows best.

They are docs/cli.md, the columns in docs/sql.md, the formats in docs/importing.md, and what comes back of each
export in docs/exporting.md, which is tried.

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
from typing import Any
from unittest import mock

import numpy as np

import memdb
from memdb import cli
from memdb.interop.export import WRITTEN
from memdb.interop.formats import FORMATS, read_file
from memdb.interop.ids import named
from memdb.interop.run_formats import Runs

ROOT = Path(__file__).parent.parent
COMMANDS = (
    "demo", "init", "train", "info", "top-memorized", "top-influence", "score", "pairs", "duplicates", "sql", "plan",
    "convergence", "reliability", "classes", "class-influence", "compare", "compact", "gc", "verify", "retract",
    "update", "merge", "publish", "pull", "report", "view", "show", "gallery", "label-errors", "cache", "import", "export", "membership",
    "lds", "frontier", "experiment",
)  # fmt: skip
INSIDE = {"experiment": ("removal",)}  # commands of two words
RELATIONS = ("models", "train_examples", "test_examples", "memorization", "influence", "train_influence")
EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed, with one line on stderr that says why and what to do next; "
    "2 wrong usage, which includes values that are empty and options that would do nothing; 130 interrupted. "
    "Answers go to stdout, progress and remarks to stderr. "
    "`MEMDB_TRACEBACK=1` shows where an error was raised."
)
END = "<!-- end -->"


def main() -> int:
    pages = {ROOT / "docs" / "cli.md": cli_page()}
    for name, what, text in (
        ("sql", "columns", columns()),
        ("importing", "formats", formats()),
        ("exporting", "round trips", round_trips()),
    ):
        path, start = ROOT / "docs" / f"{name}.md", f"<!-- generated: {what} -->"
        before, rest = path.read_text().split(start)
        pages[path] = f"{before}{start}\n{text}{END}{rest.split(END)[1]}"
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
    parts += ["## Storage options", f"```\n{help_of('storage')}```"]
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
        mock.patch.object(sys, "argv", ["memdb", "help", *command]),
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


def formats() -> str:
    """Return a table of the formats that are read, in the words of the functions that read them."""
    lines = ["| format | |", "|---|---|"]
    for read in FORMATS:
        said = " ".join((read.__doc__ or "").replace("``", "`").split())
        lines.append(f"| `{read.__name__}` | {said.removeprefix('Read ')} |")
    return "\n".join(lines) + "\n"


def drawn(data: memdb.Dataset, _masks: Any, seeds: Any, _run: Any) -> dict[str, Any]:
    """Predict at random: a recipe for exports to have something to write."""
    found: dict[str, Any] = {}
    for name, examples in data.sets.items():
        right = np.stack([np.random.default_rng(int(seed)).random(len(examples)) < 0.7 for seed in seeds])
        found |= {f"{name}/correct": right, f"{name}/logit_confidence": np.where(right, 1.0, -1.0)}
    return found


def round_trips() -> str:
    """Return a table of what comes back of each export, after writing and reading all of them."""
    lines = ["| `--what` | written as | comes back as |", "|---|---|---|"]
    labels = np.arange(24) % 2
    data = memdb.Dataset(np.arange(24.0)[:, None], labels, np.arange(9.0)[:, None], labels[:9])
    with tempfile.TemporaryDirectory() as folder, memdb.init(f"{folder}/s.zarr", data, drawn, seed=1) as db:
        db.train(40, batch_models=40, device="cpu", compact=False)
        for what, suffixes in WRITTEN.items():
            found = {}
            for suffix in suffixes:
                asked: dict[str, Any] = {"min_influence": -1.0} if "pairs" in what else {}
                asked |= {"keep": "train_id < 9"} if what == "ids" else {}
                path = db.export(f"{folder}/{what}{suffix}", what, **asked).path
                is_folder = not suffix and path.is_dir()
                found["a folder" if is_folder else suffix or "no suffix"] = _back(what, path)
            (back,) = set(found.values())
            lines.append(f"| `{what}` | {', '.join(found)} | {back} |")
    return "\n".join(lines) + "\n"


def _back(what: str, path: Path) -> str:
    if what == "ids":
        named(path, "only_ids")  # refuses what is no such list
        return "a list of training examples, for `memdb init --only-ids` or `--without-ids`"
    content = read_file(path)
    if isinstance(content, Runs):
        kept = ", ".join(f"`{outcome.name}`" for outcome in content.outcomes)
        return f"models with {kept}; `correct` is {content.outcomes[0].definition}"
    sizes = set(content.sizes)
    parts = [
        "memorization" if len(content.scores.memorization) else "",
        "pairs" if len(content.scores.influence) else "",
    ]
    needed = {"train", *(("test",) if parts[1] else ())} - sizes
    asked = f"; in a new store, name {' and '.join(f'`--n-{name}`' for name in sorted(needed, reverse=True))}"
    return f"scores: {' and '.join(filter(None, parts))}{asked if needed else ''}"


if __name__ == "__main__":
    sys.exit(main())
