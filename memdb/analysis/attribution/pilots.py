"""A store's models in two parts: pilots, from which estimators compute, and others, which judge them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError
from memdb.query.relations import Relations
from memdb.store import Snapshot
from memdb.store.read_sketches import find_sketches

SEED = 0
Ids = NDArray[np.int64]


def order_of_models(snapshot: Snapshot) -> Ids:
    """Return the positions of a snapshot's models in the order in which they become pilots.

    The sketched ones come first. The order is random, but always the same.
    """
    ids = snapshot.model_ids
    random = np.random.Philox(key=SEED).random_raw(len(ids))
    drawn = random[np.argsort(np.argsort(ids))]  # which no order of segments changes
    is_sketched = np.zeros(len(ids), dtype=np.bool_)
    is_sketched[[sketched.model for sketched in find_sketches(snapshot)]] = True
    return np.lexsort((drawn, ~is_sketched))


def pilots_of(relations: Relations, positions: Ids) -> Relations:
    """Return the relations of these models alone."""
    wanted = set(positions.tolist())
    models = enumerate(relations.snapshot.models)
    others = frozenset(model.model_id for position, (_, model) in models if position not in wanted)
    return Relations(relations.snapshot.excluding(relations.snapshot.excluded | others), relations.outcome)


def some_tests(n_tests: int, n_wanted: int) -> Ids:
    """Return the ids of test examples drawn at random, always the same ones, ascending."""
    order = np.argsort(np.random.Philox(key=SEED).random_raw(n_tests), kind="stable")
    return np.sort(order[:n_wanted])


def require_count(name: str, value: int, least: int, most: int) -> int:
    """Return a number of models or examples.

    Raises:
        InvalidInputError: out of range.
    """
    if not least <= value <= most:
        raise InvalidInputError(
            f"{name} {value:,} is not a number from {least:,} to {most:,}",
            hint=f"use e.g. {name}={min(most, max(least, 100))}",
            parameter=name,
        )
    return value
