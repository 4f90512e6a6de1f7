"""Commands that train models to answer one question: experiment removal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import INTERRUPTED, app, group, say
from memdb.cli.options import FormatOption, GraphicsOption, HowTrained, LevelOption, OptionGroup, OutputOption
from memdb.cli.output import Way, emit
from memdb.cli.store_options import MAKING, Place, at_place, split
from memdb.cli.training_run import watched
from memdb.cli.usage import WrongUsageError
from memdb.cli.walls import wall_of, way_of
from memdb.render import curves
from memdb.render import removal as rendered
from memdb.render.answer import Answer
from memdb.render.tables import console
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.experiment.report import Findings
    from memdb.look.losses import Losses

experiments = group("experiment", "Train models to answer one question: `removal`.")
app.add_typer(experiments)


class RemovalDesign(OptionGroup):
    """What is removed, and what beside it."""

    thresholds: Annotated[
        str | None,
        typer.Option(
            "--thresholds",
            metavar="X,Y,...",
            help="On memorization: examples at or above one are removed. [default: 0.1,0.25,0.5]",
            show_default=False,
        ),
    ] = None
    rules: Annotated[
        str | None,
        typer.Option(
            "--rules",
            metavar="NAMES",
            help="What must reach a threshold: raw scores, the lower ends of their simultaneous intervals, "
            "shrunk scores, or several, as in raw,lower,shrunk. [default: raw]",
            show_default=False,
        ),
    ] = None
    controls: Annotated[
        str | None,
        typer.Option(
            "--controls",
            metavar="NAMES",
            help="What is removed instead: as many at random, as many matched by class and held-out "
            "accuracy. [default: random,matched]",
            show_default=False,
        ),
    ] = None
    add_back: Annotated[
        bool,
        typer.Option(
            "--add-back", help="Also add each slice between two thresholds to the examples below the lowest."
        ),
    ] = False
    fraction: Annotated[
        float | None,
        typer.Option("--fraction", metavar="P", help="Train on a random share of what is left, not on all."),
    ] = None
    scores_from: Annotated[
        str | None,
        typer.Option(
            "--scores-from",
            metavar="URL",
            help="Another store of the same data whose scores choose, such as one of other subsets.",
        ),
    ] = None


class HowMany(OptionGroup):
    """How far the experiment is to grow."""

    models: Annotated[
        int | None,
        typer.Option(
            "--models",
            "-n",
            metavar="N",
            help="How many models each arm is to have. [default: 20, or what the fullest arm has]",
            show_default=False,
        ),
    ] = None
    add: Annotated[
        int | None, typer.Option("--add", metavar="N", help="How many more models for each arm instead.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of all that a new experiment draws; random if not given."),
    ] = None


class RemovalWay(Way):
    """How the answer is wanted: an --output that names a picture is one."""

    outcome: str = "correct"
    level: LevelOption = 0.95
    interval: str = "anytime"
    format: FormatOption = "table"
    output: OutputOption = None
    graphics: GraphicsOption = "auto"
    plot: Path | None = None

    def __init__(self, **given: Any) -> None:
        output = given.get("output")
        if output is not None and output.suffix.lower() in curves.PLOTS:
            given |= {"output": None, "plot": curves.require_plot(output)}
        super().__init__(**given)
        from memdb.render.graphics import require_graphics

        require_graphics(self.graphics)

    @property
    def has_pictures(self) -> bool:
        """Whether examples are shown: in a figure, or in a terminal that can."""
        is_seen = self.format == "table" and self.output is None and way_of(self.graphics) != "none"
        return self.plot is not None or is_seen


@experiments.command("removal")
@at_place(MAKING)
def removal(
    place: Place,
    *,
    into: Annotated[
        str, typer.Option("--into", metavar="URL", help="The experiment's own store; made if absent.")
    ] = "removal.zarr",
    design: RemovalDesign,
    many: HowMany,
    lost: Annotated[
        int,
        typer.Option("--lost", metavar="K", help="Show the K test examples that lose most; 0 for none."),
    ] = 5,
    how: HowTrained,
    way: RemovalWay,
) -> None:
    """Ask what it costs to train without the memorized examples, beside as many others.

    For each threshold, models are trained on all examples but those memorized at or above it, and as many
    models without as many random examples (random), or without examples of the same classes that held-out
    models get right about as often (matched). Each interval of a difference holds however often you look:
    add models until it separates from 0. Run the same command again after an interruption; it goes on.

    \b
    n          models of each arm, whose accuracies are compared one by one
    left       share of the training set that models are trained on
    accuracy   on the test set, without the memorized, and without the control
    difference of the control minus the memorized: what the memorized ones are worth beyond the control's
    no twins   the same, without test examples of which a removed one all but decides the outcome (influence
               of 0.9 or more) or is nearly the same (see memdb duplicates)
    held out   how often models that held them out are right on the removed, and on those of the control

    The store that chooses what to remove is only read. Its models never judge: those of the experiment are
    in --into, which lists what each excludes and answers no other questions.

    \b
    memdb experiment removal --models 20
    memdb experiment removal --thresholds 0.25,0.5 --rules raw,lower,shrunk --add 20 --workers 2
    memdb experiment removal --scores-from half.zarr --into half-removal.zarr -o curves.svg
    """
    from dataclasses import replace

    if lost < 0:
        raise WrongUsageError(f"--lost {lost} is not a number from 0", hint="use e.g. --lost 5")
    db = place.open()
    given = _settings(design)
    if design.scores_from is not None:
        given["scores_from"] = replace(place, store=design.scores_from, typed=frozenset()).open()
    findings = _run_visibly(db, place, into, given | vars(many), vars(how), way)
    chooser: Database = given.get("scores_from", db)
    same = chooser.store.manifest.store_id == findings.experiment.source.store_id
    losses = findings.losses(lost, chooser.relations() if same else None) if lost else None
    facts = findings.facts() | {"store": db.url}
    if losses is not None and losses.num_rows:
        facts["lost"] = list(Answer(losses, {}).rows())
    answer = Answer(findings.rows(), facts)
    emit(answer, way, lambda shown: rendered.table(shown, console().width))
    pictures = _pictures(db, chooser, facts.get("lost", ()), how) if way.has_pictures else None
    if pictures is not None and way.plot is None:
        wall = wall_of(way.graphics, pictures.contents)
        for strip in pictures.strips:
            wall.strip(strip)
    if way.plot is not None:
        rendered.draw(way.plot, answer, pictures.with_captions() if pictures else ())
        say(f"Drew {way.plot}.")


def _pictures(
    db: Database, chooser: Database, lost: Sequence[Mapping[str, Any]], how: HowTrained
) -> Losses | None:
    """Return the test examples that lose most, as pictures; None if it is unknown what they look like."""
    from memdb.look.losses import Losses

    contents = db.contents_if_any(how.data_root, how.dataset)[0] if lost else None
    return None if contents is None else Losses.of(lost, chooser.relations(), contents)


def _settings(design: RemovalDesign) -> dict[str, Any]:
    """Return what `Database.removal_experiment` calls the options that were given."""
    given = {name: value for name, value in design.given.items() if name != "scores_from"}
    for name in ("rules", "controls"):
        if name in given:
            given[name] = split(given[name])
    if "thresholds" in given:
        try:
            given["thresholds"] = [float(text) for text in split(given["thresholds"])]
        except ValueError as error:
            raise WrongUsageError(
                f"--thresholds {given['thresholds']!r} are not numbers",
                hint="use e.g. --thresholds 0.1,0.25,0.5",
            ) from error
    return given


def _run_visibly(
    db: Database, place: Place, into: str, given: dict[str, Any], how: dict[str, Any], way: Way
) -> Findings:
    """Run the experiment with a progress bar; on Ctrl-C or SIGTERM say what is kept and how to go on."""
    from memdb.store import Access

    access = Access(place.options_of_base(into), cache=place.cache())
    findings, last = watched(
        db.removal_experiment, compares=True, into=into, **given, level=way.level, access=access, **how
    )
    if findings is None:
        again = place.command(f"experiment removal --into {into}")
        n = last.n_committed
        say(
            f"Stopped. {count(n, 'model')} {verb(n, 'was', 'were')} added to {into}; those in flight were "
            "dropped.",
            f"Go on with: {again}, and the same --models.",
        )
        sys.exit(INTERRUPTED)
    return findings
