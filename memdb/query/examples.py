"""The examples that a question is about, named by id or by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypedDict

from memdb.errors import InvalidInputError, NotEnoughModelsError, NotFoundError
from memdb.format import layout
from memdb.format.manifest import CORRECT

if TYPE_CHECKING:
    from memdb.store import Snapshot

TARGETS = ("test_id", "target_id")


class Rows(Protocol):
    """Resolves ids and keys of examples to rows (see `Relations`)."""

    def row_of(self, set_name: str, identifier: int | None, key: str | None, parameter: str) -> int:
        """Return an example's row from its id or its key."""


class TargetNames(TypedDict, total=False):
    """Keywords that name the examples of a question besides ``train_id``: each by its id or its key.

    Attributes:
        train_key: the training example, in place of ``train_id``.
        test_id, test_key: the test example that it influences.
        target_id, target_key: the training example that it influences, in place of a test example.
    """

    train_key: str | None
    test_id: int | None
    test_key: str | None
    target_id: int | None
    target_key: str | None


class ExampleNames(TargetNames, total=False):
    """Keywords that name the examples of a question, including ``train_id``."""

    train_id: int | None


@dataclass(frozen=True, slots=True)
class ExampleRef:
    """An example: the id column that names it (``train_id``, ``test_id`` or ``target_id``) and its row."""

    column: str
    row: int

    @property
    def example_set(self) -> str:
        """The example's set."""
        return set_of(self.column)


def set_of(column: str) -> str:
    """Return the set of the examples that an id column names."""
    return layout.TEST if column == "test_id" else layout.TRAIN


def find_one(relations: Rows, names: ExampleNames, columns: Sequence[str]) -> ExampleRef:
    """Return the one example that is named by exactly one of these columns.

    Raises:
        InvalidInputError: no example, several, both an id and a key, or an id out of range.
        NotFoundError: no example has that key.
    """
    given = [(column, names.get(column), names.get(column.replace("_id", "_key"))) for column in columns]
    named = [(column, row, key) for column, row, key in given if row is not None or key is not None]
    if len(named) != 1 or None not in named[0][1:]:
        how_many = "none" if not named else "more than one"
        raise InvalidInputError(
            f"name exactly one example, {how_many} was given",
            hint=f"use one of {' or '.join(columns)}, or its key",
            parameter=tuple(columns),
        )
    ((column, row, key),) = named
    return ExampleRef(column, relations.row_of(set_of(column), row, key, column))  # type: ignore[arg-type]


def find_pair(relations: Rows, names: ExampleNames) -> tuple[int, ExampleRef | None]:
    """Return the row of the named training example, and its target if one is named.

    Raises:
        InvalidInputError: no training example, several targets, or an id out of range.
        NotFoundError: no example has that key.
    """
    train = find_one(relations, names, ("train_id",))
    named = any(value is not None for name, value in names.items() if name.startswith(("test_", "target_")))
    return train.row, find_one(relations, names, TARGETS) if named else None


def require_examples(snapshot: Snapshot, set_name: str) -> int:
    """Return the number of examples of a set.

    Raises:
        NotFoundError: it has none: a data set may come without test examples.
    """
    n_examples = snapshot.manifest.set_named(set_name).n_examples
    if n_examples == 0:
        raise NotFoundError(
            f"{snapshot.url} has no {set_name} examples",
            hint="its data came without any; ask about training examples, such as target_id",
            parameter="target_id",
        )
    return n_examples


def keeps_own(snapshot: Snapshot) -> bool:
    """Tell whether outcomes on training examples are kept: models may come without."""
    return f"{layout.TRAIN}/{CORRECT.name}" in snapshot.manifest.arrays()


def require_own(snapshot: Snapshot) -> None:
    """Check that outcomes on training examples are kept, which memorization is about.

    Raises:
        NotFoundError: they are not.
    """
    if not keeps_own(snapshot):
        raise NotFoundError(
            f"{snapshot.url} keeps no outcomes on training examples, and so nothing of memorization",
            hint="ask about influence on test examples",
            parameter="test_id",
        )


def require_labels(snapshot: Snapshot, *, are_labelled: bool) -> None:
    """Refuse a question about classes if they are not known.

    Raises:
        NotFoundError: the store was made without labels, and no scores brought any.
    """
    if not are_labelled:
        raise NotFoundError(
            f"{snapshot.url} was imported without labels: no class is known",
            hint="import into a new store with labels, or with a dataset",
            parameter=("same_class", "dataset"),
        )


def how_to_add_models(snapshot: Snapshot) -> str:
    """Say how a store gets models: none are trained into one of imports."""
    if snapshot.manifest.subset_scheme == "imported":
        return "import runs: score tables say nothing of single models"
    return "train some with `memdb train --add 100`"


def require_models(snapshot: Snapshot) -> None:
    """Check that a store has models.

    Raises:
        NotEnoughModelsError: it has none yet.
    """
    if snapshot.n_models == 0:
        raise NotEnoughModelsError(f"{snapshot.url} has no models yet", hint=how_to_add_models(snapshot))


def row_of_key(keys: Sequence[str], set_name: str, key: str) -> int:
    """Return an example's row from its key.

    Raises:
        NotFoundError: no example has this key.
    """
    try:
        return keys.index(key)
    except ValueError as error:
        raise NotFoundError(
            f"no {set_name} example has the key {key!r}",
            hint=f"keys look like {keys[0]!r}; the relation {set_name}_examples has all of them",
        ) from error


def label_of(class_name: str, names: Sequence[str], n_classes: int) -> int:
    """Return the label of a class from its name or number.

    Raises:
        InvalidInputError: no such class; the hint lists some.
    """
    if class_name in names:
        return names.index(class_name)
    if class_name.isdecimal() and int(class_name) < n_classes:
        return int(class_name)
    shown = ", ".join(names[:10]) if names else f"0 to {n_classes - 1}"
    raise InvalidInputError(
        f"no class {class_name!r}", hint=f"classes are {shown}{' ...' * (len(names) > 10)}"
    )
