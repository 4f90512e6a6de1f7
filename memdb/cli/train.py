"""Commands that make models: init, train, demo."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.options import (
    BatchOption,
    CheckpointsOption,
    DataRootOption,
    DeviceOption,
    MaxTimeOption,
    OwnDatasetOption,
    OwnRecipeOption,
    RayOption,
    SketchSizeOption,
    TaskCpusOption,
    TaskGpusOption,
    TaskIdOption,
    UntilOption,
    WorkersOption,
)
from memdb.cli.store_options import Place, at_place
from memdb.cli.usage import WrongUsageError

if TYPE_CHECKING:
    from memdb.database import Database

KEPT = ("correct", "logit_confidence")


@app.command()
@at_place()
def init(
    place: Place,
    extend: Annotated[
        str | None,
        typer.Option(
            "--extend",
            metavar="URL",
            help="Extend this store, which is only read: its data, recipe and other settings apply.",
        ),
    ] = None,
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
    ] = None,
    data_root: DataRootOption = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let torchvision download the data set.")
    ] = False,
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
    ] = None,
    recipe_option: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe-option",
            "-p",
            metavar="NAME=VALUE",
            help="An option of the recipe, such as hidden=512,256; repeat for more.",
        ),
    ] = None,
    recipe_version: Annotated[
        str | None,
        typer.Option("--recipe-version", metavar="TEXT", help="For a recipe that names no version itself."),
    ] = None,
    subset_fraction: Annotated[
        float | None,
        typer.Option(
            "--subset-fraction",
            metavar="P",
            help="Share of the training set in a subset. [default: 0.7]",
            show_default=False,
        ),
    ] = None,
    outcomes: Annotated[
        str | None,
        typer.Option(
            "--outcomes",
            metavar="NAMES",
            help="What to keep: correct for bits alone; with logit_confidence ten times the space; "
            "cumulative_loss and first_learned, as much again each. [default: correct,logit_confidence]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of all subset masks; random if not given."),
    ] = None,
    sketches: Annotated[
        int | None,
        typer.Option(
            "--sketches",
            metavar="N",
            help="Keep gradient sketches of the first N models, from which influences are ranked by a few "
            "hundred models instead of thousands; 10 is a good number.",
        ),
    ] = None,
    sketch_size: SketchSizeOption = None,
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
    """  # noqa: D301 - \b keeps the lines apart in --help
    from memdb import create, recipes

    if extend is not None:
        fixed = {
            "--download": download or None, "--recipe-option": recipe_option, "--outcomes": outcomes,
            "--recipe-version": recipe_version, "--subset-fraction": subset_fraction,
            "--sketches": sketches, "--sketch-size": sketch_size,
        }  # fmt: skip
        _extend(place, extend, {"dataset": dataset, "recipe": recipe, "seed": seed}, fixed, data_root)
        return
    made = create.init(
        place.url,
        dataset or "digits",
        recipe or "mlp",
        data_root=data_root,
        download=download,
        recipe_options=recipes.parse_options(recipe_option or []),
        recipe_version=recipe_version,
        subset_fraction=0.7 if subset_fraction is None else subset_fraction,
        outcomes=KEPT if outcomes is None else [name.strip() for name in outcomes.split(",") if name.strip()],
        seed=seed,
        sketches=sketches,
        sketch_size=sketch_size,
        storage_options=place.storage_options(),
    )
    say(f"Created {made.url}: {_described(made)}.")
    _say_what_next(made, place, data_root)


def _extend(
    place: Place, base: str, said: dict[str, Any], fixed: dict[str, Any], data_root: str | None
) -> None:
    """Create a store that extends another."""
    from memdb import combine
    from memdb.errors import InvalidInputError
    from memdb.store.extend import n_beyond

    given = [option for option, value in fixed.items() if value is not None]
    if given:
        raise InvalidInputError(
            f"{given[0]} is fixed by the store that is extended", hint=f"leave it out, or --extend {base}"
        )
    place.require_use_of_options(others=[base])
    made = combine.extend(
        place.url,
        base,
        **said,
        storage_options=place.options_here(),
        base_options=place.options_of_base,
        trust_base=place.trust_base,
        cache=place.cache(),
    )
    taken = made.snapshot.base
    if taken is None or taken.record is None:
        return
    say(
        f"Created {made.url}: {_described(made)}.",
        f"It extends {base}: {taken.n_models:,} models, those of its snapshot {taken.record.number}.",
    )
    if taken.storage.can_list and (n_models := n_beyond(taken)) > 0:
        say(
            f"{n_models:,} models that came there since are not taken in: they will be after "
            f"`memdb compact` there and `memdb update` here."
        )
    _say_what_next(made, place, data_root)


def _say_what_next(made: Database, place: Place, data_root: str | None) -> None:
    if not made.store.manifest.put_if_absent:
        say(
            "This storage overwrites what it was told only to create. Models are safe, but nothing is "
            "compacted by itself: run `memdb compact --alone` while nobody else does."
        )
    root = "" if data_root is None else f" --data-root {shlex.quote(data_root)}"
    say(f"Next: {place.command(f'train --add 100{root}')}")


@app.command()
@at_place()
def train(
    place: Place,
    add: Annotated[
        int | None,
        typer.Option(
            "--add",
            "-n",
            metavar="N",
            help="How many models to add; with --task-id, how many the task has in all. "
            "[default: 100, or as many as the other limits allow]",
            show_default=False,
        ),
    ] = None,
    until_half_width: UntilOption = None,
    max_time: MaxTimeOption = None,
    task_id: TaskIdOption = None,
    dataset: OwnDatasetOption = None,
    recipe: OwnRecipeOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
    batch_models: BatchOption = None,
    workers: WorkersOption = None,
    ray: RayOption = None,
    task_cpus: TaskCpusOption = 1,
    task_gpus: TaskGpusOption = None,
    checkpoint_dir: CheckpointsOption = None,
    sketch: Annotated[
        int | None,
        typer.Option("--sketch", metavar="N", help="Keep gradient sketches of N more models of this store."),
    ] = None,
    sketch_size: SketchSizeOption = None,
    compact: Annotated[
        bool,
        typer.Option("--compact/--no-compact", help="Gather segments into blocks past some dozens."),
    ] = True,
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
    """  # noqa: D301
    from memdb.cli.training_run import Limited, train_visibly
    from memdb.training.loop import require_positive

    if add is None and until_half_width is None and max_time is None:
        add = 100
    if add is not None:
        require_positive(add, "add")
    limited = Limited(add, until_half_width, max_time, task_id)
    db = _store_or_digits(place)
    if "data_root" in place.typed and db.store.manifest.dataset == "digits":
        raise WrongUsageError(
            f"{db.url} is of scikit-learn's digits, which need no --data-root", hint="leave it out"
        )
    before = db.n_models
    given = {
        "dataset": dataset,
        "recipe": recipe,
        "data_root": data_root,
        "device": device,
        "batch_models": batch_models,
        "workers": workers,
        "ray": ray,
        "task_cpus": task_cpus,
        "task_gpus": task_gpus,
        "checkpoint_dir": checkpoint_dir,
        "sketch": sketch,
        "sketch_size": sketch_size,
        "compact": compact,
    }
    done = train_visibly(db, limited, place, given)
    say(
        f"Added {done.n_committed} models to {db.url}, which now has {db.n_models} ({before} when this run "
        f"began).{limited.why(done)}",
        f"Next: {place.command('top-memorized')}",
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
    from memdb.cli.training_run import Limited, train_visibly
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
        say(f"Training {missing} models on random 70 % subsets.")
        again = f"demo --models {models}"
        train_visibly(db, Limited(missing), place, {"device": device}, again=again)
    else:
        say(f"{db.url} has {db.n_models} models already.")
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
    subset = f"subsets of {manifest.subset_fraction:g}"
    return f"{manifest.dataset}, {sets} examples, {subset}, recipe {manifest.recipe}"
