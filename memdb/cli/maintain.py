"""Commands that keep a store: compact, gc, verify, retract, cache."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memdb.cli.app import app, interruptible, say
from memdb.cli.store_options import CacheDirOption, CacheSizeOption, Place, at_place
from memdb.errors import InvalidInputError
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, facts, findings, size
from memdb.wording import count, verb

if TYPE_CHECKING:
    from memdb.database import Database
    from memdb.store.maintenance.verify_report import Damage

DEFAULT_HOURS = 24.0
MOST_HOURS = 24.0 * 366
AloneOption = Annotated[
    bool,
    typer.Option("--alone", help="Assert that no other process does this, or uses this store, now."),
]


@app.command()
@at_place()
def compact(place: Place, alone: AloneOption = False) -> None:
    """Gather segments into blocks of up to 1,024 models, and number the result.

    Answers stay the same, bit for bit; training and queries may go on meanwhile. `memdb train` compacts
    automatically past some dozens of segments. The segments are removed later, by `memdb gc`.
    """
    db = place.open()
    with (
        Counting(console(stderr=True), "models") as counting,
        interruptible("Nothing is lost; `memdb info` tells whether the snapshot was numbered already."),
    ):
        done = db.compact(alone=alone, progress=counting)
    if done is None:
        say(f"Nothing to compact: all {count(_own_models(db), 'model')} of {db.url} are in blocks already.")
        return
    say(
        f"Snapshot {done.record.number} of {db.url}: {count(done.record.n_models, 'model')} in "
        f"{count(len(done.record.blocks), 'block')}. Took in {count(done.n_segments, 'segment')}, wrote "
        f"{size(done.n_bytes)}.",
        f"Next: {place.command('gc --dry-run')}",
    )


@app.command()
@at_place()
def gc(
    place: Place,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, and remove nothing.")
    ] = False,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="HOURS", help="Keep what is younger; below 24 only with --alone."),
    ] = DEFAULT_HOURS,
    alone: AloneOption = False,
) -> None:
    """Remove what no reader or writer can need any more.

    That is: what killed writers left behind, segments whose models are in blocks, and blocks that fuller ones
    replaced, each after a grace period by the storage's own clock. Models are never removed: blocks are
    read and checked before the segments in them go.

    \b
    memdb gc --dry-run
    memdb gc
    """
    db = place.open()
    with (
        Counting(console(stderr=True), "removed") as counting,
        interruptible("What was removed is gone, no model among it; run it again for the rest."),
    ):
        garbage = db.gc(grace=_hours(grace), alone=alone, dry_run=dry_run, progress=counting)
    if not garbage:
        say(f"Nothing to remove from {db.url} that is older than {grace:g} hours.")
        return
    rows = [(item.path, item.reason, size(item.size)) for item in garbage]
    console().print(findings(("what", "why", "size"), rows))
    total = size(sum(item.size for item in garbage))
    again = "gc" + (f" --grace {grace:g}" if grace != DEFAULT_HOURS else "") + " --alone" * alone
    say(
        f"{total} in {count(len(garbage), 'place')} would go: {place.command(again)}"
        if dry_run
        else f"Removed {total} in {count(len(garbage), 'place')} from {db.url}."
    )


@app.command()
@at_place()
def verify(
    place: Place,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set damaged parts aside, so that the rest can be used."),
    ] = False,
) -> None:
    """Check every object and every count of a store against what was written.

    Sizes and hashes of all objects, names and labels against the data set's fingerprint, accuracies and
    subset sizes against the bits. Exit code 1 where something is damaged. --repair deletes nothing.
    """
    db = place.open()
    with (
        Counting(console(stderr=True), "parts") as counting,
        interruptible("Nothing was removed" + ("; what was set aside stays so." if repair else ".")),
    ):
        report, repaired = db.verify(repair=repair, progress=counting)
    seen = f"{count(report.n_objects, 'object')}, {size(report.n_bytes)}, {count(report.n_models, 'model')}"
    base = db.store.base
    if base is not None:
        say(f"The store that it extends was not looked at: memdb verify --store {shlex.quote(base.url)}")
    if not report.damages:
        say(f"{db.url} is intact: {seen}.")
        return
    _print_damages(db, report.damages)
    hit = count(len({model for damage in report.damages for model in damage.models}), "model")
    n_places = count(len(report.damages), "place")
    say(f"{db.url} is damaged in {n_places}, which {hit} would need. Intact: {seen}.")
    if repaired is None:
        if db.store.published:
            say("Pull the copy again, which brings what is missing or altered, or publish it to a new place.")
        else:
            aside = place.command("verify --repair")
            say(f"Restore these objects from a copy, or set them aside: {aside}")
        sys.exit(1)
    say(
        f"Set aside: {', '.join(repaired.set_aside) or 'nothing'}. {count(_own_models(db), 'model')} "
        f"{verb(_own_models(db))} in use now."
    )
    if repaired.left:
        say(f"Only a copy can mend {len(repaired.left)} of them: {repaired.left[0].place}")
        sys.exit(1)


@app.command()
@at_place()
def retract(
    place: Place,
    model_ids: Annotated[
        list[str], typer.Argument(metavar="MODEL_ID", help="Ids of models, or unambiguous prefixes of them.")
    ],
    because: Annotated[
        str, typer.Option("--because", metavar="TEXT", help="Why; it is kept with the store.")
    ],
) -> None:
    """Retract models, for good: they stay in the store and count nowhere.

    Retract models for what was wrong with their training (the wrong data, a broken machine), never for
    what they predict: choosing models by their outcome biases every score and voids its interval.

    \b
    memdb sql "SELECT model_id FROM models WHERE host = 'node7'"
    memdb retract 3f2a9c81 --because "node7 had a faulty GPU"
    """
    db = place.open()
    done = db.retract(model_ids, because)
    say(
        f"Retracted {count(len(done.models), 'model')} from {db.url}, "
        f"which has {_own_models(db):,} that count.",
        "If they were chosen by how they did, scores are biased now and their intervals mean nothing.",
    )


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove all that is kept.")] = False,
    cache_dir: CacheDirOption = None,
    cache_size: CacheSizeOption = "10GB",
) -> None:
    """Show or clear the local cache of remote stores.

    It also keeps what takes seconds to compute for predictions of large stores, local or not.
    """
    kept = Place(cache_dir=cache_dir, cache_size=cache_size).cache()
    if kept is None:
        say("There is no cache: --cache-dir none.")
        return
    gone = kept.shrink(0) if clear else 0
    usage = kept.usage()
    shown = {
        "folder": Path(usage.folder),
        "objects": f"{usage.n_objects:,}",
        "size": f"{size(usage.size)} of at most {size(usage.limit)}",
    }
    console().print(facts(shown))
    if gone:
        say(f"Removed {size(gone)}.")


def _own_models(db: Database) -> int:
    """Count the models of the store itself; those of one that it extends are kept by others."""
    return db.store.own_snapshot().n_models


def _hours(hours: float) -> timedelta:
    if not 0 <= hours <= MOST_HOURS:
        raise InvalidInputError(f"--grace {hours:g} is not a number of hours", hint="use e.g. --grace 24")
    return timedelta(hours=hours)


def _print_damages(db: Database, damages: Sequence[Damage]) -> None:
    rows = [
        (
            damage.kind,
            clean(damage.place.removeprefix(f"{db.url}/")),
            clean(_short(damage.problem, damage.place, db.url)),
            _models(damage.models),
        )
        for damage in damages
    ]
    console().print(findings(("kind", "where", "problem", "models"), rows))


def _short(problem: str, place: str, url: str) -> str:
    """Return a problem without what its row says already, and without hashes."""
    return problem.replace(f"{place} ", "").replace(f"{url}/", "").split(": its sha256 is not")[0]


def _models(models: tuple[str, ...]) -> str:
    if not models:
        return "unknown"
    return models[0][:8] if len(models) == 1 else f"{models[0][:8]} and {len(models) - 1:,} more"
