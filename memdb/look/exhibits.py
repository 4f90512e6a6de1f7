"""The examples that a gallery shows: at levels of memorization, or beside those that they influence most.

Feldman and Zhang (2020) show both: figure 2 and figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from memdb.query.options import MAX_ROWS, Order, RankedQuery, require_k

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
NEAR = 0.05  # of a level: what is chosen from at random
FAR = 0.125  # half of the way to the next level: beyond, nothing is shown as being near
CANDIDATES = 64  # most memorized examples, among which those are sought that influence most
BY = ("memorization", "influence")


@dataclass(frozen=True)
class Choice:
    """How a gallery is chosen: by what, from which class, how many, and by which seed.

    ``k`` pictures in a row; ``rows`` training examples, by influence alone.
    """

    by: str = "memorization"
    class_name: str | None = None
    k: int = 5
    rows: int = 4
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InvalidInputError(f"unknown gallery {self.by!r}", hint=f"use one of {', '.join(BY)}")
        require_k(self.k)
        if not 1 <= self.rows <= CANDIDATES:
            raise InvalidInputError(
                f"rows {self.rows} is not a number from 1 to {CANDIDATES}", hint="use e.g. rows=4", parameter="rows"
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidInputError(
                f"seed {self.seed} is not a number from 0 to 2**64 - 1", hint="use e.g. seed=0", parameter="seed"
            )


class GalleryOptions(TypedDict, total=False):
    """The options of `memdb.Database.exhibits`, which documents them."""

    class_name: str | None
    k: int
    rows: int
    seed: int
    outcome: str
    level: float


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


@dataclass(frozen=True)
class Gallery:
    """What a gallery shows, from which models; ``rows`` has the same as a table."""

    choice: Choice
    lines: tuple[Line, ...]
    source: Source
    rows: pa.Table

    @property
    def tiles(self) -> Sequence[Tile]:
        """All that is compared with chance: every tile but the controls."""
        return [tile for line in self.lines for tile in line.tiles if line.head != 0]


def gallery(answers: Answers, choice: Choice) -> Gallery:
    """Choose the examples of a gallery; the same models and seed give the same ones.

    By memorization: of the training examples within .05 of a level, random ones, or the nearest if these are
    too few. By influence: of the 64 most memorized examples, those with the strongest influences on test
    examples.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        NotFoundError: there is nothing to show.
        InvalidInputError: no such class.
    """
    if not isinstance(answers.relations, TableRelations):
        require_models(answers.relations.snapshot)
    return _by_memorization(answers, choice) if choice.by == "memorization" else _by_influence(answers, choice)


def _ranked(answers: Answers, choice: Choice, k: int) -> pa.Table:
    query = RankedQuery(k, Order(), IntervalSpec("simultaneous", choice.level))
    rows = answers.top_memorized(choice.class_name, query)
    known = rows.filter(rows.column("memorization").is_valid())
    if not len(known):
        of = "" if choice.class_name is None else f" of class {choice.class_name!r}"
        raise NotFoundError(
            f"no training example{of} has a memorization score", hint="add models, or take another class"
        )
    return known


def _by_memorization(answers: Answers, choice: Choice) -> Gallery:
    rows = _ranked(answers, choice, MAX_ROWS)
    scores, hanging = values_of(rows.column("memorization")), Hanging(answers.relations)
    lines, listed = [], []
    for number, level in enumerate(LEVELS):
        rng = np.random.default_rng([choice.seed, number])
        found = rows_of(rows, _near(scores, level, choice.k, rng)).to_pylist()
        lines.append(Line(level, tuple(map(hanging.memorized, found))))
        listed += [{"near": level, **row} for row in found]
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


def _by_influence(answers: Answers, choice: Choice) -> Gallery:
    relations, hanging = answers.relations, Hanging(answers.relations)
    require_examples(relations.snapshot, layout.TEST)
    heads = _ranked(answers, choice, CANDIDATES).to_pylist()
    query = RankedQuery(choice.k, Order(), IntervalSpec("selected", choice.level))
    helped = {}
    for head in heads:
        rows = answers.top_influence(ExampleRef("train_id", head["train_id"]), query).to_pylist()
        helped[head["train_id"]] = [row for row in rows if (row["influence"] or 0) > 0]
    heads = [head for head in heads if helped[head["train_id"]]]
    if not heads:
        raise NotFoundError("no memorized example helps any test example", hint="add models")
    heads.sort(key=lambda head: -helped[head["train_id"]][0].get("shrunk", helped[head["train_id"]][0]["influence"]))
    lines, listed = [], []
    anytime = IntervalSpec("anytime", choice.level)
    for head in heads[: choice.rows]:
        train_id = head["train_id"]
        (own,) = answers.score(train_id, None, anytime).to_pylist()
        control = _control(answers, own, helped[train_id], choice)
        shown = {"helps": helped[train_id], "control": control}
        tiles = {role: tuple(hanging.partner(row, "test_id") for row in rows) for role, rows in shown.items()}
        lines.append(Line(hanging.memorized({**head, **own}), tiles["helps"], tiles["control"]))
        listed += [{"role": role, **row} for role, rows in shown.items() for row in rows]
    names = ("role", *(name for name in listed[0] if name != "role"))
    source = source_of(relations, choice.level, "selected (memorization and control: anytime)")
    return Gallery(choice, tuple(lines), source, _table(listed, names))


def _control(
    answers: Answers, own: dict[str, Any], helped: Sequence[dict[str, Any]], choice: Choice
) -> list[dict[str, Any]]:
    """Return influences on as many random test examples of the training example's class."""
    labels = answers.relations.examples[layout.TEST].labels
    others = np.setdiff1d(np.flatnonzero(labels == own["label"]), [row["test_id"] for row in helped])
    rng = np.random.default_rng([choice.seed, own["train_id"]])
    drawn = np.sort(rng.choice(others, min(len(helped), len(others)), replace=False)).tolist()
    ids = {"train_id": own["train_id"], "test_id": None}
    every = answers.scores("influence", ids, IntervalSpec("anytime", choice.level), same_class=True)
    known = {row["test_id"]: row for row in every.to_pylist()}
    unknown = {name: None for name in every.column_names} | {"train_id": own["train_id"], "test_label": own["label"]}
    return [known.get(test_id, {**unknown, "test_id": test_id}) for test_id in drawn]


def _table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    found = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
    return found if len(found) else pa.table({name: [] for name in names})
