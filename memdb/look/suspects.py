"""Suspected label errors as they hang in a terminal or a figure: given label, suggested label, agreement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memdb.format import layout
from memdb.look.tiles import Hanging, Source, Tile, source_of

if TYPE_CHECKING:
    import pyarrow as pa

    from memdb.query.relations import Relations


@dataclass(frozen=True)
class Suspects:
    """Training examples whose labels are suspect, and from which models that is known."""

    tiles: tuple[Tile, ...]
    source: Source


def suspects(relations: Relations, rows: pa.Table, level: float, intervals: str) -> Suspects:
    """Return the rows of `Database.label_errors` as they hang: below a picture "3 \u2192 5" and the share."""
    hanging = Hanging(relations)
    source = replace(source_of(relations, level, intervals), outcome="outcome prediction")
    return Suspects(tuple(_tile(hanging, row) for row in rows.to_pylist()), source)


def _tile(hanging: Hanging, row: Mapping[str, Any]) -> Tile:
    tile = hanging.tile(layout.TRAIN, row["train_id"], row["label"])
    suggested = hanging.class_name(row["suggested_label"])
    return replace(
        tile,
        class_name=f"{tile.class_name} \u2192 {suggested}",
        score=row["agreement"], lo=row["lo"], hi=row["hi"],
    )  # fmt: skip
