"""Near-duplicates side by side, as they hang in a terminal or a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memdb.format import layout
from memdb.look.tiles import Hanging, Source, Tile, source_of
from memdb.render.tables import brief

if TYPE_CHECKING:
    from memdb.query.relations import Relations

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Couple:
    """A pair, the training example of the smaller id first, and how it was found."""

    tiles: tuple[Tile, Tile]
    found_by: str


@dataclass(frozen=True)
class Couples:
    """Pairs of near-duplicates, and from which models what they do is known."""

    pairs: tuple[Couple, ...]
    source: Source


def couples(relations: Relations, pairs: Iterable[Sequence[Row]], level: float, intervals: str) -> Couples:
    """Return the rows of `Database.duplicates`, one or two a pair, as they hang."""
    hanging = Hanging(relations)
    shown = tuple(Couple(_tiles(hanging, rows), _found_by(rows[0])) for rows in pairs)
    return Couples(shown, source_of(relations, level, intervals))


def _tiles(hanging: Hanging, rows: Sequence[Row]) -> tuple[Tile, Tile]:
    """Return both examples with the influence of the other; that of a test example on the other is none."""
    last = rows[-1]
    if last["target_id"] is None:
        train = hanging.tile(layout.TRAIN, last["train_id"], last["train_label"])
        return train, hanging.partner({**last, "test_label": last["target_label"]}, "test_id")
    first, second = (
        hanging.partner({**row, "train_id": row["target_id"], "train_label": row["target_label"]}, "train_id")
        for row in rows
    )
    return first, second


def _found_by(row: Row) -> str:
    """Return how a pair was found, with what tells how near it is."""
    near = {"similarity": "similar", "distance": "distance"}
    measured = [f"{called} {brief(row[name])}" for name, called in near.items() if row[name] is not None]
    return " \u00b7 ".join([row["found_by"].replace("+", ", "), *measured])
