"""A store: created once, extended by segments that their last write makes true, read as snapshots."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import bits, layout
from memdb.documents import Json, group_metadata, parse_group_metadata
from memdb.errors import AlreadyExists, Damaged, InvalidInput, NotFound
from memdb.manifest import Manifest, ModelInfo, Outcome, Segment
from memdb.store.arrays import ArrayData, GroupReader, describe, encode_group
from memdb.store.examples import KEY, LABEL, OFFSET, Examples, ExampleTable
from memdb.store.storage import Storage, concurrently, open_storage


@dataclass(frozen=True)
class Store:
    """An existing store. Any number of processes may commit to it and read it at the same time."""

    storage: Storage
    manifest: Manifest

    @property
    def url(self) -> str:
        """Where the store is, as it was given."""
        return self.storage.url

    @classmethod
    def create(
        cls,
        url: str,
        manifest: Manifest,
        tables: Mapping[str, ExampleTable],
        options: Mapping[str, Any] | None = None,
    ) -> Store:
        """Create a store exclusively; its manifest is the last thing written.

        The data set's group is written first, only if it is absent, and names its fingerprints: of two
        that start with different data one stops there, and an interrupted one can be run again.

        Raises:
            AlreadyExists: a store, or the beginning of one with other data, is at this URL.
            StorageFailed: the storage refused.
        """
        storage = open_storage(url, options)
        require_free(storage)
        objects = encode_group(
            {path: data for name, table in tables.items() for path, data in table.to_arrays(name).items()}
        )
        claim: dict[str, Json] = {
            "sets": [[info.name, info.n_examples, info.fingerprint] for info in manifest.sets]
        }
        claim_path = f"{layout.DATASET}/{layout.GROUP_METADATA}"
        claim_bytes = group_metadata(claim)
        try:
            storage.create(claim_path, claim_bytes)
        except AlreadyExists as error:
            if storage.read(claim_path) != claim_bytes:
                raise AlreadyExists(
                    f"{url} holds the beginning of a store of other data",
                    hint="remove that folder, or choose another place with --store",
                ) from error
        storage.write_all({f"{layout.DATASET}/{name}": data for name, data in objects.items()})
        storage.write_all(
            {
                f"{group}/{layout.GROUP_METADATA}": group_metadata()
                for group in (layout.SEGMENTS, layout.BLOCKS)
            }
        )
        objects[layout.GROUP_METADATA] = claim_bytes
        complete = replace(manifest, objects=describe(objects))
        try:
            storage.create(layout.MANIFEST, group_metadata(complete.to_document()))
        except AlreadyExists as error:
            raise AlreadyExists(
                f"{url} was created by another process just now",
                hint="extend it with `memdb train`, or choose another place with --store",
            ) from error
        return cls(storage, complete)

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any] | None = None) -> Store:
        """Open the store at a path or URL.

        Raises:
            NotFound: nothing is there.
            WrongFormat: something else is there, or a store of a newer memdb.
            Damaged: the manifest was altered.
            StorageFailed: the storage did not answer.
        """
        storage = open_storage(url, options)
        place = f"{url}/{layout.MANIFEST}"
        try:
            data = storage.read(layout.MANIFEST)
        except NotFound as error:
            raise NotFound(
                f"no memdb store at {url}",
                hint="create one with `memdb init`, or name another with --store",
            ) from error
        return cls(storage, Manifest.from_document(parse_group_metadata(data, place), place))

    def commit(
        self,
        models: Sequence[ModelInfo],
        masks: NDArray[np.bool_],
        outcomes: Mapping[str, NDArray[Any]],
    ) -> Segment:
        """Append a batch of models: all of it, or nothing that a reader could see.

        Args:
            models: one description a model.
            masks: bool [models, train].
            outcomes: arrays of ``manifest.arrays()``, [models, examples]: bool for bits, which are
                required; others may be left out, as by a recipe that gives no confidence.

        Raises:
            InvalidInput: arrays that do not fit the manifest.
            StorageFailed: the storage refused; nothing was committed.
        """
        self._require_arrays(len(models), masks, outcomes)
        arrays = {layout.MASK: ArrayData(bits.pack(masks))}
        for path, values in outcomes.items():
            outcome, _ = self.manifest.arrays()[path]
            stored = bits.pack(values) if outcome.kind == "bit" else np.ascontiguousarray(values.T)
            arrays[path] = ArrayData(stored.astype(outcome.dtype, copy=False))
        objects = encode_group(arrays)
        identifier = layout.segment_id(datetime.now(UTC), secrets.token_bytes(6))
        segment = Segment(
            segment_id=identifier,
            store_id=self.manifest.store_id,
            recipe_fingerprint=self.manifest.recipe.fingerprint,
            models=tuple(models),
            memdb_version=models[0].versions.get("memdb", ""),
            objects=describe(objects),
        )
        group = layout.segment(identifier)
        self.storage.write_all({f"{group}/{name}": data for name, data in objects.items()})
        commit = {f"{group}/{layout.GROUP_METADATA}": group_metadata(segment.to_document())}
        self.storage.write_all(commit)
        return segment

    def _require_arrays(
        self, n_models: int, masks: NDArray[np.bool_], outcomes: Mapping[str, NDArray[Any]]
    ) -> None:
        expected = {path: n for path, (_, n) in self.manifest.arrays().items()}
        if n_models == 0:
            raise InvalidInput("a batch without models cannot be committed")
        required = {path for path, (outcome, _) in self.manifest.arrays().items() if outcome.kind == "bit"}
        if not required <= set(outcomes) <= set(expected):
            raise InvalidInput(
                f"the batch has outcomes {sorted(outcomes)}; the store keeps {sorted(expected)}"
            )
        shapes = {layout.MASK: (masks.shape, self.manifest.train.n_examples)} | {
            path: (values.shape, expected[path]) for path, values in outcomes.items()
        }
        for path, (shape, n_examples) in shapes.items():
            if shape != (n_models, n_examples):
                raise InvalidInput(f"{path} has shape {shape}; expected {(n_models, n_examples)}")

    def snapshot(self) -> Snapshot:
        """Return the models committed so far, as a value: later commits do not change it.

        Raises:
            Damaged: a segment's document was altered, or belongs to another store.
        """
        names = [name for name in self.storage.names(layout.SEGMENTS) if layout.is_segment_id(name)]
        found = concurrently(self._segment, names)
        return Snapshot(self, tuple(segment for segment in found if segment is not None))

    def _segment(self, name: str) -> Segment | None:
        path = f"{layout.segment(name)}/{layout.GROUP_METADATA}"
        place = f"{self.url}/{path}"
        try:
            data = self.storage.read(path)
        except NotFound:
            return None  # not committed: its last write is missing
        segment = Segment.from_document(parse_group_metadata(data, place), place)
        ours = (name, self.manifest.store_id, self.manifest.recipe.fingerprint)
        if (segment.segment_id, segment.store_id, segment.recipe_fingerprint) != ours:
            raise Damaged(
                f"{place} belongs to store {segment.store_id}, segment {segment.segment_id}, recipe "
                f"{segment.recipe_fingerprint}; expected {ours[1]}, {ours[0]}, {ours[2]}",
                hint="remove what was copied in by hand",
            )
        return segment

    def examples(self, name: str) -> Examples:
        """Read the names and labels of a set's examples.

        Raises:
            Damaged: an array is missing, altered or does not hold names and labels.
        """
        n_examples = self.manifest.set_named(name).n_examples
        reader = GroupReader(self.storage, layout.DATASET, self.manifest.objects)
        offsets = reader.read(f"{name}/{OFFSET}", (n_examples + 1,), "int64")
        keys = reader.read(f"{name}/{KEY}", (int(offsets[-1]),), "uint8")
        labels = reader.read(f"{name}/{LABEL}", (n_examples,), "int32")
        names = reader.attributes(f"{name}/{LABEL}").get("class_names", [])
        try:
            return Examples(keys, offsets, labels, tuple(str(item) for item in names))
        except InvalidInput as error:
            raise Damaged(
                f"{self.url}/{layout.DATASET}/{name}: {error}", hint="restore it from a copy of the store"
            ) from error


@dataclass(frozen=True)
class Snapshot:
    """The models of a store at one moment. A model committed twice counts once: in its oldest segment."""

    store: Store
    segments: tuple[Segment, ...]  # in order of commit

    @cached_property
    def kept(self) -> tuple[tuple[bool, ...], ...]:
        """For each segment, whether each of its models counts (is not a repeat of an earlier one)."""
        seen: set[str] = set()
        kept = []
        for segment in self.segments:
            flags = []
            for model in segment.models:
                flags.append(model.model_id not in seen)
                seen.add(model.model_id)
            kept.append(tuple(flags))
        return tuple(kept)

    @cached_property
    def models(self) -> tuple[tuple[str, ModelInfo], ...]:
        """Every model that counts, with the id of its segment, in order of commit."""
        return tuple(
            (segment.segment_id, model)
            for segment, flags in zip(self.segments, self.kept, strict=True)
            for model, keep in zip(segment.models, flags, strict=True)
            if keep
        )

    @property
    def n_models(self) -> int:
        """How many models count."""
        return len(self.models)

    @property
    def n_repeats(self) -> int:
        """How many models were committed again by a retried worker, and do not count."""
        return sum(len(segment.models) for segment in self.segments) - self.n_models

    @cached_property
    def models_sha256(self) -> str:
        """Sha256 of the sorted model ids, each followed by a newline: the same models, the same answer."""
        ids = sorted(model.model_id for _, model in self.models)
        return hashlib.sha256("".join(f"{identifier}\n" for identifier in ids).encode()).hexdigest()

    def mask(self) -> bits.Packed:
        """Read the subset masks, packed uint8 [train, ceil(models / 8)], models in commit order."""
        return self._bits(layout.MASK, self.store.manifest.train.n_examples)

    def outcome_bits(self, path: str) -> bits.Packed:
        """Read an outcome of kind ``bit``, such as ``test/correct``, packed like the masks.

        Raises:
            NotFound: the store does not keep it.
        """
        outcome, n_examples = self._outcome(path)
        if outcome.kind != "bit":
            raise InvalidInput(f"{path} is of kind {outcome.kind}, not bit")
        return self._bits(path, n_examples)

    def outcome_values(self, path: str) -> NDArray[Any]:
        """Read an outcome of another kind, [examples, models] in the stored type.

        Raises:
            NotFound: the store does not keep it, or the recipe did not give it for some models.
        """
        outcome, n_examples = self._outcome(path)
        if outcome.kind == "bit":
            raise InvalidInput(f"{path} is of kind bit: read it with outcome_bits")
        lacking = [s.segment_id for s in self.segments if f"{path}/{layout.GROUP_METADATA}" not in s.objects]
        if lacking:
            raise NotFound(
                f"the models of segment {lacking[0]} of {self.store.url} have no {path}",
                hint="their recipe did not give it",
            )
        parts = concurrently(
            lambda job: self._read(job[0], path, (n_examples, len(job[1])), outcome.dtype)[:, list(job[1])],
            zip(self.segments, self.kept, strict=True),
        )
        return np.concatenate(parts, axis=1) if parts else np.empty((n_examples, 0), dtype=outcome.dtype)

    def _outcome(self, path: str) -> tuple[Outcome, int]:
        arrays = self.store.manifest.arrays()
        if path not in arrays:
            raise NotFound(
                f"{self.store.url} keeps no outcome {path}", hint=f"it keeps {', '.join(sorted(arrays))}"
            )
        return arrays[path]

    def _bits(self, path: str, n_examples: int) -> bits.Packed:
        def read(job: tuple[Segment, tuple[bool, ...]]) -> tuple[bits.Packed, int]:
            segment, flags = job
            packed = self._read(segment, path, (n_examples, bits.n_bytes(len(flags))), "uint8")
            packed &= bits.selection([True] * len(flags))  # padding bits would become other models'
            if not all(flags):
                packed = bits.pack(bits.unpack(packed, len(flags))[list(flags)])
            return packed, sum(flags)

        jobs = [job for job in zip(self.segments, self.kept, strict=True) if any(job[1])]
        return bits.concatenate(concurrently(read, jobs), n_examples)

    def _read(self, segment: Segment, path: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        group = layout.segment(segment.segment_id)
        return GroupReader(self.store.storage, group, segment.objects).read(path, shape, dtype)


def require_free(storage: Storage) -> None:
    """Refuse to create a store where something is, unless it is the beginning of one.

    Raises:
        AlreadyExists: a store, or anything else.
    """
    found = storage.names("")
    if layout.MANIFEST in found:
        raise AlreadyExists(
            f"{storage.url} is a store, or another Zarr group, already",
            hint="extend a store with `memdb train`, or choose another place with --store",
        )
    leftovers = {name for name in found if name.startswith(".") and name.endswith(".tmp")}
    others = sorted(set(found) - leftovers - {layout.DATASET, layout.SEGMENTS, layout.BLOCKS})
    if others:
        raise AlreadyExists(
            f"{storage.url} is a folder with other things in it, such as {others[0]}",
            hint="choose a new folder with --store",
        )
