"""Attacks on memdb: builds each hostile store, file, server or surrounding, runs a command, prints what came of it.

    python scripts/attack.py                          all of them: twenty minutes
    python scripts/attack.py --only sql --only json
    python scripts/attack.py --memdb OLDER            the package of another version, to compare
    python scripts/attack.py --memdb OLDER --own 9    what a statement of one's own costs, OLDER's and this version's

A case holds if the command ends as the case expects (refused in a sentence, mostly), without a traceback, within
seconds and memory, having run no code that the user has not named and left no file. Each command runs in a process
whose address space is limited, so that a machine survives the cases that do not hold. To add one: a function
in a file of `attacks/` that builds what is hostile in a folder, and returns the command line.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attacks import code, commands, documents, memory, own_recipes, servers, statements  # noqa: F401 - they register
from attacks.harness import CASES, Case, Outcome, attack, make


def main() -> int:
    """Run the cases and print a table of them, and totals by heading."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], help="a word of a heading or a case")
    parser.add_argument("--memdb", default="", help="the folder of another version of the package")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--verbose", action="store_true", help="show the last line that a command printed")
    parser.add_argument("--own", type=int, metavar="ROUNDS", help="time a statement of one's own instead")
    parser.add_argument("--store", default="", help="what --own asks; a small store if not given")
    options = parser.parse_args()
    cases = list(chosen(options.only))
    if options.list:
        print("\n".join(f"{item.heading}: {item.name}" for item in cases))
        return 0
    if options.own:
        statements.compare_own([options.memdb, ""], options.store, options.own)
        return 0
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        for item in cases:
            outcomes.append(attack(item, Path(name), options.memdb))
            report(outcomes[-1], verbose=options.verbose)
    print()
    for heading, group in itertools.groupby(outcomes, lambda found: found.case.heading):
        some = list(group)
        held = sum(not found.problem for found in some)
        print(f"{heading:10} {len(some):4} cases {held:4} held {len(some) - held:4} broken   at most "
              f"{max(found.seconds for found in some):.1f} s, {max(found.peak for found in some):,} MB")  # fmt: skip
    return int(any(found.problem for found in outcomes))


def chosen(only: list[str]) -> Iterator[Case]:
    """Yield the cases whose heading or name holds one of some words, by heading; all if there are none."""
    for item in sorted(CASES, key=lambda item: item.heading):
        if not only or any(word.lower() in f"{item.heading}: {item.name}".lower() for word in only):
            yield item


def report(found: Outcome, *, verbose: bool) -> None:
    """Print a line of the table, and what a command said that broke."""
    verdict = f"BROKEN: {found.problem}" if found.problem else "held"
    print(f"{found.case.heading:10} {found.case.name[:72]:72} {verdict:18} {found.seconds:6.1f} s {found.peak:6,} MB",
          flush=True)  # fmt: skip
    if verbose or found.problem:
        print("          ", (found.said.strip().splitlines() or [""])[-1][:300], flush=True)


if __name__ == "__main__":
    sys.exit(main())
