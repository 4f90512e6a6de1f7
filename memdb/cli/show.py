"""Commands that show examples in the terminal and as figures: show, gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.options import (
    DataRootOption,
    GraphicsOption,
    OptionGroup,
    OwnDatasetOption,
    RankedIntervalOption,
)
from memdb.cli.output import Way, asked_of, facts_line, made, say_without_pictures
from memdb.cli.output import show as print_text
from memdb.cli.store_options import ASKING, SCORING, Place, at_place
from memdb.cli.usage import WrongUsageError
from memdb.cli.walls import wall_of
from memdb.errors import InvalidInputError
from memdb.render.answer import SUFFIXES, Answer, require_format
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, plain, size

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from memdb.database import Database
    from memdb.datasets.appearance import Contents
    from memdb.look.terminal import Wall

FIGURES = (".png", ".svg", ".pdf")


class Showing(Way):
    """How an example or a gallery is shown: in the terminal, as a figure in a file, or as numbers."""

    interval: str = "selected"
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a figure, .png, .svg or .pdf, or the numbers, .json, .ndjson, .csv or .parquet.",
        ),
    ] = None
    graphics: GraphicsOption = "auto"
    dataset: OwnDatasetOption = None
    data_root: DataRootOption = None

    def __init__(self, **given: Any) -> None:
        OptionGroup.__init__(self, **given)
        from memdb.render.graphics import require_graphics

        require_graphics(self.graphics)
        require_format(self.format)
        if self.output is None:
            return
        if self.is_figure:
            if self.format != "table":
                raise WrongUsageError(
                    f"--format {self.format} contradicts --output {self.output}", hint="omit one"
                )
            from memdb.look.figures import require_matplotlib

            require_matplotlib()
        elif self.output.suffix.lower() not in SUFFIXES:
            raise InvalidInputError(
                f"output {self.output} has a suffix that names no format",
                hint=f"use one of {', '.join((*FIGURES, *SUFFIXES))}",
                parameter="output",
            )

    @property
    def is_figure(self) -> bool:
        """Whether a file of a figure is named."""
        return self.output is not None and self.output.suffix.lower() in FIGURES

    @property
    def is_numbers(self) -> bool:
        """Whether rows are wanted for programs."""
        return not self.is_figure and (self.output is not None or self.format != "table")

    def contents(self, db: Database) -> Contents | None:
        """Return what shows examples; say so if nothing does."""
        contents, reason = db.contents_if_any(self.data_root, self.dataset)
        if contents is None:
            say_without_pictures(reason)
        return contents

    def present(
        self, contents: Contents | None, draw: Callable[[Any], Figure], hang: Callable[[Wall], None]
    ) -> None:
        """Draw to the file that was named, or hang pictures in the terminal."""
        if self.output is None:
            hang(wall_of(self.graphics, contents))
            return
        from memdb.look.figures import DPI
        from memdb.render.drawing import write_figure

        write_figure(draw(contents), self.output, DPI)
        say(f"Wrote {clean(self.output)}: {size(self.output.stat().st_size)}.")


def _print_numbers(db: Database, rows: pa.Table, way: Way, facts: Mapping[str, Any]) -> None:
    """Print rows for programs, or write them to the file."""
    answer = asked_of(db, rows, way)
    print_text(made(Answer(answer.table, {**answer.facts, **facts}), way, plain), way)


@app.command()
@at_place(SCORING, examples=("train", "test"))
def show(
    place: Place,
    *,
    examples: Mapping[str, Any],
    k: Annotated[int, typer.Option("-k", metavar="N", help="Partners each way.")] = 4,
    way: Showing,
) -> None:
    """Show an example: its picture, its score, and the examples that it helps and hurts most.

    A test example is shown with the training examples that helped and hurt it most. Scores of partners are
    those of top-influence, the memorization is that of score.

    \b
    memdb show --train-id 17
    memdb show --test-id 340 -k 6 --graphics blocks
    memdb show --train-key train/3.png -o example.svg
    """
    db = place.open()
    portrait = db.portrait(**examples, k=k, outcome=way.outcome, level=way.level)
    if way.is_numbers:
        _print_numbers(db, portrait.rows, way, {"example": portrait.facts})
        return

    def draw(contents: Contents | None) -> Figure:
        from memdb.look.figures import draw_portrait

        return draw_portrait(portrait, contents)

    way.present(way.contents(db), draw, lambda wall: wall.portrait(portrait))


class Suspecting(Showing):
    """The same of a list of suspected label errors, which is of predictions."""

    outcome: str = "prediction"
    interval: RankedIntervalOption = "selected"


@app.command("label-errors")
@at_place(ASKING)
def label_errors(
    place: Place,
    *,
    k: Annotated[int, typer.Option("-k", metavar="N", help="How many to list.")] = 20,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Only examples with this label, by name or number."),
    ] = None,
    min_memorization: Annotated[
        float | None,
        typer.Option(
            "--min-memorization", metavar="X", help="Only training examples at or above this memorization."
        ),
    ] = None,
    way: Suspecting,
) -> None:
    """List the training examples whose label is most likely wrong.

    Models that were trained without an example vote on its class. Listed are those that more of them take for
    another class than for their own, by how many more, as if one more had voted for neither: few votes count
    less. The store must keep the outcome prediction.

    \b
    agree     share of these models that predict the class listed under rather
    as given  share that predicts the given label
    memor.    memorization: near 1 where models with the example learn its label by heart

    \b
    memdb init --outcomes correct,logit_confidence,prediction
    memdb label-errors -k 50 -o suspects.csv
    memdb label-errors -k 16 -o suspects.png
    memdb init --without-ids suspects.csv --store cleaner.zarr
    """
    db = place.open()
    rows = db.label_errors(
        k, class_name=class_name, min_memorization=min_memorization, level=way.level, interval=way.interval
    )
    if way.is_numbers:
        _print_numbers(db, rows, way, {"class": class_name})
        return
    from memdb.look.suspects import suspects
    from memdb.render.analysis import label_errors as table

    relations = db.relations()
    shown = suspects(relations, rows, way.level, way.interval)

    def draw(contents: Contents | None) -> Figure:
        from memdb.look.figures import draw_suspects

        return draw_suspects(shown, contents)

    if not way.is_figure:
        title = f"Suspected label errors \u00b7 {facts_line(db, way)}"
        console().print(table(Answer(rows, {}), title, relations.class_names))
    way.present(way.contents(db), draw, lambda wall: wall.suspects(shown))


class Exhibited(OptionGroup):
    """What a gallery shows."""

    by: Annotated[str, typer.Option("--by", metavar="WHAT", help="memorization, or influence.")] = (
        "memorization"
    )
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Only this class, by name or number."),
    ] = None
    k: Annotated[int, typer.Option("-k", metavar="N", help="Pictures in a row.")] = 4
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", help="Training examples, with --by influence.")
    ] = 3
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of what is chosen at random.")] = 0


@app.command()
@at_place(SCORING)
def gallery(
    place: Place,
    *,
    choice: Exhibited,
    way: Showing,
) -> None:
    """Show a gallery of examples, as Feldman and Zhang (2020) do in figures 2 and 3.

    \b
    --by memorization  training examples whose memorization is near 0, .25, .5, .75 and 1
    --by influence     memorized examples, the test examples that each helps most, and as a control as many
                       random test examples of its class
    \b
    memdb gallery -o memorization.pdf
    memdb gallery --by influence -k 5 --rows 2 -o influence.png
    memdb gallery --class 7
    """
    db = place.open()
    with Counting(console(stderr=True), "pairs") as counting:
        shown = db.exhibits(**vars(choice), outcome=way.outcome, level=way.level, progress=counting)
    if way.is_numbers:
        kind = "simultaneous" if choice.by == "memorization" else "selected"
        numbers = Showing(**vars(way), interval=kind)
        facts = {"by": choice.by, "class": choice.class_name, "seed": choice.seed}
        _print_numbers(db, shown.rows, numbers, facts)
        return

    def draw(contents: Contents | None) -> Figure:
        from memdb.look.figures import draw_gallery

        return draw_gallery(shown, contents)

    way.present(way.contents(db), draw, lambda wall: wall.gallery(shown))
