"""What was added to a store, as frozen values: models, and the segments and blocks that hold them.

Parsed once, at the border, like the manifest: a value that exists is valid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import itemgetter
from typing import Any

from memdb.format import layout
from memdb.format.base import HEX32, HEX64
from memdb.format.documents import MAX_INTEGER, Json, Reader, sealed
from memdb.format.manifest import SEED, Objects, objects_document, objects_from, seed_of
from memdb.format.sketches import SKETCHES_FEATURE, is_sketch
from memdb.format.version import require_format

MAX_MODELS_PER_SEGMENT = 2**20
SAFE_DIGITS = 20  # numbers of fewer fit into 64 bits
RESTORE = "run the query on an undamaged copy of the store; `memdb verify` lists what is damaged"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One training run: identity, provenance and how well it did. Seconds are wall-clock seconds."""

    model_id: str
    seed: int
    subset_size: int
    seconds: float
    trained_at: str
    train_accuracy: float | None
    out_accuracy: float | None
    test_accuracy: float | None
    diverged: bool
    device: str
    host: str
    versions: Mapping[str, str] = field(default_factory=dict)
    store_seed: int | None = None  # of the store it was trained in, if that is another one

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
            train_accuracy=item.optional("train_accuracy", float, _is_share),
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


def _as_written(found: Mapping[str, Any]) -> ModelInfo | None:
    """Return a model whose fields are all as memdb writes them; None leaves what is wrong to `ModelInfo`.

    A store may have a hundred thousand models: parsing them is most of the time that opening it takes.
    """
    try:
        values = _FIELDS(found)
    except KeyError:
        return None
    model_id, seed, size, seconds, trained_at, train, out, test, diverged, device, host, versions = values
    as_written = (
        tuple(map(type, values)) in _WRITTEN
        and len(seed) < SAFE_DIGITS
        and SEED.fullmatch(seed)
        and HEX32.fullmatch(model_id)
        and 0 <= size <= MAX_INTEGER
        and 0 <= seconds < math.inf
        and 0 <= train <= 1
        and (out is None or 0 <= out <= 1)
        and (test is None or 0 <= test <= 1)
        and all(type(name) is str for name in versions.values())
        and "store_seed" not in found
    )
    if not as_written:
        return None
    return ModelInfo(
        model_id, int(seed), size, seconds, trained_at, train, out, test, diverged, device, host, versions
    )


_FIELDS = itemgetter(*[field.name for field in fields(ModelInfo) if field.name != "store_seed"])
_WRITTEN = {
    (str, str, int, float, str, float, out, test, bool, str, str, dict)
    for out in (float, type(None))
    for test in (float, type(None))
}


@dataclass(frozen=True, slots=True)
class Segment:
    """An immutable group of models: one commit, or a block that compaction made of several.

    ``sources`` are the segments compacted into a block, and the number of models from each, in order.
    ``metadata`` holds the metadata of the group's arrays by path, so that reading it needs no request.
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
        sources: dict[str, Json] = (
            {"sources": [list(source) for source in self.sources]} if self.sources else {}
        )
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [SKETCHES_FEATURE] if any(map(is_sketch, self.metadata)) else [],
                "segment_id": self.segment_id,
                "store_id": self.store_id,
                "recipe_fingerprint": self.recipe_fingerprint,
                "n_models": len(self.models),
                "models": [model.to_document() for model in self.models],
                "memdb_version": self.memdb_version,
                "objects": objects_document(self.objects),
                "metadata": self.metadata,
                **sources,
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> Segment:
        """Parse and check a segment's or block's document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place, (SKETCHES_FEATURE,))
        read = Reader(document, place)
        segment = cls(
            segment_id=read.take("segment_id", str, "", layout.is_segment_id),
            store_id=read.take("store_id", str, "", is_hex32),
            recipe_fingerprint=read.take("recipe_fingerprint", str, "", is_hex64),
            models=_models(read),
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


def _models(read: Reader) -> tuple[ModelInfo, ...]:
    return tuple(
        (isinstance(item, dict) and _as_written(item))
        or ModelInfo.from_reader(Reader(item, f"{read.place}.models[{position}]", read.problems))
        for position, item in enumerate(read.take("models", list, []))
    )


def _sources(read: Reader) -> tuple[tuple[str, int], ...]:
    sources = []
    for value in read.take("sources", list, [], bool):
        match value:
            case [str(segment), int(n_models)] if layout.is_segment_id(segment) and n_models > 0:
                sources.append((segment, n_models))
            case _:
                read.problems.append(f"{read.place}.sources has a bad entry")
    return tuple(sources)


def _is_share(value: float) -> bool:
    return 0 <= value <= 1


def is_hex32(value: str) -> bool:
    """Tell an id of a store or model."""
    return HEX32.fullmatch(value) is not None


def is_hex64(value: str) -> bool:
    """Tell a sha256."""
    return HEX64.fullmatch(value) is not None


def sha256_of_models(model_ids: Iterable[str]) -> str:
    """Hash the sorted model ids, each followed by a newline: the same models, the same answer."""
    return hashlib.sha256("".join(f"{identifier}\n" for identifier in sorted(model_ids)).encode()).hexdigest()
