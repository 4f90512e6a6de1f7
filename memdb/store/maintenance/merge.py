"""Merging: the models of several stores into one, as segments that are committed like any other.

Before anything is written, the sources are checked (`require_mergeable`, `require_distinct`): for data,
recipe and subsets that differ, equal masks of different models, and one model with different outcomes.
Models retracted in any source are first retracted in the destination. Then models are committed, some
hundreds at a time. An interrupted merge can be run again: it skips the models that are already there.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MismatchError
from memdb.format import bits, layout
from memdb.format.manifest import Manifest, Outcome
from memdb.format.segment import ModelInfo
from memdb.format.sketches import Projection
from memdb.storage.protocol import concurrently
from memdb.store.encoding import BLOCK_MODELS, ArrayData
from memdb.store.maintenance.retract import write_retraction
from memdb.store.read_sketches import projection_in_use, sketched_in
from memdb.store.selection import Selection, cut_into
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store

SEGMENT_BYTES = 64 << 20  # of a segment's arrays in memory
SKETCH_BYTES = 256 << 20  # of its gradient sketches
BAND_BYTES = 32 << 20  # of unpacked bits in memory at once, in each reader
READERS = 4
FORMER = "withdrawn in store {store}: {reason}"
UNTOLD = "the snapshot says so, without a reason"


@dataclass(frozen=True)
class Merged:
    """What a merge did, by source in the order given."""

    added: tuple[int, ...]  # models
    present: tuple[int, ...]  # models that the destination, or an earlier source, already had
    n_retracted: int  # models retracted in a source but not in the destination
    n_unsketched: int  # models added without their gradient sketches, which are by another projection


def common_outcomes(sources: Sequence[Snapshot]) -> tuple[tuple[Outcome, ...], tuple[str, ...]]:
    """Return the outcomes that all models of all sources have, and the names of the others.

    Raises:
        MismatchError: one name means two things.
    """
    kept: list[Outcome] = []
    dropped: list[Outcome] = []
    names = dict.fromkeys(outcome.name for source in sources for outcome in source.manifest.outcomes)
    for name in names:
        stated = [_outcome(source.manifest, name) for source in sources]
        given = [outcome for outcome in stated if outcome is not None]
        odd = next((n for n, outcome in enumerate(stated) if outcome not in {None, given[0]}), None)
        if odd is not None:
            raise MismatchError(
                f"the outcome {name} of {sources[odd].url} is another than that of the stores before it",
                hint="merge stores that were made by the same version of memdb",
            )
        everywhere = None not in stated and not any(_lacks(source, given[0]) for source in sources)
        (kept if everywhere else dropped).append(given[0])
    return tuple(kept), tuple(outcome.name for outcome in dropped)


def _outcome(manifest: Manifest, name: str) -> Outcome | None:
    return next((outcome for outcome in manifest.outcomes if outcome.name == name), None)


def _lacks(source: Snapshot, outcome: Outcome) -> bool:
    paths = {path for path in source.manifest.arrays() if path.split("/")[1] == outcome.name}
    return any(not paths <= selection.segment.metadata.keys() for selection in source.selections)


def require_mergeable(manifest: Manifest, url: str, sources: Sequence[Snapshot]) -> None:
    """Refuse sources whose models may not be pooled with those of a store, naming what differs.

    Raises:
        MismatchError: other data, recipe or subsets, or an outcome of the store that a source lacks.
    """
    for source in sources:
        manifest.require_joinable(source.manifest, url, source.url)
        for outcome in manifest.outcomes:
            if _outcome(source.manifest, outcome.name) != outcome or _lacks(source, outcome):
                raise MismatchError(
                    f"{url} keeps the outcome {outcome.name}, which models of {source.url} lack",
                    hint="merge into a new store: it keeps the outcomes that all have",
                )


def merge(
    store: Store,
    sources: Sequence[Snapshot],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Merged:
    """Commit the models of other stores to a store.

    The caller has checked all of them with `require_mergeable` and `require_distinct`. ``progress`` is called
    with the number of models committed and the total.

    Raises:
        DamagedError: an object of a source is missing or altered.
        StorageError: a storage failed; models that were committed stay.
    """
    own = store.snapshot()
    retracted = _newly_retracted(own, sources)
    gone = own.all_retracted.union(*retracted.values())
    have = set(own.model_ids) - gone
    plans, present = [], []
    for source in sources:
        fresh = list(_fresh(source, have | gone))
        plans.append((source, fresh, sum(selection.n_models for selection in fresh)))
        ids = set(source.model_ids) - gone
        present.append(len(ids & have))
        have |= ids
    for reason, models in retracted.items():
        write_retraction(store, reason, models=tuple(sorted(models)))
    total = sum(n_fresh for _, _, n_fresh in plans)
    projection = common_projection([own, *sources])
    done = n_unsketched = 0
    progress(done, total)
    for source, fresh, _ in plans:
        for batch in _batches(store.manifest, fresh, _models_at_once(store.manifest)):
            n_unsketched += _commit(store, source, batch, projection)
            done += sum(selection.n_models for selection in batch)
            progress(done, total)
    return Merged(
        tuple(n_fresh for _, _, n_fresh in plans),
        tuple(present),
        sum(map(len, retracted.values())),
        n_unsketched,
    )


def common_projection(stores: Sequence[Snapshot]) -> Projection | None:
    """Return the projection of the sketches that a merge keeps: that of the first store which has one."""
    return next(filter(None, map(projection_in_use, stores)), None)


def _newly_retracted(own: Snapshot, sources: Sequence[Snapshot]) -> dict[str, set[str]]:
    """Return the models retracted in a source but not in the destination, by reason."""
    by_reason: dict[str, set[str]] = {}
    known = set(own.all_retracted)
    for source in sources:
        at: Snapshot | None = source
        while at is not None:
            reasons = {name: item.because for item in at.retractions for name in item.models}
            for name in sorted(at.retracted - known):
                reason = FORMER.format(store=at.manifest.store_id[:8], reason=reasons.get(name, UNTOLD))
                by_reason.setdefault(reason, set()).add(name)
            known |= at.retracted
            at = at.base
    return by_reason


def _fresh(source: Snapshot, known: AbstractSet[str]) -> Iterator[Selection]:
    """Yield selections of the models of a source that are not known."""
    for selection in source.selections:
        pairs = zip(selection.keep, selection.segment.model_ids, strict=True)
        keep = tuple(kept and identifier not in known for kept, identifier in pairs)
        if any(keep):
            yield replace(selection, keep=keep)


def _models_at_once(manifest: Manifest) -> int:
    model_bits = manifest.train.n_examples
    for outcome, n_examples in manifest.arrays().values():
        model_bits += n_examples * (1 if outcome.kind == "bit" else 8 * np.dtype(outcome.dtype).itemsize)
    return max(1, min(BLOCK_MODELS, SEGMENT_BYTES * 8 // model_bits))


def _batches(manifest: Manifest, fresh: Sequence[Selection], most: int) -> Iterator[list[Selection]]:
    """Yield batches of at most ``most`` models, and fewer where their sketches would not fit into memory."""
    for batch in cut_into(fresh, most):
        n_models = sum(selection.n_models for selection in batch)
        if n_models > 1 and sum(one.n_bytes for one in sketched_in(manifest, batch)) > SKETCH_BYTES:
            yield from _batches(manifest, batch, n_models // 2)
        else:
            yield batch


def _commit(store: Store, source: Snapshot, batch: Sequence[Selection], projection: Projection | None) -> int:
    """Commit some models of a source as a segment; return how many lose sketches by another projection."""
    manifest = store.manifest
    stored = {layout.MASK: ArrayData(_bits(batch, layout.MASK, manifest.train.n_examples))}
    for path, (outcome, n_examples) in manifest.arrays().items():
        if outcome.kind == "bit":
            stored[path] = ArrayData(_bits(batch, path, n_examples))
        else:
            values = [selection.read_values(path, n_examples, outcome.dtype) for selection in batch]
            stored[path] = ArrayData(np.concatenate(values, axis=1))
    seeds = _seeds(source)
    models = [
        _moved(model, seeds[selection.segment.store_id], manifest.seed)
        for selection in batch
        for model, keep in zip(selection.segment.models, selection.keep, strict=True)
        if keep
    ]
    sketched = sketched_in(manifest, batch)
    kept = [one for one in sketched if one.projection == projection]
    for one in kept:
        stored |= one.arrays(manifest)
    store.commit_stored(models, stored)
    return len(sketched) - len(kept)


def _seeds(source: Snapshot) -> dict[str, int]:
    """Return the seeds of a source and of the stores that it extends, by store id."""
    below = _seeds(source.base) if source.base else {}
    return {**below, source.manifest.store_id: source.manifest.seed}


def _moved(model: ModelInfo, from_seed: int, to_seed: int) -> ModelInfo:
    seed = from_seed if model.store_seed is None else model.store_seed
    return replace(model, store_seed=None if seed == to_seed else seed)


def _bits(selections: Sequence[Selection], path: str, n_examples: int) -> bits.Packed:
    """Read the bits of several selections together, a band of rows at a time: some are unpacked for it."""
    widest = max(len(selection.keep) for selection in selections)

    def read(rows: tuple[int, int]) -> bits.Packed:
        packed = concurrently(lambda selection: selection.read_bits(path, n_examples, rows), selections)
        return bits.concatenate(packed, rows[1] - rows[0])

    bands = [read(rows) for rows in _bands(n_examples, widest * len(selections))]
    return bands[0] if len(bands) == 1 else np.concatenate(bands)


def require_distinct(stores: Sequence[Snapshot]) -> None:
    """Refuse equal masks under different ids, and different outcomes under one id, of different stores.

    Segments that several of the stores share, such as those of a common base, are read once.

    Raises:
        InvalidInputError: models of two stores have equal masks under different ids.
        MismatchError: one model has different outcomes in two of the stores.
    """
    ids = [set(snapshot.model_ids) for snapshot in stores]
    paths = _paths_of_all(stores)
    masks: dict[bytes, tuple[str, str]] = {}  # digest -> model id, url
    contents: dict[str, tuple[bytes, str]] = {}  # model id -> digest, url
    read: set[tuple[str, str]] = set()
    for position, snapshot in enumerate(stores):
        elsewhere: set[str] = set().union(*(found for n, found in enumerate(ids) if n != position))
        selections = [item for item in snapshot.selections if _identity(item) not in read]
        read |= set(map(_identity, selections))
        fresh: dict[bytes, tuple[str, str]] = {}
        for model_id, digest in _digests(snapshot, selections, [layout.MASK]):
            other = masks.get(digest)
            if other is not None and other[0] != model_id:
                raise InvalidInputError(
                    f"model {model_id} of {snapshot.url} has the mask of model {other[0]} of {other[1]}: "
                    "they are not independent, and intervals that count both would be too narrow",
                    hint="merge one of these stores, or retract the models in one with `memdb retract`",
                )
            fresh[digest] = (model_id, snapshot.url)
        masks |= fresh
        repeated = [_only(item, elsewhere) for item in selections]
        for model_id, digest in _digests(snapshot, repeated, paths):
            known = contents.setdefault(model_id, (digest, snapshot.url))
            if known[0] != digest:
                raise MismatchError(
                    f"model {model_id} of {snapshot.url} has another mask or other outcomes than in "
                    f"{known[1]}",
                    hint="merge one of these stores, or retract it in one with `memdb retract`: it will "
                    "count in neither",
                )


def _identity(selection: Selection) -> tuple[str, str]:
    return selection.segment.store_id, selection.segment.segment_id


def _paths_of_all(stores: Sequence[Snapshot]) -> list[str]:
    """Return the arrays that all models of all stores have."""
    metadata = [selection.segment.metadata.keys() for snapshot in stores for selection in snapshot.selections]
    arrays = stores[0].manifest.arrays()
    return [layout.MASK, *(path for path in arrays if all(path in item for item in metadata))]


def _only(selection: Selection, models: AbstractSet[str]) -> Selection:
    pairs = zip(selection.keep, selection.segment.model_ids, strict=True)
    return replace(selection, keep=tuple(kept and identifier in models for kept, identifier in pairs))


def _digests(
    snapshot: Snapshot, selections: Sequence[Selection], paths: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Yield the id of every selected model, and the sha256 of its values in these arrays."""
    sizes = {path: n_examples for path, (_, n_examples) in snapshot.manifest.arrays().items()}
    sizes[layout.MASK] = snapshot.manifest.train.n_examples

    def digest(selection: Selection) -> list[tuple[str, bytes]]:
        hashes = [hashlib.sha256() for keep in selection.keep if keep]
        for path in paths:
            for rows in _bands(sizes[path], len(selection.keep)):
                for one, row in zip(hashes, _by_model(snapshot.manifest, selection, path, rows), strict=True):
                    one.update(row.tobytes())
        models = [model for model, keep in zip(selection.segment.models, selection.keep, strict=True) if keep]
        return [(model.model_id, one.digest()) for model, one in zip(models, hashes, strict=True)]

    wanted = [selection for selection in selections if selection.n_models]
    return itertools.chain.from_iterable(concurrently(digest, wanted, READERS))


def _bands(n_examples: int, n_models: int) -> Iterator[tuple[int, int]]:
    step = max(8, BAND_BYTES // n_models // 8 * 8)
    for start in range(0, n_examples, step):
        yield start, min(n_examples, start + step)


def _by_model(manifest: Manifest, selection: Selection, path: str, rows: tuple[int, int]) -> NDArray[Any]:
    """Read some rows of an array, transposed to one row per model: bits are packed along the examples."""
    outcome, n_examples = manifest.arrays().get(path, (None, manifest.train.n_examples))
    if outcome is not None and outcome.kind != "bit":
        return selection.read_values(path, n_examples, outcome.dtype, rows).T
    packed, n_models = selection.read_bits(path, n_examples, rows)
    return np.packbits(np.unpackbits(packed, axis=1, count=n_models, bitorder="little").T, axis=1)
