"""The examples that a gallery shows: at levels of memorization, or beside those that they influence most.

Feldman and Zhang (2020) show both: figure 2 and figure 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from memdb.errors import InvalidInputError, NotFoundError
from memdb.format import layout
from memdb.look.tiles import Hanging, Source, Tile, source_of
from memdb.query.answers import Answers
from memdb.query.arrow import rows_of, values_of
from memdb.query.examples import ExampleRef, require_examples, require_models
from memdb.query.imported_scores import TableRelations
from memdb.query.intervals import IntervalSpec
from memdb.query.options import MAX_ROWS, Order, PairOptions, RankedQuery, require_k

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEAR = 0.05  # of a level: what is chosen from at random
FAR = 0.125  # half of the way to the next level: beyond, nothing is shown as being near
MEMORIZED = 0.25  # what examples have to be whose influence is shown, where any are
SOME = 10  # influences on each test example, among which those of one class are sought
MOST_ROWS = 1000
BY = ("memorization", "influence")
Row = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Choice:
    """How a gallery is chosen: by what, from which class, how many, and by which seed.

    ``k`` pictures in a row; ``rows`` training examples, by influence alone.
    """

    by: str = "memorization"
    class_name: str | None = None
    k: int = 4
    rows: int = 3
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InvalidInputError(f"unknown gallery {self.by!r}", hint=f"use one of {', '.join(BY)}")
        require_k(self.k)
        if not 1 <= self.rows <= MOST_ROWS:
            raise InvalidInputError(
                f"rows {self.rows} is not a number from 1 to {MOST_ROWS}",
                hint="use e.g. rows=3",
                parameter="rows",
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidInputError(
                f"seed {self.seed} is not a number from 0 to 2**64 - 1",
                hint="use e.g. seed=0",
                parameter="seed",
            )


class GalleryOptions(TypedDict, total=False):
    """The options of `memdb.Database.exhibits`, which documents them."""

    class_name: str | None
    k: int
    rows: int
    seed: int
    outcome: str
    level: float
    progress: Progress


@dataclass(frozen=True)
class Line:
    """A row of a gallery.

    Attributes:
        head: the level that its tiles are near, or the training example that influences them.
        tiles: the examples.
        control: as many random examples of the head's class, by influence.
    """

    head: float | Tile
    tiles: tuple[Tile, ...]
    control: tuple[Tile, ...] = ()

    @property
    def level(self) -> str:
        """The level without the zero before its point; empty for a line of a training example."""
        return "" if isinstance(self.head, Tile) else f"{self.head:g}".replace("0.", ".")


@dataclass(frozen=True)
class Gallery:
    """What a gallery shows, from which models; ``rows`` has the same as a table."""

    choice: Choice
    lines: tuple[Line, ...]
    source: Source
    rows: pa.Table

    @property
    def tiles(self) -> Sequence[Tile]:
        """All that is compared with chance: not the controls, nor what is shown for having no score."""
        return [tile for line in self.lines for tile in line.tiles if line.head != 0]


def gallery(answers: Answers, choice: Choice, progress: Progress) -> Gallery:
    """Choose the examples of a gallery; the same models and seed give the same ones.

    By memorization: of the training examples within .05 of a level, random ones, or the nearest if these are
    too few. By influence: of the examples memorized by .25 or more, those whose influence on a test example
    is surest; ``progress`` is called with the pairs searched so far and in all.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        NotFoundError: there is nothing to show.
        InvalidInputError: no such class.
    """
    if not isinstance(answers.relations, TableRelations):
        require_models(answers.relations.snapshot)
    if choice.by == "memorization":
        return _by_memorization(answers, choice)
    return _by_influence(answers, choice, progress)


def _ranked(answers: Answers, choice: Choice) -> pa.Table:
    query = RankedQuery(MAX_ROWS, Order(), IntervalSpec("simultaneous", choice.level))
    rows = answers.top_memorized(choice.class_name, query)
    known = rows.filter(rows.column("memorization").is_valid())
    if not len(known):
        of = "" if choice.class_name is None else f" of class {choice.class_name!r}"
        raise NotFoundError(
            f"no training example{of} has a memorization score", hint="add models, or take another class"
        )
    return known


def _by_memorization(answers: Answers, choice: Choice) -> Gallery:
    rows = _ranked(answers, choice)
    scores, hanging = values_of(rows.column("memorization")), Hanging(answers.relations)
    lines, listed = [], []
    for number, level in enumerate(LEVELS):
        rng = np.random.default_rng([choice.seed, number])
        near = rows_of(rows, _near(scores, level, choice.k, rng)).to_pylist()
        lines.append(Line(level, tuple(map(hanging.memorized, near))))
        listed += [{"near": level, **row} for row in near]
    source = source_of(answers.relations, choice.level, "simultaneous")
    return Gallery(choice, tuple(lines), source, _table(listed, ("near", *rows.column_names)))


def _near(scores: NDArray[np.float64], level: float, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return k of the scores near a level, in their own order: random ones, or else the nearest."""
    distance = np.abs(scores - level)
    near = np.flatnonzero(distance <= NEAR)
    if len(near) > k:
        return np.sort(rng.choice(near, k, replace=False))
    nearest = np.argsort(distance, kind="stable")[:k]
    return np.sort(nearest[distance[nearest] <= FAR])


def _by_influence(answers: Answers, choice: Choice, progress: Progress) -> Gallery:
    relations, hanging = answers.relations, Hanging(answers.relations)
    require_examples(relations.snapshot, layout.TEST)
    query = RankedQuery(choice.k, Order(), IntervalSpec("selected", choice.level))
    lines, listed = [], []
    for train_id in _telling(answers, choice, progress):
        own = answers.score(train_id, None, IntervalSpec("anytime", choice.level)).to_pylist()[0]
        rows = answers.top_influence(ExampleRef("train_id", train_id), query).to_pylist()
        helped = [row for row in rows if row["influence"] > 0]
        shown = {"helps": helped, "control": _control(answers, own, helped, choice)}
        tiles = {role: tuple(hanging.partner(row, "test_id") for row in rows) for role, rows in shown.items()}
        lines.append(Line(hanging.memorized(own), tiles["helps"], tiles["control"]))
        listed += [{"role": role, **row} for role, rows in shown.items() for row in rows]
    names = ("role", *(name for name in listed[0] if name != "role"))
    source = source_of(relations, choice.level, "selected, of memorization and controls anytime")
    return Gallery(choice, tuple(lines), source, _table(listed, names))


def _telling(answers: Answers, choice: Choice, progress: Progress) -> list[int]:
    """Return the training examples with the surest influences on test examples, of different ones."""
    label = None if choice.class_name is None else answers.relations.label_of(choice.class_name)
    options: PairOptions = {"top": 1 if label is None else SOME, "level": choice.level, "progress": progress}
    for least in (MEMORIZED, None):
        pairs = answers.pairs({**options, "min_memorization": least}).to_pylist()
        telling = [row for row in pairs if label in {None, row["train_label"]} and row["influence"] > 0]
        if telling:
            break
    else:
        of = "" if choice.class_name is None else f" of class {choice.class_name!r}"
        raise NotFoundError(
            f"no training example{of} helps any test example", hint="add models, or take another class"
        )
    telling.sort(key=lambda row: -(row["influence"] if row["lo"] is None else row["lo"]))
    return list(dict.fromkeys(row["train_id"] for row in telling))[: choice.rows]


def _control(answers: Answers, own: Row, helped: Sequence[Row], choice: Choice) -> list[Row]:
    """Return influences on as many random test examples of the training example's class."""
    labels = answers.relations.examples[layout.TEST].labels
    others = np.setdiff1d(np.flatnonzero(labels == own["label"]), [row["test_id"] for row in helped])
    rng = np.random.default_rng([choice.seed, own["train_id"]])
    drawn = np.sort(rng.choice(others, min(len(helped), len(others)), replace=False)).tolist()
    ids = {"train_id": own["train_id"], "test_id": None}
    every = answers.scores("influence", ids, IntervalSpec("anytime", choice.level), same_class=True)
    known = {row["test_id"]: row for row in every.to_pylist()}
    same = {"train_id": own["train_id"], "test_label": own["label"]}
    unknown = dict.fromkeys(every.column_names) | same  # of pairs that were not imported
    return [known.get(test_id, {**unknown, "test_id": test_id}) for test_id in drawn]


def _table(rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    return table if len(table) else pa.table({name: [] for name in names})
