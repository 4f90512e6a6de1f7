"""Commands that show a store to people: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memdb.cli.app import app, say
from memdb.cli.options import DataRootOption, LevelOption, OwnDatasetOption
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, count, size


@app.command()
@at_place(ASKING)
def report(
    place: Place,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write, such as report.html.")
    ] = Path("report.html"),
    level: LevelOption = 0.95,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="With small pictures of the examples.")
    ] = True,
    dataset: OwnDatasetOption = None,
    data_root: DataRootOption = None,
) -> None:
    """Write one HTML file that shows the store: open it in a browser, or send it to somebody.

    It has every example with its memorization and interval, the strongest influences of and on examples,
    and small pictures. It needs no network and no memdb where it is opened.

    \b
    memdb report -o report.html
    memdb report -o cifar.html --data-root ~/data
    """  # noqa: D301
    db = place.open()
    with Counting(console(stderr=True), "lists and pictures") as counting:
        done = db.report(
            output, level=level, pictures=pictures, dataset=dataset, data_root=data_root, progress=counting
        )
    if done.without_pictures:
        say(f"Note: no pictures, for {clean(done.without_pictures)}. --data-root names the data's folder.")
    say(f"Wrote {clean(done.path)}: {count(done.n_pictures, 'picture')}, {size(done.size)}.")
