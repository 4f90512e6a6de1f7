"""The models of a store at one moment, as a value, and how it is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import bits, layout
from memdb.commits import ModelInfo, Retraction, Segment, SnapshotRecord, sha256_of_models
from memdb.errors import Damaged, InvalidInput, NotFound
from memdb.manifest import Manifest, Outcome
from memdb.store.encoding import BLOCK_MODELS, SHARD_BYTES
from memdb.store.examples import Examples, read_examples
from memdb.store.ledger import (
    newest_by_asking,
    read_block,
    read_record,
    read_retractions,
    read_segment,
    require_listing,
    snapshot_numbers,
)
from memdb.store.reading import GroupReader
from memdb.store.storage import Storage, concurrently
from memdb.store.tally import COUNTED, has_counts, names_of


@dataclass(frozen=True)
class Snapshot:
    """The models of a store at one moment; later commits, compactions and retractions do not change it.

    The parts are blocks, in the order of the snapshot's record, then segments in order of their ids, which
    is the order of commit; compaction keeps that order. A model that stands in several counts once, in the
    first; one that was withdrawn does not count.
    """

    storage: Storage
    manifest: Manifest
    parts: tuple[Segment, ...]
    record: SnapshotRecord | None = None
    retracted: frozenset[str] = field(default_factory=frozenset)
    set_aside: frozenset[str] = field(default_factory=frozenset)
    withdrawals: tuple[Retraction, ...] = ()  # with their reasons
    lingering: tuple[str, ...] = ()  # segments that blocks took in and that are still there
    n_slots: int | None = None  # only the first so many models: an older snapshot, read from newer blocks

    @property
    def url(self) -> str:
        """Where the store is, as it was given."""
        return self.storage.url

    @property
    def blocks(self) -> tuple[Segment, ...]:
        """The parts that compaction wrote."""
        return tuple(part for part in self.parts if part.sources)

    @property
    def loose(self) -> tuple[Segment, ...]:
        """The segments that no block has taken in."""
        return tuple(part for part in self.parts if not part.sources)

    @cached_property
    def first(self) -> tuple[tuple[bool, ...], ...]:
        """For each part, whether each of its models is no repeat of an earlier one."""
        seen: set[str] = set()
        flags = []
        for part in self.parts:
            ids = [model.model_id for model in part.models]
            flags.append(tuple(identifier not in seen for identifier in ids))
            seen.update(ids)
        return tuple(flags)

    @cached_property
    def kept(self) -> tuple[tuple[bool, ...], ...]:
        """For each part, whether each of its models counts: no repeat, not withdrawn, not too new."""
        position, kept = 0, []
        for part, flags in zip(self.parts, self.first, strict=True):
            slots = range(position, position + len(flags))
            position += len(flags)
            kept.append(
                tuple(
                    is_first
                    and model.model_id not in self.retracted
                    and (self.n_slots is None or slot < self.n_slots)
                    for slot, model, is_first in zip(slots, part.models, flags, strict=True)
                )
            )
        return tuple(kept)

    @cached_property
    def models(self) -> tuple[tuple[str, ModelInfo], ...]:
        """Every model that counts, with the id of the segment it was committed in; the order of all bits."""
        return tuple(
            (origin, model)
            for part, flags in zip(self.parts, self.kept, strict=True)
            for origin, model, keep in zip(part.origins, part.models, flags, strict=True)
            if keep
        )

    @property
    def models_by_commit(self) -> list[tuple[str, ModelInfo]]:
        """The same sorted by segment: an order that nothing changes."""
        return sorted(self.models, key=lambda item: item[0])

    @property
    def n_models(self) -> int:
        """How many models count."""
        return len(self.models)

    @property
    def n_repeats(self) -> int:
        """How many models were committed again by a retried worker, and do not count."""
        commits = {
            (origin, model.model_id)
            for part in self.parts
            for origin, model in zip(part.origins, part.models, strict=True)
        }
        left_out = self.record.n_repeats if self.record else 0
        return left_out + len(commits) - len({identifier for _, identifier in commits})

    @property
    def n_retracted(self) -> int:
        """How many models were withdrawn."""
        ids = {model.model_id for part in self.parts for model in part.models}
        return len(ids & self.retracted)

    @cached_property
    def models_sha256(self) -> str:
        """Sha256 of the sorted model ids, each followed by a newline: the same models, the same answer."""
        return sha256_of_models(model.model_id for _, model in self.models)

    @property
    def number(self) -> int | None:
        """The number of the snapshot whose models these are exactly; None where there are others."""
        same = self.record is not None and self.record.models_sha256 == self.models_sha256
        return self.record.number if self.record and same else None

    def mask(self) -> bits.Packed:
        """Read the subset masks, packed uint8 [train, ceil(models / 8)]."""
        return self._bits(layout.MASK, self.manifest.train.n_examples)

    def outcome_bits(self, path: str) -> bits.Packed:
        """Read an outcome of kind ``bit``, such as ``test/correct``, packed like the masks.

        Raises:
            NotFound: the store does not keep it.
        """
        return self._bits(path, self._bit_outcome(path))

    def words(
        self, path: str, rows: tuple[int, int] | None = None, of: Sequence[bool] | None = None
    ) -> NDArray[np.uint64]:
        """Read the masks (`layout.MASK`) or an outcome of kind ``bit`` as `bits.words`.

        ``rows`` is a range of examples, ``of`` chooses among the parts; not given, all.
        """
        n_examples = self.manifest.train.n_examples if path == layout.MASK else self._bit_outcome(path)
        first, last = rows or (0, n_examples)
        jobs = self._jobs(of) if n_examples else []  # of a set that the store does not have
        starts = np.cumsum([0, *(sum(flags) for _, flags in jobs)]).tolist()
        if any(start % 8 for start in starts[:-1]) or not all(all(flags) for _, flags in jobs):
            return bits.joined_words(self._parts_of(path, n_examples, rows, of), last - first)
        found = np.zeros((last - first, -(-starts[-1] // 64)), dtype=np.uint64)

        def read(job: tuple[int, tuple[Segment, tuple[bool, ...]]]) -> None:
            start, (part, flags) = job
            width = bits.n_bytes(len(flags))
            out = found.view(np.uint8)[:, start // 8 : start // 8 + width]
            read_part(self.storage, part, path, (n_examples, width), "uint8", rows, out)
            if len(flags) % 8:
                out &= bits.selection([True] * len(flags))  # padding bits would become other models'

        concurrently(read, zip(starts, jobs, strict=False))  # each to its place: copies of it all take time
        return found

    @cached_property
    def tallied(self) -> tuple[bool, ...]:
        """For each part, whether counts are stored with it that hold for all of its models."""
        return tuple(
            all(flags) and has_counts(self.manifest, part)
            for part, flags in zip(self.parts, self.kept, strict=True)
        )

    def stored_counts(self, set_name: str) -> dict[str, NDArray[np.int32]]:
        """Return the sums of the counts stored with `tallied` parts by name, int32 [examples]."""
        names = names_of(set_name)
        shape = (len(names), self.manifest.set_named(set_name).n_examples)
        parts = [part for part, stored in zip(self.parts, self.tallied, strict=True) if stored and shape[1]]
        path = layout.counts(set_name)
        found = concurrently(lambda part: read_part(self.storage, part, path, shape, COUNTED.str), parts)
        return dict(zip(names, sum(found, np.zeros(shape, dtype=np.int32)), strict=True))

    def band_parts(
        self, path: str, of: Sequence[bool] | None = None
    ) -> Iterator[tuple[int, int, list[tuple[bits.Packed, int]]]]:
        """Yield an outcome of kind ``bit`` band by band: its first row, the row after its last, its parts.

        The parts, packed and each with its number of models, follow one another along the model axis; ``of``
        chooses among them. Bands are as high as what blocks are stored in, so that each object is fetched
        once.

        Raises:
            NotFound: the store does not keep it.
        """
        n_examples = self._bit_outcome(path)
        step = self.band_height(path)
        for start in range(0, n_examples, step):
            stop = min(n_examples, start + step)
            yield start, stop, self._parts_of(path, n_examples, (start, stop), of)

    def band_height(self, path: str) -> int:
        """Return how many examples a band of an outcome has."""
        outcome, _ = self._outcome(path)
        width = bits.n_bytes(BLOCK_MODELS) if outcome.kind == "bit" else BLOCK_MODELS
        return SHARD_BYTES // (width * np.dtype(outcome.dtype).itemsize)

    def outcome_values(self, path: str, rows: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read an outcome of another kind, [examples, models] in the stored type, or a range of its rows.

        Raises:
            NotFound: the store does not keep it, or the recipe did not give it for some models.
        """
        outcome, n_examples = self._outcome(path)
        if outcome.kind == "bit":
            raise InvalidInput(f"{path} is of kind bit: read it with outcome_bits")
        jobs = self._jobs()
        lacking = [part.segment_id for part, _ in jobs if path not in part.metadata]
        if lacking:
            raise NotFound(
                f"the models of {lacking[0]} of {self.url} have no {path}",
                hint="their recipe did not give it, or a repair had to leave it out",
            )
        first, last = (0, n_examples) if rows is None else rows
        values = np.empty((last - first, self.n_models), dtype=outcome.dtype)
        starts = np.cumsum([0, *(sum(flags) for _, flags in jobs)])

        def read(job: tuple[int, tuple[Segment, tuple[bool, ...]]]) -> None:
            position, (part, flags) = job
            shape = (n_examples, len(flags))
            found = read_part(self.storage, part, path, shape, outcome.dtype, (first, last))
            values[:, starts[position] : starts[position + 1]] = found[:, list(flags)]

        concurrently(read, enumerate(jobs))
        return values

    def examples(self, name: str) -> Examples:
        """Read the names and labels of a set's examples.

        Raises:
            Damaged: an array is missing, altered or does not hold names and labels.
        """
        return read_examples(self.storage, self.manifest, name)

    def _outcome(self, path: str) -> tuple[Outcome, int]:
        arrays = self.manifest.arrays()
        name, _, kind = path.partition("/")
        declared = {item.name: item for item in self.manifest.outcomes}
        if path not in arrays and kind in declared and self.manifest.set_named(name).n_examples == 0:
            return declared[kind], 0  # of the examples that a store without a test set has
        if path not in arrays:
            raise NotFound(
                f"{self.url} keeps no outcome {path}", hint=f"it keeps {', '.join(sorted(arrays))}"
            )
        return arrays[path]

    def _bit_outcome(self, path: str) -> int:
        outcome, n_examples = self._outcome(path)
        if outcome.kind != "bit":
            raise InvalidInput(f"{path} is of kind {outcome.kind}, not bit")
        return n_examples

    def _bits(self, path: str, n_examples: int) -> bits.Packed:
        return bits.concatenate(self._parts_of(path, n_examples), n_examples)

    def _parts_of(
        self,
        path: str,
        n_examples: int,
        rows: tuple[int, int] | None = None,
        of: Sequence[bool] | None = None,
    ) -> list[tuple[bits.Packed, int]]:
        jobs = self._jobs(of) if n_examples else []  # of a set that the store does not have
        return concurrently(lambda job: read_bits(self.storage, job[0], path, n_examples, job[1], rows), jobs)

    def _jobs(self, of: Sequence[bool] | None = None) -> list[tuple[Segment, tuple[bool, ...]]]:
        """Return the parts to read, those chosen, with what counts of each."""
        chosen = [True] * len(self.parts) if of is None else of
        return [
            (part, flags)
            for part, flags, wanted in zip(self.parts, self.kept, chosen, strict=True)
            if wanted and any(flags)
        ]


def read_part(  # noqa: PLR0913, PLR0917 - of what, which, how much of it, and where to
    storage: Storage,
    part: Segment,
    path: str,
    shape: tuple[int, ...],
    dtype: str,
    rows: tuple[int, int] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Read an array of a segment or block, or some of its rows, as it is stored; into ``out``, if given."""
    return GroupReader(storage, part.group, part.objects, part.metadata).read(path, shape, dtype, rows, out)


def read_bits(
    storage: Storage,
    part: Segment,
    path: str,
    n_examples: int,
    keep: tuple[bool, ...],
    rows: tuple[int, int] | None = None,
) -> tuple[bits.Packed, int]:
    """Read the bits of some models of a part, packed [rows, ceil(kept / 8)]; return them and their number."""
    shape = (n_examples, bits.n_bytes(len(keep)))
    packed = read_part(storage, part, path, shape, "uint8", rows)
    if not all(keep):
        packed = bits.pack(bits.unpack(packed, len(keep))[list(keep)])
    else:
        packed &= bits.selection([True] * len(keep))  # padding bits would become other models'
    return packed, sum(keep)


def take_snapshot(storage: Storage, manifest: Manifest, as_of: int | None = None) -> Snapshot:
    """Return the models of now, or those of a numbered snapshot.

    Where the storage cannot be listed, as over plain HTTP, these are the models of the newest snapshot.

    Raises:
        Damaged: a document is missing, was altered, or belongs to another store.
        NotFound: no snapshot has that number.
    """
    if as_of is not None or not storage.can_list:
        newest = _newest(storage)
        number = newest if as_of is None else as_of
        if number is None:
            raise NotFound(
                f"{storage.url} has no snapshot, and its protocol has no listing of the models beyond one",
                hint="ask its owner to run `memdb compact`, or copy the store",
            )
        return _snapshot_of(storage, manifest, number, newest)
    folders = (layout.SNAPSHOTS, layout.SEGMENTS, layout.RETRACTIONS)
    snapshots, segments, retractions = concurrently(storage.names, folders)
    for folder, names in zip(folders, (snapshots, segments, retractions), strict=True):
        require_listing(storage, folder, names)
    numbers = snapshot_numbers(snapshots)
    record = read_record(storage, manifest, numbers[-1]) if numbers else None
    withdrawn = read_retractions(storage, manifest, retractions)
    said_retracted = set(record.retracted) if record else set()  # stays so where a file was lost since
    set_aside = set(record.set_aside) if record else set()
    set_aside.update(identifier for item in withdrawn for identifier in item.segments)
    passed_over = set_aside | set(record.segments if record else ())
    names = [name for name in segments if layout.is_segment_id(name) and name not in passed_over]
    blocks = concurrently(lambda info: read_block(storage, manifest, info), record.blocks if record else ())
    loose = concurrently(lambda name: read_segment(storage, manifest, name), names)
    return Snapshot(
        storage,
        manifest,
        (*blocks, *(segment for segment in loose if segment is not None)),
        record,
        frozenset(said_retracted.union(*(item.models for item in withdrawn))),
        frozenset(set_aside),
        tuple(withdrawn),
        tuple(sorted(set(record.segments).intersection(segments))) if record else (),
    )


def _newest(storage: Storage) -> int | None:
    """Return the number of the newest snapshot, without reading it where the storage can be listed."""
    if not storage.can_list:
        return newest_by_asking(storage)
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    return numbers[-1] if numbers else None


def _snapshot_of(storage: Storage, manifest: Manifest, number: int, newest: int | None) -> Snapshot:
    """Return the models of a numbered snapshot.

    They are the first ones of the newest, whose blocks no cleaning removes under a reader; only where that
    is not so, after a repair, its own blocks are read, if they are still there.
    """
    record = read_record(storage, manifest, number)
    retracted, set_aside = frozenset(record.retracted), frozenset(record.set_aside)
    n_slots = sum(block.n_models for block in record.blocks)
    if newest is not None and newest > number:
        infos = read_record(storage, manifest, newest).blocks
        blocks = tuple(concurrently(lambda info: read_block(storage, manifest, info), infos))
        found = Snapshot(storage, manifest, blocks, record, retracted, set_aside, n_slots=n_slots)
        if found.models_sha256 == record.models_sha256:
            return found
    try:
        blocks = tuple(concurrently(lambda info: read_block(storage, manifest, info), record.blocks))
    except Damaged as error:
        if newest == number:
            raise
        raise Damaged(
            f"the models of snapshot {number} of {storage.url} are not all there any more",
            hint="a repair moved them; see `memdb verify`, or ask without --as-of",
        ) from error
    return Snapshot(storage, manifest, blocks, record, retracted, set_aside)
