"""The command that looks through all pairs at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memdb.cli.app import app, interruptible, say
from memdb.cli.estimator_options import RankedChoice, remark_on_estimator
from memdb.cli.options import PairBounds
from memdb.cli.output import RankedWay, Way, asked_of, countless, emit, facts_line, remark_on_scores
from memdb.cli.store_options import SCORING, Place, at_place
from memdb.render import tables
from memdb.render.answer import Answer
from memdb.render.progress import Counting
from memdb.render.tables import clean, console
from memdb.wording import count

if TYPE_CHECKING:
    from rich.console import RenderableType

    from memdb.database import Database
    from memdb.query.options import PairOptions

SHOWN = 20  # rows of a table: the strongest


@app.command()
@at_place(SCORING)
def pairs(
    place: Place,
    *,
    bounds: PairBounds,
    direction: Annotated[
        str,
        typer.Option(
            "--direction",
            metavar="WAY",
            help="helps; hurts: bounds are on minus the influence; both: on its absolute value.",
        ),
    ] = "helps",
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1: where to count.")
    ] = "auto",
    choice: RankedChoice,
    way: RankedWay,
) -> None:
    """List the pairs of training and test examples that are strong enough, out of all there are.

    Every pair is counted, in tiles; a .parquet file takes any number of rows, and a run that was
    interrupted goes on where it was when the same command is given again.

    \b
    memdb pairs --min-influence 0.15 --min-memorization 0.25
    memdb pairs --top 256 -o top_influence.parquet
    memdb pairs --screen auto
    """
    db = place.open()
    options: PairOptions = {
        "min_influence": bounds.min_influence, "min_memorization": bounds.min_memorization,
        "top": bounds.top, "same_class": bounds.same_class, "direction": direction, "device": device,
        "level": way.level, "interval": way.interval,
    }  # fmt: skip
    plain = db.imported_scores is None and not choice.chosen
    if plain and way.output is not None and way.is_parquet:
        _write(db, way.output, way.outcome, options)
    else:
        with Counting(console(stderr=True), "pairs") as counting:
            options["progress"] = counting
            rows = db.pairs(outcome=way.outcome, **choice.chosen, **options)
        way = way.by(db, choice)
        answer = asked_of(db, rows, way)
        emit(answer, way, lambda a: _table(countless(a), db, way))
        remark_on_scores(answer)
        remark_on_estimator(answer)


def _write(db: Database, output: Path, outcome: str, options: PairOptions) -> None:
    """Write a file that an interrupted run goes on with."""
    from memdb.query.pairs import parquet

    def kept() -> str:
        blocks = count(parquet.n_kept(output), "block")
        return f"{blocks} of test examples kept beside {output}: the same command goes on there."

    with Counting(console(stderr=True), "pairs") as counting, interruptible(kept):
        options["progress"] = counting
        done = parquet.written_pairs(db.relations(outcome), output, options)
    resumed = f" Went on from {done.n_resumed} of {count(done.n_blocks, 'block')}." if done.n_resumed else ""
    say(
        f"Wrote {count(done.totals.n_found, 'pair')} of {done.totals.n_ranked:,} ranked to {output}.{resumed}"
    )


def _table(answer: Answer, db: Database, way: Way) -> RenderableType:
    """Return the strongest pairs; the others are for files."""
    import numpy as np

    from memdb.query.arrow import rows_of

    n_rows = answer.table.num_rows
    score = next(name for name in ("informed", "influence") if name in answer.table.column_names)
    strength = [(-abs(value), place) for place, value in enumerate(answer.table[score].to_pylist())]
    screened = answer.facts.get("estimator") == "screened"  # and in the order of q-values
    first = list(range(min(n_rows, SHOWN))) if screened else [place for _, place in sorted(strength)[:SHOWN]]
    shown = Answer(rows_of(answer.table, np.array(first, dtype=np.int64)), answer.facts)
    title = f"{count(n_rows, 'pair')} of {clean(db.url)} \u00b7 {facts_line(db, way)}"
    table = tables.ranked(shown, title, {"train_id": "train", "test_id": "test"}, ())
    if n_rows > SHOWN:
        table.caption = f"{count(n_rows - SHOWN, 'more pair')}; --output FILE writes them all"
    return table
