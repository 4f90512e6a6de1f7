"""Copying the models that count into another place, as full blocks: those there are byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from memdb.errors import DamagedError, InvalidInputError
from memdb.format import layout
from memdb.format.documents import group_metadata
from memdb.format.manifest import Manifest, ObjectInfo
from memdb.format.segment import Segment
from memdb.format.sketches import is_sketch
from memdb.format.snapshot_record import BlockInfo
from memdb.storage.protocol import concurrently
from memdb.store.encoding import BLOCK_MODELS
from memdb.store.grace import Stopwatch
from memdb.store.maintenance.compact import cut, write_block
from memdb.store.read_arrays import read_object
from memdb.store.read_documents import read_block
from memdb.store.resumable import ResumableStorage, copy_object
from memdb.store.selection import Selection
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store

AT_ONCE = 8  # objects of up to 16 MiB in memory


@dataclass(frozen=True, slots=True)
class Piece:
    """A block to be: a block copied as it is, or models gathered from several parts.

    ``document`` is that of the block that is copied; without it there is something to encode.
    """

    block_id: str
    selections: tuple[Selection, ...]
    document: ObjectInfo | None = None

    @property
    def n_models(self) -> int:
        """How many models it has."""
        return sum(share.n_models for share in self.selections)

    @property
    def size(self) -> int:
        """Its size in bytes, a guess where it is encoded anew."""
        return sum(
            info.size * share.n_models // max(1, len(share.keep))
            for share in self.selections
            for info in share.segment.objects.values()
        )


def pieces(snapshot: Snapshot, leave_out: Callable[[str], bool]) -> list[Piece]:
    """Return the blocks of a copy that holds exactly the models that count, in order.

    Full blocks of which every model counts stay as they are, and so does the last one. ``leave_out`` says of
    an array's path that the copy does without.

    Raises:
        InvalidInputError: the store extends another one.
    """
    documents = {info.block_id: info.document for info in snapshot.record.blocks} if snapshot.record else {}
    if snapshot.base is not None:
        raise InvalidInputError(
            f"{snapshot.url} extends another store, and a copy stands alone",
            hint="bring the two together first: `memdb merge`, into a store of their own",
        )
    found: list[Piece] = []
    waiting: list[Selection] = []
    last = len(snapshot.segments) - 1
    for place, (part, keep) in enumerate(zip(snapshot.segments, snapshot.kept, strict=True)):
        slim = _without(part, leave_out)
        is_whole = all(keep) and (len(keep) == BLOCK_MODELS or (place == last and not waiting))
        if part.sources and is_whole:
            found += _gathered(waiting)
            waiting = []
            same = slim is part
            identifier = (
                part.segment_id
                if same
                else _named(part.segment_id[:19], [Selection(snapshot.storage, slim, keep)])
            )
            document = documents[part.segment_id] if same else None
            found.append(Piece(identifier, (Selection(snapshot.storage, slim, keep),), document))
        elif any(keep):
            waiting.append(Selection(snapshot.storage, slim, keep))
    return found + _gathered(waiting)


def _gathered(selections: Sequence[Selection]) -> list[Piece]:
    made = []
    for some in cut(selections):
        newest = max(share.segment.segment_id for share in some)[:19]
        made.append(Piece(_named(newest, some), tuple(some)))
    return made


def _named(time: str, selections: Sequence[Selection]) -> str:
    """Return an id that the same models with the same arrays get again: a copy that was cut off goes on."""
    content = hashlib.sha256()
    for share in selections:
        for model, keep in zip(share.segment.models, share.keep, strict=True):
            content.update(f"{model.model_id}\n".encode() if keep else b"")
    alike = sorted(path for path in selections[0].segment.metadata if not is_sketch(path))
    content.update(" ".join(alike).encode())
    for share in selections:
        content.update(" ".join(sorted(filter(is_sketch, share.segment.metadata))).encode())
    return f"{time}-{content.hexdigest()[:12]}"


def _without(part: Segment, leave_out: Callable[[str], bool]) -> Segment:
    gone = [path for path in part.metadata if leave_out(path)]
    if not gone:
        return part
    return replace(
        part,
        objects={
            name: info
            for name, info in part.objects.items()
            if not any(name.startswith(f"{path}/") for path in gone)
        },
        metadata={path: value for path, value in part.metadata.items() if path not in gone},
    )


def copy_piece(
    snapshot: Snapshot,
    target: ResumableStorage,
    piece: Piece,
    published: BlockInfo | None,
    advance: Callable[[int], None],
) -> BlockInfo:
    """Write a block, or what is missing of it; return what a snapshot says of it.

    ``published`` is what a snapshot there already says of it; ``advance`` is called with bytes done.

    Raises:
        DamagedError: an object of the source is missing or altered.
        StorageError: the target refused.
    """
    source = snapshot.storage
    if published is not None and _is_complete(target, snapshot.manifest, published):
        advance(piece.size)
        return published
    first = piece.selections[0]
    if len(piece.selections) > 1 or not first.segment.sources or not all(first.keep):
        written = Store(target, snapshot.manifest)
        block, info, _ = write_block(written, piece.selections, Stopwatch(), piece.block_id)
        advance(piece.size)
        return BlockInfo(block.segment_id, len(block.models), info)
    part = first.segment
    folder = layout.block(piece.block_id)

    def copy(item: tuple[str, ObjectInfo]) -> None:
        copy_object(source, f"{part.group}/{item[0]}", target, f"{folder}/{item[0]}", item[1])
        advance(item[1].size)

    concurrently(copy, part.objects.items(), AT_ONCE)
    name = f"{folder}/{layout.GROUP_METADATA}"
    if piece.document is not None:
        data = read_object(source, f"{part.group}/{layout.GROUP_METADATA}", piece.document)
    else:
        data = group_metadata(replace(part, segment_id=piece.block_id).to_document())
    target.write_all({name: data})
    return BlockInfo(piece.block_id, piece.n_models, ObjectInfo(len(data), hashlib.sha256(data).hexdigest()))


def _is_complete(target: ResumableStorage, manifest: Manifest, published: BlockInfo) -> bool:
    """Tell by sizes whether a block that a snapshot names is all there: it was checked before it was."""
    folder = layout.block(published.block_id)
    try:
        objects = read_block(Store(target, manifest), published).objects
    except DamagedError:
        return False
    return all(target.has(f"{folder}/{name}", info, checked=True) for name, info in objects.items())
