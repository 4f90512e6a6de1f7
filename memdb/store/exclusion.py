"""Exclude models from one question, without retracting them from the store."""

from __future__ import annotations

from collections.abc import Sequence

from memdb.store.model_ids import named
from memdb.store.snapshot import Snapshot

DIVERGED = "diverged"


def without(snapshot: Snapshot, names: Sequence[str]) -> Snapshot:
    """Return a snapshot that excludes models named by id or prefix; ``diverged`` names those that diverged.

    Raises:
        InvalidInputError: a name that matches none of its models, or several.
    """
    if not names:
        return snapshot
    models = [model for _, model in snapshot.models]
    known = sorted(model.model_id for model in models)
    excluded = {named(known, name) for name in names if name != DIVERGED}
    if DIVERGED in names:
        excluded |= {model.model_id for model in models if model.diverged}
    return snapshot.excluding(frozenset(excluded))
