"""Commands that ask about the answers: plan, convergence, reliability, classes, class-influence, compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.options import RankedIntervalOption, TestIdOption
from memdb.cli.output import PlainWay, RankedWay, Way, answer_of, emit, facts_line
from memdb.cli.store_options import ASKING, ASSUMING, MAKING, Place, at_place
from memdb.errors import InvalidInputError, NotFoundError
from memdb.format import layout
from memdb.render import analysis, curves
from memdb.render.answer import Answer
from memdb.render.tables import clean, console, facts

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation
    from rich.table import Table

    from memdb.database import Database

PLANNED_FRACTION = 0.7  # where no store says another
CURVE_WIDTH = 80
PLOT_LOOKS = 400
COMPARING = (*MAKING[1:], *ASSUMING)
NO_INTERVAL = ("level", "interval")

ThresholdOption = Annotated[float, typer.Option("--threshold", metavar="X", help="What counts as memorized.")]
EitherThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="X",
        help="What counts as high. [default: 0.25 for memorization, 0.15 for influence]",
        show_default=False,
    ),
]


class PlannedWay(Way):
    """How a plan is wanted, for intervals of any kind."""

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
    """Say how many models a goal takes, how many more than there are, and how long they train.

    In the worst case, a score of examples that models get right half the time; and, from 50 models on, at the
    rates that this store has: for half and for 95 % of its scores, and until most examples at or above
    --threshold are settled, their intervals wholly above it. Name a score to plan for it, too, and until its
    interval excludes 0, if its rates stay what they are. Time is models times the seconds that the store's
    models took, one after the other.

    \b
    memdb plan --half-width 0.05
    memdb plan --half-width 0.1 --subset-fraction 0.5 --interval fixed
    memdb plan --train-id 7 --test-id 42
    """  # noqa: D301
    named = any(value is not None for value in examples.values())
    limits: dict[str, Any] = {"k": k, "n_ranked": n_ranked, "level": way.level, "interval": way.interval}
    db = None if subset_fraction is not None else _store_if_any(place, named=named)
    if db is None:
        from memdb.analysis.plan import plan_without_store

        if named:
            raise InvalidInputError(
                "a score is named, and no store is read", hint="leave out --subset-fraction"
            )
        fraction = PLANNED_FRACTION if subset_fraction is None else subset_fraction
        rows = plan_without_store(fraction, half_width, **limits)
        answer = Answer(rows.to_arrow_table(), _no_store(way))
    else:
        fraction = db.store.manifest.subset_fraction
        limits |= {"kind": kind, "settle": settle, "threshold": threshold, "outcome": way.outcome}
        answer = answer_of(db, db.plan(half_width, **examples, **limits), way)
    kept = f"subsets of {fraction:g} \u00b7 outcome {way.outcome}"
    title = f"Models for {way.level * 100:g} % {way.interval} intervals \u00b7 {kept}"
    emit(answer, way, lambda shown: analysis.plan(shown, title, _score_named(examples)))
    if db is not None and answer.table.num_rows < 2:
        say("From 50 models on, a store's own rates say what most scores take.")


def _store_if_any(place: Place, *, named: bool) -> Database | None:
    """Return the store; None if it does not exist and the user did not name one."""
    try:
        return place.open()
    except NotFoundError:
        if place.store is not None or named:
            raise
        say(f"No store at {place.url}: planning one with subsets of {PLANNED_FRACTION:g}.")
        return None


def _no_store(way: Way) -> dict[str, Any]:
    return {
        "store": None, "snapshot": None, "models_sha256": None, "n_models": 0, "level": way.level,
        "interval": way.interval, "outcome": way.outcome,
    }  # fmt: skip


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
    memdb convergence --train-id 7 --test-id 42 --plot influence.svg
    """  # noqa: D301
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
        return analysis.stacked(found, "", curves.curve(curve_rows(width), score, way.level, width))

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
    """Say how far two random halves of the models agree, on memorization or on the influences on an example.

    If halves agree, the whole store can be trusted at least as far. Spearman-Brown predicts the correlation
    of two whole stores of this size; its square root, that of this store with the truth.

    \b
    memdb reliability
    memdb reliability --test-id 42 -k 5 -k 50
    """  # noqa: D301
    db = place.open()
    rows = db.reliability(
        test_id=test_id, k=k, splits=splits, seed=seed, threshold=threshold, outcome=way.outcome
    )
    score = "memorization" if test_id is None else "influence"
    of = "memorization" if test_id is None else f"influence on test example {test_id}"
    title = f"Split-half reliability of {of} \u00b7 {splits} splits \u00b7 {facts_line(db, way)}"
    answer = _without_interval(db, rows, way)
    emit(answer, way, lambda shown: analysis.reliability(shown, title, score))


@app.command()
@at_place(ASKING)
def classes(
    place: Place,
    *,
    threshold: ThresholdOption = 0.25,
    way: PlainWay,
) -> None:
    """List the classes, the hardest to learn first.

    \b
    held out  consistency score: how often models that had not seen a training example are right on it
    in        the same of the models that had
    memor.    the mean difference of the two; then how many examples reach the threshold
    test      accuracy on test examples

    The same for each example is in the relation memorization: p_out is its consistency score.
    """  # noqa: D301
    db = place.open()
    answer = _without_interval(db, db.classes(threshold=threshold, outcome=way.outcome), way)
    title = f"Classes, the hardest first \u00b7 {facts_line(db, way)}"
    names = db.relations(way.outcome).examples[layout.TRAIN].class_names
    emit(answer, way, lambda shown: analysis.classes(shown, title, threshold, names))


@app.command()
@at_place(ASKING)
def class_influence(
    place: Place,
    way: PlainWay,
) -> None:
    """Show the mean influence of each class's training examples on each class's test examples.

    The mean over all pairs of one training and one test example, exactly. A star marks pairs of classes
    whose mean chance does not explain: of those marked, at most 5 % are false on average (q below .05).
    """
    db = place.open()
    answer = _without_interval(db, db.class_influence(outcome=way.outcome), way)
    title = f"Mean influence \u00b7 {facts_line(db, way)}"
    names = db.relations(way.outcome).examples[layout.TRAIN].class_names
    emit(answer, way, lambda shown: analysis.class_influence(shown, title, names))


def _without_interval(db: Database, rows: DuckDBPyRelation, way: Way) -> Answer:
    answer = answer_of(db, rows, way)
    return Answer(answer.table, {name: v for name, v in answer.facts.items() if name not in NO_INTERVAL})


@app.command()
@at_place(COMPARING)
def compare(
    place: Place,
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same data set.")],
    test_id: TestIdOption = None,
    scores_a: Annotated[
        str | None,
        typer.Option("--scores-a", metavar="NAME", help="Imported scores of A instead of its models."),
    ] = None,
    scores_b: Annotated[
        str | None,
        typer.Option("--scores-b", metavar="NAME", help="The same of B."),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Rows to show, and first ranks to compare.")] = 20,
    threshold: EitherThresholdOption = None,
    way: RankedWay,
) -> None:
    """Say how far two stores of one data set agree, and list the examples on which they differ most.

    On memorization or, with --test-id, on the influences on a test example: another architecture, another
    subset fraction, or the same recipe again. Counts of two stores are never added up. The interval of a
    difference is wide enough to hold even where the stores share models.

    \b
    memdb compare mlp.zarr cnn.zarr
    memdb compare mlp.zarr s3://bucket/cnn.zarr --test-id 42 -k 10
    """  # noqa: D301
    replace(place, store=a).require_use_of_options(others=[b])
    first, second = _opened(place, a, scores_a), _opened(place, b, scores_b)
    place.require_use_of_trust(first.store.manifest, second.store.manifest)
    if place.assume_models is not None and not any(db.imported_scores for db in (first, second)):
        raise InvalidInputError(
            "--assume-models is for imported scores, and models answer", hint="leave it out"
        )
    rows = first.compare(second, test_id=test_id, k=k, threshold=threshold, **way.asked)
    score = "memorization" if test_id is None else "influence"
    answer, common = _compared(first, second, rows, way)
    names = first.relations(way.outcome).examples[layout.TRAIN].class_names

    def table(shown: Answer) -> Table:
        stores = f"A {clean(a)}, B {clean(b)} \u00b7 outcome {way.outcome}"
        head = facts(analysis.agreement(common, k), stores)
        on = "" if test_id is None else f" on test example {test_id}"
        title = f"Where {score}{on} differs most"
        return analysis.stacked(head, "", analysis.differences(shown, title, score, names))

    emit(answer, way, table)
    if common["subset_fraction_a"] != common["subset_fraction_b"]:
        say("Their subset fractions differ: even with endless models their scores would.")
    for side, db in (("A", first), ("B", second)):
        if db.imported_scores is not None:
            say(f"{side} answers from the imported scores {clean(db.imported_scores.scores.table.name)}.")
    if not common["same_recipe"]:
        recipes = " and ".join(str(db.store.manifest.recipe) for db in (first, second))
        say(f"Their recipes differ: {clean(recipes)}.")


def _opened(place: Place, url: str, scores: str | None) -> Database:
    """Open one of two stores; options of storages are those of the one that has any."""
    chosen = replace(place, store=url, scores=scores, assume_models=None, typed=frozenset())
    if "://" not in url:
        chosen = replace(chosen, endpoint_url=None, anonymous=False, storage_option=None)
    db = chosen.open()
    assumed = place.assume_models is not None and db.imported_scores is not None
    return replace(chosen, assume_models=place.assume_models).open() if assumed else db


def _compared(
    first: Database, second: Database, rows: DuckDBPyRelation, way: Way
) -> tuple[Answer, dict[str, Any]]:
    """Return the rows, and what they all say of the two stores, which a document says once."""
    from memdb.analysis.compare import AGREEMENT

    answer = answer_of(first, rows, way)
    common = {name: value for name, value in next(answer.rows()).items() if name in AGREEMENT}
    stated = {
        **answer.facts,
        "other_store": second.url,
        "other_models_sha256": second.models_sha256,
        **common,
    }
    table = answer.table if way.rows_stand_alone else answer.table.drop_columns(list(common))
    return Answer(table, stated), common
