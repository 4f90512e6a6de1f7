"""What was added to a store, as frozen values: models, segments, blocks, retractions, snapshots, pins.

Parsed once, at the border, like the manifest: a value that exists is valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from memdb import layout
from memdb.documents import MAX_DOCUMENT, MAX_INTEGER, Json, Reader, sealed
from memdb.manifest import (
    HEX32,
    HEX64,
    MAX_SNAPSHOTS,
    Base,
    ObjectInfo,
    Objects,
    objects_document,
    objects_from,
    require_format,
    seed_of,
)
from memdb.published import Derived

MAX_MODELS_PER_SEGMENT = 2**20
MODEL_BYTES = 200  # of a document that a model takes at least
MAX_BLOCK_DOCUMENTS = 256 << 20  # bytes of a snapshot's blocks: those of 300,000 models
RESTORE = "run the query on an undamaged copy of the store; `memdb verify` lists what is damaged"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One training run: identity, provenance and how well it did. Seconds are wall-clock seconds."""

    model_id: str
    seed: int
    subset_size: int
    seconds: float
    trained_at: str
    train_accuracy: float
    out_accuracy: float | None
    test_accuracy: float | None
    diverged: bool
    device: str
    host: str
    versions: Mapping[str, str] = field(default_factory=dict)
    store_seed: int | None = None  # of the store it was trained in, where that is another one

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object; the seed is a decimal string, since JSON readers round 63-bit integers."""
        return {
            "model_id": self.model_id,
            "seed": str(self.seed),
            "subset_size": self.subset_size,
            "seconds": self.seconds,
            "trained_at": self.trained_at,
            "train_accuracy": self.train_accuracy,
            "out_accuracy": self.out_accuracy,
            "test_accuracy": self.test_accuracy,
            "diverged": self.diverged,
            "device": self.device,
            "host": self.host,
            "versions": dict(self.versions),
            **({} if self.store_seed is None else {"store_seed": str(self.store_seed)}),
        }

    @classmethod
    def from_reader(cls, item: Reader) -> ModelInfo:
        """Parse one element of a segment's ``models``."""
        return cls(
            model_id=item.take("model_id", str, "", lambda v: bool(HEX32.fullmatch(v))),
            seed=seed_of(item),
            subset_size=item.take("subset_size", int, 0, lambda v: v >= 0),
            seconds=item.take("seconds", float, 0.0, lambda v: v >= 0),
            trained_at=item.take("trained_at", str, ""),
            train_accuracy=item.take("train_accuracy", float, 0.0, _is_share),
            out_accuracy=item.optional("out_accuracy", float, _is_share),
            test_accuracy=item.optional("test_accuracy", float, _is_share),
            diverged=item.take("diverged", bool, default=False),
            device=item.take("device", str, ""),
            host=item.take("host", str, ""),
            versions=item.take(
                "versions", dict, {}, lambda v: all(isinstance(name, str) for name in v.values())
            ),
            store_seed=seed_of(item, "store_seed") if "store_seed" in item.entries() else None,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable group of models: one commit, or a block that compaction made of several.

    ``sources`` says for a block which segments it took in, and how many models of each, in order.
    ``metadata`` holds the metadata of the group's arrays by path, so that reading them needs no request.
    """

    segment_id: str
    store_id: str
    recipe_fingerprint: str
    models: tuple[ModelInfo, ...]
    memdb_version: str
    objects: Objects
    metadata: Mapping[str, Json] = field(default_factory=dict)
    sources: tuple[tuple[str, int], ...] = ()

    @property
    def group(self) -> str:
        """The path of the group in the store."""
        return f"{layout.BLOCKS if self.sources else layout.SEGMENTS}/{self.segment_id}"

    @property
    def origins(self) -> list[str]:
        """For each model the id of the segment that it was committed in."""
        if not self.sources:
            return [self.segment_id] * len(self.models)
        return [source for source, n_models in self.sources for _ in range(n_models)]

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        taken: dict[str, Json] = (
            {"sources": [list(source) for source in self.sources]} if self.sources else {}
        )
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "segment_id": self.segment_id,
                "store_id": self.store_id,
                "recipe_fingerprint": self.recipe_fingerprint,
                "n_models": len(self.models),
                "models": [model.to_document() for model in self.models],
                "memdb_version": self.memdb_version,
                "objects": objects_document(self.objects),
                "metadata": self.metadata,
                **taken,
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> Segment:
        """Parse and check a segment's or block's document.

        Raises:
            WrongFormat: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        segment = cls(
            segment_id=read.take("segment_id", str, "", layout.is_segment_id),
            store_id=read.take("store_id", str, "", _is_hex32),
            recipe_fingerprint=read.take("recipe_fingerprint", str, "", _is_hex64),
            models=tuple(ModelInfo.from_reader(item) for item in read.items("models")),
            memdb_version=read.take("memdb_version", str, ""),
            objects=objects_from(read.inside("objects")),
            metadata=read.free("metadata"),
            sources=_sources(read) if "sources" in document else (),
        )
        n_models = read.take("n_models", int, 0, lambda v: 0 < v <= MAX_MODELS_PER_SEGMENT)
        if n_models != len(segment.models):
            read.problems.append(f"{place} counts {n_models} models and lists {len(segment.models)}")
        if "sources" in document and sum(n for _, n in segment.sources) != len(segment.models):
            read.problems.append(f"{place}.sources do not add up to its {len(segment.models)} models")
        read.finish(RESTORE)
        return segment


def _sources(read: Reader) -> tuple[tuple[str, int], ...]:
    found = []
    for value in read.take("sources", list, [], bool):
        match value:
            case [str(segment), int(n_models)] if layout.is_segment_id(segment) and n_models > 0:
                found.append((segment, n_models))
            case _:
                read.problems.append(f"{read.place}.sources has a bad entry")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Retraction:
    """Models withdrawn, or damaged segments set aside: for ever, with the reason."""

    retraction_id: str
    store_id: str
    because: str
    retracted_at: str
    memdb_version: str
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
            WrongFormat: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        retraction = cls(
            retraction_id=read.take("retraction_id", str, "", layout.is_segment_id),
            store_id=read.take("store_id", str, "", _is_hex32),
            because=read.take("because", str, ""),
            retracted_at=read.take("retracted_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            models=_texts(read, "models", _is_hex32),
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


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """The blocks in force and the segments they took in; numbered from 1, immutable."""

    number: int
    store_id: str
    created_at: str
    memdb_version: str
    n_models: int  # that count: neither withdrawn nor repeats
    models_sha256: str
    n_repeats: int  # copies that were left out when segments were taken in
    blocks: tuple[BlockInfo, ...]
    segments: tuple[str, ...]  # taken in, and perhaps not removed yet
    retracted: tuple[str, ...]  # models of the blocks that do not count
    set_aside: tuple[str, ...]  # damaged segments and blocks, which are not read and stay
    derived: Derived | None = None  # of a published copy
    base: Base | None = None  # what was taken in of the store that this one extends

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
            WrongFormat: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        record = cls(
            number=read.take("number", int, 1, lambda v: 0 < v < MAX_SNAPSHOTS),
            store_id=read.take("store_id", str, "", _is_hex32),
            created_at=read.take("created_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            n_models=read.take("n_models", int, 0, lambda v: v >= 0),
            models_sha256=read.take("models_sha256", str, "", _is_hex64),
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
            retracted=_texts(read, "retracted", _is_hex32),
            set_aside=_texts(read, "set_aside", layout.is_segment_id),
            derived=Derived.from_reader(read.inside("derived")) if "derived" in document else None,
            base=Base.from_reader(read.inside("base")) if "base" in document else None,
        )
        for problem in record._claims_too_much(place):
            read.problems.append(problem)
        read.finish(RESTORE)
        return record

    def _claims_too_much(self, place: str) -> Iterator[str]:
        """Yield what its lists cannot hold: readers take memory by these numbers."""
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


@dataclass(frozen=True, slots=True)
class Pin:
    """A later word on which snapshot of its base a store takes in, and where that is; numbered from 1."""

    number: int
    store_id: str
    pinned_at: str
    memdb_version: str
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
    def from_document(cls, document: Mapping[str, Any], place: str) -> Pin:
        """Parse and check the document.

        Raises:
            WrongFormat: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        pin = cls(
            number=read.take("number", int, 1, lambda v: 0 < v < MAX_SNAPSHOTS),
            store_id=read.take("store_id", str, "", _is_hex32),
            pinned_at=read.take("pinned_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            base=Base.from_reader(read.inside("base")),
        )
        read.finish(RESTORE)
        return pin


def _object(read: Reader, key: str) -> ObjectInfo:
    match read.take(key, list, []):
        case [int(size), str(sha256)] if 0 <= size <= MAX_INTEGER and HEX64.fullmatch(sha256):
            return ObjectInfo(size, sha256)
        case _:
            read.problems.append(f"{read.place}.{key} is no size and sha256")
            return ObjectInfo(0, "")


def _texts(read: Reader, key: str, valid: Callable[[str], bool]) -> tuple[str, ...]:
    values = read.take(key, list, [], lambda found: all(isinstance(v, str) and valid(v) for v in found))
    return tuple(values)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def _is_hex32(value: str) -> bool:
    return HEX32.fullmatch(value) is not None


def _is_hex64(value: str) -> bool:
    return HEX64.fullmatch(value) is not None


def sha256_of_models(model_ids: Iterable[str]) -> str:
    """Hash the sorted model ids, each followed by a newline: the same models, the same answer."""
    return hashlib.sha256("".join(f"{identifier}\n" for identifier in sorted(model_ids)).encode()).hexdigest()
