"""Commands that show a store to people: report, view."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from memdb.cli.app import app, say
from memdb.cli.options import DataRootOption, LevelOption, OptionGroup, OwnDatasetOption
from memdb.cli.output import say_without_pictures
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, size
from memdb.wording import count


class PageOptions(OptionGroup):
    """What a page shows."""

    level: LevelOption = 0.95
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="With small pictures of the examples.")
    ] = True
    dataset: OwnDatasetOption = None
    data_root: DataRootOption = None


@app.command()
@at_place(ASKING)
def report(
    place: Place,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write, such as report.html.")
    ] = Path("report.html"),
    page: PageOptions,
) -> None:
    """Write one HTML file that shows the store: open it in a browser, or send it to somebody.

    It has every example with its memorization and interval, the strongest influences of and on examples,
    and small pictures. It needs no network and no memdb where it is opened.

    \b
    memdb report -o report.html
    memdb report -o cifar.html --data-root ~/data
    """
    db = place.open()
    with Counting(console(stderr=True), "lists and pictures") as counting:
        done = db.report(output, **vars(page), progress=counting)
    if done.without_pictures:
        say_without_pictures(done.without_pictures)
    say(f"Wrote {clean(done.path)}: {count(done.n_pictures, 'picture')}, {size(done.size)}.")


@app.command()
@at_place(ASKING)
def view(
    place: Place,
    *,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Of 127.0.0.1; 0 is a free one.")
    ] = 0,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the browser, or print the address alone.")
    ] = True,
    page: PageOptions,
) -> None:
    """Show a store in the browser: the page of `memdb report`, with the lists of every example.

    It is served on this machine to whoever has the address, which has a secret in it, until Ctrl-C.

    \b
    memdb view
    memdb view --store https://example.org/mnist
    memdb view --no-open --port 8000
    """
    from memdb.look.view import serving

    db = place.open()
    pictures, reason = db.pictures_of_page(
        pictures=page.pictures, dataset=page.dataset, data_root=page.data_root
    )
    if reason:
        say_without_pictures(reason)
    with (
        serving(db.viewer(pictures, page.level), port) as server,
        _stopped() as stopped,
        _opened(server.address if opens else None),
    ):
        typer.echo(server.address)
        sys.stdout.flush()
        say("Serving this page until Ctrl-C.")
        stopped.wait()
    say("Stopped.")


@contextlib.contextmanager
def _stopped() -> Iterator[threading.Event]:
    """Return what Ctrl-C sets; pressed again, while all ends, it does nothing more."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: event.set())
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _opened(address: str | None) -> Iterator[None]:
    """Open an address in the browser, by a file that only its owner reads: all can read command lines."""
    if address is None:
        yield
        return
    with tempfile.NamedTemporaryFile("w", suffix=".html", prefix="memdb-", encoding="utf-8") as file:
        file.write(
            f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">'
        )
        file.flush()
        if not _browses(Path(file.name).as_uri()):
            say("No browser was found here: open this address in one.")
        yield


def _browses(url: str) -> bool:
    """Open a URL in a browser that has a window of its own; tell whether there is one."""
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    in_terminal = type(browser) is webbrowser.GenericBrowser  # which would take this one
    return not in_terminal and browser.open(url)
