"""Commands for other people's files: import, export, membership, lds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from memdb.cli.app import app, say
from memdb.cli.options import DataRootOption
from memdb.cli.place import Place, at_place
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, count

if TYPE_CHECKING:
    from memdb.interop.importing import Imported
    from memdb.interop.score_import import ImportedScores


@app.command("import")
@at_place()
def import_(
    place: Place,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An .npz file, or a folder of .npy files.")],
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME",
            help="The data set, where memdb can load it: as for `memdb init`.",
        ),
    ] = None,
    data_root: DataRootOption = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--name", metavar="TEXT", help="Else what to call it; equal names mean equal data."),
    ] = None,
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--recipe", "-r", metavar="TEXT", help="What to call how the models were trained."),
    ] = None,
    subset_fraction: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--subset-fraction",
            metavar="P",
            help="That masks were drawn with. [default: what explains their sizes]",
            show_default=False,
        ),
    ] = None,
    outcomes: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--outcomes", metavar="NAMES", help="What to keep, such as correct; all if not given."),
    ] = None,
    labels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--labels", metavar="FILE", help="A .npy file of the training examples' labels."),
    ] = None,
    scores_name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--scores-name",
            metavar="TEXT",
            help="What to call published scores. [default: the file's name]",
            show_default=False,
        ),
    ] = None,
    n_train: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--n-train", metavar="N", help="Training examples, for scores that do not say."),
    ] = None,
    n_test: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--n-test", metavar="N", help="Test examples, likewise."),
    ] = None,
) -> None:
    """Add somebody's runs, or scores that they published, to a store; without one, create it.

    \b
    a plain .npz     mask [models, train], train_correct [models, train], test_correct [models, test]
    datamodels       train_masks, train_margins, test_margins: right is a margin above 0
    LiRA folders     keep and scores or logits, one folder a model or all in one; no test examples
    Feldman-Zhang    tr_idx, tt_idx, infl, mem; or tr_mem and infl_matrix_class0, ...: scores without models

    Files are looked at whole before anything is written, never unpickled, and may be bigger than memory.
    Models are told by their subsets and outcomes: the same file again adds nothing.

    \b
    memdb import runs.npz --store mine.zarr
    memdb import ~/lira/exp/cifar10 --dataset cifar10 --data-root ~/data --store lira.zarr
    memdb import cifar100_infl_matrix.npz --store published.zarr
    """  # noqa: D301 - \b keeps the lines apart in --help
    from memdb import stores
    from memdb.interop.importing import Imported

    with Counting(console(stderr=True), "models") as counting:
        done = stores.import_file(
            path,
            place.url,
            dataset=dataset,
            data_root=data_root,
            name=name,
            recipe=recipe,
            subset_fraction=subset_fraction,
            outcomes=None if outcomes is None else [n.strip() for n in outcomes.split(",") if n.strip()],
            labels=labels,
            scores_name=scores_name,
            n_train=n_train,
            n_test=n_test,
            storage_options=place.storage_options(),
            observe=counting,
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
    there = f"; {known:,} of them were there already" if known else ""
    say(
        f"Added {count(done.n_added, 'model')} of {done.n_models:,} ({done.kind}) to {place.url}{there}.",
        *done.notes,
    )
    say(f"Next: {place.command('top-memorized')}")


def _say_scores(place: Place, done: ImportedScores) -> None:
    table = done.table
    what = f"{table.n_memorization:,} memorization scores and {count(table.n_influence, 'pair')}"
    if not done.added:
        say(f"{place.url} has these scores already, as {table.name}: {what}.")
        return
    say(
        f"Added the scores {table.name} to {place.url}: {what}.",
        "Without counts there are no intervals; --assume-models and --assume-fraction give rough ones.",
        f"Next: {place.command('top-memorized')} --scores {table.name}",
    )
