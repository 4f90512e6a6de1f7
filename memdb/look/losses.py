"""The test examples that lose most in a removal experiment, with their removed influencers, as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from memdb.datasets.appearance import Content, Contents
from memdb.format import layout
from memdb.look.tiles import Hanging, Tile
from memdb.query.relations import Relations


@dataclass(frozen=True)
class Losses:
    """A strip for each test example: itself with its loss, then the influencers with their influence."""

    strips: tuple[tuple[Tile, ...], ...]
    contents: Contents

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], relations: Relations, contents: Contents) -> Self:
        """Hang what `Findings.losses` lists; ``relations`` are of a store of the same data."""
        hanging = Hanging(relations)
        return cls(tuple(_strip(row, hanging) for row in rows), contents)

    def with_captions(self) -> list[list[tuple[Content, str]]]:
        """Return the same as what examples look like and what stands beside them."""
        return [[self._captioned(tile, number) for number, tile in enumerate(strip)] for strip in self.strips]

    def _captioned(self, tile: Tile, number: int) -> tuple[Content, str]:
        score = "influence" if number else "loss"
        caption = f"{tile.name} \u00b7 {tile.class_name}\n{score} {tile.score_text}"
        return self.contents(tile.set_name, tile.row), caption


def _strip(row: Mapping[str, Any], hanging: Hanging) -> tuple[Tile, ...]:
    label = hanging.label_of(layout.TEST, row["test_id"])
    lost = {"test_id": row["test_id"], "test_label": label, "influence": row["loss"]}
    tiles = [hanging.partner({**lost, "lo": row["lo"], "hi": row["hi"]}, "test_id")]
    for train_id, influence in zip(row.get("influencers", ()), row.get("influences", ()), strict=True):
        known = {"train_id": train_id, "train_label": hanging.label_of(layout.TRAIN, train_id)}
        tiles.append(hanging.partner({**known, "influence": influence, "lo": None, "hi": None}, "train_id"))
    return tuple(tiles)
