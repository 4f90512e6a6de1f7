"""Commands about how many models are enough: plan, convergence, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.facts import without_interval
from memdb.cli.options import (
    EitherThresholdOption,
    PlanOutcomeOption,
    RankedIntervalOption,
    TestIdOption,
    ThresholdOption,
)
from memdb.cli.output import PlainWay, Way, answer_of, emit, facts_line
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.errors import InvalidInputError, NotFoundError
from memdb.render import analysis, attribution, curves
from memdb.render.answer import Answer
from memdb.render.tables import clean, console, stacked

if TYPE_CHECKING:
    from rich.table import Table

    from memdb.database import Database

PLANNED_FRACTION = 0.7  # where no store says another
CURVE_WIDTH = 80
PLOT_LOOKS = 400


class PlannedWay(Way):
    """How a plan is wanted, for intervals of any kind."""

    outcome: PlanOutcomeOption = None  # type: ignore[assignment] # which depends on --lds
    interval: RankedIntervalOption = "anytime"


class BothWay(Way):
    """How a curve is wanted, which has intervals of two kinds."""

    interval: str = "fixed,anytime"


@app.command()
@at_place(ASKING, examples=("train", "test", "target"))
def plan(
    place: Place,
    *,
    half_width: Annotated[
        float,
        typer.Option("--half-width", metavar="H", help="Half the width of intervals."),
    ] = 0.05,
    kind: Annotated[
        str, typer.Option("--kind", metavar="NAME", help="Scores to plan for: memorization or influence.")
    ] = "memorization",
    examples: Mapping[str, Any],
    settle: Annotated[
        float, typer.Option("--settle", metavar="P", help="Share of the memorized examples to be settled.")
    ] = 0.9,
    threshold: ThresholdOption = 0.25,
    lds: Annotated[
        float | None,
        typer.Option(
            "--lds",
            metavar="X",
            help="Plan for a mean linear datamodeling score of raw influences instead: see `memdb lds`.",
            show_default=False,
        ),
    ] = None,
    sketches: Annotated[
        int | None,
        typer.Option(
            "--sketches",
            metavar="N",
            help="Say instead what gradient sketches of N models cost.",
            show_default=False,
        ),
    ] = None,
    subset_fraction: Annotated[
        float | None,
        typer.Option(
            "--subset-fraction", metavar="P", help="Plan a store that is not there yet; none is read."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Rows shown, for selected intervals.")] = 20,
    n_ranked: Annotated[
        int | None,
        typer.Option(
            "--n-ranked",
            metavar="N",
            help="Scores ranked, for selected and simultaneous ones. [default: the training examples]",
            show_default=False,
        ),
    ] = None,
    way: PlannedWay,
) -> None:
    """Say how many models a goal takes, how many are missing, and how long it takes to train them.

    In the worst case, a score of examples that models get right half the time; and, from 50 models on, at the
    rates that this store has: for half and for 95 % of its scores, and until most examples at or above
    --threshold are settled, their intervals wholly above it. Name a score to plan for it, too, and until its
    interval excludes 0, if its rates stay what they are. Time is models times the seconds that the store's
    models took, one after the other.

    With --lds, say instead from how many models on influences predict what other models do this well, and how
    well any scores could: see `memdb lds`. With --sketches, what it takes until N models have gradient
    sketches, which --estimator informed predicts from.

    \b
    memdb plan --half-width 0.05
    memdb plan --half-width 0.1 --subset-fraction 0.5 --interval fixed
    memdb plan --train-id 258 --test-id 340
    memdb plan --lds 0.4
    memdb plan --sketches 10
    """
    if sketches is not None or lds is not None:
        _plan_without_intervals(place, lds, sketches, way)
        return
    way.outcome = way.outcome or "correct"
    named = any(value is not None for value in examples.values())
    limits: dict[str, Any] = {"k": k, "n_ranked": n_ranked, "level": way.level, "interval": way.interval}
    db = None if subset_fraction is not None else _store_if_any(place, named=named)
    if db is None:
        fraction = PLANNED_FRACTION if subset_fraction is None else subset_fraction
        answer = _planned_without_store(fraction, half_width, limits, way, named=named)
    else:
        fraction = db.store.manifest.subset_fraction
        limits |= {"kind": kind, "settle": settle, "threshold": threshold, "outcome": way.outcome}
        answer = answer_of(db, db.plan(half_width, **examples, **limits), way)
    kept = f"subsets of {fraction:g} \u00b7 outcome {way.outcome}"
    title = f"Models for {way.level * 100:g} % {way.interval} intervals \u00b7 {kept}"
    emit(answer, way, lambda shown: analysis.plan(shown, title, _score_named(examples)))
    if db is not None and answer.table.num_rows < 2:
        say("From 50 models on, a store's own rates say what most scores take.")


def _plan_lds(place: Place, lds: float, way: Way) -> None:
    db = place.open()
    answer = without_interval(db, db.plan_lds(lds, outcome=way.outcome, level=way.level), way)
    row = next(answer.rows())
    facts = {**answer.facts, "level": way.level, "outcome": row["outcome"]}
    answer = Answer(answer.table.drop_columns(["outcome"]), facts)
    title = f"Models for a linear datamodeling score \u00b7 outcome {row['outcome']}"
    emit(answer, way, lambda shown: attribution.plan(shown, title))


def _plan_sketches(place: Place, sketches: int, way: Way) -> None:
    db = place.open()
    answer = without_interval(db, db.plan_sketches(sketches), way)
    emit(answer, way, analysis.plan_sketches)


def _store_if_any(place: Place, *, named: bool) -> Database | None:
    """Return the store; None if it does not exist and the user did not name one."""
    try:
        return place.open()
    except NotFoundError:
        if place.store is not None or named:
            raise
        say(f"No store at {place.url}: planning one with subsets of {PLANNED_FRACTION:g}.")
        return None


def _plan_without_intervals(place: Place, lds: float | None, sketches: int | None, way: PlannedWay) -> None:
    if sketches is not None:
        _plan_sketches(place, sketches, way)
    elif lds is not None:
        _plan_lds(place, lds, way)


def _planned_without_store(
    fraction: float, half_width: float, limits: Mapping[str, Any], way: Way, *, named: bool
) -> Answer:
    from memdb.analysis.plan import plan_without_store

    if named:
        raise InvalidInputError("a score is named, and no store is read", hint="omit --subset-fraction")
    facts = {
        "store": None, "snapshot": None, "models_sha256": None, "n_models": 0, "level": way.level,
        "interval": way.interval, "outcome": way.outcome,
    }  # fmt: skip
    return Answer(plan_without_store(fraction, half_width, **limits).to_arrow_table(), facts)


def _score_named(examples: Mapping[str, Any]) -> str:
    """Return the score that options name, in words."""

    def example(kind: str) -> str | None:
        named = next((v for v in (examples[f"{kind}_id"], examples[f"{kind}_key"]) if v is not None), None)
        return None if named is None else clean(named, 20)

    words = {"train": "train", "test": "on test", "target": "on train"}
    return " ".join(f"{words[kind]} {example(kind)}" for kind in words if example(kind) is not None)


@app.command()
@at_place(ASKING, examples=("train", "test", "target"))
def convergence(
    place: Place,
    *,
    examples: Mapping[str, Any],
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the curve to a .svg or .png file, too."),
    ] = None,
    way: BothWay,
) -> None:
    """Show how a score settled: its estimate and intervals after 10, 20, 50, 100, ... models.

    Models count in the order in which they were committed. The fixed interval holds at one number of models
    decided beforehand, the anytime one at all of them at once: follow that one while a store grows.

    \b
    memdb convergence --train-id 7
    memdb convergence --train-id 258 --test-id 340 --plot influence.svg
    """
    if plot is not None:
        curves.require_plot(plot)
    db = place.open()
    answer = answer_of(db, db.convergence(**examples, outcome=way.outcome, level=way.level), way)
    score = answer.table.column_names[1]
    title = f"{score.capitalize()} of {_score_named(examples)} \u00b7 {facts_line(db, way)}"

    def curve_rows(n_looks: int) -> list[dict[str, Any]]:
        from memdb.analysis.convergence import dense_looks

        looks = dense_looks(db.n_models, n_looks)
        rows = db.convergence(**examples, looks=looks, outcome=way.outcome, level=way.level)
        return list(answer_of(db, rows, way).rows())

    def table(shown: Answer) -> Table:
        found = analysis.convergence(shown, title, score)
        width = min(CURVE_WIDTH, console().width)
        return stacked(found, "", curves.curve(curve_rows(width), score, way.level, width))

    emit(answer, way, table)
    if plot is not None:
        curves.draw(plot, curve_rows(PLOT_LOOKS), score, title, way.level)
        say(f"Drew {plot}.")


@app.command()
@at_place(ASKING)
def reliability(
    place: Place,
    *,
    test_id: TestIdOption = None,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", metavar="N", help="Length of a list to compare; repeat for more. [10, 100, 1000]"),
    ] = None,
    splits: Annotated[
        int, typer.Option("--splits", metavar="N", help="Random ways to halve the models.")
    ] = 20,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the random halves.")] = 0,
    threshold: EitherThresholdOption = None,
    way: PlainWay,
) -> None:
    """Say how well two random halves of the models agree, on memorization or on the influences on an example.

    If halves agree, the whole store can be trusted at least as far. Spearman-Brown predicts the correlation
    of two whole stores of this size; its square root, that of this store with the truth.

    \b
    memdb reliability
    memdb reliability --test-id 340 -k 5 -k 50
    """
    db = place.open()
    rows = db.reliability(
        test_id=test_id, k=k, splits=splits, seed=seed, threshold=threshold, outcome=way.outcome
    )
    score = "memorization" if test_id is None else "influence"
    of = "memorization" if test_id is None else f"influence on test example {test_id}"
    title = f"Split-half reliability of {of} \u00b7 {splits} splits \u00b7 {facts_line(db, way)}"
    answer = without_interval(db, rows, way)
    emit(answer, way, lambda shown: analysis.reliability(shown, title, score))
