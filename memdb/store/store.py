"""A store: created exclusively, appended to by any number of writers without locks, read as snapshots."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import AlreadyExistsError, DamagedError, InvalidInputError, StorageError
from memdb.format import bits, layout
from memdb.format.base import Base
from memdb.format.documents import Json, group_metadata
from memdb.format.manifest import Manifest
from memdb.format.published import ASK_AGAIN, Published
from memdb.format.score_table import ScoreTable
from memdb.format.segment import ModelInfo, Segment
from memdb.storage.protocol import Storage, create_once
from memdb.store.access import PLAIN, Access
from memdb.store.encoding import ArrayData, array_metadata, describe, encode_group
from memdb.store.examples import Examples, ExampleTable, read_examples
from memdb.store.grace import Stopwatch
from memdb.store.load_snapshot import load_snapshot
from memdb.store.open_base import with_base
from memdb.store.open_published import published_snapshot, read_published
from memdb.store.read_documents import base_in_force, read_manifest, require_outside
from memdb.store.score_tables import list_score_tables, read_score_tables
from memdb.store.snapshot import Snapshot

COMMIT_ATTEMPTS = 3
ROWS_AT_ONCE = 256  # of examples


@dataclass(frozen=True)
class Store:
    """An existing store. Any number of processes may commit to it and read it at the same time."""

    storage: Storage
    manifest: Manifest
    access: Access = PLAIN  # to the store that this one extends
    published: Published | None = None  # of a published copy

    def __repr__(self) -> str:
        return f"Store({self.url!r}, dataset={self.manifest.dataset!r}, recipe={self.manifest.recipe.name!r})"

    @property
    def url(self) -> str:
        """Where the store is, as it was given."""
        return self.storage.url

    @property
    def base(self) -> Base | None:
        """The base snapshot of the store that it extends, if it does."""
        return base_in_force(self)

    def direct(self) -> Store:
        """Return the same store, read past all caches."""
        return replace(self, storage=self.storage.direct())

    @classmethod
    def create(
        cls,
        storage: Storage,
        manifest: Manifest,
        tables: Mapping[str, ExampleTable],
        access: Access = PLAIN,
    ) -> Store:
        """Create a store exclusively; its manifest is the last thing written.

        The data set's group is created first and names its fingerprints: of two processes that start with
        different data one stops there, and an interrupted one can be run again.

        Raises:
            AlreadyExistsError: a store, or an unfinished one of other data, is at this place.
            StorageError: the storage failed.
        """
        url = storage.url
        require_free(storage)
        objects = encode_group(
            {path: data for name, table in tables.items() for path, data in table.to_arrays(name).items()}
        )
        claim: dict[str, Json] = {
            "sets": [[info.name, info.n_examples, info.fingerprint] for info in manifest.sets]
        }
        objects[layout.GROUP_METADATA] = group_metadata(claim)
        claim_path = f"{layout.DATASET}/{layout.GROUP_METADATA}"
        try:
            create_once(storage, claim_path, objects[layout.GROUP_METADATA])
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"{url} holds an unfinished store of other data",
                hint="remove that folder, or choose another place",
            ) from error
        arrays = {f"{layout.DATASET}/{name}": data for name, data in objects.items()}
        del arrays[claim_path]
        storage.write_all(arrays)
        storage.write_all({f"{group}/{layout.GROUP_METADATA}": group_metadata() for group in manifest.groups})
        complete = replace(manifest, objects=describe(objects), put_if_absent=keeps_put_if_absent(storage))
        try:
            create_once(storage, layout.MANIFEST, group_metadata(complete.to_document()))
        except AlreadyExistsError as error:
            raise AlreadyExistsError(
                f"{url} was created by another process just now",
                hint="extend it with `memdb train`, or choose another place",
            ) from error
        return cls(storage, complete, access)

    @classmethod
    def open(cls, storage: Storage, access: Access = PLAIN) -> Store:
        """Open the store at a place.

        Raises:
            NotFoundError: there is no store.
            WrongFormatError: it is not a store, or one of a newer memdb.
            DamagedError: the manifest was altered.
            StorageError: the storage failed.
        """
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(read_published, storage)
            manifest = read_manifest(storage)
            published = asked.result()
        if published is not None and published.store_id != manifest.store_id:
            raise DamagedError(
                f"{storage.url}/{layout.PUBLISHED} belongs to another store: it states "
                f"{published.store_id}; expected {manifest.store_id}",
                hint=ASK_AGAIN,
            )
        return cls(storage, manifest, access, published)

    def require_growing(self, verb: str) -> None:
        """Refuse to write into a published copy, whose readers would not see it, or would see it altered.

        Raises:
            InvalidInputError: this is a published copy; ``verb`` says what was attempted.
        """
        if self.published is not None:
            raise InvalidInputError(
                f"cannot {verb} {self.url}: it is a published copy, which never changes",
                hint="use the store that it was published from, or take its models with "
                "`memdb pull --only bits`",
            )

    def commit(
        self,
        models: Sequence[ModelInfo],
        masks: NDArray[np.bool_],
        outcomes: Mapping[str, NDArray[Any]],
        sketches: Mapping[str, ArrayData] | None = None,
    ) -> Segment:
        """Append a batch of models: all of it, or nothing that a reader could see.

        Args:
            models: one description per model.
            masks: bool [models, train].
            outcomes: arrays of ``manifest.arrays()``, [models, examples]: bool for kind ``bit``, which are
                required; others are optional, since a recipe need not give confidences.
            sketches: by path in the segment, as `sketch_arrays` makes them.

        Raises:
            InvalidInputError: arrays that do not fit the manifest.
            StorageError: the storage failed; nothing was committed.
        """
        self._require_arrays(len(models), masks, outcomes)
        arrays = {layout.MASK: ArrayData(bits.pack(masks))}
        for path, values in outcomes.items():
            outcome, _ = self.manifest.arrays()[path]
            stored = bits.pack(values) if outcome.kind == "bit" else _by_example(values, outcome.dtype)
            arrays[path] = ArrayData(stored)
        return self.commit_stored(models, {**arrays, **(sketches or {})})

    def commit_stored(self, models: Sequence[ModelInfo], arrays: Mapping[str, ArrayData]) -> Segment:
        """Append models whose arrays are in the form that segments store, as read from another store.

        Raises:
            InvalidInputError: the store is a published copy.
            StorageError: the storage failed; nothing was committed.
        """
        self.require_growing("commit to")
        objects = encode_group(arrays)
        for _ in range(COMMIT_ATTEMPTS):
            segment = Segment(
                segment_id=layout.segment_id(datetime.now(UTC), secrets.token_bytes(6)),
                store_id=self.manifest.store_id,
                recipe_fingerprint=self.manifest.recipe.fingerprint,
                models=tuple(models),
                memdb_version=models[0].versions.get("memdb", ""),
                objects=describe(objects),
                metadata=array_metadata(objects),
            )
            if write_group(self.storage, segment, objects):
                return segment
        raise StorageError(
            f"{self.url}: a batch was written {COMMIT_ATTEMPTS} times and was incomplete in the end",
            hint="check the storage, or try one that takes less than hours",
        )

    def _require_arrays(
        self, n_models: int, masks: NDArray[np.bool_], outcomes: Mapping[str, NDArray[Any]]
    ) -> None:
        expected = {path: n for path, (_, n) in self.manifest.arrays().items()}
        if n_models == 0:
            raise InvalidInputError("a batch without models cannot be committed")
        required = {path for path, (outcome, _) in self.manifest.arrays().items() if outcome.kind == "bit"}
        if not required <= set(outcomes) <= set(expected):
            raise InvalidInputError(
                f"the batch has outcomes {sorted(outcomes)}; the store keeps {sorted(expected)}"
            )
        shapes = {layout.MASK: (masks.shape, self.manifest.train.n_examples)} | {
            path: (values.shape, expected[path]) for path, values in outcomes.items()
        }
        for path, (shape, n_examples) in shapes.items():
            if shape != (n_models, n_examples):
                raise InvalidInputError(f"{path} has shape {shape}; expected {(n_models, n_examples)}")

    def snapshot(self, as_of: int | None = None) -> Snapshot:
        """Return the models committed so far, or those of a numbered snapshot, as a value.

        Those of a store that this one extends come first; `base.with_base` says what that can raise.

        Raises:
            DamagedError: a document was altered, or belongs to another store.
            NotFoundError: no snapshot has that number.
        """
        if self.published is not None:
            return published_snapshot(self, self.published, as_of)
        return with_base(self.own_snapshot(as_of), self.access, as_of)

    def own_snapshot(self, as_of: int | None = None) -> Snapshot:
        """Return the same without the models of the base."""
        return load_snapshot(self, as_of)

    def score_tables(self) -> list[ScoreTable]:
        """Return the descriptions of the imported scores, in the order of import.

        Raises:
            DamagedError: a document was altered, is missing or belongs to another store.
        """
        if self.published is not None:
            return read_score_tables(self, self.published.scores)
        return list_score_tables(self)

    def examples(self, name: str) -> Examples:
        """Read the names and labels of a set's examples.

        Raises:
            DamagedError: an array is missing, altered or does not hold names and labels.
        """
        return read_examples(self, name)


def _by_example(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Turn [models, examples] into [examples, models] of a type, in parts that fit into a cache.

    What lies in memory as it is stored is not copied.
    """
    if values.dtype == dtype and values.flags.f_contiguous:
        return values.T
    turned = np.empty(values.shape[::-1], dtype=dtype)
    for start in range(0, len(turned), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        turned[rows] = values[:, rows].T
    return turned


def write_group(storage: Storage, group: Segment, objects: Mapping[str, bytes]) -> bool:
    """Write a group's objects, then the document that makes it exist; return whether it does.

    It does not if writing took so long that garbage collection may have removed some of it: the caller then
    starts again under another id.
    """
    watch = Stopwatch()
    try:
        storage.write_all({f"{group.group}/{name}": data for name, data in objects.items()})
    except StorageError:
        if watch.stalled():
            return False
        raise
    return commit_group(storage, group, watch)


def commit_group(storage: Storage, group: Segment, watch: Stopwatch) -> bool:
    """Write the document of a group whose objects are all there; return whether the group exists now."""
    document = f"{group.group}/{layout.GROUP_METADATA}"
    if watch.stalled() or not _all_there(storage, group):
        return False
    data = group_metadata(group.to_document())
    storage.write_all({document: data})
    if storage.read(document) != data:
        raise StorageError(f"{storage.url}/{document} is not what was written", hint="check the storage")
    if watch.stalled() and not _all_there(storage, group):
        storage.remove([document])
        return False
    return True


def _all_there(storage: Storage, group: Segment) -> bool:
    sizes = {item.path.removeprefix(f"{group.group}/"): item.size for item in storage.find(group.group)}
    return all(sizes.get(name) == info.size for name, info in group.objects.items())


def keeps_put_if_absent(storage: Storage) -> bool:
    """Test whether the storage refuses to create an existing object: some servers ignore the condition."""
    path = f"{layout.PROBES}/{secrets.token_hex(8)}"
    create_once(storage, path, b"first")
    try:
        storage.create(path, b"second")
    except AlreadyExistsError:
        return storage.read(path) == b"first"
    else:
        return False
    finally:
        storage.remove([path])


def require_free(storage: Storage) -> None:
    """Refuse to create a store where anything but an unfinished store exists.

    Raises:
        AlreadyExistsError: there is a store, or anything else.
        InvalidInputError: the place is inside another store.
    """
    require_outside(storage)
    names = storage.names("")
    if layout.MANIFEST in names:
        raise AlreadyExistsError(
            f"{storage.url} is already a store, or another Zarr group",
            hint="go on with it (`memdb train`, or memdb.open in Python), or choose another place",
        )
    leftovers = {name for name in names if name.startswith(".") and name.endswith(".tmp")}
    begun = {layout.DATASET, layout.PROBES, layout.BASES, *layout.GROUPS}
    others = sorted(set(names) - leftovers - begun)
    if others:
        raise AlreadyExistsError(
            f"{storage.url} is a folder with other things in it, such as {others[0]}",
            hint="choose a new folder",
        )
