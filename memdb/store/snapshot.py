"""The models of a store at one moment, as a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError, InvalidInputError, NotFoundError
from memdb.format import bits, layout
from memdb.format.manifest import Manifest, Outcome
from memdb.format.segment import ModelInfo, Segment, sha256_of_models
from memdb.format.snapshot_record import Retraction, SnapshotRecord
from memdb.storage.protocol import Storage, concurrently
from memdb.store.block_counts import COUNTED, are_possible, has_counts, names_of
from memdb.store.encoding import BLOCK_MODELS, SHARD_BYTES
from memdb.store.examples import Examples, read_examples
from memdb.store.selection import Selection, arrays_of
from memdb.store.stated import RESTORE


@dataclass(frozen=True)
class Snapshot:
    """The models of a store at one moment; later commits, compactions and retractions do not change it.

    ``segments`` are blocks, in the order of the snapshot's record, then loose segments by id, which is the
    order of commit; compaction keeps that order. A model that is in several counts once, in the first; a
    retracted model does not count.

    If the store extends another, the models of that ``base`` come first; they stay where they are, and
    ``segments`` are the store's own. A retraction in the store also holds for models of its base.
    """

    storage: Storage
    manifest: Manifest
    segments: Sequence[Segment]
    record: SnapshotRecord | None = None
    retracted: frozenset[str] = field(default_factory=frozenset)
    set_aside: frozenset[str] = field(default_factory=frozenset)
    retractions: tuple[Retraction, ...] = ()  # with their reasons
    compacted: tuple[str, ...] = ()  # segments that blocks replace and that are not removed yet
    excluded: frozenset[str] = field(default_factory=frozenset)  # from this question only
    n_slots: int | None = None  # only this many models: an older snapshot, read from newer blocks
    newest: int | None = None  # the number of the newest snapshot, if known
    base: Snapshot | None = None
    retracted_above: frozenset[str] = field(default_factory=frozenset)  # by stores that extend this one
    is_published: bool = False  # every model of its blocks counts: their documents need not be read

    def __repr__(self) -> str:
        models = f"n_models={self.n_models}, models_sha256={self.models_sha256[:12]!r}"
        return f"Snapshot({self.url!r}, {models})"

    @property
    def url(self) -> str:
        """Where the store is, as it was given."""
        return self.storage.url

    @property
    def blocks(self) -> tuple[Segment, ...]:
        """The blocks, which compaction wrote."""
        return tuple(segment for segment in self.segments if segment.sources)

    @property
    def loose(self) -> tuple[Segment, ...]:
        """The segments that are not in any block."""
        return tuple(segment for segment in self.segments if not segment.sources)

    @cached_property
    def first(self) -> tuple[tuple[bool, ...], ...]:
        """For each segment, which of its models are not repeats of an earlier one."""
        seen: set[str] = set()
        flags = []
        for segment in self.segments:
            ids, known = segment.model_ids, len(seen)
            repeated = seen.intersection(ids)
            seen.update(ids)
            if len(seen) == known + len(ids):
                flags.append((True,) * len(ids))
                continue
            fresh = []
            for identifier in ids:
                fresh.append(identifier not in repeated)
                repeated.add(identifier)  # at once: a segment may hold a model twice, too
            flags.append(tuple(fresh))
        return tuple(flags)

    def extending(self, base: Snapshot) -> Snapshot:
        """Return this snapshot with the models of the store that it extends."""
        return replace(self, base=base.retracting(self.retracted))

    def retracting(self, models: frozenset[str]) -> Snapshot:
        """Return this snapshot with more models retracted."""
        inner = self.base.retracting(models) if self.base else None
        return replace(self, base=inner, retracted_above=self.retracted_above | models)

    def excluding(self, models: frozenset[str]) -> Snapshot:
        """Return this snapshot with some models excluded, for one question."""
        base = self.base.excluding(models) if self.base else None
        is_published = self.is_published and not models
        return replace(self, base=base, excluded=models, is_published=is_published)

    @cached_property
    def all_retracted(self) -> frozenset[str]:
        """The models retracted in this store, in its base, or in a store that extends it."""
        below = self.base.all_retracted if self.base else frozenset()
        return self.retracted | self.retracted_above | below

    @cached_property
    def kept(self) -> tuple[tuple[bool, ...], ...]:
        """For each segment, which of its models count: not repeated, retracted, excluded or too new."""
        position, kept = 0, []
        known = set(self.base.model_ids) if self.base else set()
        known |= self.all_retracted | self.excluded
        for segment, flags in zip(self.segments, self.first, strict=True):
            ids, n_slots = segment.model_ids, len(flags) if self.n_slots is None else self.n_slots - position
            position += len(flags)
            if n_slots >= len(flags) and known.isdisjoint(ids):
                kept.append(flags)
                continue
            kept.append(
                tuple(
                    is_first and identifier not in known and slot < n_slots
                    for slot, identifier, is_first in zip(range(len(ids)), ids, flags, strict=True)
                )
            )
        return tuple(kept)

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        """The models that count, by segment, those of the base first: the order of bits."""
        own = (
            Selection(self.storage, segment, flags)
            for segment, flags in zip(self.segments, self.kept, strict=True)
            if any(flags)
        )
        return (*(self.base.selections if self.base else ()), *own)

    @cached_property
    def models(self) -> tuple[tuple[str, ModelInfo], ...]:
        """Every model that counts, with the id of the segment it was committed in; the order of bits."""
        return tuple(
            (origin, model)
            for selection in self.selections
            for origin, model, keep in zip(
                selection.segment.origins, selection.segment.models, selection.keep, strict=True
            )
            if keep
        )

    @cached_property
    def model_ids(self) -> tuple[str, ...]:
        """The id of every model that counts, in the order of bits."""
        return tuple(
            chain.from_iterable(
                compress(selection.segment.model_ids, selection.keep) for selection in self.selections
            )
        )

    @property
    def models_by_commit(self) -> list[tuple[str, ModelInfo]]:
        """The same sorted by segment: an order that nothing changes."""
        return sorted(self.models, key=lambda item: item[0])

    @property
    def n_models(self) -> int:
        """How many models count."""
        if self.record and self.is_published:
            return self.record.n_models
        return sum(selection.n_models for selection in self.selections)

    @property
    def n_repeats(self) -> int:
        """How many models were committed again by a retried worker, and do not count.

        A model that stands twice in one segment was committed once.
        """
        if self.is_published:
            return 0
        commits = {
            (origin, identifier)
            for segment in self.segments
            for origin, identifier in zip(segment.origins, segment.model_ids, strict=True)
        }
        compacted = self.record.n_repeats if self.record else 0
        return compacted + len(commits) - len({identifier for _, identifier in commits})

    @property
    def n_retracted(self) -> int:
        """How many models are retracted."""
        if self.is_published:
            return 0
        ids = {identifier for segment in self.segments for identifier in segment.model_ids}
        below = self.base.n_retracted if self.base else 0
        return len(ids & (self.retracted | self.retracted_above)) + below

    @cached_property
    def models_sha256(self) -> str:
        """Sha256 of the sorted model ids, each followed by a newline: the same models, the same answer."""
        if self.record and self.is_published:
            return self.record.models_sha256
        return sha256_of_models(self.model_ids)

    @property
    def number(self) -> int | None:
        """The number of the snapshot with exactly these models; None if there is none."""
        if self.record is None or self.retracted_above:
            return None
        if self.base is None:
            return self.record.number if self.record.models_sha256 == self.models_sha256 else None
        base = self.record.base
        own = replace(self, base=None)
        same = base is not None and base.models_sha256 == self.base.models_sha256
        return own.number if same else None

    def mask(self) -> bits.Packed:
        """Read the subset masks, packed uint8 [train, ceil(models / 8)]."""
        return self._bits(layout.MASK, self.manifest.train.n_examples)

    def outcome_bits(self, path: str) -> bits.Packed:
        """Read an outcome of kind ``bit``, such as ``test/correct``, packed like the masks.

        Raises:
            NotFoundError: the store does not keep it.
        """
        return self._bits(path, self._bit_outcome(path))

    def words(
        self, path: str, rows: tuple[int, int] | None = None, of: Sequence[bool] | None = None
    ) -> NDArray[np.uint64]:
        """Read the masks (`layout.MASK`) or an outcome of kind ``bit`` as `bits.words`.

        ``rows`` is a range of examples, and ``of`` chooses among the `selections`; by default, all.
        """
        n_examples = self.manifest.train.n_examples if path == layout.MASK else self._bit_outcome(path)
        first, last = rows or (0, n_examples)
        selections = self._chosen(of) if n_examples else []  # of a set that the store does not have
        starts = np.cumsum([0, *(selection.n_models for selection in selections)]).tolist()
        if any(start % 8 for start in starts[:-1]) or not all(
            all(selection.keep) for selection in selections
        ):
            return bits.joined_words(self._bits_of(path, n_examples, rows, of), last - first)
        words = np.zeros((last - first, -(-starts[-1] // 64)), dtype=np.uint64)

        def read(job: tuple[int, Selection]) -> None:
            start, selection = job
            n_models = len(selection.keep)
            width = bits.n_bytes(n_models)
            out = words.view(np.uint8)[:, start // 8 : start // 8 + width]
            arrays_of(selection.storage, selection.segment).read(
                path, (n_examples, width), "uint8", rows, out
            )
            if n_models % 8:
                out &= bits.selection([True] * n_models)  # padding bits would become other models'

        concurrently(
            read, zip(starts, selections, strict=False)
        )  # each to its place: copies of it all take time
        return words

    @cached_property
    def counted(self) -> tuple[bool, ...]:
        """For each of the `selections`, whether it is a whole block with stored counts."""
        return tuple(
            all(selection.keep) and has_counts(self.manifest, selection.segment)
            for selection in self.selections
        )

    def stored_counts(self, set_name: str) -> dict[str, NDArray[np.int32]]:
        """Return the sums of the stored counts of all `counted` selections, by name, int32 [examples]."""
        names = names_of(set_name)
        shape = (len(names), self.manifest.set_named(set_name).n_examples)
        path = layout.counts(set_name)

        def read(selection: Selection) -> NDArray[Any]:
            return arrays_of(selection.storage, selection.segment).read(path, shape, COUNTED.str)

        selections = self._chosen(self.counted) if shape[1] else []
        parts = concurrently(read, selections)
        counts = dict(zip(names, sum(parts, np.zeros(shape, dtype=np.int32)), strict=True))
        none, n_models = np.zeros(1, dtype=np.int32), sum(selection.n_models for selection in selections)
        if not are_possible(
            counts.get("n_in", none), counts["n_correct"], counts.get("k_in", none), n_models
        ):
            raise DamagedError(
                f"the blocks of {self.url} have {path} that {n_models:,} models cannot give", hint=RESTORE
            )
        return counts

    def band_parts(
        self, path: str, of: Sequence[bool] | None = None
    ) -> Iterator[tuple[int, int, list[tuple[bits.Packed, int]]]]:
        """Yield an outcome of kind ``bit`` band by band: its first row, the row after its last, and its bits.

        The bits are a list in the order of the `selections`, each packed and with its number of models;
        ``of`` chooses among them. Bands are as high as the shards of blocks, so that each object is fetched
        once.

        Raises:
            NotFoundError: the store does not keep it.
        """
        n_examples = self._bit_outcome(path)
        step = self.band_height(path)
        for start in range(0, n_examples, step):
            stop = min(n_examples, start + step)
            yield start, stop, self._bits_of(path, n_examples, (start, stop), of)

    def band_height(self, path: str) -> int:
        """Return how many examples a band of an outcome has."""
        outcome, _ = self._outcome(path)
        width = bits.n_bytes(BLOCK_MODELS) if outcome.kind == "bit" else BLOCK_MODELS
        return SHARD_BYTES // (width * np.dtype(outcome.dtype).itemsize)

    def outcome_values(self, path: str, rows: tuple[int, int] | None = None) -> NDArray[Any]:
        """Read an outcome of another kind, [examples, models] in the stored type, or a range of its rows.

        Raises:
            NotFoundError: the store does not keep it, or the recipe did not give it for some models.
        """
        outcome, n_examples = self._outcome(path)
        if outcome.kind == "bit":
            raise InvalidInputError(f"{path} is of kind bit: read it with outcome_bits")
        lacking = [selection for selection in self.selections if path not in selection.segment.metadata]
        if lacking:
            raise NotFoundError(
                f"the models of {lacking[0].segment.segment_id} of {lacking[0].storage.url} have no {path}",
                hint="their recipe did not give it, this copy was made without it, or a repair omitted it",
            )
        first, last = (0, n_examples) if rows is None else rows
        values = np.empty((last - first, self.n_models), dtype=outcome.dtype)
        starts = np.cumsum([0, *(selection.n_models for selection in self.selections)])

        def read(job: tuple[int, Selection]) -> None:
            position, selection = job
            part = selection.read_values(path, n_examples, outcome.dtype, (first, last))
            values[:, starts[position] : starts[position + 1]] = part

        concurrently(read, enumerate(self.selections))
        return values

    def is_complete(self, path: str) -> bool:
        """Tell whether every model that counts has an outcome, which recipes and copies may lack."""
        return all(path in selection.segment.metadata for selection in self.selections)

    def examples(self, name: str) -> Examples:
        """Read the names and labels of a set's examples.

        Raises:
            DamagedError: an array is missing, altered or does not hold names and labels.
        """
        return read_examples(self, name)

    def _outcome(self, path: str) -> tuple[Outcome, int]:
        arrays = self.manifest.arrays()
        name, _, kind = path.partition("/")
        declared = {item.name: item for item in self.manifest.outcomes}
        if path not in arrays and kind in declared and self.manifest.set_named(name).n_examples == 0:
            return declared[kind], 0  # of the examples that a store without a test set has
        if path not in arrays:
            raise NotFoundError(
                f"{self.url} keeps no outcome {path}", hint=f"it keeps {', '.join(sorted(arrays))}"
            )
        return arrays[path]

    def _bit_outcome(self, path: str) -> int:
        outcome, n_examples = self._outcome(path)
        if outcome.kind != "bit":
            raise InvalidInputError(f"{path} is of kind {outcome.kind}, not bit")
        return n_examples

    def _bits(self, path: str, n_examples: int) -> bits.Packed:
        return bits.concatenate(self._bits_of(path, n_examples), n_examples)

    def _bits_of(
        self,
        path: str,
        n_examples: int,
        rows: tuple[int, int] | None = None,
        of: Sequence[bool] | None = None,
    ) -> list[tuple[bits.Packed, int]]:
        selections = self._chosen(of) if n_examples else []  # of a set that the store does not have
        return concurrently(lambda selection: selection.read_bits(path, n_examples, rows), selections)

    def _chosen(self, of: Sequence[bool] | None) -> list[Selection]:
        """Return the selections to read: all, or those chosen."""
        if of is None:
            return list(self.selections)
        return [selection for selection, wanted in zip(self.selections, of, strict=True) if wanted]
