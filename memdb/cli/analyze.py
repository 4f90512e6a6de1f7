"""Commands about many scores at once: classes, class-influence, compare."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.facts import without_interval
from memdb.cli.options import EitherThresholdOption, OptionGroup, TestIdOption, ThresholdOption
from memdb.cli.output import PlainWay, RankedWay, Way, answer_of, emit, facts_line
from memdb.cli.store_options import ASKING, ASSUMING, MAKING, Place, at_place
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.render import analysis
from memdb.render.answer import Answer
from memdb.render.tables import clean, facts, stacked

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation
    from rich.table import Table

    from memdb.database import Database

COMPARING = (*MAKING[1:], *ASSUMING)


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
    """
    db = place.open()
    answer = without_interval(db, db.classes(threshold=threshold, outcome=way.outcome), way)
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
    answer = without_interval(db, db.class_influence(outcome=way.outcome), way)
    title = f"Mean influence \u00b7 {facts_line(db, way)}"
    names = db.relations(way.outcome).examples[layout.TRAIN].class_names
    emit(answer, way, lambda shown: analysis.class_influence(shown, title, names))


class Compared(OptionGroup):
    """Which scores are compared."""

    test_id: TestIdOption = None
    scores_a: Annotated[
        str | None,
        typer.Option("--scores-a", metavar="NAME", help="Imported scores of A instead of its models."),
    ] = None
    scores_b: Annotated[
        str | None,
        typer.Option("--scores-b", metavar="NAME", help="The same of B."),
    ] = None
    k: Annotated[int, typer.Option("-k", metavar="N", help="Rows to show, and first ranks to compare.")] = 20
    threshold: EitherThresholdOption = None


@app.command()
@at_place(COMPARING)
def compare(
    place: Place,
    *,
    a: Annotated[str, typer.Argument(metavar="A", help="A store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same data set.")],
    asked: Compared,
    way: RankedWay,
) -> None:
    """Say how well two stores of one data set agree, and list the examples on which they differ most.

    On memorization or, with --test-id, on the influences on a test example: another architecture, another
    subset fraction, or the same recipe again. Counts of two stores are never added up. The interval of a
    difference is wide enough to hold even where the stores share models.

    \b
    memdb compare mlp.zarr cnn.zarr
    memdb compare mlp.zarr s3://bucket/cnn.zarr --test-id 340 -k 10
    """
    replace(place, store=a).require_use_of_options(others=[b])
    first, second = _opened(place, a, asked.scores_a), _opened(place, b, asked.scores_b)
    place.require_use_of_trust(first.store.manifest, second.store.manifest)
    if place.assume_models is not None and not any(db.imported_scores for db in (first, second)):
        raise InvalidInputError("--assume-models is for imported scores, and models answer", hint="omit it")
    rows = first.compare(second, test_id=asked.test_id, k=asked.k, threshold=asked.threshold, **way.asked)
    score = "memorization" if asked.test_id is None else "influence"
    answer, common = _compared(first, second, rows, way)
    names = first.relations(way.outcome).examples[layout.TRAIN].class_names

    def table(shown: Answer) -> Table:
        stores = f"A {clean(a)}, B {clean(b)} \u00b7 outcome {way.outcome}"
        head = facts(analysis.agreement(common, asked.k), stores)
        on = "" if asked.test_id is None else f" on test example {asked.test_id}"
        title = f"Where {score}{on} differs most"
        return stacked(head, "", analysis.differences(shown, title, score, names))

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
