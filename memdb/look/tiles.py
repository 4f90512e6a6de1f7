"""What hangs in a strip or a gallery: one example with its score, and where its numbers are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memdb.addresses import shown
from memdb.format import layout
from memdb.query.imported_scores import TableRelations
from memdb.render.tables import CONVINCING, brief, clean
from memdb.store.examples import UNKNOWN
from memdb.wording import count

if TYPE_CHECKING:
    from memdb.query.relations import Relations

NAME = 24  # characters of a name below a picture
KEY = 60  # characters of an example's own name
STORE = 32  # characters of a store's address in a line that says whose numbers these are


@dataclass(frozen=True)
class Tile:
    """An example as it is shown, with its memorization or its influence.

    Names are printable, cut to a length, and safe in a terminal. A score is None where there is none; so are
    interval and q-value, which imported scores lack.
    """

    set_name: str
    row: int
    key: str
    class_name: str
    score: float | None = None
    lo: float | None = None
    hi: float | None = None
    q_value: float | None = None
    is_influence: bool = False

    @property
    def name(self) -> str:
        """The set and the row, such as "test 42"."""
        return f"{self.set_name} {self.row}"

    @property
    def score_text(self) -> str:
        """The score with three decimals, of influences with its sign."""
        return brief(self.score, "+" if self.is_influence else "")

    @property
    def interval_text(self) -> str:
        """The interval in brackets; empty if there is none."""
        sign = "+" if self.is_influence else ""
        return "" if self.lo is None else f"[{brief(self.lo, sign)}, {brief(self.hi, sign)}]"

    @property
    def is_explained_by_chance(self) -> bool:
        """Whether the score is no larger than chance alone gives."""
        return self.q_value is not None and self.q_value > CONVINCING


@dataclass(frozen=True)
class Source:
    """Whose numbers are shown: of which store, models and outcome, with which intervals."""

    store: str
    made_of: str  # data set and recipe
    models: str
    outcome: str
    date: str  # of the newest of these models
    level: float
    intervals: str

    @property
    def lines(self) -> tuple[str, str]:
        """What stands below a figure."""
        first = f"{self.store} \u00b7 {self.made_of} \u00b7 {self.models}"
        return first, " \u00b7 ".join(filter(None, (self.outcome, self.intervals, self.date)))


def source_of(relations: Relations, level: float, intervals: str) -> Source:
    """Return whose numbers an answer's are."""
    snapshot = relations.snapshot
    manifest = snapshot.manifest
    made_of = f"{clean(manifest.dataset, NAME)} \u00b7 {clean(manifest.recipe.name, NAME)}"
    address = clean(shown(snapshot.url).rstrip("/"))
    store = address if len(address) <= STORE else f"\u2026{address[-STORE + 1 :]}"
    named = f"{level * 100:g} % intervals: {intervals}"
    if isinstance(relations, TableRelations):
        table = relations.scores.table
        named = (
            ""
            if relations.assumed is None
            else f"{named}, as if of {count(relations.assumed.n_models, 'model')}"
        )
        day = clean(table.imported_at[:10])
        return Source(store, made_of, f"imported scores {clean(table.name, NAME)}", "", day, level, named)
    times = [snapshot.record.created_at] if snapshot.record else []
    times += [model.trained_at for segment in snapshot.loose for model in segment.models]
    day = clean(max(times, default=manifest.created_at)[:10])
    outcome = f"outcome {relations.outcome}"
    return Source(store, made_of, count(snapshot.n_models, "model"), outcome, day, level, named)


class Hanging:
    """Makes tiles of examples, whose names are read once."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._class_names = relations.class_names

    def tile(self, set_name: str, row: int, label: int | None) -> Tile:
        """Return an example without a score."""
        key = clean(self._relations.key_of(set_name, row), KEY)
        return Tile(set_name, row, key, self.class_name(label))

    def class_name(self, label: int | None) -> str:
        """Return a class's name, its number where it has none, or that it is unknown."""
        names = self._class_names
        if label is None:
            return UNKNOWN
        return clean(names[label], NAME) if label < len(names) else str(label)

    def label_of(self, set_name: str, row: int) -> int:
        """Return the label of an example."""
        return int(self._relations.examples[set_name].labels[row])

    def memorized(self, found: Mapping[str, Any]) -> Tile:
        """Return the training example of a row of memorization."""
        return self._scored(self.tile(layout.TRAIN, found["train_id"], found["label"]), found, "memorization")

    def partner(self, found: Mapping[str, Any], column: str) -> Tile:
        """Return the example that a row of influence names in a column."""
        set_name = layout.TEST if column == "test_id" else layout.TRAIN
        label = found[column.replace("_id", "_label")]
        return self._scored(self.tile(set_name, found[column], label), found, "influence")

    def _scored(self, tile: Tile, found: Mapping[str, Any], score: str) -> Tile:
        return Tile(
            tile.set_name, tile.row, tile.key, tile.class_name, found[score], found["lo"], found["hi"],
            found.get("q_value"), score == "influence",
        )  # fmt: skip
