"""Commands about other people's attribution scores: lds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from memdb.cli.app import app
from memdb.cli.options import FormatOption, LevelOption, OutputOption, ShownOption
from memdb.cli.output import Way, emit, with_common
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.render import analysis
from memdb.render.answer import Answer
from memdb.render.progress import Counting
from memdb.render.tables import clean, console

SHOWN = 20  # rows of a table


@app.command()
@at_place(ASKING)
def lds(
    place: Place,
    scores: Annotated[
        Path, typer.Argument(metavar="SCORES.npy", help="Attribution scores [test, train], any real numbers.")
    ],
    k: ShownOption = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            "--outcome",
            metavar="NAME",
            help="logit_confidence, margin or correct. [default: the first of them that the store keeps]",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models",
            metavar="FILE",
            help="Held-out models: a .csv with a column model_id, or an id a line.",
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", metavar="N", help="Of the models, for intervals.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the resamples.")] = 0,
    level: LevelOption = 0.95,
    format: FormatOption = "table",
    output: OutputOption = None,
) -> None:
    """Grade somebody's attribution scores: the linear datamodeling score over the store's models.

    Scores are a matrix with a row a test example and a column a training example. For each test example:
    Spearman's correlation, over models, of the sum of its scores over a model's subset with what that model
    says of it. Models must not be those that the scores were computed from. Intervals resample the models.

    \b
    memdb lds trak.npy
    memdb lds trak.npy --outcome correct -o lds.csv
    """  # noqa: D301
    from memdb.interop.arrays import open_array
    from memdb.training.loop import require_positive

    if k is not None:
        require_positive(k, "k")
    file = open_array(scores)
    if file.dtype.kind not in "fiu":
        raise InvalidInputError(f"{scores} is {file.dtype}", hint="give real numbers")
    way = Way(format, output, level, "bootstrap", outcome or "default")
    db = place.open()
    ids = None if models is None else _model_ids(models)
    with Counting(console(stderr=True), "test examples") as counting:
        rows = db.lds(
            file,
            outcome=outcome,
            model_ids=ids,
            resamples=resamples,
            seed=seed,
            level=level,
            progress=counting,
        )
    if k is not None:
        rows = rows.limit(k)
    answer, common = with_common(db, rows, way, ("mean_", "n_", "outcome"))
    answer = Answer(answer.table, {**answer.facts, "outcome": common["outcome"]})
    names = db.relations().examples[layout.TEST].class_names
    title = f"Linear datamodeling score of {clean(scores)} \u00b7 outcome {common['outcome']}"
    emit(answer, way, lambda shown: analysis.lds(shown, common, title, names, k or SHOWN))


def _model_ids(path: Path) -> list[str]:
    """Return the ids of models in a file: its column model_id, or a line each."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error}", hint="give ids of models, one a line"
        ) from error
    if rows and "model_id" in rows[0]:
        column = rows[0].index("model_id")
        return [row[column].strip() for row in rows[1:] if len(row) > column]
    return [row[0].strip() for row in rows]
