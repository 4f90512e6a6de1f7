"""Commands that make models: init, train, demo."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memdb.cli.app import app, say
from memdb.cli.options import DataRootOption, DeviceOption, HowTrained, OptionGroup, SketchSizeOption
from memdb.cli.store_options import Place, at_place, split
from memdb.cli.training_run import Limited, train_visibly
from memdb.cli.usage import WrongUsageError
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database

KEPT = ("correct", "logit_confidence")
FIXED_BY_BASE = (
    "download",
    "recipe_option",
    "outcomes",
    "recipe_version",
    "subset_fraction",
    "sketches",
    "sketch_size",
    "only_ids",
    "without_ids",
)


class NewStore(OptionGroup):
    """What a store is to be of, as it was typed."""

    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME",
            help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder, or package.module:attribute. "
            "[default: digits]",
            show_default=False,
        ),
    ] = None
    data_root: DataRootOption = None
    download: Annotated[bool, typer.Option("--download", help="Let torchvision download the data set.")] = (
        False
    )
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            metavar="NAME",
            help="mlp, cnn, resnet9, torchvision:resnet18, sklearn:package.module.Class, "
            "or package.module:attribute. [default: mlp]",
            show_default=False,
        ),
    ] = None
    recipe_option: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe-option",
            "-p",
            metavar="NAME=VALUE",
            help="An option of the recipe, such as hidden=512,256; repeat for more.",
        ),
    ] = None
    recipe_version: Annotated[
        str | None,
        typer.Option(
            "--recipe-version",
            metavar="TEXT",
            help="For a recipe that names no version itself, or has several.",
        ),
    ] = None
    subset_fraction: Annotated[
        float | None,
        typer.Option(
            "--subset-fraction",
            metavar="P",
            help="Share of the training set in a subset. [default: 0.7]",
            show_default=False,
        ),
    ] = None
    outcomes: Annotated[
        str | None,
        typer.Option(
            "--outcomes",
            metavar="NAMES",
            help="What to keep: correct for bits alone; with logit_confidence ten times the space; "
            "cumulative_loss, first_learned and prediction, which class, as much again each. "
            "[default: correct,logit_confidence]",
            show_default=False,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of all subset masks; random if not given."),
    ] = None
    sketches: Annotated[
        int | None,
        typer.Option(
            "--sketches",
            metavar="N",
            help="Keep gradient sketches of the first N models, such as 10.",
        ),
    ] = None
    sketch_size: SketchSizeOption = None
    only_ids: Annotated[
        Path | None,
        typer.Option(
            "--only-ids",
            metavar="FILE",
            help="Of the training examples in this file alone, such as `memdb export ids.csv --keep ...` "
            "writes: .csv, .parquet or .json with a column train_id or key, or text with one a line.",
        ),
    ] = None
    without_ids: Annotated[
        Path | None,
        typer.Option(
            "--without-ids", metavar="FILE", help="Of all training examples but those in this file."
        ),
    ] = None


@app.command()
@at_place()
def init(
    place: Place,
    *,
    extend: Annotated[
        str | None,
        typer.Option(
            "--extend",
            metavar="URL",
            help="Extend this store, which is only read: its data, recipe and other settings apply.",
        ),
    ] = None,
    new: NewStore,
) -> None:
    """Create a store of a data set and a recipe, without models.

    Data set, recipe and subset fraction are fixed from then on: models trained otherwise do not
    belong together. A store that extends another has all of that from it, and its own seed: questions
    see the models of both as one, `memdb train` writes here alone.

    \b
    memdb init --dataset mnist --data-root ~/data
    memdb init --dataset imagefolder --data-root photos -r torchvision:resnet18 -p epochs=20
    memdb init -r sklearn:sklearn.neighbors.KNeighborsClassifier -p n_neighbors=1
    memdb init -r cnn -p epochs=5 --outcomes correct,cumulative_loss,first_learned
    memdb init -r resnet9 --dataset cifar10 --data-root ~/data --sketches 10
    memdb init --recipe mypackage.recipes:train_forest --store s3://bucket/forest.zarr
    memdb init --extend https://example.org/mnist.zarr
    memdb init --without-ids ids.csv --store pruned.zarr
    """
    from memdb import create, recipes

    if extend is not None:
        _extend(place, extend, new)
        return
    made = create.init(
        place.url,
        new.dataset or "digits",
        new.recipe or "mlp",
        data_root=new.data_root,
        download=new.download,
        recipe_options=recipes.parse_options(new.recipe_option or []),
        recipe_version=new.recipe_version,
        subset_fraction=0.7 if new.subset_fraction is None else new.subset_fraction,
        outcomes=KEPT if new.outcomes is None else split(new.outcomes),
        seed=new.seed,
        sketches=new.sketches,
        sketch_size=new.sketch_size,
        only_ids=new.only_ids,
        without_ids=new.without_ids,
        storage_options=place.storage_options(),
    )
    say(f"Created {made.url}: {_described(made)}.")
    _say_what_next(made, place, new.data_root)


def _extend(place: Place, base: str, new: NewStore) -> None:
    """Create a store that extends another."""
    from memdb.combine import extend_with
    from memdb.errors import InvalidInputError
    from memdb.permission import Names
    from memdb.store.extend import n_beyond

    fixed = [name for name in FIXED_BY_BASE if name in new.given]
    if fixed:
        raise InvalidInputError(
            f"--{fixed[0].replace('_', '-')} is fixed by the store that is extended",
            hint=f"omit it, or --extend {base}",
        )
    place.require_use_of_options(others=[base])
    made = extend_with(place.url, base, Names(new.dataset, new.recipe), place.access(), new.seed)
    of_base = made.snapshot.base
    if of_base is None or of_base.record is None:
        return
    say(
        f"Created {made.url}: {_described(made)}.",
        f"It extends {base}: {count(of_base.n_models, 'model')}, those of its "
        f"snapshot {of_base.record.number}.",
    )
    if of_base.storage.can_list and (n_models := n_beyond(of_base)) > 0:
        say(
            f"{count(n_models, 'model')} that came there since {verb(n_models)} not included: "
            f"{verb(n_models, 'it', 'they')} will be after "
            f"`memdb compact` there and `memdb update` here."
        )
    _say_what_next(made, place, new.data_root)


def _say_what_next(made: Database, place: Place, data_root: str | None) -> None:
    if not made.store.manifest.put_if_absent:
        say(
            "This storage overwrites what it was told only to create. Models are safe, but nothing is "
            "compacted by itself: run `memdb compact --alone` while nobody else does."
        )
    root = "" if data_root is None else f" --data-root {shlex.quote(data_root)}"
    say(f"Next: {place.command(f'train --add 100{root}')}")


class RunOptions(HowTrained):
    """What `Database.train` takes beside the limits of a run."""

    sketch: Annotated[
        int | None,
        typer.Option("--sketch", metavar="N", help="Keep gradient sketches of N more models of this store."),
    ] = None
    sketch_size: SketchSizeOption = None
    compact: Annotated[
        bool,
        typer.Option("--compact/--no-compact", help="Gather segments into blocks past some dozens."),
    ] = True


@app.command()
@at_place()
def train(
    place: Place,
    limited: Limited,
    run: RunOptions,
) -> None:
    """Train models on random subsets and add them to the store.

    Every batch is committed as soon as it is trained; Ctrl-C and SIGTERM lose the batches in flight and
    nothing else. Run it again to add more, at the same time in several processes if you like. It ends at
    the first of --add, --until-half-width and --max-time that is reached. Where neither --store nor
    $MEMDB_STORE names a place, and ./memdb.zarr is not there, one of scikit-learn's digits is created.

    \b
    memdb train --add 100
    memdb train --until-half-width 0.1 --max-time 2h --workers 2
    memdb train --add 2000 --store s3://bucket/mnist.zarr --data-root ~/data --device cuda
    memdb train --add 4000 --store s3://bucket/mnist.zarr --data-root /data --ray auto
    memdb train --add 50 --store s3://bucket/mnist.zarr --task-id $SLURM_ARRAY_TASK_ID
    """
    from memdb.training.loop import require_positive

    if limited.add is None and limited.until_half_width is None and limited.max_time is None:
        limited = replace(limited, add=100)
    if limited.add is not None:
        require_positive(limited.add, "add")
    db = _store_or_digits(place)
    if "data_root" in place.typed and db.store.manifest.dataset == "digits":
        raise WrongUsageError(
            f"{db.url} is of scikit-learn's digits, which need no --data-root", hint="omit it"
        )
    before = db.n_models
    done = train_visibly(db, limited, place, vars(run))
    say(
        f"Added {count(done.n_committed, 'model')} to {db.url}, which now has {db.n_models:,} ({before:,} "
        f"when this run began).{limited.why(done)}",
        *([f"Next: {place.command('top-memorized')}"] if db.n_models else []),
    )


@app.command()
@at_place()
def demo(
    place: Place,
    models: Annotated[int, typer.Option("--models", metavar="N", help="How many models to have.")] = 300,
    device: DeviceOption = "auto",
) -> None:
    """Make a store of digits in this folder, train a few hundred models and show what they tell.

    Running it again reuses the store.
    """
    from memdb.cli.demo import show_demo
    from memdb.errors import InvalidInputError
    from memdb.training.loop import require_positive

    require_positive(models, "models")
    db = _store_or_digits(place, even_if_named=True)
    manifest = db.store.manifest
    if (manifest.dataset, manifest.recipe.name, manifest.imports) != ("digits", "mlp", {}):
        raise InvalidInputError(
            f"{db.url} is a store of {manifest.dataset}, not the demo's digits and mlp",
            hint="run the demo in another folder, or name a new store with --store",
        )
    missing = models - db.n_models
    if missing > 0:
        say(f"Training {count(missing, 'model')} on random 70 % subsets.")
        again = f"demo --models {models}"
        train_visibly(db, Limited(missing), place, {"device": device}, again=again)
    else:
        say(f"{db.url} has {count(db.n_models, 'model')} already.")
    show_demo(db, place.command)


def _store_or_digits(place: Place, *, even_if_named: bool = False) -> Database:
    """Open the store; at the default place, or where the demo is to be, create the digits one if absent."""
    from memdb import create
    from memdb.errors import AlreadyExistsError, NotFoundError

    try:
        return place.open(to_write=True)
    except NotFoundError as error:
        if place.has_store():  # something that it needs is missing
            raise
        if place.store is not None and not even_if_named:
            hint = (
                f"create one with `{place.command('init')}`, of scikit-learn's digits or what --dataset names"
            )
            raise NotFoundError(str(error), hint=hint) from error
    where = place.url if "://" in place.url else Path(place.url).expanduser().absolute()
    say(f"No store at {where}: creating one of scikit-learn's digits there, recipe mlp.")
    try:
        return create.init(place.url, storage_options=place.storage_options())
    except AlreadyExistsError:  # another process was quicker
        return place.open()


def _described(db: Database) -> str:
    manifest = db.store.manifest
    sets = " and ".join(f"{item.n_examples:,} {item.name}" for item in manifest.sets)
    if manifest.kept is not None:
        sets = sets.replace(" train", f" of {manifest.kept.n_examples:,} train", 1)
    subset = f"subsets of {manifest.subset_fraction:g}"
    return f"{manifest.dataset}, {sets} examples, {subset}, recipe {manifest.recipe}"
