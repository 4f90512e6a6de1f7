"""Models by their ids: resolved from an unambiguous prefix, or excluded from one question."""

from __future__ import annotations

from collections.abc import Sequence

from memdb.errors import InvalidInputError
from memdb.store.snapshot import Snapshot

SHORTEST_PREFIX = 6
DIVERGED = "diverged"


def resolve_model_id(known: Sequence[str], name: str) -> str:
    """Return the one of the known ids that begins with ``name``.

    Raises:
        InvalidInputError: the name is too short, or matches no id or several.
    """
    if len(name) < SHORTEST_PREFIX:
        raise InvalidInputError(
            f"{name!r} is too short to name a model",
            hint=f"give {SHORTEST_PREFIX} or more characters of its id",
        )
    matching = [identifier for identifier in known if identifier.startswith(name.lower())]
    if len(matching) != 1:
        raise InvalidInputError(
            f"{len(matching) or 'no'} models have ids that begin with {name!r}",
            hint='`memdb sql "SELECT model_id, seed, test_accuracy FROM models"` lists them',
        )
    return matching[0]


def exclude_models(snapshot: Snapshot, names: Sequence[str]) -> Snapshot:
    """Return the snapshot without the models named by id or prefix; ``diverged`` names all that diverged.

    They are excluded from one question, not retracted from the store.

    Raises:
        InvalidInputError: a name that matches none of its models, or several.
    """
    if not names:
        return snapshot
    models = [model for _, model in snapshot.models]
    known = sorted(model.model_id for model in models)
    excluded = {resolve_model_id(known, name) for name in names if name != DIVERGED}
    if DIVERGED in names:
        excluded |= {model.model_id for model in models if model.diverged}
    return snapshot.excluding(frozenset(excluded))
