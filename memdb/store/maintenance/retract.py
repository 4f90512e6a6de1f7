"""Retract models: an immutable record, never a deletion."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.documents import plain_document
from memdb.format.snapshot_record import Retraction
from memdb.storage.protocol import create_once
from memdb.store.model_ids import resolve_model_id
from memdb.store.store import Store


def retract(store: Store, model_ids: Sequence[str], because: str) -> Retraction:
    """Retract models, named by their ids or unambiguous prefixes.

    Raises:
        InvalidInputError: no reason, no model, an unknown or ambiguous prefix, or a model already retracted.
    """
    if not because.strip():
        raise InvalidInputError(
            "a retraction needs a reason",
            hint='say why: because="wrong labels in this run"',
            parameter="because",
        )
    try:
        because.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError("the reason is not valid Unicode text", hint="write it in UTF-8") from error
    if not model_ids:
        raise InvalidInputError(
            "no model was named", hint='`memdb sql "SELECT model_id FROM models"` lists them'
        )
    snapshot = store.own_snapshot()
    known = sorted({identifier for segment in snapshot.segments for identifier in segment.model_ids})
    models = dict.fromkeys(resolve_model_id(known, name) for name in model_ids)
    again = [identifier for identifier in models if identifier in snapshot.retracted]
    if again:
        raise InvalidInputError(f"model {again[0]} is already retracted", hint="omit it")
    return write_retraction(store, because, models=tuple(models))


def write_retraction(
    store: Store,
    because: str,
    *,
    models: tuple[str, ...] = (),
    segments: tuple[str, ...] = (),
) -> Retraction:
    """Record that models no longer count, or that damaged segments must not be read."""
    record = Retraction(
        retraction_id=layout.segment_id(datetime.now(UTC), secrets.token_bytes(6)),
        store_id=store.manifest.store_id,
        because=because,
        models=models,
        segments=segments,
    )
    path = layout.retraction(record.retraction_id)
    create_once(store.storage, path, plain_document(record.to_document()))
    return record
