"""Documents written after segments, as frozen values: snapshots, retractions, updates of a base.

Parsed once, at the border, like the manifest: a value that exists is valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memdb.format import layout
from memdb.format.base import HEX64, MAX_SNAPSHOTS, Base
from memdb.format.documents import MAX_DOCUMENT, MAX_INTEGER, Json, Reader, now, own_version, sealed
from memdb.format.manifest import ObjectInfo
from memdb.format.published import Derived
from memdb.format.segment import MAX_MODELS_PER_SEGMENT, RESTORE, is_hex32, is_hex64
from memdb.format.version import require_format

MODEL_BYTES = 200  # the least that one model adds to a document
MAX_BLOCK_DOCUMENTS = 256 << 20  # bytes of a snapshot's blocks: those of 300,000 models


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraction:
    """Models retracted, or damaged segments set aside: permanently, with the reason."""

    retraction_id: str
    store_id: str
    because: str
    retracted_at: str = field(default_factory=now)
    memdb_version: str = field(default_factory=own_version)
    models: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "retraction_id": self.retraction_id,
                "store_id": self.store_id,
                "models": list(self.models),
                "segments": list(self.segments),
                "because": self.because,
                "retracted_at": self.retracted_at,
                "memdb_version": self.memdb_version,
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> Retraction:
        """Parse and check a retraction.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        retraction = cls(
            retraction_id=read.take("retraction_id", str, "", layout.is_segment_id),
            store_id=read.take("store_id", str, "", is_hex32),
            because=read.take("because", str, ""),
            retracted_at=read.take("retracted_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            models=_texts(read, "models", is_hex32),
            segments=_texts(read, "segments", layout.is_segment_id),
        )
        read.finish(RESTORE)
        return retraction


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """A block as a snapshot names it; ``document`` is the size and sha256 of its own ``zarr.json``."""

    block_id: str
    n_models: int
    document: ObjectInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """The current blocks and the segments compacted into them; numbered from 1, immutable."""

    number: int
    store_id: str
    created_at: str = field(default_factory=now)
    memdb_version: str = field(default_factory=own_version)
    n_models: int  # that count: neither retracted nor repeats
    models_sha256: str
    n_repeats: int = 0  # that compaction dropped
    blocks: tuple[BlockInfo, ...]
    segments: tuple[str, ...] = ()  # compacted, and perhaps not removed yet
    retracted: tuple[str, ...] = ()  # models of the blocks that do not count
    set_aside: tuple[str, ...] = ()  # damaged segments and blocks, which are kept but not read
    derived: Derived | None = None  # of a published copy
    base: Base | None = None  # the base snapshot of the store that this one extends

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        derived = {} if self.derived is None else {"derived": self.derived.to_document()}
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "number": self.number,
                "store_id": self.store_id,
                "created_at": self.created_at,
                "memdb_version": self.memdb_version,
                "n_models": self.n_models,
                "models_sha256": self.models_sha256,
                "n_repeats": self.n_repeats,
                "blocks": [
                    {
                        "block_id": block.block_id,
                        "n_models": block.n_models,
                        "document": [block.document.size, block.document.sha256],
                    }
                    for block in self.blocks
                ],
                "segments": list(self.segments),
                "retracted": list(self.retracted),
                "set_aside": list(self.set_aside),
                **derived,
                **({} if self.base is None else {"base": self.base.to_document()}),
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> SnapshotRecord:
        """Parse and check a snapshot's document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        record = cls(
            number=read.take("number", int, 1, lambda v: 0 < v < MAX_SNAPSHOTS),
            store_id=read.take("store_id", str, "", is_hex32),
            created_at=read.take("created_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            n_models=read.take("n_models", int, 0, lambda v: v >= 0),
            models_sha256=read.take("models_sha256", str, "", is_hex64),
            n_repeats=read.take("n_repeats", int, 0, lambda v: v >= 0),
            blocks=tuple(
                BlockInfo(
                    item.take("block_id", str, "", layout.is_segment_id),
                    item.take("n_models", int, 1, lambda v: 0 < v <= MAX_MODELS_PER_SEGMENT),
                    _object(item, "document"),
                )
                for item in read.items("blocks")
            ),
            segments=_texts(read, "segments", layout.is_segment_id),
            retracted=_texts(read, "retracted", is_hex32),
            set_aside=_texts(read, "set_aside", layout.is_segment_id),
            derived=Derived.from_reader(read.inside("derived")) if "derived" in document else None,
            base=Base.from_reader(read.inside("base")) if "base" in document else None,
        )
        for problem in record._claims_too_much(place):
            read.problems.append(problem)
        read.finish(RESTORE)
        return record

    def _claims_too_much(self, place: str) -> Iterator[str]:
        """Yield the counts that its lists contradict: readers allocate memory by these numbers."""
        for block in self.blocks:
            if not block.n_models * MODEL_BYTES <= block.document.size <= MAX_DOCUMENT:
                size = block.document.size
                yield f"{place} has {block.n_models:,} models in the {size:,} bytes of {block.block_id}"
        if len({block.block_id for block in self.blocks}) < len(self.blocks):
            yield f"{place} names a block twice"
        if self.n_models > sum(block.n_models for block in self.blocks):
            yield f"{place} counts {self.n_models:,} models, more than its blocks have"
        if sum(block.document.size for block in self.blocks) > MAX_BLOCK_DOCUMENTS:
            yield f"{place} has blocks whose documents are larger than {MAX_BLOCK_DOCUMENTS:,} bytes together"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseUpdate:
    """A later base snapshot of a store that extends another, and where that is; numbered from 1."""

    number: int
    store_id: str
    pinned_at: str = field(default_factory=now)
    memdb_version: str = field(default_factory=own_version)
    base: Base

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "number": self.number,
                "store_id": self.store_id,
                "pinned_at": self.pinned_at,
                "memdb_version": self.memdb_version,
                "base": self.base.to_document(),
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> BaseUpdate:
        """Parse and check the document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        update = cls(
            number=read.take("number", int, 1, lambda v: 0 < v < MAX_SNAPSHOTS),
            store_id=read.take("store_id", str, "", is_hex32),
            pinned_at=read.take("pinned_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            base=Base.from_reader(read.inside("base")),
        )
        read.finish(RESTORE)
        return update


def _object(read: Reader, key: str) -> ObjectInfo:
    match read.take(key, list, []):
        case [int(size), str(sha256)] if 0 <= size <= MAX_INTEGER and HEX64.fullmatch(sha256):
            return ObjectInfo(size, sha256)
        case _:
            read.problems.append(f"{read.place}.{key} is not a size and sha256")
            return ObjectInfo(0, "")


def _texts(read: Reader, key: str, valid: Callable[[str], bool]) -> tuple[str, ...]:
    values = read.take(key, list, [], lambda found: all(isinstance(v, str) and valid(v) for v in found))
    return tuple(values)
