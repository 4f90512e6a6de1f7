"""Withdrawing models: an immutable record, never a deletion."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from memdb.environment import own_version
from memdb.errors import InvalidInputError
from memdb.format import layout
from memdb.format.documents import plain_document
from memdb.format.manifest import Manifest
from memdb.format.snapshot_record import Retraction
from memdb.storage.protocol import Storage, create_once
from memdb.store.load_snapshot import load_snapshot
from memdb.store.model_ids import named


def retract(storage: Storage, manifest: Manifest, model_ids: Sequence[str], because: str) -> Retraction:
    """Withdraw models, named by their ids or by prefixes that only one model has.

    Raises:
        InvalidInputError: no reason, no model, a prefix of none or of several, or a model withdrawn already.
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
        raise InvalidInputError("the reason is no text that can be kept", hint="write it in UTF-8") from error
    if not model_ids:
        raise InvalidInputError(
            "no model was named", hint='`memdb sql "SELECT model_id FROM models"` lists them'
        )
    snapshot = load_snapshot(storage, manifest)
    known = sorted({model.model_id for part in snapshot.parts for model in part.models})
    found = dict.fromkeys(named(known, name) for name in model_ids)
    again = [identifier for identifier in found if identifier in snapshot.retracted]
    if again:
        raise InvalidInputError(f"model {again[0]} was withdrawn already", hint="leave it out")
    return withdraw(storage, manifest, because, models=tuple(found))


def withdraw(
    storage: Storage,
    manifest: Manifest,
    because: str,
    *,
    models: tuple[str, ...] = (),
    segments: tuple[str, ...] = (),
) -> Retraction:
    """Write the record that models do not count, or that damaged segments are not to be read."""
    now = datetime.now(UTC)
    record = Retraction(
        retraction_id=layout.segment_id(now, secrets.token_bytes(6)),
        store_id=manifest.store_id,
        because=because,
        retracted_at=now.isoformat(timespec="seconds"),
        memdb_version=own_version(),
        models=models,
        segments=segments,
    )
    path = layout.retraction(record.retraction_id)
    create_once(storage, path, plain_document(record.to_document()))
    return record
