"""Commands that share a store: publish, pull."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, interruptible, say
from memdb.cli.options import DataRootOption, OptionGroup, OwnDatasetOption
from memdb.cli.store_options import ASKING, COPYING, Place, at_place
from memdb.errors import InvalidInputError
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, findings, size
from memdb.wording import count

if TYPE_CHECKING:
    from memdb.format.published import Credits
    from memdb.sharing.publish import PublicationPlan


class Destination(OptionGroup):
    """Where a copy is written, and how to get there."""

    dest: Annotated[str, typer.Argument(metavar="DEST", help="A folder, s3://, gs:// or az://.")]
    dest_endpoint_url: Annotated[
        str | None,
        typer.Option("--dest-endpoint-url", metavar="URL", help="Another server for the destination."),
    ] = None
    dest_storage_option: Annotated[
        list[str] | None,
        typer.Option(
            "--dest-storage-option",
            metavar="NAME=VALUE",
            help="For the destination's driver; repeat for more.",
        ),
    ] = None

    @property
    def place(self) -> Place:
        """The same as the options that a later command has for it."""
        options = self.dest_storage_option
        return Place(self.dest, endpoint_url=self.dest_endpoint_url, storage_option=options)

    def options(self) -> dict[str, Any]:
        """Return the options of its fsspec driver."""
        try:
            return self.place.storage_options()
        except InvalidInputError as error:
            hint = "name a URL as destination, or omit --dest-endpoint-url and --dest-storage-option"
            raise InvalidInputError(str(error), hint=hint) from error


class CreditOptions(OptionGroup):
    """Who made what is published, and how it may be used."""

    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="What it is called.")] = None
    author: Annotated[
        list[str] | None,
        typer.Option("--author", metavar="NAME", help="Who made it; repeat for more."),
    ] = None
    licence: Annotated[str | None, typer.Option("--licence", metavar="NAME", help="Such as CC-BY-4.0.")] = (
        None
    )
    citation: Annotated[str | None, typer.Option("--citation", metavar="TEXT", help="How to cite it.")] = None

    def stated(self) -> Credits | None:
        """Return what was given; None if nothing was."""
        from memdb.format.published import Credits

        if not self.given:
            return None
        return Credits(self.title or "", tuple(self.author or ()), self.licence or "", self.citation or "")


@app.command()
@at_place(ASKING)
def publish(
    place: Place,
    *,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include",
            metavar="WHAT",
            help="bits, confidence, sketches (of gradients), thumbnails (small pictures); repeat. "
            "[default: bits, confidence]",
        ),
    ] = None,
    credit: CreditOptions,
    dataset: OwnDatasetOption = None,
    data_root: DataRootOption = None,
    site: Annotated[
        bool, typer.Option("--site", help="With a page that shows the copy in any browser: index.html.")
    ] = False,
    site_url: Annotated[
        str | None,
        typer.Option(
            "--site-url", metavar="URL", help="Where the copy will be, if its page moves elsewhere."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell the sizes, and write nothing.")] = False,
    destination: Destination,
) -> None:
    """Write a frozen copy of a store that others can query in place, from a bucket or any web server.

    The copy holds exactly the models that count, what is derived of them for quick answers, tables as
    Parquet and a README. Interrupted, it goes on where it was; published again after more models, it
    writes what is new, and --snapshot still finds the older ones.

    \b
    memdb publish /srv/www/mnist --site --include bits --include thumbnails
    memdb publish s3://bucket/mnist --licence CC-BY-4.0 --author "A. Author"
    memdb top-influence --test-id 340 --store https://bucket.example.org/mnist
    """
    db = place.open()
    included = {} if include is None else {"include": tuple(include)}

    with interruptible("Readers see what was published before; run it again to go on."):
        plan = db.plan_publication(
            destination.dest,
            credit=credit.stated(),
            dataset=dataset,
            data_root=data_root,
            storage_options=destination.options(),
            site=site_url or site,
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
        f"{what} snapshot {done.snapshot.number} of {clean(destination.dest)}: {held}. "
        f"Wrote {count(done.n_written, 'object')}, {size(done.n_bytes_written)}.",
        f"Next: {destination.place.command('info')}",
    )


def _show_sizes(plan: PublicationPlan) -> None:
    rows = [(part.name, f"{'about ' * part.is_guess}{size(part.size)}") for part in plan.parts]
    rows.append(("all", f"about {size(sum(part.size for part in plan.parts))}"))
    console(stderr=True).print(findings(("part", "size"), rows))


@app.command()
@at_place(COPYING)
def pull(
    place: Place,
    *,
    url: Annotated[str, typer.Argument(metavar="URL", help="A published copy; with --only, any store.")],
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="WHAT", help="bits: a store of the models alone, to go on with."),
    ] = None,
    destination: Destination,
) -> None:
    """Copy a published store; every object is checked by its sha256, and what is already there is kept.

    \b
    memdb pull https://example.org/cifar100 cifar100.zarr
    memdb pull https://example.org/cifar100 mine.zarr --only bits
    """
    from memdb import create

    source = replace(place, store=url)
    with (
        Counting(console(stderr=True), "bytes") as counting,
        interruptible("Run it again to go on."),
    ):
        done = create.pull(
            url,
            destination.dest,
            only=only,
            as_of=place.as_of,
            storage_options=source.storage_options(),
            destination_options=destination.options(),
            progress=counting,
        )
    say(
        f"Pulled {count(done.n_models, 'model')} to {clean(destination.dest)}: "
        f"wrote {count(done.n_objects, 'object')}, {size(done.n_bytes)}.",
        f"Next: {destination.place.command('info')}",
    )
