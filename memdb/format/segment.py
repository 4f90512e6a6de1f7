"""What was added to a store, as frozen values: models, and the segments and blocks that hold them.

Parsed once, at the border, like the manifest: a value that exists is valid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import starmap
from operator import itemgetter
from typing import Any, overload

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


class Models(Sequence[ModelInfo]):
    """The models that a document lists, in columns: most questions need their ids alone.

    A store may have a hundred thousand models: to make a `ModelInfo` of each takes as long as to parse them.
    """

    def __init__(self, columns: Sequence[tuple[Any, ...]], store_seeds: Mapping[int, int]) -> None:
        self._columns, self._store_seeds = columns, store_seeds  # the latter by position

    @classmethod
    def as_written(cls, items: Sequence[Any]) -> Models | None:
        """Return models whose fields are all as memdb writes them; None leaves others to `ModelInfo`."""
        try:
            columns = list(zip(*map(itemgetter(*_COLUMNS), items), strict=True))
        except (KeyError, TypeError):
            return None
        if not columns or not all(
            valid(values) for valid, values in zip(_COLUMNS.values(), columns, strict=True)
        ):
            return None
        store_seeds = {at: item["store_seed"] for at, item in enumerate(items) if "store_seed" in item}
        if not _are_seeds(store_seeds.values()):
            return None
        return cls(columns, {at: int(seed) for at, seed in store_seeds.items()})

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each model."""
        return self._columns[0]

    @cached_property
    def _made(self) -> tuple[ModelInfo, ...]:
        ids, seeds, *others = self._columns
        store_seeds = map(self._store_seeds.get, range(len(ids)))
        return tuple(starmap(ModelInfo, zip(ids, map(int, seeds), *others, store_seeds, strict=True)))

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> ModelInfo: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[ModelInfo, ...]: ...

    def __getitem__(self, at: int | slice) -> ModelInfo | tuple[ModelInfo, ...]:
        return self._made[at]

    def __iter__(self) -> Iterator[ModelInfo]:
        return iter(self._made)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._made == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _are(*kinds: type) -> Callable[[Collection[Any]], bool]:
    return lambda values: set(map(type, values)) <= set(kinds)


def _are_seeds(values: Collection[Any]) -> bool:
    are_text = _are(str)(values) and max(map(len, values), default=0) < SAFE_DIGITS
    return are_text and all(map(SEED.fullmatch, values))


_COLUMNS: Mapping[
    str, Callable[[Collection[Any]], bool]
] = {  # in the order of `ModelInfo`, and what is valid
    "model_id": lambda values: _are(str)(values) and all(map(HEX32.fullmatch, values)),
    "seed": _are_seeds,
    "subset_size": lambda values: _are(int)(values) and min(values) >= 0 and max(values) <= MAX_INTEGER,
    "seconds": lambda values: _are(float)(values) and min(values) >= 0 and max(values) < math.inf,
    "trained_at": _are(str),
    **dict.fromkeys(
        ("train_accuracy", "out_accuracy", "test_accuracy"),
        lambda values: _are(float, type(None))(values) and all(v is None or 0 <= v <= 1 for v in values),
    ),
    "diverged": _are(bool),
    "device": _are(str),
    "host": _are(str),
    "versions": lambda values: (
        _are(dict)(values) and _are(str)([name for value in values for name in value.values()])
    ),
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
    models: Sequence[ModelInfo]
    memdb_version: str
    objects: Objects
    metadata: Mapping[str, Json] = field(default_factory=dict)
    sources: tuple[tuple[str, int], ...] = ()

    @property
    def group(self) -> str:
        """The path of the group in the store."""
        return f"{layout.BLOCKS if self.sources else layout.SEGMENTS}/{self.segment_id}"

    @property
    def model_ids(self) -> tuple[str, ...]:
        """The id of each model."""
        models = self.models
        return models.ids if isinstance(models, Models) else tuple(model.model_id for model in models)

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


def _models(read: Reader) -> Sequence[ModelInfo]:
    items = read.take("models", list, [])
    return Models.as_written(items) or tuple(
        ModelInfo.from_reader(Reader(item, f"{read.place}.models[{position}]", read.problems))
        for position, item in enumerate(items)
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
