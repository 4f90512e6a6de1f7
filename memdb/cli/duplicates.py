"""The command that looks for near-duplicates."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memdb.cli.app import app, say
from memdb.cli.options import OptionGroup, RankedIntervalOption
from memdb.cli.output import answer_of, emit, facts_line
from memdb.cli.show import Showing
from memdb.cli.store_options import ASKING, Place, at_place
from memdb.cli.walls import way_of
from memdb.query.options import require_k
from memdb.render import duplicates as rendered
from memdb.render.progress import Counting
from memdb.render.tables import clean, console, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from memdb.database import Database
    from memdb.datasets.appearance import Contents
    from memdb.render.answer import Answer

SHOWN = 20  # pairs of a table
MORE = "-k N shows more, --output FILE writes all of them"


class DuplicateBounds(OptionGroup):
    """What counts as a near-duplicate."""

    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="WHAT",
            help="influence: what examples do for each other; sketches: what they teach, where the store has "
            "gradient sketches; content: equal ones, and pictures that differ little; or all of these.",
        ),
    ] = "all"
    between: Annotated[
        str,
        typer.Option(
            "--between",
            metavar="SETS",
            help="train: pairs of training examples; test: of a training and a test example; or both.",
        ),
    ] = "both"
    min_influence: Annotated[
        float, typer.Option("--min-influence", metavar="X", help="The least influence, in each direction.")
    ] = 0.1
    min_share: Annotated[
        float,
        typer.Option(
            "--min-share", metavar="P", help="The least share of what an example does for itself, likewise."
        ),
    ] = 0.75
    alpha: Annotated[
        float,
        typer.Option(
            "--alpha", metavar="P", help="The share of pairs found by influence that may be chance."
        ),
    ] = 0.05
    min_similarity: Annotated[
        float,
        typer.Option(
            "--min-similarity",
            metavar="X",
            help="The least cosine of gradient sketches, whitened; unlike examples are near 0.",
        ),
    ] = 0.7
    max_distance: Annotated[
        float,
        typer.Option(
            "--max-distance",
            metavar="X",
            help="The most that pictures differ: root mean square over pixels, 1 being black on white.",
        ),
    ] = 0.06


class DuplicatesWay(Showing):
    """How the answer is wanted: influences are of right and wrong alone."""

    outcome: str = "correct"
    interval: RankedIntervalOption = "selected"

    def asked_for(self, k: int | None) -> dict[str, Any]:
        """Return how many pairs are asked for, with which intervals, and where pictures come from."""
        named = ("level", "interval", "dataset", "data_root")
        return {"k": self.most(k), **{name: getattr(self, name) for name in named}}

    def most(self, k: int | None) -> int | None:
        """Return how many pairs to ask for: a table says how many there are; rows do not flood a terminal."""
        if self.output is not None and not self.is_figure:
            return k
        return None if self.format == "table" and not self.is_figure else k or SHOWN

    @property
    def shows_pictures(self) -> bool:
        """Whether a figure is wanted, or the terminal shows pictures."""
        return self.is_figure or way_of(self.graphics) != "none"


@app.command()
@at_place(ASKING)
def duplicates(
    place: Place,
    *,
    bounds: DuplicateBounds,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", metavar="N", help="Pairs to show. [default: 20; all of them in a file]", show_default=False
        ),
    ] = None,
    way: DuplicatesWay,
) -> None:
    """Find near-duplicates within the training set, and between training and test set.

    An example with a twin in the training set looks less memorized than it is: models that hold it out have
    seen the twin. Two training examples are twins in what they do if each, for the models that hold the other
    out, does what that one would do itself; a training and a test example, if the first does for the second
    what it does for itself. They are twins in what they teach if their gradient sketches, where the store has
    any, are nearly the same; and in what they are if their content is equal, or their pictures differ little,
    moved by a pixel at most (needs the data).

    In a terminal that shows pictures, the pairs follow side by side.

    \b
    influence  P[right on one | other in] - P[right | other out], over the models that hold the one out
    share      of what an example does for itself: P[right | in] - P[right | both out]
    q          the share of chance among pairs of this influence or more, both ways
    distance   of the pictures, from 0 to 1
    memor.     of an example, and with models in place of which the twin is out, too (twin out)

    \b
    memdb duplicates
    memdb duplicates --by content --data-root ~/data -o duplicates.parquet
    memdb duplicates -k 12 -o duplicates.png
    memdb duplicates --between test --min-influence .9
    """
    if k is not None:
        require_k(k)
    db = place.open()
    with Counting(console(stderr=True), None) as counting:
        rows = db.duplicates(**vars(bounds), **way.asked_for(k), remark=_remark, progress=counting)
    answer = answer_of(db, rows, way)
    if way.is_numbers:
        emit(answer, way, plain)
        return
    if not way.is_figure:
        names = db.relations().class_names
        title = f"near-duplicates of {clean(db.url)} \u00b7 {facts_line(db, way)}"
        emit(answer, way, lambda shown: rendered.table(shown, title, names, k or SHOWN, MORE))
    if way.shows_pictures:
        _show(db, answer, k or SHOWN, bounds, way)


def _remark(sentence: str) -> None:
    say(f"Note: {clean(sentence)}.")


def _show(db: Database, answer: Answer, n_pairs: int, bounds: DuplicateBounds, way: DuplicatesWay) -> None:
    """Show the first pairs as pictures."""
    from memdb.look.couples import couples

    pairs = islice(rendered.pairs_of(answer.rows()), n_pairs)
    shown = couples(db.relations(), pairs, way.level, way.interval)
    was_told = bounds.by in {"all", "content"}  # why there are no pictures
    contents = db.contents_if_any(way.data_root, way.dataset)[0] if was_told else way.contents(db)

    def draw(contents: Contents | None) -> Figure:
        from memdb.look.figures import draw_couples

        return draw_couples(shown, contents)

    way.present(contents, draw, lambda wall: wall.couples(shown))
