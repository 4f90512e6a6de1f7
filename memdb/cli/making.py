"""Commands that make models: init, train, demo."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from memdb.cli.app import INTERRUPTED, app, say
from memdb.cli.options import (
    DEFAULT_STORE,
    BatchOption,
    DataRootOption,
    DeviceOption,
    StoreOption,
    located,
)
from memdb.render.progress import TrainingProgress
from memdb.render.tables import console

if TYPE_CHECKING:
    from memdb.database import Database


@app.command()
def init(
    store: StoreOption = None,
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME",
            help="digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder, or package.module:attribute.",
        ),
    ] = "digits",
    data_root: DataRootOption = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let torchvision download the data set.")
    ] = False,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", metavar="NAME", help="mlp, or package.module:attribute.")
    ] = "mlp",
    recipe_option: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--recipe-option",
            "-p",
            metavar="NAME=VALUE",
            help="An option of the recipe, such as hidden=512,256; repeat for more.",
        ),
    ] = None,
    recipe_version: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--recipe-version", metavar="TEXT", help="For a recipe that names no version itself."),
    ] = None,
    subset_fraction: Annotated[
        float, typer.Option("--subset-fraction", metavar="P", help="Share of the training set in a subset.")
    ] = 0.7,
    outcomes: Annotated[
        str, typer.Option("--outcomes", metavar="NAMES", help="What to keep: correct, or both.")
    ] = "correct,logit_confidence",
    seed: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--seed", metavar="N", help="Of all subset masks; random if not given."),
    ] = None,
) -> None:
    """Create a store of a data set and a recipe, without models.

    Data set, recipe and subset fraction are fixed from then on: models trained otherwise do not
    belong together.

    \b
    memdb init --dataset mnist --data-root ~/data
    memdb init --dataset imagefolder --data-root photos -p hidden=512,256 -p epochs=10
    memdb init --recipe mypackage.recipes:train_forest --store s3://bucket/forest.zarr
    """  # noqa: D301 - \b keeps the lines apart in --help
    from memdb import database, recipes

    _see_working_folder()
    made = database.init(
        located(store),
        dataset,
        recipe,
        data_root=data_root,
        download=download,
        recipe_options=recipes.parse_options(recipe_option or []),
        recipe_version=recipe_version,
        subset_fraction=subset_fraction,
        outcomes=[name.strip() for name in outcomes.split(",") if name.strip()],
        seed=seed,
    )
    root = "" if data_root is None else f" --data-root {shlex.quote(data_root)}"
    say(f"Created {made.url}: {_described(made)}.", f"Next: {_command(f'train --add 100{root}', store)}")


@app.command()
def train(
    add: Annotated[int, typer.Option("--add", "-n", metavar="N", help="How many models to add.")] = 100,
    store: StoreOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
    batch_models: BatchOption = None,
) -> None:
    """Train models on random subsets and add them to the store.

    Every batch is committed as soon as it is trained; Ctrl-C loses the batch in flight and nothing
    else. Run it again to add more, at the same time in several processes if you like. Without a
    store at the default place, one of scikit-learn's digits is created there.

    \b
    memdb train --add 100
    memdb train --add 2000 --store s3://bucket/mnist.zarr --data-root ~/data --device cuda
    """  # noqa: D301
    from memdb import database
    from memdb.train import require_positive

    _see_working_folder()
    require_positive(add, "--add")
    db = _store_or_digits(store)
    before = db.n_models
    n_added = _train_visibly(db, add, store, data_root=data_root, device=device, batch_models=batch_models)
    say(
        f"Added {n_added} models to {db.url}, which now has {database.open(db.url).n_models} "
        f"({before} when this run began).",
        f"Next: {_command('top-memorized', store)}",
    )


@app.command()
def demo(
    store: StoreOption = None,
    models: Annotated[int, typer.Option("--models", metavar="N", help="How many models to have.")] = 300,
    device: DeviceOption = "auto",
) -> None:
    """Make a store of digits in this folder, train a few hundred models and show what they tell.

    Running it again reuses the store.
    """
    from memdb.cli.demo import show_demo
    from memdb.errors import InvalidInput
    from memdb.train import require_positive

    require_positive(models, "--models")
    db = _store_or_digits(store, even_if_named=True)
    if (db.store.manifest.dataset, db.store.manifest.recipe.name) != ("digits", "mlp"):
        raise InvalidInput(
            f"{db.url} is a store of {db.store.manifest.dataset}, not the demo's digits",
            hint="run the demo in another folder, or name a new store with --store",
        )
    missing = models - db.n_models
    if missing > 0:
        say(f"Training {missing} models on random 70 % subsets.")
        _train_visibly(db, missing, store, device=device, again=f"demo --models {models}")
    else:
        say(f"{db.url} has {db.n_models} models already.")
    show_demo(db, lambda verb: _command(verb, store))


def _store_or_digits(store: str | None, *, even_if_named: bool = False) -> Database:
    """Open the store; at the default place, or where the demo is to be, create the digits one if absent."""
    from memdb import database
    from memdb.errors import AlreadyExists, NotFound

    try:
        return database.open(located(store))
    except NotFound:
        if store is not None and not even_if_named:
            raise
    say(f"No store at {located(store)} yet: creating one of scikit-learn's digits, recipe mlp.")
    try:
        return database.init(located(store))
    except AlreadyExists:  # another process was quicker
        return database.open(located(store))


def _train_visibly(
    db: Database,
    add: int,
    store: str | None,
    *,
    again: str | None = None,
    data_root: str | None = None,
    device: str = "auto",
    batch_models: int | None = None,
) -> int:
    """Train with a progress bar; on Ctrl-C or SIGTERM say what is kept and how to go on."""
    progress = TrainingProgress(console(stderr=True))
    done = 0

    def observe(status: object) -> None:
        nonlocal done
        done = status.n_committed  # type: ignore[attr-defined]
        progress(status)  # type: ignore[arg-type]

    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with progress:
            return db.train(
                add, data_root=data_root, device=device, batch_models=batch_models, observe=observe
            )
    except KeyboardInterrupt:
        if done == add:
            say(f"Stopped; all {add} models were added to {db.url}.")
            sys.exit(INTERRUPTED)
        given = {"--data-root": data_root, "--batch-models": batch_models}
        given["--device"] = None if device == "auto" else device
        options = "".join(
            f" {name} {shlex.quote(str(value))}" for name, value in given.items() if value is not None
        )
        say(
            f"Stopped. {done} of {add} models were added to {db.url}; the batch in flight was dropped.",
            f"Go on with: {_command(again or f'train --add {add - done}{options}', store)}",
        )
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _see_working_folder() -> None:
    """Let ``--recipe my_file:train`` find my_file.py here, as `python -m` does."""
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109


def _described(db: Database) -> str:
    manifest = db.store.manifest
    sets = " and ".join(f"{item.n_examples:,} {item.name}" for item in manifest.sets)
    subset = f"subsets of {manifest.subset_fraction:g}"
    return f"{manifest.dataset}, {sets} examples, {subset}, recipe {manifest.recipe}"


def _command(verb: str, store: str | None) -> str:
    return f"memdb {verb}" + ("" if store in {None, DEFAULT_STORE} else f" --store {shlex.quote(str(store))}")
