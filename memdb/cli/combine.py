"""Commands that bring stores together: update, merge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from memdb.cli.app import app, interruptible, say
from memdb.cli.store_options import Place, at_place
from memdb.render.progress import Counting
from memdb.render.tables import console
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database


@app.command()
@at_place()
def update(
    place: Place,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="URL", help="Where the store that this one extends is now."),
    ] = None,
) -> None:
    """Move to the newest snapshot of the store that this one extends.

    Until then answers use the same base snapshot as before, whatever its owner added or retracted.
    `memdb info` says when there is a newer one.
    """
    db = place.open(to_write=True)
    moved = db.update(base)
    of_base = db.snapshot.base
    if moved is None:
        say(f"Nothing newer: {db.url} already uses the newest snapshot of its base.")
        return
    say(
        f"{db.url} now uses snapshot {moved.base.snapshot} of {moved.base.url}: "
        f"{count(of_base.n_models if of_base else 0, 'model')}, {db.n_models:,} with those here.",
    )


@app.command()
@at_place()
def merge(
    place: Place,
    sources: Annotated[
        list[str], typer.Argument(metavar="STORE...", help="Paths or URLs of the stores to merge.")
    ],
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", metavar="NAME", help="The data set, where the first store's is code."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME", help="The recipe, in the same way."),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact/--no-compact", help="Gather the models into blocks in the end.")
    ] = True,
) -> None:
    """Bring the models of several stores together in --store, which is created if it is absent.

    Refused where data set, recipe or subset fraction differ: pooled, they would show influence where there is
    none. A model in several stores is kept once; one retracted in any of them is retracted. Imported
    scores come along. Sources are only read; interrupted, it goes on when it is run again. A new store keeps
    the outcomes that all have.

    \b
    memdb merge alice.zarr s3://bucket/bob.zarr --store all.zarr
    """
    from memdb.combine import merge_with
    from memdb.permission import Names

    place.require_use_of_options(others=sources)
    opened = [_opened(place, url) for url in sources]
    place.require_use_of_trust(*(db.store.manifest for db in opened))
    with (
        Counting(console(stderr=True), "models") as counting,
        interruptible("What was committed stays: the same command goes on there."),
    ):
        names = Names(dataset, recipe)
        done = merge_with(place.url, opened, names, place.access(trusted=True), counting)
    db = done.database
    for url, added, present in zip(sources, done.added, done.present, strict=True):
        known = f", {present:,} {verb(present, 'was', 'were')} there already" if present else ""
        say(f"{url}: {count(added, 'model')} added{known}.")
    if done.n_retracted:
        say(f"Retracted {count(done.n_retracted, 'model')}, as the sources had.")
    if done.scores:
        say(f"Imported scores came along: {', '.join(done.scores)}.")
    if done.dropped:
        say(f"Not all models have {', '.join(done.dropped)}: {db.url} keeps none.")
    if done.n_unsketched:
        say(
            f"{count(done.n_unsketched, 'model')} came without their gradient sketches, which are of another "
            "size or projection than the others."
        )
    if compact:
        _compact(db)
    say(f"{db.url} has {count(db.n_models, 'model')}.", f"Next: {place.command('top-memorized')}")


def _compact(db: Database) -> None:
    from memdb.errors import MemdbError

    if not db.store.manifest.put_if_absent:
        return
    try:
        with (
            Counting(console(stderr=True), "models in blocks") as counting,
            interruptible("All models are there; `memdb compact` gathers them another time."),
        ):
            db.compact(progress=counting)
    except MemdbError as error:
        say(f"Note: it was not compacted: {error}.")


def _opened(place: Place, url: str) -> Database:
    """Open a source; options of storages are those of all that are in object storage."""
    from memdb.storage import is_object_storage

    if is_object_storage(url):
        return replace(place, store=url, typed=frozenset()).open()
    near = {"cache_dir": place.cache_dir, "cache_size": place.cache_size, "trust_base": place.trust_base}
    return Place(store=url, **near).open()  # type: ignore[arg-type]
