"""The shape of the package in figures: what imports what, how long things are, what a command loads.

    python scripts/house.py                  # this checkout
    python scripts/house.py --package DIR    # the package folder of another one, to compare with
    python scripts/house.py --loaded         # also how many modules of memdb some commands import (runs them)

A room is a folder of the package, or a file at its top. An arrow is an import from one room to another, however many
files tie the two; a floor lies above all that its rooms import. Imports for type checking count.
"""

from __future__ import annotations

import argparse
import ast
import collections
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

LONG = 40  # lines of a function's body
WIDE = 6  # parameters
BLOCK = 6  # duplicated lines
COMMANDS = (
    ["--help"],
    ["info"],
    ["top-memorized", "-k", "1"],
    ["gc", "--dry-run"],
    ["verify"],
    ["publish", "copy"],
)
LOADED = (
    "import atexit, sys\n"
    "names = lambda: [name for name in sys.modules if name.split('.')[0] == 'memdb']\n"
    "atexit.register(lambda: print(*names(), file=sys.__stderr__))\n"
    "from memdb.cli import main\n"
    "main()\n"
)
Files = Mapping[str, Path]
Arrows = set[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, default=Path(__file__).parent.parent / "memdb")
    parser.add_argument("--loaded", action="store_true")
    asked = parser.parse_args()
    files = modules(asked.package)
    room = functools.partial(room_of, files)
    arrows = arrows_of(files, room)
    floors = floors_of({room(name) for name in files}, arrows)
    print(f"rooms {len(floors)} · floors {max(floors.values())} · arrows {len(arrows)}")
    for floor in range(max(floors.values()), 0, -1):
        print(
            f"  {floor:2} {', '.join(sorted(name or '__init__' for name in floors if floors[name] == floor))}"
        )
    for cycle in cycles(arrows_of(files, str)):
        print(f"cycle of files: {', '.join(sorted(cycle))}")
    for name, count in lengths(asked.package).items():
        print(f"{name} {count:,}")
    if asked.loaded:
        for command, n_loaded in loaded(asked.package.parent):
            print(f"modules of memdb loaded by `memdb {' '.join(command)}` {n_loaded}")


def modules(package: Path) -> Files:
    """Return the files of the package by the names of their modules, without ``memdb.``."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def room_of(files: Files, name: str) -> str:
    """Return the folder that a module lies in, or the module itself at the top."""
    is_folder = files[name].name == "__init__.py"
    return name if is_folder or "." not in name else name.rpartition(".")[0]


def imports_of(path: Path, files: Files) -> Iterator[str]:
    """Yield the modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, inner = name.partition(".")
            if package == "memdb":
                yield inner if inner in files else inner.rpartition(".")[0]


def arrows_of(files: Files, place: Callable[[str], str]) -> Arrows:
    """Return which places import which other ones; ``place`` maps a module's name to its place."""
    found = {
        (place(name), place(imported))
        for name, path in files.items()
        for imported in imports_of(path, files)
        if imported
    }
    return {(above, below) for above, below in found if above != below}


def floors_of(rooms: set[str], arrows: Arrows) -> dict[str, int]:
    """Return each room's floor: one above the highest that it imports. An arrow that closes a cycle is passed over."""
    below = collections.defaultdict(set)
    for above, room in arrows:
        below[above].add(room)

    @functools.cache
    def floor(room: str, seen: frozenset[str] = frozenset()) -> int:
        return 1 + max((floor(other, seen | {room}) for other in below[room] - seen), default=0)

    return {room: floor(room) for room in sorted(rooms)}


def cycles(arrows: Arrows) -> list[set[str]]:
    """Return the groups of modules that import each other (strongly connected components of two or more)."""
    below, above = collections.defaultdict(set), collections.defaultdict(set)
    for one, other in arrows:
        below[one].add(other)
        above[other].add(one)

    def reach(start: str, along: Mapping[str, set[str]]) -> set[str]:
        found, waiting = {start}, [start]
        while waiting:
            new = along[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    groups = {frozenset(reach(name, below) & reach(name, above)) for name in list(below)}
    return [set(group) for group in groups if len(group) > 1]


def lengths(package: Path) -> dict[str, int]:
    """Count over all files: lines, long functions, wide signatures, exceptions to rules, repeated blocks."""
    found: collections.Counter[str] = collections.Counter()
    blocks: collections.Counter[tuple[str, ...]] = collections.Counter()
    for path in package.rglob("*.py"):
        text = path.read_text()
        found["lines"] += len(text.splitlines())
        found["noqa"] += text.count("# noqa")
        lines = [line.strip() for line in text.splitlines()]
        code = [line for line in lines if not line.startswith(("#", "import ", "from "))]
        code = [line for line in code if any(map(str.isalnum, line))]
        blocks.update(tuple(code[at : at + BLOCK]) for at in range(len(code) - BLOCK + 1))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                n_lines = (node.end_lineno or 0) - node.body[0].lineno + 1
                named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                found[f"functions over {LONG} lines"] += n_lines > LONG
                found[f"signatures over {WIDE}"] += (
                    len([a for a in named if a.arg not in {"self", "cls"}]) > WIDE
                )
    found[f"blocks of {BLOCK} lines that stand twice"] = sum(count > 1 for count in blocks.values())
    return dict(found)


def loaded(root: Path) -> Iterator[tuple[list[str], int]]:
    """Run commands on a small store and yield how many modules of memdb each imported."""
    with tempfile.TemporaryDirectory() as folder:

        def run(*command: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-c", LOADED, *command],
                cwd=folder, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=True,
            )  # fmt: skip
            return done.stderr.splitlines()[-1].split()

        run("init", "--dataset", "digits", "--recipe", "mlp", "-p", "epochs=1")
        run("train", "--add", "8")
        for command in COMMANDS:
            yield command, len(run(*command))


if __name__ == "__main__":
    main()
