"""Commands that share a store: publish, pull."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, interruptible, say
from memdb.cli.options import DataRootOption, OwnDatasetOption
from memdb.cli.store_options import ASKING, COPYING, Place, at_place
from memdb.errors import InvalidInputError
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, count, findings, size

if TYPE_CHECKING:
    from memdb.sharing.publish import PublicationPlan

DestEndpointOption = Annotated[
    str | None,
    typer.Option("--dest-endpoint-url", metavar="URL", help="Another server for the destination."),
]
DestDriverOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dest-storage-option", metavar="NAME=VALUE", help="For the destination's driver; repeat for more."
    ),
]


@app.command()
@at_place(ASKING)
def publish(
    place: Place,
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A folder, s3://, gs:// or az://.")],
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="WHAT",
            help="bits, confidence, sketches (of gradients), thumbnails (small pictures); repeat. "
            "[default: bits, confidence]",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="What it is called.")] = None,
    author: Annotated[
        list[str] | None,
        typer.Option("--author", metavar="NAME", help="Who made it; repeat for more."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="NAME", help="Such as CC-BY-4.0.")
    ] = None,
    dataset: OwnDatasetOption = None,
    data_root: DataRootOption = None,
    citation: Annotated[
        str | None, typer.Option("--citation", metavar="TEXT", help="How to cite it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the sizes, and write nothing.")] = False,
    dest_endpoint_url: DestEndpointOption = None,
    dest_storage_option: DestDriverOption = None,
) -> None:
    """Write a frozen copy of a store that others can ask where it is: a folder, a bucket, any web server.

    The copy holds exactly the models that count, what is derived of them for quick answers, tables as
    Parquet and a README. Interrupted, it goes on where it was; published again after more models, it
    writes what is new, and --snapshot still finds the older ones.

    \b
    memdb publish s3://bucket/mnist --licence CC-BY-4.0 --author "A. Author"
    memdb top-influence --test-id 42 --store https://bucket.example.org/mnist
    """  # noqa: D301
    from memdb.format.published import Credits

    db = place.open()
    given = title is not None or author is not None or licence is not None or citation is not None
    credit = Credits(title or "", tuple(author or ()), licence or "", citation or "") if given else None
    included = {} if include is None else {"include": tuple(include)}

    with interruptible("Readers see what was published before; run it again to go on."):
        plan = db.plan_publication(
            dest,
            credit=credit,
            dataset=dataset,
            data_root=data_root,
            storage_options=_destination(dest, dest_endpoint_url, dest_storage_option),
            **included,
        )
        _show_sizes(plan)
        if dry_run:
            return
        with Counting(console(stderr=True), None) as counting:
            done = db.publish(plan, progress=counting)
    what = "Published" if done.is_new else "Was published already:"
    held = count(done.snapshot.n_models, "model") if done.snapshot.n_models else "imported scores alone"
    say(
        f"{what} snapshot {done.snapshot.number} of {clean(dest)}: {held}. "
        f"Wrote {count(done.n_written, 'object')}, {size(done.n_bytes_written)}.",
        f"Next: {_at(dest, dest_endpoint_url, dest_storage_option).command('info')}",
    )


def _show_sizes(plan: PublicationPlan) -> None:
    rows = [(part.name, f"{'about ' * part.is_guess}{size(part.size)}") for part in plan.parts]
    rows.append(("all", f"about {size(sum(part.size for part in plan.parts))}"))
    console(stderr=True).print(findings(("part", "size"), rows))


@app.command()
@at_place(COPYING)
def pull(
    place: Place,
    url: Annotated[str, typer.Argument(metavar="URL", help="A published copy; with --only, any store.")],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="A folder, s3://, gs:// or az://.")],
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="WHAT", help="bits: a store of the models alone, to go on with."),
    ] = None,
    dest_endpoint_url: DestEndpointOption = None,
    dest_storage_option: DestDriverOption = None,
) -> None:
    """Copy a published store; every object is checked by its sha256, and what is there is left alone.

    \b
    memdb pull https://example.org/cifar100 cifar100.zarr
    memdb pull https://example.org/cifar100 mine.zarr --only bits
    """  # noqa: D301
    from memdb import create

    source = replace(place, store=url)
    with (
        Counting(console(stderr=True), "bytes") as counting,
        interruptible("Run it again to go on."),
    ):
        done = create.pull(
            url,
            dest,
            only=only,
            as_of=place.as_of,
            storage_options=source.storage_options(),
            destination_options=_destination(dest, dest_endpoint_url, dest_storage_option),
            progress=counting,
        )
    say(
        f"Pulled {count(done.n_models, 'model')} to {clean(dest)}: wrote {count(done.n_objects, 'object')}, "
        f"{size(done.n_bytes)}.",
        f"Next: {_at(dest, dest_endpoint_url, dest_storage_option).command('info')}",
    )


def _at(url: str, endpoint_url: str | None, options: list[str] | None) -> Place:
    return Place(store=url, endpoint_url=endpoint_url, storage_option=options)


def _destination(url: str, endpoint_url: str | None, options: list[str] | None) -> dict[str, Any]:
    """Return the options of the destination's fsspec driver."""
    try:
        return _at(url, endpoint_url, options).storage_options()
    except InvalidInputError as error:
        hint = "name a URL as destination, or leave out --dest-endpoint-url and --dest-storage-option"
        raise InvalidInputError(str(error), hint=hint) from error
