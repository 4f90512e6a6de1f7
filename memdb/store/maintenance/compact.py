"""Compaction: small segments become blocks laid out for queries, and a numbered snapshot says so.

Nothing is changed and nothing removed: until the snapshot is created, which only one compactor can, the
blocks do not exist for readers; afterwards the segments that they took in are passed over.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.environment import own_version
from memdb.errors import AlreadyExistsError, InvalidInputError, StorageError
from memdb.format import bits, layout
from memdb.format.documents import Json, group_metadata, plain_document
from memdb.format.manifest import Base, Manifest, ObjectInfo, Outcome
from memdb.format.segment import Segment
from memdb.format.snapshot_record import BlockInfo, SnapshotRecord
from memdb.storage.protocol import Storage, concurrently, create_once
from memdb.store.block_counts import Tally
from memdb.store.encoding import BLOCK_MODELS, ArrayData, BandEncoder, array_metadata, describe, encode_group
from memdb.store.grace import Stopwatch
from memdb.store.load_snapshot import load_snapshot
from memdb.store.read_documents import base_in_force
from memdb.store.selection import Selection, cut_into
from memdb.store.snapshot import Snapshot
from memdb.store.store import commit_group, keeps_put_if_absent

BAND_BYTES = 128 << 20  # of one array in memory at once
ATTEMPTS = 5  # races lost to other compactors before giving up


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did. Sizes are bytes."""

    record: SnapshotRecord
    n_segments: int  # taken in
    n_models: int  # in the blocks written
    n_bytes: int  # written


def compact(
    storage: Storage,
    manifest: Manifest,
    *,
    thorough: bool = True,
    alone: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Compaction | None:
    """Gather segments into blocks of up to 1,024 models and create the next snapshot; None if all is done.

    Full blocks are never rewritten. ``thorough`` gathers all that is not full; without it blocks that hold
    more models than came since stay as they are, so that a growing store is rewritten a few times only.
    ``progress`` hears how many models of how many are in blocks.

    Raises:
        InvalidInputError: the storage cannot keep two compactors apart, and ``alone`` does not say there is
            one.
        DamagedError: an object of a segment is missing or altered.
        StorageError: the storage refused, or others were faster again and again.

    After an error nothing is different for readers; blocks that were begun are leftovers for cleaning up.
    """
    if not storage.can_list:
        raise InvalidInputError(
            f"{storage.url} cannot be listed, and so not be compacted",
            hint="compact the store where its models are committed",
        )
    for _ in range(ATTEMPTS):
        snapshot = load_snapshot(storage, manifest)
        base = base_in_force(storage, manifest)
        watch = Stopwatch()
        kept, selections = _plan(snapshot, thorough=thorough)
        if not snapshot.loose and not selections and not _is_news(snapshot, base):
            return None
        if not alone and not keeps_put_if_absent(storage):
            raise InvalidInputError(
                f"{storage.url} overwrites objects that it was told only to create, so that two compactions "
                "at once could hide models",
                hint="make sure that nobody else compacts this store, and say so with alone=True",
                parameter="alone",
            )
        cuts = list(cut(selections))
        total = sum(share.n_models for some in cuts for share in some)
        blocks, n_bytes, done = [], 0, 0
        for some in cuts:
            progress(done, total)
            block, info, size = write_block(storage, manifest, some, watch)
            blocks.append((block, info))
            n_bytes += size
            done += len(block.models)
        progress(done, total)
        record = replace(_record_of(snapshot, kept, blocks), base=base)
        if watch.stalled():
            continue  # the blocks may be cleaned up as leftovers any moment
        try:
            create_once(storage, layout.snapshot(record.number), plain_document(record.to_document()))
        except AlreadyExistsError:
            continue  # another compactor was faster: begin from its snapshot
        return Compaction(record, len(snapshot.loose), total, n_bytes)
    raise StorageError(
        f"{storage.url}: others compacted it {ATTEMPTS} times in the meantime", hint="run it again later"
    )


def _plan(snapshot: Snapshot, *, thorough: bool) -> tuple[int, list[Selection]]:
    """Return how many blocks stay as they are, and what goes into new ones.

    A block at the end is gathered, too, where it is not full and what follows has the same arrays.
    """
    blocks = snapshot.blocks
    selections = [
        Selection(snapshot.storage, part, flags)
        for part, flags in zip(snapshot.loose, snapshot.first[len(blocks) :], strict=True)
        if any(flags)
    ]
    if not selections and not thorough:
        return len(blocks), []
    kept = len(blocks)
    if snapshot.loose and not selections:
        return kept, []  # repeats only
    while kept and len(blocks[kept - 1].models) < BLOCK_MODELS:
        last = Selection(snapshot.storage, blocks[kept - 1], snapshot.first[kept - 1])
        if selections and _kept_by(last.part) != _kept_by(selections[0].part):
            break
        if not thorough and last.n_models > sum(share.n_models for share in selections):
            break
        selections.insert(0, last)
        kept -= 1
    if not snapshot.loose and len(list(cut(selections))) >= len(selections):
        return len(blocks), []
    return kept, [share for share in selections if share.n_models]


def _is_news(snapshot: Snapshot, base: Base | None) -> bool:
    """Tell whether parts or models were withdrawn, or the base was updated, since the record was written."""
    record = snapshot.record
    if base != (record.base if record else None):
        return True
    said = (set(record.retracted), set(record.set_aside)) if record else (set(), set())
    return said != (_retracted_in(snapshot), set(snapshot.set_aside))


def _retracted_in(snapshot: Snapshot) -> set[str]:
    return {model.model_id for part in snapshot.parts for model in part.models} & snapshot.retracted


def _kept_by(part: Segment) -> list[str]:
    """Return the masks' and outcomes' arrays of a part; a block has more, which are counted anew."""
    return sorted(path for path in part.metadata if not path.startswith(f"{layout.COUNTS}/"))


def cut(selections: Sequence[Selection]) -> Iterator[list[Selection]]:
    """Yield the shares of each block: up to 1,024 models which all have the same arrays."""
    for _, alike in groupby(selections, key=lambda share: _kept_by(share.part)):
        yield from cut_into(alike, BLOCK_MODELS)


def rewrite(storage: Storage, manifest: Manifest, block: Segment) -> tuple[BlockInfo, Segment]:
    """Write a block again with the arrays that its metadata names, and all of its models.

    Raises:
        DamagedError: one of these arrays is not intact.
    """
    share = Selection(storage, block, (True,) * len(block.models))
    written, info, _ = write_block(storage, manifest, [share], Stopwatch())
    return BlockInfo(written.segment_id, len(written.models), info), written


def write_block(
    storage: Storage,
    manifest: Manifest,
    selections: Sequence[Selection],
    watch: Stopwatch,
    identifier: str | None = None,
) -> tuple[Segment, ObjectInfo, int]:
    """Write a block of what ``source`` has; return it, its document's size and sha256, and its bytes."""
    identifier = identifier or layout.segment_id(datetime.now(UTC), secrets.token_bytes(6))
    origins = [
        origin
        for share in selections
        for origin, keep in zip(share.part.origins, share.keep, strict=True)
        if keep
    ]
    block = Segment(
        segment_id=identifier,
        store_id=manifest.store_id,
        recipe_fingerprint=manifest.recipe.fingerprint,
        models=tuple(
            model
            for share in selections
            for model, keep in zip(share.part.models, share.keep, strict=True)
            if keep
        ),
        memdb_version=own_version(),
        objects={},
        sources=tuple((origin, len(list(run))) for origin, run in groupby(origins)),
    )
    objects: dict[str, ObjectInfo] = {}
    metadata: dict[str, Json] = {}

    def write(encoded: Mapping[str, bytes]) -> None:
        storage.write_all({f"{block.group}/{name}": data for name, data in encoded.items()})
        objects.update(describe(encoded))
        metadata.update(array_metadata(encoded))

    tally = Tally(manifest)
    for path, outcome, n_examples in _arrays(manifest, selections[0].part):
        for encoded in _encoded(selections, path, outcome, n_examples, tally):
            write(encoded)
    write(encode_group({path: ArrayData(values) for path, values in tally.arrays().items()}))
    block = replace(block, objects=objects, metadata=metadata)
    if not commit_group(storage, block, watch):
        raise StorageError(
            f"{storage.url}/{block.group} was written and was not all there in the end",
            hint="run it again; nothing is lost",
        )
    document = group_metadata(block.to_document())
    info = describe({layout.GROUP_METADATA: document})[layout.GROUP_METADATA]
    return block, info, sum(item.size for item in objects.values()) + info.size


def _arrays(manifest: Manifest, part: Segment) -> Iterator[tuple[str, Outcome | None, int]]:
    """Yield path, outcome (None for the mask) and number of examples of the arrays that a part has."""
    yield layout.MASK, None, manifest.train.n_examples
    for path, (outcome, n_examples) in manifest.arrays().items():
        if path in part.metadata:
            yield path, outcome, n_examples


def _encoded(
    selections: Sequence[Selection],
    path: str,
    outcome: Outcome | None,
    n_examples: int,
    tally: Tally,
) -> Iterator[dict[str, bytes]]:
    """Yield the objects of one array of a block, reading its sources a band of rows at a time."""
    n_models = sum(share.n_models for share in selections)
    is_bits = outcome is None or outcome.kind == "bit"
    dtype = "uint8" if outcome is None or is_bits else outcome.dtype
    columns = bits.n_bytes(n_models) if is_bits else n_models
    encoder = BandEncoder(path, (n_examples, columns), dtype, sharded=outcome is not None)
    yield encoder.metadata
    for rows in encoder.bands(BAND_BYTES):
        if is_bits:

            def read(share: Selection, rows: tuple[int, int] = rows) -> tuple[bits.Packed, int]:
                return share.read_bits(path, n_examples, rows)

            parts = concurrently(read, selections)
            values = bits.concatenate(parts, rows[1] - rows[0])
            tally.take(path, rows[0], values)
        else:
            values = np.empty((rows[1] - rows[0], n_models), dtype=dtype)
            starts = np.cumsum([0, *(share.n_models for share in selections)]).tolist()

            def fill(
                job: tuple[int, Selection], rows: tuple[int, int] = rows, values: NDArray[Any] = values
            ) -> None:
                start, share = job
                values[:, start : start + share.n_models] = share.read_values(path, n_examples, dtype, rows)

            concurrently(fill, zip(starts, selections, strict=False))
        yield from encoder.encode(rows[0], values)


def _record_of(
    snapshot: Snapshot, kept: int, written: Sequence[tuple[Segment, ObjectInfo]]
) -> SnapshotRecord:
    """Return the record of a compacted snapshot: the same models, in the same order."""
    before = snapshot.record
    stay = list(before.blocks[:kept]) if before else []
    new = [BlockInfo(block.segment_id, len(block.models), info) for block, info in written]
    return SnapshotRecord(
        number=before.number + 1 if before else 1,
        store_id=snapshot.manifest.store_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        memdb_version=own_version(),
        n_models=snapshot.n_models,
        models_sha256=snapshot.models_sha256,
        n_repeats=snapshot.n_repeats,
        blocks=(*stay, *new),
        segments=(*snapshot.lingering, *(part.segment_id for part in snapshot.loose)),
        retracted=tuple(sorted(_retracted_in(snapshot))),
        set_aside=tuple(sorted(snapshot.set_aside)),
    )
