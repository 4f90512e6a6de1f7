"""Commands that ask: info, top-memorized, top-influence, score, sql."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from memdb.cli.about import print_info
from memdb.cli.app import app
from memdb.cli.estimator_options import NamedChoice, RankedChoice, remark_on_estimator
from memdb.cli.options import (
    InfluenceRanking,
    KOption,
    MemorizedRanking,
    OptionGroup,
    SameClassOption,
)
from memdb.cli.output import (
    RankedWay,
    Way,
    print_influences,
    print_memorized,
    print_score,
    remark_on_scores,
    rows_of_statement,
    show,
)
from memdb.cli.store_options import ASKING, SCORING, Place, at_place, memory_limit
from memdb.cli.supervision import limited
from memdb.files import half_written


@app.command()
@at_place(ASKING)
def info(
    place: Place,
    way: Way,
) -> None:
    """Say what is in a store, how well its models do and how tight its intervals are."""
    db = place.open()
    print_info(db, db.info(**way.asked), way)


@app.command()
@at_place(SCORING)
def top_memorized(
    place: Place,
    *,
    k: KOption = 20,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Only this class, by name or number."),
    ] = None,
    ranking: MemorizedRanking,
    way: RankedWay,
) -> None:
    """List the training examples that the models get right only if they saw them.

    \b
    memorization(i) = P[correct on i | i in the subset] - P[correct on i | i held out]
    \b
    shrunk  what is left of a score once luck is taken out; the list goes by it
    q       share of false findings among the rows up to this one, at most on average
    """
    db = place.open()
    rows = db.top_memorized(k, class_name=class_name, **vars(ranking), **way.asked)
    print_memorized(db, rows, way, class_name)


class ListedInfluences(OptionGroup):
    """Which influences are listed."""

    k: KOption = 20
    direction: Annotated[
        str, typer.Option("--direction", metavar="WAY", help="helps, hurts, or both by absolute value.")
    ] = "helps"
    same_class: SameClassOption = False


@app.command()
@at_place(SCORING, examples=("test", "train", "target"))
def top_influence(
    place: Place,
    *,
    examples: Mapping[str, Any],
    listing: ListedInfluences,
    ranking: InfluenceRanking,
    choice: RankedChoice,
    way: RankedWay,
) -> None:
    """List the strongest influences on, or of, one example.

    \b
    influence(i, z) = P[correct on z | i in the subset] - P[correct on z | i held out]
    \b
    --test-id    the training examples that made models get this test example right
    --train-id   the test examples that this training example helps
    --target-id  the training examples that made models get this training example right
    \b
    memdb top-influence --test-id 340
    memdb top-influence --train-id 7 --direction both --format json
    memdb top-influence --test-id 340 --estimator informed
    \b
    shrunk  what is left of a score once luck is taken out; the list goes by it
    q       share of false findings among the rows up to this one, at most on average
    """
    db = place.open()
    rows = db.top_influence(**examples, **vars(listing), **choice.chosen, **vars(ranking), **way.asked)
    fixed = next(name for name, value in examples.items() if value is not None)
    print_influences(db, rows, way.by(db, choice), fixed.replace("_key", "_id"))


@app.command()
@at_place(SCORING, examples=("train", "test", "target"))
def score(
    place: Place,
    examples: Mapping[str, Any],
    choice: NamedChoice,
    way: Way,
) -> None:
    """Show one score with everything behind it: a memorization, or the influence on one example.

    \b
    memdb score --train-id 7
    memdb score --train-id 258 --test-id 340
    """
    db = place.open()
    rows = db.score(**examples, **choice.named, **way.asked)
    print_score(db, rows, way.by(db, choice))


class LimitOptions(OptionGroup):
    """How much a statement may do."""

    k: Annotated[int | None, typer.Option("-k", metavar="N", help="Rows to show; all if not given.")] = None
    max_pairs: Annotated[
        int,
        typer.Option("--max-pairs", metavar="N", help="Stop a statement that counts more pairs than this."),
    ] = 100_000_000
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="End a statement that runs longer.")
    ] = 600.0
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="The most memory it may take, such as 1GB in total."),
    ] = "4GB"


@app.command()
@at_place(SCORING)
def sql(
    place: Place,
    *,
    statement: Annotated[
        str, typer.Argument(metavar="STATEMENT", help="One SQL statement, as DuckDB takes it.")
    ],
    limits: LimitOptions,
    choice: NamedChoice,
    way: Way,
) -> None:
    """Ask in SQL, over the relations of the store; files, network and settings are out of reach.

    Relations: models, train_examples, test_examples, memorization, influence, train_influence, and
    influence_of([ids]) for several test examples. Pairs are counted when a filter on ids asks for them.
    Imported scores are beside them as NAME.memorization and NAME.influence.

    \b
    memdb sql "SELECT train_id, influence, lo, hi FROM influence WHERE test_id = 340
               ORDER BY influence DESC LIMIT 20"
    memdb sql "SELECT class_name, avg(memorization) FROM memorization
               JOIN train_examples ON id = train_id GROUP BY ALL ORDER BY 2 DESC"
    memdb sql "DESCRIBE influence"
    """
    from memdb.query import questions, statements
    from memdb.query.intervals import IntervalSpec
    from memdb.query.options import StatementLimits

    n_bytes, seconds = memory_limit(limits.memory), questions.require_timeout(limits.timeout)
    db = place.open()
    with limited(seconds, n_bytes, None if way.output is None else half_written(way.output)):
        way = way.by(db, choice)
        relations = db.relations_in(statement, way.outcome, **choice.named, memory=n_bytes)
        batches = questions.sql_batches(
            relations,
            statement,
            IntervalSpec(way.interval, way.level),
            k=limits.k,
            as_text=statements.out_of_parquet if way.is_parquet else statements.out_of_python,
            limits=StatementLimits(limits.max_pairs, seconds),
        )
        answer, text = rows_of_statement(db, batches, way)
    show(text, way)
    remark_on_scores(answer)
    remark_on_estimator(answer)
