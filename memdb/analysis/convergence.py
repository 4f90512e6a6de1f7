"""One score as models were added: its estimate and intervals after each of several numbers of models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.format import bits, layout
from memdb.query import arrow
from memdb.query.examples import ExampleRef, require_models, require_own
from memdb.query.intervals import IntervalSpec
from memdb.query.outcomes import OUTCOMES
from memdb.query.relations import Relations
from memdb.query.templates import template
from memdb.store import Snapshot

STEPS = (1, 2, 5)
FIRST = 10


def usual_looks(n_models: int) -> list[int]:
    """Return 10, 20, 50, 100, ... and, last, the number of models."""

    def steps() -> Iterator[int]:
        power = FIRST
        while power < n_models:
            yield from (step * power for step in STEPS if step * power < n_models)
            power *= 10

    return [*steps(), n_models]


def dense_looks(n_models: int, n_looks: int) -> list[int]:
    """Return about ``n_looks`` numbers of models, evenly spaced on a logarithmic scale, as for a curve."""
    first = min(FIRST, n_models)
    spread = np.geomspace(first, n_models, n_looks)
    looks: list[int] = np.unique(np.rint(spread).astype(np.int64)).tolist()
    return looks


def order_of_commit(snapshot: Snapshot) -> NDArray[np.int64]:
    """Return the positions of the models in the bits, in order of commit."""
    origins = np.array([origin for origin, _ in snapshot.models])
    return np.argsort(origins, kind="stable")


def convergence(
    relations: Relations,
    train_id: int,
    target: ExampleRef | None,
    level: float,
    looks: Sequence[int] | None = None,
) -> pa.Table:
    """Return a score after each number of models in ``looks``, in order of commit.

    Raises:
        NotEnoughModelsError: the store has no models yet.
        InvalidInputError: a level or a number of models out of range.
    """
    parameters = IntervalSpec("fixed", level).parameters()
    del parameters["interval"]
    n_models = relations.snapshot.n_models
    require_models(relations.snapshot)
    if target is None or target.example_set == layout.TRAIN:
        require_own(relations.snapshot)
    asked = usual_looks(n_models) if looks is None else sorted(set(looks))
    if not asked or not 1 <= asked[0] <= asked[-1] <= n_models:
        raise InvalidInputError(
            f"looks after {asked[0] if asked else 0} to {asked[-1] if asked else 0} models are out of range",
            hint=f"name numbers from 1 to {n_models:,}",
        )
    score = "memorization" if target is None else "influence"
    sql = template("convergence.sql", score=score, sums=OUTCOMES[relations.outcome].sql["sums"])
    return relations.ask(sql, parameters, tables={"looks": _sums(relations, train_id, target, asked)})


def _sums(relations: Relations, train_id: int, target: ExampleRef | None, looks: Sequence[int]) -> pa.Table:
    on = target or ExampleRef("target_id", train_id)
    order = order_of_commit(relations.snapshot)
    mask = relations.mask[train_id : train_id + 1].view(np.uint8)
    inside = bits.unpack(mask, len(order))[order, 0]
    values = relations.values(on.example_set, on.row)[order]
    if relations.outcome == "correct":
        values = values.astype(np.int64)
    at = np.array(looks) - 1
    sums = {
        "n_in": inside.cumsum()[at], "n_out": (~inside).cumsum()[at],
        "s_in": (values * inside).cumsum()[at], "s_out": (values * ~inside).cumsum()[at],
        "q_in": (values**2 * inside).cumsum()[at], "q_out": (values**2 * ~inside).cumsum()[at],
    }  # fmt: skip
    return arrow.table({"n_models": np.array(looks, dtype=np.int64), **sums})
