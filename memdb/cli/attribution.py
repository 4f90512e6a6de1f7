"""Commands that judge scores of pairs by models: lds, frontier."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.facts import with_common
from memdb.cli.options import OptionGroup, ShownOption, listed
from memdb.cli.output import Way, emit, facts_line
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.render import attribution, curves
from memdb.render import frontier as figures
from memdb.render.answer import Answer, require_format
from memdb.render.frontier import AXES, CURVES, require_choice
from memdb.render.progress import Counting
from memdb.render.tables import clean, console

if TYPE_CHECKING:
    from duckdb import DuckDBPyRelation

    from memdb.analysis.attribution.estimates import Attribution
    from memdb.database import Database

SHOWN = 20  # rows of a table
MEANINGS = {  # of the names in `memdb.analysis.attribution.estimators.ESTIMATORS`, which takes long to import
    "raw": "differences of means, as score gives them",
    "shrunk": "the same without what chance does",
    "informed": "calibrated predictions from gradient sketches and raw scores",
    "trak": "TRAK's scores from the same sketches",
    "random": "numbers that know nothing",
}


class Grading(OptionGroup):
    """What is graded beside files, and by which models."""

    estimator: Annotated[
        list[str] | None,
        typer.Option(
            "--estimator",
            metavar="NAME",
            help=f"Grade an estimator of the store's own, too; repeat for more. {listed(MEANINGS)} "
            "[default: all where no file is named]",
            show_default=False,
        ),
    ] = None
    pilots: Annotated[
        int | None,
        typer.Option(
            "--pilots",
            metavar="N",
            help="Models that estimators compute from. [default: half]",
            show_default=False,
        ),
    ] = None
    tests: Annotated[
        int,
        typer.Option("--tests", metavar="N", help="Test examples that estimators are graded on, at most."),
    ] = 500
    outcome: Annotated[
        str | None,
        typer.Option(
            "--outcome",
            metavar="NAME",
            help="logit_confidence, margin or correct. [default: the first of them that the store keeps]",
            show_default=False,
        ),
    ] = None
    models: Annotated[
        Path | None,
        typer.Option(
            "--models",
            metavar="FILE",
            help="Held-out models: a .csv with a column model_id, or an id a line.",
        ),
    ] = None
    resamples: Annotated[
        int, typer.Option("--resamples", metavar="N", help="Of the models, for intervals.")
    ] = 200
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the resamples.")] = 0

    def sample(self) -> dict[str, Any]:
        """Return what `Database` calls those that any grade takes."""
        model_ids = None if self.models is None else _model_ids(self.models)
        return {
            "outcome": self.outcome,
            "model_ids": model_ids,
            "resamples": self.resamples,
            "seed": self.seed,
        }


class Judged(OptionGroup):
    """What is judged, and by which truth."""

    estimator: Annotated[
        list[str] | None,
        typer.Option(
            "--estimator",
            metavar="NAME",
            help=f"One of {', '.join([*MEANINGS, 'screened'])}; repeat for more. [default: all that the "
            "store has what it takes for]",
            show_default=False,
        ),
    ] = None
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            "--scores",
            metavar="FILE",
            help="Somebody's scores, too: .npy or .npz, [test, train] or pairs; repeat for more.",
            show_default=False,
        ),
    ] = None
    models: Annotated[
        list[int] | None,
        typer.Option(
            "--models",
            metavar="N",
            help="Numbers of models to look at; repeat for more. [default: 25, 50, 100, ...]",
            show_default=False,
        ),
    ] = None
    truth: Annotated[
        int | None,
        typer.Option(
            "--truth",
            metavar="N",
            help="Models set apart for the truth. [default: two thirds of all]",
            show_default=False,
        ),
    ] = None
    k: Annotated[
        list[int] | None,
        typer.Option(
            "-k", metavar="N", help="Length of a list of strongest pairs; repeat for more. [100, 500]"
        ),
    ] = None
    tests: Annotated[
        int | None,
        typer.Option(
            "--tests",
            metavar="N",
            help="Test examples, drawn at random, whose pairs are judged. [default: up to 1,000]",
            show_default=False,
        ),
    ] = None


class BootstrapWay(Way):
    """How grades are wanted; their outcome is by default the best that the store keeps."""

    outcome: str = "default"
    interval: str = "bootstrap"


class FigureWay(Way):
    """How the frontier is wanted: as rows, or as the figure alone where the file is a picture."""

    interval: str = "fixed"

    def __init__(self, **given: Any) -> None:
        OptionGroup.__init__(self, **given)
        require_format(self.format)
        if self.picture is None:
            super().__init__(**given)

    @property
    def picture(self) -> Path | None:
        """The file, if it is a picture."""
        is_picture = self.output is not None and self.output.suffix.lower() in curves.PLOTS
        return self.output if is_picture else None


@app.command()
@at_place(ASKING)
def lds(
    place: Place,
    *,
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SCORES.npy]...",
            help="Attribution scores [test, train], any real numbers; or an .npz file with them or pairs.",
            show_default=False,
        ),
    ] = None,
    k: ShownOption = None,
    grading: Grading,
    way: BootstrapWay,
) -> None:
    """Grade attribution scores by the linear datamodeling score, and say how much better any could be.

    For each test example: Spearman's correlation, over models, of the sum of its scores over a model's subset
    with what that model says of it. Models must not be those that the scores were computed from. Intervals
    resample the models.

    \b
    One file     its score on every test example, over all models
    otherwise    the mean score of each file and of estimators that half of the models give, on the other half

    Even the true influences do not predict everything: much of what a model does is the noise of training.
    What follows from subsets as a sum shows in pairs of models: the more examples they share, the more alike
    are they. That share of the variance, h2, and the ceiling that it sets to all scores are shown, too, and
    h2 with masks permuted among models, which is 0 unless something is wrong.

    \b
    memdb lds trak.npy
    memdb lds trak.npy --outcome correct -o lds.csv
    memdb lds
    memdb lds trak.npy --estimator raw --estimator random
    """
    from memdb.training.loop import require_positive

    if k is not None:
        require_positive(k, "k")
    way.outcome = grading.outcome or way.outcome
    db = place.open()
    given = _opened(db, scores or [])
    options = grading.sample() | {"level": way.level}
    if len(given) == 1 and not grading.estimator:
        ((name, file),) = given.items()
        with Counting(console(stderr=True), "test examples") as counting:
            rows = db.lds(file, **options, progress=counting)
        _show_one(db, rows, way, name, k)
        return
    with Counting(console(stderr=True), None) as counting:
        rows = db.compare_lds(
            scores=given,
            estimators=grading.estimator or ([] if given else None),
            pilots=grading.pilots,
            tests=grading.tests,
            **options,
            progress=counting,
        )
    _show_several(db, rows, way)


def _show_one(db: Database, rows: DuckDBPyRelation, way: Way, name: str, k: int | None) -> None:
    answer, common = with_common(db, rows, way, ("mean_", "n_", "outcome", "h2", "ceiling", "of_ceiling"), k)
    answer = Answer(answer.table, {**answer.facts, "outcome": common["outcome"]})
    names = db.relations().examples[layout.TEST].class_names
    title = f"Linear datamodeling score of {clean(name)} \u00b7 outcome {common['outcome']}"
    emit(answer, way, lambda shown: attribution.lds(shown, common, title, names, k or SHOWN))


def _show_several(db: Database, rows: DuckDBPyRelation, way: Way) -> None:
    shared = ("n_pilots", "n_held_out", "n_tests", "outcome", "h2", "ceiling")
    answer, common = with_common(db, rows, way, shared)
    answer = Answer(answer.table, {**answer.facts, "outcome": common["outcome"]})
    title = f"Linear datamodeling score \u00b7 outcome {common['outcome']}"
    emit(answer, way, lambda shown: attribution.estimators(shown, common, title))


@app.command()
@at_place(ASKING)
def frontier(
    place: Place,
    *,
    judged: Judged,
    measure: Annotated[
        str, typer.Option("--measure", metavar="NAME", help=f"What the curve shows: {', '.join(CURVES)}.")
    ] = "precision",
    against: Annotated[
        str, typer.Option("--against", metavar="NAME", help="What curves are over: models or seconds.")
    ] = "models",
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the figure to a .svg or .png file, too."),
    ] = None,
    way: FigureWay,
) -> None:
    """Show what few models are good for, judged by the others of the store.

    Two thirds of the models are set apart: the influences that they give are the truth. Estimates come from
    the others, the pilots, and from files of somebody's scores. How good are they?

    \b
    corr         correlation with the true influences, over all pairs
    p@100        precision: of the 100 strongest pairs, how many are among the first 100
    top10        of a test example's 10 strongest training examples, how many are among its first 10
    fz           of the pairs that Feldman and Zhang select, how many come first (feldman_zhang)
    err          error: root mean square on the 500 strongest pairs
    sure         certified: pairs found at a false discovery rate of .1
    all, 1st     coverage of the intervals of all pairs, and of the first 500 (coverage_of_first)

    A second table says how many models raw scores, differences of means, need to be as good; ~ goes on beyond
    those looked at, for the correlation. The truth has noise of its own. It is taken out of correlation,
    error and coverage; what even the true influences would have of precision and top 10 is in the line
    "exact". Files have strength, too, the mean true influence of the first pairs, and certified_strength,
    that of the certified ones: no noise biases these.

    \b
    memdb frontier
    memdb frontier --scores trak.npy --plot frontier.svg
    memdb frontier -o frontier.csv
    """
    picture = plot or way.picture
    require_choice("measure", measure, CURVES)
    require_choice("against", against, AXES)
    if picture is not None:
        curves.require_plot(picture)
    db = place.open()
    with Counting(console(stderr=True), None) as counting:
        rows = db.frontier(
            estimators=judged.estimator,
            scores=_opened(db, judged.scores or []),
            models=judged.models,
            truth=judged.truth,
            k=judged.k or (100, 500),
            tests=judged.tests,
            outcome=way.outcome,
            level=way.level,
            progress=counting,
        )
    shared = ("n_pilots", "n_truth", "n_tests", "n_strong_tests", "n_pairs", "truth_")
    answer, common = with_common(db, rows, way, shared)
    title = f"Influences of few models, judged by others \u00b7 {facts_line(db, way)}"
    if picture is not None:
        figures.draw(picture, list(answer.rows()), title, against)
        say(f"Drew {picture}.")
    if way.picture is None:
        emit(answer, way, lambda shown: figures.frontier(shown, common, title, (measure, against)))


def _opened(db: Database, paths: Sequence[Path]) -> dict[str, Attribution]:
    """Return the scores of files, by their paths.

    Raises:
        InvalidInputError: a file that holds no scores, or is named twice.
    """
    from memdb.interop.attributions import open_attributions

    manifest = db.store.manifest
    shape = (manifest.set_named(layout.TEST).n_examples, manifest.train.n_examples)
    opened: dict[str, Attribution] = {}
    for path in paths:
        if str(path) in opened:
            raise InvalidInputError(f"{path} is named twice", hint="name it once")
        opened[str(path)] = open_attributions(path, shape)
    return opened


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
