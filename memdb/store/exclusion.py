"""Answers without some models: left out of one question, not withdrawn from the store."""

from __future__ import annotations

from collections.abc import Sequence

from memdb.store.model_ids import named
from memdb.store.snapshot import Snapshot

DIVERGED = "diverged"


def without(snapshot: Snapshot, names: Sequence[str]) -> Snapshot:
    """Return a snapshot without the models named by their ids, or ``diverged`` for those that did.

    Raises:
        InvalidInputError: a name of none of its models, or of several.
    """
    if not names:
        return snapshot
    models = [model for _, model in snapshot.models]
    known = sorted(model.model_id for model in models)
    excluded = {named(known, name) for name in names if name != DIVERGED}
    if DIVERGED in names:
        excluded |= {model.model_id for model in models if model.diverged}
    return snapshot.excluding(frozenset(excluded))
