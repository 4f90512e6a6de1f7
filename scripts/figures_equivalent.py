"""How many plain models a few informed ones are worth, by `memdb frontier`: `figures_faster.py equivalent`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures_sets import CASES, Case, store
from frontier_figure import curves_of, figure

import memdb
from memdb.render.frontier import two_digits

LOOKS = (25, 50, 100, 200, 400, 1000, 2000)
INFORMED = LOOKS[:5]
ESTIMATORS = ("raw", "informed", "trak", "screened")
PILOTS, SHORT = 0.6, 0.2  # shares of the models
LEAST_MODELS = 70  # of which 25 are pilots
JUDGED = 100  # models, at which targets are set
LEAST = {  # plain models that as many informed ones are to be worth
    ("top_10", 10): 1000, ("precision", 500): 1000, ("feldman_zhang", None): 300, ("certified", None): 200,
}  # fmt: skip
TARGET_SETS = ("digits", "mnist", "cifar")
COVERAGE = (0.93, 0.99)
COLUMNS = (
    ("correlation", None, "correlation"), ("precision", 100, "first 100"), ("precision", 500, "first 500"),
    ("top_10", 10, "top 10"), ("feldman_zhang", None, "Feldman-Zhang"), ("error", 500, "error at 500"),
    ("certified", None, "certified"), ("coverage", None, "covers all"), ("coverage_of_first", 500, "first 500"),
)  # fmt: skip
NOISY = (  # columns where the truth is mostly noise, which does not bias these
    ("correlation", None, "correlation"), ("strength", 100, "influence of the first 100"),
    ("strength", 500, "of the first 500"), ("precision", 500, "first 500"), ("top_10", 10, "top 10"),
    ("certified", None, "certified"), ("coverage", None, "covers all"), ("coverage_of_first", 500, "first 500"),
)  # fmt: skip
BOUNDS = {"at least": "> ", "at most": "< ", None: ""}
Row = Mapping[str, Any]
Lines = dict[tuple[str, int | None], dict[tuple[str, int | None], Row]]


def equivalent(options: argparse.Namespace) -> bool:
    """Train what is missing of each set, and print what estimates from few models are worth."""
    met = True
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.stores or temporary)
        place.mkdir(parents=True, exist_ok=True)
        usual = CASES if options.share > SHORT else TARGET_SETS
        for name in options.sets or usual:
            case = CASES[name]
            if case.needs_root and not options.data_root:
                print(f"\n{name}: skipped, as it needs --data-root")
                continue
            with trained(case, name, place, options) as db:
                if db.n_models < LEAST_MODELS:
                    print(f"\n{name}: skipped, with {db.n_models} models of {LEAST_MODELS}")
                    continue
                started = time.process_time()
                rows, n_models = measured(db), db.n_models
                took = time.process_time() - started
            print(f"\n### {name}\n\n{about(rows, case, n_models)}; judged in {took:.0f} CPU seconds\n")
            lines = lines_of(rows)
            print("\n".join(table(lines, COLUMNS if name in TARGET_SETS else NOISY)), flush=True)
            if options.figure:
                options.figure.write_text(drawn(lines, case, rows[0]["n_truth"]))
                options.figure = None  # of the first set alone
            if name in TARGET_SETS:
                met &= judged(name, lines)
    return met


def trained(case: Case, name: str, place: Path, options: argparse.Namespace) -> memdb.Database:
    """Return the store of a set with as many models as are wanted; those that are there are not trained again."""
    root = Path(options.data_root or ".").expanduser()
    db = store(case, name, place, root)
    wanted = range(round(case.n_models * options.share))
    if db.n_models < len(wanted) and not options.no_training:
        started, n_before = time.process_time(), db.n_models
        db.train(seeds=wanted, dataset=case.load(root), progress=False)
        db.refresh()
        took = time.process_time() - started
        print(f"\n{name}: {db.n_models - n_before:,} models trained in {took:.0f} CPU seconds", flush=True)
    return db


def measured(db: memdb.Database) -> list[Row]:
    """Return the rows of the frontier, the pilots a round number of models up to three fifths of all."""
    looks = [n for n in LOOKS if n <= PILOTS * db.n_models]
    found = db.frontier(models=looks, truth=db.n_models - looks[-1], estimators=ESTIMATORS)
    rows: list[Row] = found.to_arrow_table().to_pylist()
    return rows


def about(rows: Sequence[Row], case: Case, n_models: int) -> str:
    """Return what was measured on."""
    row = rows[0]
    return (
        f"`{case.recipe}`, {n_models:,} models, the truth from {row['n_truth']:,} of them (reliability "
        f"{row['truth_reliability']:.2f}), {case.n_sketched} sketched; {row['n_pairs']:,} pairs"
    )


def lines_of(rows: Sequence[Row]) -> Lines:
    """Return the rows by estimator and number of models, and by measure."""
    lines: Lines = {}
    for row in rows:
        at = None if row["measure"] == "feldman_zhang" else row["at"]
        lines.setdefault((row["estimator"], row["n_models"]), {})[row["measure"], at] = row
    return lines


def table(lines: Lines, columns: Sequence[tuple[str, int | None, str]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    shown = [key for key in columns if any(key[:2] in line for line in lines.values())]
    yield "| |" + "".join(f" {title} |" for _, _, title in shown)
    yield "|---|" + "---|" * len(shown)
    for (name, n_models), line in lines.items():
        if name in {"informed", "screened"} and n_models not in INFORMED:
            continue
        if name == "trak" and n_models != INFORMED[0]:  # scores come from the sketched models alone
            continue
        cells = [_cell(line.get(key[:2])) for key in shown]
        number = f", {n_models:,}" if n_models and name != "trak" else ""
        yield f"| {name}{number} |" + "".join(f" {cell} |" for cell in cells)


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return ""
    value = (
        f"{row['value']:,.0f}"
        if row["measure"] == "certified"
        else f"{row['value']:.3f}".replace("0.", ".", 1)
    )
    if row["plain_models"] is None:
        return value
    if row["plain_extrapolated"] is not None:
        return f"{value} (~{two_digits(row['plain_extrapolated']):,})"
    return f"{value} ({BOUNDS[row['plain_bound']]}{row['plain_models']:,})"


def drawn(lines: Lines, case: Case, n_truth: int) -> str:
    """Return the figure of a set."""
    panels = {
        "share of a test example's top 10 that is found": ("top_10", 10),
        "share of the 500 strongest pairs that is found": ("precision", 500),
    }
    exact = (lines["exact", None][key]["value"] for key in panels.values())
    return figure(
        f"What few models find: {case.title}, judged by {n_truth:,} other models",
        {title: curves_of(lines, key, ("raw", "informed")) for title, key in panels.items()},
        "The others are a noisy truth, by which the true influences themselves would find "
        + " and ".join(f"{value:.0%}" for value in exact)
        + ".",
    )


def judged(name: str, lines: Lines) -> bool:
    """Print which targets are met at `JUDGED` models, and return whether all are."""
    said = []
    for key, least in LEAST.items():
        row = lines.get(("screened" if key[0] == "certified" else "informed", JUDGED), {}).get(key)
        if row is not None and row["n_pilots"] >= least:  # fewer cannot show it
            enough = row["plain_bound"] == "at least" or row["plain_models"] >= least
            said.append((f"{key[0]} like {least:,}", enough))
    for key in (("coverage", None), ("coverage_of_first", 500)):
        for n_models in INFORMED:
            row = lines.get(("informed", n_models), {}).get(key)
            if row is not None:
                enough = COVERAGE[0] <= row["value"] <= COVERAGE[1]
                said.append((f"{key[0]} {row['value']:.3f} at {n_models}", enough))
    missed = [what for what, enough in said if not enough]
    print(f"\n{name}: targets {'met' if not missed else 'MISSED: ' + '; '.join(missed)}", flush=True)
    return not missed


def add_command(commands: Any) -> None:
    """Add the subcommand to a parser."""
    parser = commands.add_parser(
        "equivalent", help="what few models are worth, on trained stores: an hour of one core"
    )
    parser.add_argument(
        "--sets", nargs="+", choices=list(CASES), help="all by default; perceptrons alone in the short form"
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the models, such as 0.2 for a short form"
    )
    parser.add_argument(
        "--short",
        dest="share",
        action="store_const",
        const=SHORT,
        help="a fifth of the models, of perceptrons alone",
    )
    parser.add_argument("--stores", metavar="DIR", help="where stores are kept, and found again")
    parser.add_argument("--no-training", action="store_true", help="take the stores as they are")
    parser.add_argument("--data-root", metavar="DIR", help="holds MNIST, and cifar100/train/CLASS/*.png")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the first set to an .svg file")
    parser.set_defaults(run=equivalent)
