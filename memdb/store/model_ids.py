"""Resolve a model from its id or an unambiguous prefix of it."""

from __future__ import annotations

from collections.abc import Sequence

from memdb.errors import InvalidInputError

SHORTEST_PREFIX = 6


def named(known: Sequence[str], name: str) -> str:
    """Return the one of the known ids that begins with ``name``.

    Raises:
        InvalidInputError: the name is too short, or matches no id or several.
    """
    if len(name) < SHORTEST_PREFIX:
        raise InvalidInputError(
            f"{name!r} is too short to name a model",
            hint=f"give {SHORTEST_PREFIX} or more characters of its id",
        )
    found = [identifier for identifier in known if identifier.startswith(name.lower())]
    if len(found) != 1:
        raise InvalidInputError(
            f"{len(found) or 'no'} models have ids that begin with {name!r}",
            hint='`memdb sql "SELECT model_id, seed, test_accuracy FROM models"` lists them',
        )
    return found[0]
