"""Commands for other people's files and attacks: import, export, membership."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memdb.cli.app import app, say
from memdb.cli.facts import with_common
from memdb.cli.options import DataRootOption, LevelOption, OptionGroup, OutcomeOption, PairBounds, ShownOption
from memdb.cli.output import PlainWay, emit, facts_line
from memdb.cli.store_options import ASKING, SCORING, WRITING, Place, at_place, split
from memdb.cli.supervision import limited
from memdb.cli.usage import WrongUsageError
from memdb.errors import InvalidInputError
from memdb.files import half_written
from memdb.format import layout
from memdb.query.options import MEMORY, TIMEOUT_SECONDS
from memdb.render import analysis
from memdb.render.answer import Answer
from memdb.render.progress import Counting
from memdb.render.tables import clean, console
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.interop.export import Exported
    from memdb.interop.import_runs import Imported
    from memdb.interop.import_scores import ImportedScores

SHOWN = 20  # rows of a table


class ImportOptions(OptionGroup):
    """What `memdb.import_file` takes beside the file and the store."""

    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME",
            help="The data set, where memdb can load it: as for `memdb init`.",
        ),
    ] = None
    data_root: DataRootOption = None
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Else what to call it; equal names mean equal data."),
    ] = None
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", metavar="TEXT", help="What to call how the models were trained."),
    ] = None
    subset_fraction: Annotated[
        float | None,
        typer.Option(
            "--subset-fraction",
            metavar="P",
            help="That masks were drawn with. [default: what explains their sizes]",
            show_default=False,
        ),
    ] = None
    outcomes: Annotated[
        str | None,
        typer.Option("--outcomes", metavar="NAMES", help="What to keep, such as correct; all if not given."),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="A .npy file of the training examples' labels."),
    ] = None
    scores_name: Annotated[
        str | None,
        typer.Option(
            "--scores-name",
            metavar="TEXT",
            help="What to call published scores. [default: the file's name]",
            show_default=False,
        ),
    ] = None
    n_train: Annotated[
        int | None,
        typer.Option("--n-train", metavar="N", help="Training examples, for scores that do not say."),
    ] = None
    n_test: Annotated[
        int | None,
        typer.Option("--n-test", metavar="N", help="Test examples, for scores that do not say."),
    ] = None


@app.command("import")
@at_place(WRITING)
def import_(
    place: Place,
    path: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="A file (.npz, .npy, .csv, .parquet), a folder, or files of one thing."
        ),
    ],
    about: ImportOptions,
) -> None:
    """Import somebody's runs, or scores that they published, into a store, created if absent.

    \b
    your own runs    mask [models, train], train_correct [models, train], test_correct [models, test]
    Feldman-Zhang    trainset_mask, trainset_correctness, testset_correctness; aux_arrays.npz, one a run
    datamodels       masks and margins: right is a margin above 0
    LiRA             keep and scores or logits, one folder a model or all in one; no test examples
    privacy_meter    memberships and signals
    scores           memorization, influence, infl_matrix_class0, ..., pairs in CSV or Parquet, C-scores

    What `memdb export` writes comes back. Runs may be spread over many files. What is needed is looked at
    whole before anything is written, never unpickled, and may be bigger than memory.
    Models are recognized by their subsets and outcomes: the same file again adds nothing.

    \b
    memdb import runs.npz --store mine.zarr
    memdb import ~/lira/exp/cifar10 --dataset cifar10 --data-root ~/data --store lira.zarr
    memdb import cifar100_infl_matrix.npz --store published.zarr
    memdb import imagenet_infl_matrix.npz imagenet_index.npz --store imagenet.zarr
    """
    from memdb import create
    from memdb.interop.import_runs import Imported

    with Counting(console(stderr=True), "models") as counting:
        given = vars(about) | {"outcomes": None if about.outcomes is None else split(about.outcomes)}
        done = create.import_file(
            path[0] if len(path) == 1 else path,
            place.url,
            **given,
            storage_options=place.storage_options(),
            progress=counting,
        )
    if isinstance(done, Imported):
        _say_runs(place, done)
    else:
        _say_scores(place, done)


def _say_runs(place: Place, done: Imported) -> None:
    manifest = done.store.manifest
    sets = " and ".join(f"{item.n_examples:,} {item.name}" for item in manifest.sets)
    if done.created:
        say(
            f"Created {place.url}: {clean(manifest.dataset)}, {sets} examples, "
            f"subsets of {manifest.subset_fraction:g}."
        )
    known = done.n_models - done.n_added
    there = f"; {known:,} of them {verb(known, 'was', 'were')} there already" if known else ""
    say(
        f"Added {count(done.n_added, 'model')} of {done.n_models:,} ({done.kind}) to {place.url}{there}.",
        *(clean(note) for note in done.notes),
    )
    say(f"Next: {place.command('top-memorized')}")


def _say_scores(place: Place, done: ImportedScores) -> None:
    table = done.table
    what = f"{count(table.n_memorization, 'memorization score')} and {count(table.n_influence, 'pair')}"
    if not done.added:
        say(f"{place.url} has these scores already, as {table.name}: {what}.")
        return
    say(
        f"Added the scores {table.name} to {place.url}: {what}.",
        *(clean(note) for note in done.notes),
        "Without counts there are no intervals; --assume-models and --assume-fraction give rough ones.",
        f"Next: {place.command('top-memorized')} --scores {table.name}",
    )


class Conditions(OptionGroup):
    """Which training examples are listed."""

    drop: Annotated[
        str | None,
        typer.Option(
            "--drop",
            metavar="CONDITION",
            help="List the training examples to drop: those for which this SQL condition is true.",
        ),
    ] = None
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="CONDITION", help="List those to keep instead.")
    ] = None


@app.command()
@at_place(SCORING)
def export(
    place: Place,
    *,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or for models a new folder.")],
    what: Annotated[
        str,
        typer.Option(
            "--what",
            metavar="NAME",
            help="memorization, pairs, fz-pairs, fz-classes, models, lira or ids, as --drop and --keep mean.",
        ),
    ] = "memorization",
    bounds: PairBounds,
    conditions: Conditions,
    outcome: OutcomeOption = "correct",
    level: LevelOption = 0.95,
) -> None:
    """Write what the store knows as files that other people's code reads.

    \b
    memorization  .parquet, .csv; .npz: an array a column
    pairs         the same; needs --min-influence or --top
    fz-pairs      .npz with tr_idx, tt_idx, infl, mem, as Feldman and Zhang published theirs
    fz-classes    .npz with tr_mem, tr_labels, tt_labels and, for each class, infl_matrix_class0, ...
    models        .npz or a folder of .npy: mask, train_correct, test_correct, ..., [models, examples]
    lira          the same with keep and scores
    ids           .csv, .parquet, .json, or text with a key a line, for `memdb init` to take or to exclude

    A condition may name the columns of train_examples and memorization in `memdb sql`, and shrunk and
    q_value, or q, of `memdb top-memorized`.

    \b
    memdb export memorization.csv
    memdb export pairs.npz --what fz-pairs --min-influence 0.15 --min-memorization 0.25
    memdb export runs.npz --what models
    memdb export ids.csv --drop 'memorization > .5 and q < .1'
    """
    db = place.open()
    what = _wanted(what, place, conditions, bounds)
    bounding = {} if what in {"memorization", "ids"} else vars(bounds)
    of_condition = (TIMEOUT_SECONDS, MEMORY, half_written(path), "condition")
    with (
        limited(*of_condition) if conditions.given else contextlib.nullcontext(),
        Counting(console(stderr=True), "done") as counting,
    ):
        done = db.export(
            path, what, outcome=outcome, progress=counting, level=level, **vars(conditions), **bounding
        )
    if what == "ids":
        _say_ids(db, path, done, to_drop=conditions.drop is not None)
        return
    shapes = [f"{name} {list(shape)}" for name, shape in done.arrays.items()]
    shown = ", ".join(shapes[:8]) + (f" and {len(shapes) - 8} more" if len(shapes) > 8 else "")
    say(f"Wrote {what} to {path}: {shown}.")


def _wanted(what: str, place: Place, conditions: Conditions, bounds: PairBounds) -> str:
    """Return what to export, ids if there is a condition.

    Raises:
        WrongUsageError: a condition for something else.
        InvalidInputError: bounds of pairs for something else.
    """
    if conditions.given and "what" not in place.typed:
        what = "ids"
    elif conditions.given and what != "ids":
        raise WrongUsageError(
            f"--{next(iter(conditions.given))} does nothing without --what ids", hint="omit one of them"
        )
    if not what.endswith("pairs") and bounds.given:
        raise InvalidInputError(f"{what} has no pairs to choose from", hint="omit what bounds pairs")
    return what


def _say_ids(db: Database, path: Path, done: Exported, *, to_drop: bool) -> None:
    from memdb.datasets import is_loadable

    n_listed, n_train = done.arrays["train_id"][0], db.store.manifest.train.n_examples
    action, option = ("drop", "--without-ids") if to_drop else ("keep", "--only-ids")
    say(f"Wrote {count(n_listed, 'training example')} of {n_train:,} to {action} to {clean(path)}.")
    manifest = db.store.manifest
    if to_drop and manifest.kept is not None:
        say(
            "This store excludes others already: --keep '(CONDITION) IS NOT TRUE' lists what is left of both."
        )
        return
    if not is_loadable(manifest.dataset):
        argument = option.removeprefix("--").replace("-", "_")
        say(
            f"Next: memdb.init(url, dataset, recipe, {argument}={str(path)!r}) in Python, with the same data."
        )
        return
    dataset = "" if manifest.dataset == "digits" else f" --dataset {shlex.quote(manifest.dataset)}"
    n_left = n_train - n_listed if to_drop else n_listed
    say(
        f"Next: memdb init{dataset} {option} {shlex.quote(str(path))} --store NEW, with the recipe of this "
        f"store, makes a store of the {n_left:,} that are left."
    )


class MembershipWay(PlainWay):
    """How the results of an attack are wanted, which needs this outcome."""

    outcome: str = "logit_confidence"


@app.command()
@at_place(ASKING)
def membership(
    place: Place,
    *,
    k: ShownOption = None,
    variant: Annotated[
        str, typer.Option("--variant", metavar="NAME", help="online, or offline: without models that had it.")
    ] = "online",
    variance: Annotated[
        str,
        typer.Option(
            "--variance",
            metavar="NAME",
            help="example: of each its own; pooled: one for all; auto: by models.",
        ),
    ] = "auto",
    way: MembershipWay,
) -> None:
    """Run a membership-inference attack (LiRA) against the store's own models.

    The likelihood-ratio attack (LiRA) with each model in turn as the target and all others as the attacker's:
    AUC, and the share of members found where one in 1,000, 100 or 10 others is taken for one. Listed are the
    examples whose membership shows most; --output writes all of them. It needs logit confidences.

    \b
    memdb membership
    memdb membership --variant offline -o exposed.parquet
    """
    from memdb.training.loop import require_positive

    if k is not None:
        require_positive(k, "k")
    db = place.open()
    with Counting(console(stderr=True), "examples") as counting:
        rows = db.membership(variant=variant, variance=variance, progress=counting)
    names = db.relations().examples[layout.TRAIN].class_names
    title = f"Membership, {variant} attack \u00b7 {facts_line(db, way)}"
    most = SHOWN if k is None and way.output is None else k
    answer, common = with_common(db, rows, way, ("attack_", "tpr_", "n_targets"), most)
    answer = Answer(answer.table, {**answer.facts, "variant": variant, "variance": variance})
    emit(answer, way, lambda shown: analysis.membership(shown, common, title, names))
