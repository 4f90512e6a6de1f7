"""What `memdb demo` shows once its store is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from memdb.cli.output import RankedWay, answer_of, print_influences, print_memorized
from memdb.render import images as pictures
from memdb.render.tables import console, number

if TYPE_CHECKING:
    from memdb.database import Database


def show_demo(db: Database, command: Callable[[str], str]) -> None:
    """Show what a store of a few hundred models tells, with pictures."""
    way = RankedWay()
    data = db.load_dataset()
    most = db.top_memorized(10)
    print_memorized(db, most, way, None)
    top = list(answer_of(db, most, way).rows())[:4]
    captions = [f"train {row['train_id']}: {number(row['memorization'])}" for row in top]
    _pictures([data.train[row["train_id"]][0] for row in top], captions)
    telling = db.sql(
        "SELECT test_id FROM influence ORDER BY lo DESC NULLS LAST, test_id, train_id LIMIT 1",
        interval="simultaneous",
    )
    test_id = int(next(answer_of(db, telling, way).rows())["test_id"])
    strongest = db.top_influence(test_id=test_id, k=5)
    print_influences(db, strongest, way, "test_id")
    shown = list(answer_of(db, strongest, way).rows())[:3]
    captions = [f"test {test_id}"] + [
        f"train {row['train_id']}: {number(row['influence'], '+')}" for row in shown
    ]
    _pictures([data.test[test_id][0], *(data.train[row["train_id"]][0] for row in shown)], captions)
    best = int(top[0]["train_id"])
    console().print("Go on with:", style="bold")
    for verb in (
        "info",
        f"top-influence --test-id {test_id}",
        f"score --train-id {best}",
        'sql "SELECT label, avg(memorization) FROM memorization GROUP BY ALL ORDER BY ALL"',
        "train --add 200",
    ):
        console().print(f"  {command(verb)}", soft_wrap=True)


def _pictures(examples: Sequence[Any], captions: Sequence[str]) -> None:
    if not all(pictures.is_picture(example) for example in examples):
        return
    out = console()
    images = [pictures.picture(example, color=out.color_system is not None) for example in examples]
    out.print(pictures.gallery(images, captions, out.width))
    out.print()
