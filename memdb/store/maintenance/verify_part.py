"""Verify a segment or block, and the data set: objects, and numbers against what they count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from memdb.errors import DamagedError, InvalidInputError, WrongFormatError
from memdb.format import bits, layout
from memdb.format.manifest import CORRECT, Manifest
from memdb.format.score_table import ScoreTable
from memdb.format.segment import Segment, sha256_of_models
from memdb.format.snapshot_record import SnapshotRecord
from memdb.store.block_counts import BlockCounter, has_counts
from memdb.store.examples import read_example_table
from memdb.store.maintenance.verify_report import Damage, Report
from memdb.store.read_arrays import GroupReader
from memdb.store.store import Store

COUNTED = ("subset_size", "train_accuracy", "out_accuracy", "test_accuracy")
TOLERANCE = 1e-9  # accuracies are quotients of counts: equal but for the last digits


def check_dataset(store: Store, name: str, report: Report) -> None:
    """Check a set's objects, and its names, labels and hashes against its fingerprint in the manifest."""
    objects = {
        path: info
        for path, info in store.manifest.objects.items()
        if path.split("/")[0] in {name, layout.GROUP_METADATA}
    }
    place = f"{store.url}/{layout.DATASET}/{name}"
    _, problems = report.objects(store.storage, layout.DATASET, objects)
    if not problems:
        try:
            table = read_example_table(store, name)
            if table.info(name) != store.manifest.set_named(name):
                problems = {place: "its names, labels and hashes do not have the fingerprint in the manifest"}
            if name == layout.TRAIN and store.manifest.kept:
                store.manifest.kept.rows(store.manifest.train.n_examples, store.url)
        except (DamagedError, InvalidInputError, WrongFormatError) as error:
            problems = {place: str(error)}
    report.damages += [Damage("dataset", name, where, problem) for where, problem in problems.items()]


def check_segment(store: Store, segment: Segment, kind: str, report: Report) -> None:
    """Check a segment's or block's objects and, if they are intact, its numbers."""
    bit_arrays = [
        layout.MASK,
        *(path for path, (outcome, _) in store.manifest.arrays().items() if outcome.kind == "bit"),
    ]
    kept = tuple(f"{path}/" for path in (*bit_arrays, layout.COUNTS))
    held, problems = report.objects(store.storage, segment.group, segment.objects, kept)
    if not problems:
        place = f"{store.url}/{segment.group}"
        reader = GroupReader(_Held(store.url, held), segment.group, segment.objects, segment.metadata)
        miscount = next(_miscounts(reader, store.manifest, segment), None)
        problems = {} if miscount is None else {place: miscount}
    ids = segment.model_ids
    report.damages += [Damage(kind, segment.segment_id, where, said, ids) for where, said in problems.items()]
    report.models |= set() if problems else set(ids)


@dataclass(frozen=True)
class _Held:
    """Objects that have just been read and checked."""

    url: str
    objects: Mapping[str, bytes]
    cache: None = None

    def direct(self) -> _Held:
        """Return the same: there is no cache."""
        return self

    def read(self, path: str, start: int | None = None, stop: int | None = None, **_bound: int) -> bytes:
        """Return an object, or a range of it."""
        return self.objects[path][start:stop]


def _miscounts(reader: GroupReader, manifest: Manifest, segment: Segment) -> Iterator[str]:
    """Yield the first number of a segment's document that its bits contradict, if any."""
    n_models = len(segment.models)
    try:
        packed = {
            path: reader.read(path, (n_examples, bits.n_bytes(n_models)), "uint8")
            for path, n_examples in [
                (layout.MASK, manifest.train.n_examples),
                *((p, n) for p, (outcome, n) in manifest.arrays().items() if outcome.name == CORRECT.name),
            ]
        }
    except DamagedError as error:
        yield str(error)
        return
    padding = ~bits.selection([True] * n_models)
    for path, values in packed.items():
        if (values & padding).any():
            yield f"{path} has bits beyond its {n_models} models"
            return
    for path in _untrue_counts(reader, manifest, segment, packed):
        yield f"{path} is not what its bits add up to"
        return
    for start in range(0, n_models, 8):
        some = segment.models[start : start + 8]
        unpacked = {
            path: bits.unpack(values[:, start // 8 : start // 8 + 1], len(some))
            for path, values in packed.items()
        }
        mask, train = unpacked[layout.MASK], unpacked.get(f"{layout.TRAIN}/correct", unpacked[layout.MASK])
        test = unpacked.get(f"{layout.TEST}/correct")
        size = mask.sum(axis=1)
        inside = (mask & train).sum(axis=1) / np.maximum(size, 1)
        outside = (~mask & train).sum(axis=1) / np.maximum(mask.shape[1] - size, 1)
        for row, model in enumerate(some):
            stated = (model.subset_size, model.train_accuracy, model.out_accuracy, model.test_accuracy)
            counted = (int(size[row]), inside[row], outside[row], 0.0 if test is None else test[row].mean())
            for name, says, has in zip(COUNTED, stated, counted, strict=True):
                if says is not None and abs(says - has) > TOLERANCE:
                    yield f"model {model.model_id} states {name} {says:g}; its bits give {has:g}"
                    return


def _untrue_counts(
    reader: GroupReader, manifest: Manifest, segment: Segment, packed: Mapping[str, bits.Packed]
) -> Iterator[str]:
    """Yield the paths of stored counts that the bits contradict."""
    if not has_counts(manifest, segment):
        return
    counter = BlockCounter(manifest)
    for path, values in packed.items():
        counter.add(path, 0, values)
    for path, counts in counter.arrays().items():
        if (reader.read(path, counts.shape, counts.dtype.str) != counts).any():
            yield path


def check_scores(store: Store, tables: Iterable[ScoreTable], report: Report) -> None:
    """Check the imported scores."""
    for table in tables:
        _, problems = report.objects(store.storage, table.group, table.objects)
        report.damages += [Damage("scores", table.name, at, said) for at, said in problems.items()]


def check_models(url: str, record: SnapshotRecord, model_ids: list[str], report: Report) -> None:
    """Check that a snapshot's blocks hold exactly its models, by their ids."""
    counted = set(model_ids) - set(record.retracted)
    if (len(counted), sha256_of_models(counted)) != (record.n_models, record.models_sha256):
        place = f"{url}/{layout.snapshot(record.number)}"
        report.damages.append(Damage("snapshot", str(record.number), place, "its blocks hold other models"))
