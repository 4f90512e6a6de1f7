"""Read the gradient sketches of a snapshot's models, one model at a time, and copy them into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memdb.errors import DamagedError
from memdb.format.manifest import Manifest, Objects
from memdb.format.sketches import SKETCH, SKETCH_DTYPE, Projection, is_sketch, sketch_path, sketched_slots
from memdb.store.encoding import ArrayData, BandEncoder
from memdb.store.read_arrays import GroupReader
from memdb.store.selection import Selection
from memdb.store.snapshot import Snapshot

EXPONENT = np.uint16(0x7C00)  # of float16: all ones where a number is infinite, or is none
BAND_BYTES = 32 << 20  # of one model's sketches in memory at once, in copying


@dataclass(frozen=True)
class Sketched:
    """A sketched model: where it stands among the snapshot's models, and where its sketches are."""

    model: int
    selection: Selection
    slot: int

    @property
    def projection(self) -> Projection:
        """How it was sketched."""
        return projection_of(self.selection, self.slot)

    @property
    def n_bytes(self) -> int:
        """What its sketches take in the store."""
        return sum(info.size for info in self.objects.values())

    @property
    def objects(self) -> Objects:
        """The objects that hold its sketches, by name in the segment."""
        return {
            name: info
            for name, info in self.selection.segment.objects.items()
            if is_sketch(path := name.rpartition("/")[0]) and path.rpartition("/")[2] == str(self.slot)
        }

    def read(
        self, manifest: Manifest, which: str, rows: tuple[int, int] | None = None
    ) -> NDArray[np.float16]:
        """Read its sketches of the examples of a set, or of a range of them: float16 [row, size]."""
        shape = (manifest.set_named(which).n_examples, self.projection.size)
        if not shape[0]:
            return np.zeros(shape, dtype=SKETCH_DTYPE)
        return _reader(self.selection).read(sketch_path(which, self.slot), shape, SKETCH_DTYPE, rows)

    def read_finite(
        self, manifest: Manifest, which: str, rows: tuple[int, int] | None = None
    ) -> NDArray[np.float16]:
        """Read its sketches to compute with them.

        Raises:
            DamagedError: some are not finite, which no training commits: one would spoil all scores.
        """
        values = self.read(manifest, which, rows)
        if values.size and (values.view(np.uint16) & EXPONENT).max() == EXPONENT:
            model_id = self.selection.segment.models[self.slot].model_id
            raise DamagedError(
                f"the {SKETCH} of model {model_id} has numbers that are not finite",
                hint="exclude the model, or retract it with `memdb retract`",
            )
        return values

    def arrays(self, manifest: Manifest) -> dict[str, ArrayData]:
        """Read its sketches of all sets as the arrays of a segment in which it stands at this position."""
        values = {info.name: self.read(manifest, info.name)[None] for info in manifest.sets}
        return sketch_arrays(self.projection, values, [self.model])


@dataclass(frozen=True)
class Sketches:
    """The sketches of some examples by all sketched models of a snapshot; none if nothing was sketched.

    Attributes:
        models: int64 [G], ascending: the positions of the sketched models in the snapshot's order of models,
            which is that of ``snapshot.models`` and of bits. They tend to be the first: folds that should
            each have some are taken by position modulo their number, not as ranges.
        values: float16 [G, row, size].
        projection: of all of them; None if nothing was ever sketched.
    """

    models: NDArray[np.int64]
    values: NDArray[np.float16]
    projection: Projection | None = None


def find_sketches(snapshot: Snapshot) -> list[Sketched]:
    """Return the sketched models of a snapshot that are comparable, in its order of models.

    These have sketches of all sets, by the projection of `projection_in_use`; others are passed over.
    """
    everyone = all_sketched(snapshot)
    wanted = _in_use(snapshot.manifest, everyone)
    return [sketch for sketch in everyone if sketch.projection == wanted]


def all_sketched(snapshot: Snapshot) -> list[Sketched]:
    """Return the models of a snapshot that have sketches, by whatever projection, in its order of models."""
    return sketched_in(snapshot.manifest, snapshot.selections)


def sketched_in(manifest: Manifest, selections: Sequence[Selection]) -> list[Sketched]:
    """Return the sketched models of some selections; their positions count the models of all of these."""
    names, sketched, start = [info.name for info in manifest.sets], [], 0
    for selection in selections:
        places = np.cumsum(selection.keep) - 1
        sketched += [
            Sketched(start + int(places[slot]), selection, slot)
            for slot in sketched_slots(selection.segment.metadata, names, len(selection.keep))
            if selection.keep[slot]
        ]
        start += selection.n_models
    return sketched


def projection_in_use(snapshot: Snapshot) -> Projection | None:
    """Return the projection of a store: of its manifest, else of its first sketched model, else None."""
    return _in_use(snapshot.manifest, all_sketched(snapshot))


def read_sketches(snapshot: Snapshot, which: str, rows: tuple[int, int] | None = None) -> Sketches:
    """Read the sketches of a set's examples, or of a range of them, by all sketched models.

    Args:
        snapshot: whose models.
        which: the set, ``train`` or ``test``.
        rows: first row, and the row after the last; all by default. What is read is in memory at once:
            `iterate_sketches` has one model at a time.

    Raises:
        DamagedError: an array is missing or altered, or not finite.
    """
    sketches = find_sketches(snapshot)
    n_examples = snapshot.manifest.set_named(which).n_examples
    first, last = (0, n_examples) if rows is None else rows
    projection = projection_in_use(snapshot)
    values = np.empty((len(sketches), last - first, projection.size if projection else 0), dtype=SKETCH_DTYPE)
    for place, one in enumerate(sketches):
        values[place] = one.read_finite(snapshot.manifest, which, (first, last))
    return Sketches(np.array([one.model for one in sketches], dtype=np.int64), values, projection)


def iterate_sketches(
    snapshot: Snapshot, which: str, rows: tuple[int, int] | None = None
) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """Yield each sketched model's position among the snapshot's models, and its sketches [row, size]."""
    for one in find_sketches(snapshot):
        yield one.model, one.read(snapshot.manifest, which, rows)


def projection_of(selection: Selection, slot: int) -> Projection:
    """Return how a model of a segment was sketched.

    Raises:
        WrongFormatError: its array does not say.
    """
    path = sketch_path("train", slot)
    return Projection.from_attributes(
        _reader(selection).attributes(path), f"{selection.storage.url}/{selection.segment.group}/{path}"
    )


def sketch_arrays(
    projection: Projection, values: Mapping[str, Iterable[NDArray[np.float16]]], slots: Sequence[int]
) -> dict[str, ArrayData]:
    """Return the arrays of a segment with sketches of the models at these slots, given by set and model."""
    attributes = projection.to_document()
    return {
        sketch_path(name, slot): ArrayData(one, attributes)
        for name, some in values.items()
        for slot, one in zip(slots, some, strict=True)
    }


def copied_sketches(manifest: Manifest, selections: Sequence[Selection]) -> Iterator[dict[str, bytes]]:
    """Yield the objects of a block that hold the sketches of its models, which these selections have."""
    for one in sketched_in(manifest, selections):
        for info in manifest.sets:
            yield from _copied(manifest, one, info.name)


def _copied(manifest: Manifest, one: Sketched, which: str) -> Iterator[dict[str, bytes]]:
    """Yield the objects of one model's sketches of a set, some megabytes at a time."""
    shape = (manifest.set_named(which).n_examples, one.projection.size)
    attributes = one.projection.to_document()
    encoder = BandEncoder(
        sketch_path(which, one.model), shape, SKETCH_DTYPE, sharded=False, attributes=attributes
    )
    yield encoder.metadata
    for rows in encoder.bands(BAND_BYTES):
        yield from encoder.encode(rows[0], one.read(manifest, which, rows))


def _in_use(manifest: Manifest, everyone: Sequence[Sketched]) -> Projection | None:
    if manifest.sketches is not None:
        return manifest.sketches.projection
    return everyone[0].projection if everyone else None


def _reader(selection: Selection) -> GroupReader:
    segment = selection.segment
    return GroupReader(selection.storage, segment.group, segment.objects, segment.metadata)
