"""Compaction: write small segments as blocks laid out for queries, and create a numbered snapshot of them.

Nothing is changed or removed. Readers do not see the blocks until the snapshot is created, which only one
compactor can do; from then on they skip the compacted segments.
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

from memdb.errors import AlreadyExistsError, InvalidInputError, StorageError
from memdb.format import bits, layout
from memdb.format.base import Base
from memdb.format.documents import Json, group_metadata, own_version, plain_document
from memdb.format.manifest import Manifest, ObjectInfo, Outcome
from memdb.format.segment import Segment
from memdb.format.sketches import is_sketch
from memdb.format.snapshot_record import BlockInfo, SnapshotRecord
from memdb.storage.protocol import concurrently, create_once
from memdb.store.block_counts import BlockCounter
from memdb.store.encoding import BLOCK_MODELS, ArrayData, BandEncoder, array_metadata, describe, encode_group
from memdb.store.grace import Stopwatch
from memdb.store.read_documents import StoreLike
from memdb.store.read_sketches import copied_sketches
from memdb.store.selection import Selection, cut_into
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store, commit_group, keeps_put_if_absent

BAND_BYTES = 128 << 20  # of one array in memory at once
ATTEMPTS = 5  # races lost to other compactors before giving up


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did. Sizes are bytes."""

    record: SnapshotRecord
    n_segments: int  # compacted
    n_models: int  # in the blocks written
    n_bytes: int  # written


def compact(
    store: Store,
    *,
    thorough: bool = True,
    alone: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Compaction | None:
    """Write segments as blocks of up to 1,024 models and create the next snapshot; None if nothing is to do.

    Full blocks are never rewritten. ``thorough`` rewrites every block that is not full; otherwise a block
    with more models than the new segments stays, so that a growing store is rewritten only a few times.
    ``alone``: assert that no other process is compacting; needed on storages without conditional writes.
    ``progress`` is called with the number of models written and the total.

    Raises:
        InvalidInputError: the storage has no conditional writes, and ``alone`` is not set.
        DamagedError: an object of a segment is missing or altered.
        StorageError: the storage failed, or other compactors won every race.

    After an error readers see the store as before; unfinished blocks are left for garbage collection.
    """
    if not store.storage.can_list:
        raise InvalidInputError(
            f"{store.url} cannot be compacted: it has no listings",
            hint="compact the store where its models are committed",
        )
    for _ in range(ATTEMPTS):
        snapshot = store.own_snapshot()
        base = store.base
        watch = Stopwatch()
        kept, selections = _plan(snapshot, thorough=thorough)
        if not snapshot.loose and not selections and not _is_news(snapshot, base):
            return None
        _require_put_if_absent(store, alone=alone)
        blocks, n_bytes = _write_blocks(store, list(cut(selections)), watch, progress)
        record = replace(_record_of(snapshot, kept, blocks), base=base)
        if watch.stalled():
            continue  # the blocks may be cleaned up as leftovers any moment
        try:
            create_once(store.storage, layout.snapshot(record.number), plain_document(record.to_document()))
        except AlreadyExistsError:
            continue  # another compactor was faster: begin from its snapshot
        n_models = sum(len(block.models) for block, _ in blocks)
        return Compaction(record, len(snapshot.loose), n_models, n_bytes)
    raise StorageError(
        f"{store.url}: others compacted it {ATTEMPTS} times in the meantime", hint="run it again later"
    )


def _require_put_if_absent(store: Store, *, alone: bool) -> None:
    """Check that of two compactions at once, one loses, or that there is only one.

    Raises:
        InvalidInputError: the storage overwrites what it should only create.
    """
    if not alone and not keeps_put_if_absent(store.storage):
        raise InvalidInputError(
            f"{store.url} overwrites objects that it should only create, so two compactions at once "
            "could hide models",
            hint="make sure that nothing else compacts this store, and pass alone=True",
            parameter="alone",
        )


def _write_blocks(
    store: Store,
    batches: Sequence[Sequence[Selection]],
    watch: Stopwatch,
    progress: Callable[[int, int], None],
) -> tuple[list[tuple[Segment, ObjectInfo]], int]:
    """Write a block of each batch; return the blocks with their documents' hashes, and all bytes."""
    total = sum(selection.n_models for batch in batches for selection in batch)
    blocks: list[tuple[Segment, ObjectInfo]] = []
    n_bytes = done = 0
    for batch in batches:
        progress(done, total)
        block, info, size = write_block(store, batch, watch)
        blocks.append((block, info))
        n_bytes += size
        done += len(block.models)
    progress(done, total)
    return blocks, n_bytes


def _plan(snapshot: Snapshot, *, thorough: bool) -> tuple[int, list[Selection]]:
    """Return how many blocks stay as they are, and the selections that go into new ones.

    The last blocks are rewritten, too, if they are not full and the segments after them have the same arrays.
    """
    blocks = snapshot.blocks
    selections = [
        Selection(snapshot.storage, segment, flags)
        for segment, flags in zip(snapshot.loose, snapshot.first[len(blocks) :], strict=True)
        if any(flags)
    ]
    if not selections and not thorough:
        return len(blocks), []
    kept = len(blocks)
    if snapshot.loose and not selections:
        return kept, []  # repeats only
    while kept and len(blocks[kept - 1].models) < BLOCK_MODELS:
        last = Selection(snapshot.storage, blocks[kept - 1], snapshot.first[kept - 1])
        if selections and _kept_by(last.segment) != _kept_by(selections[0].segment):
            break
        if not thorough and last.n_models > sum(selection.n_models for selection in selections):
            break
        selections.insert(0, last)
        kept -= 1
    if not snapshot.loose and len(list(cut(selections))) >= len(selections):
        return len(blocks), []
    return kept, [selection for selection in selections if selection.n_models]


def _is_news(snapshot: Snapshot, base: Base | None) -> bool:
    """Tell whether models were retracted, segments set aside or the base updated since the last snapshot."""
    record = snapshot.record
    if base != (record.base if record else None):
        return True
    recorded = (set(record.retracted), set(record.set_aside)) if record else (set(), set())
    return recorded != (_retracted_in(snapshot), set(snapshot.set_aside))


def _retracted_in(snapshot: Snapshot) -> set[str]:
    ids = {identifier for segment in snapshot.segments for identifier in segment.model_ids}
    return ids & snapshot.retracted


def _kept_by(segment: Segment) -> list[str]:
    """Return a segment's mask and outcome arrays: counts are recounted, and sketches are of single models."""
    return sorted(
        path for path in segment.metadata if not path.startswith(f"{layout.COUNTS}/") and not is_sketch(path)
    )


def cut(selections: Sequence[Selection]) -> Iterator[list[Selection]]:
    """Yield the selections of each block: up to 1,024 models that all have the same arrays."""
    for _, alike in groupby(selections, key=lambda selection: _kept_by(selection.segment)):
        yield from cut_into(alike, BLOCK_MODELS)


def rewrite(store: Store, block: Segment) -> tuple[BlockInfo, Segment]:
    """Write a block again with the arrays that its metadata names, and all of its models.

    Raises:
        DamagedError: one of these arrays is not intact.
    """
    selection = Selection(store.storage, block, (True,) * len(block.models))
    written, info, _ = write_block(store, [selection], Stopwatch())
    return BlockInfo(written.segment_id, len(written.models), info), written


def write_block(
    store: StoreLike,
    selections: Sequence[Selection],
    watch: Stopwatch,
    identifier: str | None = None,
) -> tuple[Segment, ObjectInfo, int]:
    """Write a block of these models; return it, its document's size and sha256, and the bytes written."""
    identifier = identifier or layout.segment_id(datetime.now(UTC), secrets.token_bytes(6))
    origins = [origin for selection in selections for origin in selection.origins]
    block = Segment(
        segment_id=identifier,
        store_id=store.manifest.store_id,
        recipe_fingerprint=store.manifest.recipe.fingerprint,
        memdb_version=own_version(),
        models=tuple(model for selection in selections for model in selection.models),
        objects={},
        sources=tuple((origin, len(list(run))) for origin, run in groupby(origins)),
    )
    objects: dict[str, ObjectInfo] = {}
    metadata: dict[str, Json] = {}

    def write(encoded: Mapping[str, bytes]) -> None:
        store.storage.write_all({f"{block.group}/{name}": data for name, data in encoded.items()})
        objects.update(describe(encoded))
        metadata.update(array_metadata(encoded))

    counter = BlockCounter(store.manifest)
    for path, outcome, n_examples in _arrays(store.manifest, selections[0].segment):
        for encoded in _encoded(selections, path, outcome, n_examples, counter):
            write(encoded)
    for encoded in copied_sketches(store.manifest, selections):
        write(encoded)
    write(encode_group({path: ArrayData(values) for path, values in counter.arrays().items()}))
    block = replace(block, objects=objects, metadata=metadata)
    if not commit_group(store.storage, block, watch):
        raise StorageError(
            f"{store.url}/{block.group} was written and was incomplete in the end",
            hint="run it again; nothing is lost",
        )
    document = group_metadata(block.to_document())
    info = describe({layout.GROUP_METADATA: document})[layout.GROUP_METADATA]
    return block, info, sum(item.size for item in objects.values()) + info.size


def _arrays(manifest: Manifest, segment: Segment) -> Iterator[tuple[str, Outcome | None, int]]:
    """Yield path, outcome (None for the mask) and number of examples of the arrays that a segment has."""
    yield layout.MASK, None, manifest.train.n_examples
    for path, (outcome, n_examples) in manifest.arrays().items():
        if path in segment.metadata:
            yield path, outcome, n_examples


def _encoded(
    selections: Sequence[Selection],
    path: str,
    outcome: Outcome | None,
    n_examples: int,
    counter: BlockCounter,
) -> Iterator[dict[str, bytes]]:
    """Yield the objects of one array of a block, reading the selections a band of rows at a time."""
    n_models = sum(selection.n_models for selection in selections)
    is_bits = outcome is None or outcome.kind == "bit"
    dtype = "uint8" if outcome is None or is_bits else outcome.dtype
    columns = bits.n_bytes(n_models) if is_bits else n_models
    encoder = BandEncoder(path, (n_examples, columns), dtype, sharded=outcome is not None)
    yield encoder.metadata
    for rows in encoder.bands(BAND_BYTES):
        if is_bits:

            def read(selection: Selection, rows: tuple[int, int] = rows) -> tuple[bits.Packed, int]:
                return selection.read_bits(path, n_examples, rows)

            packed = concurrently(read, selections)
            values = bits.concatenate(packed, rows[1] - rows[0])
            counter.add(path, rows[0], values)
        else:
            values = np.empty((rows[1] - rows[0], n_models), dtype=dtype)
            starts = np.cumsum([0, *(selection.n_models for selection in selections)]).tolist()

            def fill(
                job: tuple[int, Selection], rows: tuple[int, int] = rows, values: NDArray[Any] = values
            ) -> None:
                start, selection = job
                values[:, start : start + selection.n_models] = selection.read_values(
                    path, n_examples, dtype, rows
                )

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
        n_models=snapshot.n_models,
        models_sha256=snapshot.models_sha256,
        n_repeats=snapshot.n_repeats,
        blocks=(*stay, *new),
        segments=(*snapshot.compacted, *(segment.segment_id for segment in snapshot.loose)),
        retracted=tuple(sorted(_retracted_in(snapshot))),
        set_aside=tuple(sorted(snapshot.set_aside)),
    )
