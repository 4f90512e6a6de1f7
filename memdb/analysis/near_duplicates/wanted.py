"""What counts as a near-duplicate, and where to look for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypedDict

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.query.options import require_k

if TYPE_CHECKING:
    from memdb.datasets import Dataset

BY = ("all", "influence", "sketches", "content")
BETWEEN = ("both", "train", "test")
SHARES = ("min_influence", "min_share", "alpha", "min_similarity")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What counts as a near-duplicate, and where to look.

    Attributes:
        by: ``influence``, ``sketches``, ``content``, or ``all`` of what the store has.
        between: pairs within ``train``, with ``test``, or both.
        min_influence: of one on the other, for models that hold the other out; of both on each other.
        min_share: of what the other does for itself; of a test example, of what the training example does for
            itself, and no more than 1 / min_share of that.
        alpha: q-value up to which an influence counts.
        min_similarity: of gradient sketches.
        max_distance: of pictures.
        k: the number of pairs to return, all if None.
    """

    by: str = "all"
    between: str = "both"
    min_influence: float = 0.1
    min_share: float = 0.75
    alpha: float = 0.05
    min_similarity: float = 0.7
    max_distance: float = 0.06
    k: int | None = None

    def __post_init__(self) -> None:
        for name, given, known in (("by", self.by, BY), ("between", self.between, BETWEEN)):
            if given not in known:
                raise InvalidInputError(
                    f"{name} {given!r} is none of {', '.join(known)}",
                    hint=f"use e.g. {name}={known[0]}",
                    parameter=name,
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in SHARES and not 0 < value <= 1:
                raise InvalidInputError(
                    f"{field.name} {value:g} is not above 0 and at most 1",
                    hint=f"use e.g. {field.name}={field.default:g}",
                    parameter=field.name,
                )
        if not 0 <= self.max_distance <= 1:
            raise InvalidInputError(
                f"max_distance {self.max_distance:g} is not between 0 and 1",
                hint="use e.g. max_distance=0.06",
                parameter="max_distance",
            )
        if self.k is not None:
            require_k(self.k)

    def has(self, way: str) -> bool:
        """Whether to look this way: by ``influence``, ``sketches`` or ``content``."""
        return self.by in {way, "all"}

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets of the second example of a pair."""
        return (layout.TRAIN, layout.TEST) if self.between == "both" else (self.between,)


class DuplicateOptions(TypedDict, total=False):
    """The options of `memdb.Database.duplicates`.

    Attributes:
        by: ``influence``, ``sketches``, ``content``, or ``all`` of what the store has.
        between: pairs within the training set (``train``), of a training and a test example (``test``), or
            ``both``.
        min_influence, min_share, alpha: what counts by influence, see `Wanted`.
        min_similarity: what counts by sketches: the cosine of two, where gradients are whitened.
        max_distance: what counts by content: root mean square difference of pictures, 1 being black on white.
        k: the number of pairs, by default all.
        level, interval: of the intervals, by default ``selected``.
        dataset, data_root: where pictures come from, see `memdb.Database.contents`.
        remark: called with a sentence about what could not be looked at; by default a Python warning.
        progress: called with what was done so far of each step, and what there is to do.
    """

    by: str
    between: str
    min_influence: float
    min_share: float
    alpha: float
    min_similarity: float
    max_distance: float
    k: int | None
    level: float
    interval: str
    dataset: str | Dataset | None
    data_root: str | None
    remark: Callable[[str], None]
    progress: Callable[[int, int], None]


def wanted_of(options: DuplicateOptions) -> Wanted:
    """Return what the options ask for.

    Raises:
        InvalidInputError: a value out of range.
    """
    return Wanted(**{field.name: options[field.name] for field in fields(Wanted) if field.name in options})  # type: ignore[literal-required]
