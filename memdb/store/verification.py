"""Verification: every object against its size and hash, every number against the bits it was counted from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from memdb import bits, layout
from memdb.commits import Segment, SnapshotRecord, sha256_of_models
from memdb.errors import Damaged, InvalidInput, NotFound, WrongFormat
from memdb.manifest import Manifest, ObjectInfo
from memdb.store.examples import read_example_table
from memdb.store.history import lost_blocks
from memdb.store.ledger import (
    find_block,
    read_block,
    read_pin,
    read_record,
    read_retraction,
    read_segment,
    require_group,
    snapshot_numbers,
)
from memdb.store.reading import GroupReader, check_object
from memdb.store.scores import list_score_tables
from memdb.store.storage import Storage, concurrently
from memdb.store.tally import Tally, has_counts

COUNTED = ("subset_size", "train_accuracy", "out_accuracy", "test_accuracy")
TOLERANCE = 1e-9  # accuracies are quotients of counts: equal but for the last digits
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written, and the models that cannot be used because of it."""

    kind: str  # group, dataset, snapshot, base, block, segment, retraction or scores
    identifier: str  # the name of the group or set, the id or number of the others
    place: str
    problem: str
    models: tuple[str, ...] = ()


@dataclass
class Report:
    """What a verification looked at and found; sizes are bytes."""

    n_objects: int = 0
    n_bytes: int = 0
    models: set[str] = field(default_factory=set)  # those in blocks and segments that are intact
    damages: list[Damage] = field(default_factory=list)

    @property
    def n_models(self) -> int:
        """How many models can be read in full, wherever they stand."""
        return len(self.models)


def verify(
    storage: Storage, manifest: Manifest, observe: Callable[[int, int], None] = lambda _done, _total: None
) -> Report:
    """Read all of a store and compare it with what was written; ``observe`` hears how many parts are done.

    Raises:
        StorageFailed: the storage did not answer.
    """
    report, place = Report(), storage.direct()
    for group in manifest.groups:
        where = f"{place.url}/{group}/{layout.GROUP_METADATA}"
        _tried(report, "group", group, where, partial(require_group, place, group))
    records, broken = _snapshots(place, manifest, report)
    aside = _retractions(place, manifest, report)
    _pins(place, manifest, report)
    segments = [n for n in place.names(layout.SEGMENTS) if layout.is_segment_id(n) and n not in aside]
    finished = [n for n in place.names(layout.BLOCKS) if layout.is_segment_id(n) and n not in aside]
    newest = records[-1] if records and not broken else None
    blocks: list[tuple[str, Callable[[], Segment | None]]] = [
        (info.block_id, partial(read_block, place, manifest, info))
        for info in (newest.blocks if newest else ())
    ]
    if broken:  # any of them may be needed
        blocks = [(name, partial(_finished_block, place, manifest, name)) for name in finished]
    total = len(manifest.sets) + len(blocks) + len(segments) + 1
    steps = iter(range(total))
    for info in manifest.sets:
        observe(next(steps), total)
        _dataset(place, manifest, info.name, report)
    observe(next(steps), total)
    _scores(place, manifest, report)
    every: list[str] = []
    sources: set[str] = set()
    for name, read in blocks:
        observe(next(steps), total)
        block = _tried(report, "block", name, f"{place.url}/{layout.block(name)}", read)
        if block:
            _part(place, manifest, block, "block", report)
            every += [model.model_id for model in block.models]
            sources |= {source for source, _ in block.sources}
    if newest and not any(damage.kind == "block" for damage in report.damages):
        _recount(place.url, newest, every, report)
    for name in segments:
        observe(next(steps), total)
        where = f"{place.url}/{layout.segment(name)}"
        segment = _tried(report, "segment", name, where, partial(read_segment, place, manifest, name))
        if segment:
            sources.add(name)
            _part(place, manifest, segment, "segment", report)
    if not broken:
        named = {info.block_id for record in records for info in record.blocks}
        lost = lost_blocks(place, manifest, set(finished) - named, (sources, set(every)), aside)
        _lost(place.url, newest.number + 1 if newest else 1, lost, report)
    observe(total, total)
    return report


def _finished_block(storage: Storage, manifest: Manifest, name: str) -> Segment | None:
    """Read a block that no snapshot need name; None where it was never finished."""
    try:
        return find_block(storage, manifest, name)[1]
    except NotFound:
        return None


def _retractions(storage: Storage, manifest: Manifest, report: Report) -> set[str]:
    """Check the records of withdrawals; return what was set aside."""
    aside: set[str] = set()
    names = [name.removesuffix(".json") for name in storage.names(layout.RETRACTIONS)]
    for identifier in filter(layout.is_segment_id, names):
        where = f"{storage.url}/{layout.retraction(identifier)}"
        read = partial(read_retraction, storage, manifest, identifier)
        found = _tried(report, "retraction", identifier, where, read)
        aside |= set(found.segments) if found else set()
    return aside


def _pins(storage: Storage, manifest: Manifest, report: Report) -> None:
    """Check what says which snapshot of its base the store takes in; the base itself is another store."""
    numbers = snapshot_numbers(storage.names(layout.BASES)) if manifest.base else []
    for number in range(1, max(numbers, default=0) + 1):
        where = f"{storage.url}/{layout.base(number)}"
        _tried(report, "base", str(number), where, partial(read_pin, storage, manifest, number))


def _lost(url: str, number: int, blocks: Iterable[Segment], report: Report) -> None:
    """Report a snapshot that is gone, told by blocks that have models which nothing else has."""
    place = f"{url}/{layout.snapshot(number)}"
    for block in blocks:
        ids = tuple(model.model_id for model in block.models)
        problem = f"is lost: {block.group} has models that nothing else has"
        report.damages.append(Damage("snapshot", str(number), place, problem, ids))


def _tried(report: Report, kind: str, identifier: str, place: str, read: Callable[[], T]) -> T | None:
    """Read a document that checks itself; None, and one more damage, where it is not as it was written."""
    try:
        found = read()
    except (Damaged, WrongFormat, NotFound) as error:
        report.damages.append(Damage(kind, identifier, place, str(error)))
        return None
    report.n_objects += found is not None
    return found


def _snapshots(storage: Storage, manifest: Manifest, report: Report) -> tuple[list[SnapshotRecord], bool]:
    """Return the records that are intact, in order, and whether the newest is not."""
    numbers = snapshot_numbers(storage.names(layout.SNAPSHOTS))
    last = numbers[-1] if numbers else 0
    records = []
    for number in range(1, last + 1):
        place = f"{storage.url}/{layout.snapshot(number)}"
        read = partial(read_record, storage, manifest, number)
        record = _tried(report, "snapshot", str(number), place, read)
        records += [record] if record else []
    return records, bool(numbers) and (not records or records[-1].number != last)


def _dataset(storage: Storage, manifest: Manifest, name: str, report: Report) -> None:
    """Check a set's objects, and its names, labels and hashes against its fingerprint in the manifest."""
    objects = {
        path: info
        for path, info in manifest.objects.items()
        if path.split("/")[0] in {name, layout.GROUP_METADATA}
    }
    place = f"{storage.url}/{layout.DATASET}/{name}"
    _, problems = _objects(storage, layout.DATASET, objects, report)
    if not problems:
        try:
            table = read_example_table(storage, manifest, name)
            if table.info(name) != manifest.set_named(name):
                problems = {place: "its names, labels and hashes do not have the fingerprint in the manifest"}
        except (Damaged, InvalidInput) as error:
            problems = {place: str(error)}
    report.damages += [Damage("dataset", name, where, problem) for where, problem in problems.items()]


def _scores(storage: Storage, manifest: Manifest, report: Report) -> None:
    """Check the imported scores that the store keeps beside its models."""
    where = f"{storage.url}/{layout.SCORES}"
    tables = _tried(report, "scores", "", where, partial(list_score_tables, storage, manifest)) or []
    for table in tables:
        _, problems = _objects(storage, table.group, table.objects, report)
        report.damages += [Damage("scores", table.name, at, said) for at, said in problems.items()]


def _part(storage: Storage, manifest: Manifest, part: Segment, kind: str, report: Report) -> None:
    """Check a segment's or block's objects and, if they are intact, its numbers."""
    bit_arrays = [
        layout.MASK,
        *(path for path, (outcome, _) in manifest.arrays().items() if outcome.kind == "bit"),
    ]
    kept = tuple(f"{path}/" for path in (*bit_arrays, layout.COUNTS))
    held, problems = _objects(storage, part.group, part.objects, report, kept)
    if not problems:
        place = f"{storage.url}/{part.group}"
        reader = GroupReader(_Held(storage.url, held), part.group, part.objects, part.metadata)
        problems = {f"{place}": problem for problem in _miscounts(reader, manifest, part)}
    ids = tuple(model.model_id for model in part.models)
    report.damages += [Damage(kind, part.segment_id, where, said, ids) for where, said in problems.items()]
    report.models |= set() if problems else set(ids)


def _objects(
    storage: Storage,
    group: str,
    objects: Mapping[str, ObjectInfo],
    report: Report,
    keep: tuple[str, ...] = (),
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the objects whose names begin so, by path, and what is wrong with any by place."""

    def check(item: tuple[str, ObjectInfo]) -> bytes | Damaged:
        try:
            data = check_object(storage, f"{group}/{item[0]}", item[1])
        except Damaged as error:
            return error
        return data if item[0].startswith(keep) else b""

    held, problems = {}, {}
    for (name, info), found in zip(objects.items(), concurrently(check, objects.items()), strict=True):
        report.n_objects += 1
        if isinstance(found, Damaged):
            problems[f"{storage.url}/{group}/{name}"] = str(found)
        else:
            held[f"{group}/{name}"] = found
            report.n_bytes += info.size
    return held, problems


@dataclass(frozen=True)
class _Held:
    """Objects that were read and checked a moment ago."""

    url: str
    objects: Mapping[str, bytes]
    cache: None = None

    def read(self, path: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Return an object, or a range of it."""
        return self.objects[path][start:stop]


def _miscounts(reader: GroupReader, manifest: Manifest, part: Segment) -> Iterator[str]:
    """Yield the first number of a part's document that its bits do not give, if there is one."""
    n_models = len(part.models)
    try:
        packed = {
            path: reader.read(path, (n_examples, bits.n_bytes(n_models)), "uint8")
            for path, n_examples in [
                (layout.MASK, manifest.train.n_examples),
                *((f"{info.name}/correct", info.n_examples) for info in manifest.sets),
            ]
        }
    except Damaged as error:
        yield str(error)
        return
    padding = ~bits.selection([True] * n_models)
    for path, values in packed.items():
        if (values & padding).any():
            yield f"{path} has bits beyond its {n_models} models"
            return
    for path in _untrue_counts(reader, manifest, part, packed):
        yield f"{path} is not what its bits add up to"
        return
    for start in range(0, n_models, 8):
        some = part.models[start : start + 8]
        unpacked = {
            path: bits.unpack(values[:, start // 8 : start // 8 + 1], len(some))
            for path, values in packed.items()
        }
        mask, train = unpacked[layout.MASK], unpacked[f"{layout.TRAIN}/correct"]
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
    reader: GroupReader, manifest: Manifest, part: Segment, packed: Mapping[str, bits.Packed]
) -> Iterator[str]:
    """Yield the stored counts that the bits do not give."""
    if not has_counts(manifest, part):
        return
    tally = Tally(manifest)
    for path, values in packed.items():
        tally.take(path, 0, values)
    for path, counts in tally.arrays().items():
        if (reader.read(path, counts.shape, counts.dtype.str) != counts).any():
            yield path


def _recount(url: str, record: SnapshotRecord, model_ids: list[str], report: Report) -> None:
    counted = set(model_ids) - set(record.retracted)
    if (len(counted), sha256_of_models(counted)) != (record.n_models, record.models_sha256):
        place = f"{url}/{layout.snapshot(record.number)}"
        report.damages.append(Damage("snapshot", str(record.number), place, "its blocks hold other models"))
