"""Publish a frozen copy that holds exactly the models that count, and answers small questions quickly.

Nothing in a published copy changes except its root document, ``published.json``, which is written last, and
the README, which no program reads. If a publication is interrupted, readers see what was published before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

from memdb.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotEnoughModelsError,
)
from memdb.format import layout
from memdb.format.documents import group_metadata, own_version, plain_document
from memdb.format.published import INCLUDABLE, INCLUDED, Credits, Derived, Published, PublishedSnapshot
from memdb.format.score_table import ScoreTable
from memdb.format.sketches import is_sketch
from memdb.format.snapshot_record import BlockInfo, SnapshotRecord
from memdb.query.examples import require_own
from memdb.query.relations import Relations
from memdb.sharing import score_tables
from memdb.sharing.copy_blocks import Piece, copy_piece, pieces
from memdb.sharing.derive import derive
from memdb.sharing.destination import COPY_GROUPS, require_destination
from memdb.sharing.page import Page, with_page
from memdb.sharing.pictures import has_pictures, size_of, write_pictures
from memdb.sharing.readme import readme
from memdb.sharing.tables import LISTED, TABLED
from memdb.storage.protocol import Storage, create_once
from memdb.store.encoding import describe
from memdb.store.open_published import find_published, published_snapshot
from memdb.store.published_sheets import Shown
from memdb.store.read_documents import parse_record, snapshot_numbers
from memdb.store.resumable import ResumableStorage, copy_object
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store

A_PAIR, A_ROW = 12.0, 46.0  # bytes of a pair in a list, and of a table's row: what they compress to at most


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a published copy and its size in bytes, a guess if it is yet to be encoded."""

    name: str
    size: int
    is_guess: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """The result of a publication. Sizes are in bytes."""

    snapshot: PublishedSnapshot
    n_written: int
    n_bytes_written: int
    is_new: bool  # false if there was a snapshot of these models already


class PublicationOptions(TypedDict, total=False):
    """The options of `memdb.Database.publish`; `memdb.Database.plan_publication` says what each means."""

    include: Sequence[str]
    credit: Credits | None
    dataset: str | None
    data_root: str | None
    storage_options: Mapping[str, Any] | None
    site: bool | str


@dataclass(frozen=True)
class PublicationPlan:
    """What a publication will write, and where.

    Attributes:
        snapshot: the models.
        scores: the score tables published beside them, and their documents as the store has them.
        target: the destination.
        pieces: the blocks that the copy will have.
        credit: title, authors, licence and citation.
        before: what is published there already.
        pictures: thumbnails to make, by set; empty if there are none to make.
        page: the page to put beside the copy, if any.
    """

    snapshot: Snapshot
    scores: tuple[tuple[ScoreTable, ...], tuple[bytes, ...]]
    target: ResumableStorage
    pieces: tuple[Piece, ...]
    credit: Credits
    before: Published | None
    pictures: Mapping[str, Shown] = field(default_factory=dict)
    page: Page | None = None

    @property
    def parts(self) -> list[Part]:
        """What the copy will consist of, with sizes."""
        manifest = self.snapshot.manifest
        n_train, n_test = (manifest.set_named(name).n_examples for name in (layout.TRAIN, layout.TEST))
        guess = any(piece.document is None for piece in self.pieces)
        parts = [Part("dataset", sum(info.size for info in manifest.objects.values()))]
        if self.scores[0]:
            parts.append(Part("scores", score_tables.size_of(self.scores[0])))
        if self.pictures:
            parts.append(Part("thumbnails", size_of(self.pictures), is_guess=True))
        if self.snapshot.n_models == 0:
            return parts
        return [
            *parts,
            Part("blocks", sum(piece.size for piece in self.pieces), guess),
            Part("stats", int(5 * n_train + 3 * n_test), is_guess=True),
            Part("top_influence", int(min(LISTED, n_train) * n_test * A_PAIR), is_guess=True),
            Part("tables", int(A_ROW * (n_train + min(TABLED, n_train) * n_test)), is_guess=True),
        ]


def plan_publication(  # noqa: PLR0913, PLR0917 - what to publish, where, and what goes with it
    store: Store,
    snapshot: Snapshot,
    storage: Storage,
    include: Sequence[str] = INCLUDED,
    credit: Credits | None = None,
    pictures: Callable[[], Mapping[str, Shown]] = dict,
    page: Page | None = None,
) -> PublicationPlan:
    """Plan a publication without writing anything.

    ``pictures`` is called only if thumbnails are included and the destination lacks them.

    Raises:
        InvalidInputError: an unknown thing to include, or a read-only destination.
        AlreadyExistsError: the destination holds something else.
        NotEnoughModelsError: there is nothing to publish.
    """
    _require_included(include)
    tables = store.score_tables()
    if snapshot.n_models == 0 and not tables:
        raise NotEnoughModelsError(
            f"{snapshot.url} has no models to publish", hint="train some with `memdb train --add 100`"
        )
    if snapshot.n_models:
        require_own(snapshot)
    if not storage.can_write:
        raise InvalidInputError(
            f"{storage.url} is read-only: its protocol has no writes", hint="publish to a folder or a bucket"
        )
    target = ResumableStorage(storage)
    before = require_destination(store, target)
    documents = score_tables.documents_of(store.storage, tables)
    score_tables.require_same_scores(documents, before, storage.url)
    blocks = pieces(snapshot, partial(_is_left_out, include))
    credit = credit or (before.credits if before else Credits())
    wanted = "thumbnails" in include and not (before and has_pictures(target, store, before))
    made = pictures() if wanted else {}
    return PublicationPlan(
        snapshot, (tuple(tables), tuple(documents)), target, tuple(blocks), credit, before, made, page
    )


def _is_left_out(include: Sequence[str], path: str) -> bool:
    """Tell whether a copy does without an array of the store's blocks."""
    if is_sketch(path):
        return "sketches" not in include
    return "confidence" not in include and path.endswith("/logit_confidence")


def _require_included(include: Sequence[str]) -> None:
    unknown = [name for name in include if name not in INCLUDABLE]
    if unknown or "bits" not in include:
        raise InvalidInputError(
            f"cannot publish {', '.join(include) or 'nothing'}: "
            + (f"there is no {unknown[0]!r}" if unknown else "all answers are counted from bits"),
            hint='use include=["bits"], and add confidence, sketches or thumbnails to it if these are to be '
            "shared too",
            parameter="include",
        )


def publish(
    plan: PublicationPlan, progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Publication:
    """Write what is missing, then what names it, then the root document.

    Imported scores and pictures that were published before stay, even if the store no longer has them.

    ``progress`` is called with the work done and its total.

    Raises:
        AlreadyExistsError: the destination was published to after this plan was made.
        DamagedError: an object of the store is missing or altered.
        StorageError: the destination refused; readers see what was published before.
    """
    snapshot, target = plan.snapshot, plan.target
    if find_published(target) != plan.before:
        raise AlreadyExistsError(
            f"{target.url} was published to after this was planned", hint="plan it again"
        )
    manifest = snapshot.manifest
    n_test = manifest.set_named(layout.TEST).n_examples if snapshot.n_models else 0
    n_bytes, has_page = sum(piece.size for piece in plan.pieces), plan.page is not None
    steps = _Progress(progress, n_bytes, n_test, plan.pictures, has_page=has_page)
    _copy_dataset(snapshot, target)
    score_tables.copy_tables(snapshot.storage, plan.scores[0], target)
    copied = score_tables.name_tables(*plan.scores, target)
    newest = _newest_record(plan, target)
    known = _known_blocks(plan, target)
    blocks = tuple(
        copy_piece(snapshot, target, piece, known.get(piece.block_id), steps.copied) for piece in plan.pieces
    )
    shown = write_pictures(target, snapshot, plan.before, plan.pictures, steps.pictured)
    is_new = newest is None or not _is_same(newest, snapshot, blocks) or not _has_derived(target, newest)
    record = newest
    if record is None or is_new:
        record = _new_record(plan, blocks, steps.derived)
    item = _item(record)
    older = tuple(s for s in (plan.before.snapshots if plan.before else ()) if s.number != item.number)
    kept = plan.before.scores[len(copied) :] if plan.before else ()
    published = Published(
        manifest.store_id, item, older, plan.credit, own_version(), copied + kept,
        site=plan.before.site if plan.before else None, **shown,
    )  # fmt: skip
    if plan.page:
        published = with_page(
            plan.page, published, Store(target, manifest, published=published), snapshot, record, steps.sited
        )
    target.write_all({layout.README: readme(snapshot, record, published, plan.scores[0]).encode()})
    target.write_all({layout.MANIFEST: snapshot.storage.read(layout.MANIFEST)})
    target.write_all({layout.PUBLISHED: plain_document(published.to_document())})
    return Publication(item, target.n_written, target.n_bytes_written, is_new)


class _Progress:
    """Adds up the work: copying all blocks counts as much as deriving the lists of all test examples."""

    def __init__(
        self,
        progress: Callable[[int, int], None],
        n_bytes: int,
        n_tests: int,
        pictures: Mapping[str, Shown],
        *,
        has_page: bool,
    ) -> None:
        self._observe, self._n_bytes, self._n_tests = progress, max(1, n_bytes), n_tests
        self._n_site, self._sited = n_tests if has_page else 0, 0
        self._n_pictures = sum(those.shape[0] for those in pictures.values())
        self._lock = threading.Lock()
        self._copied = self._derived = self._pictured = 0

    def copied(self, n_bytes: int) -> None:
        with self._lock:
            self._copied += n_bytes
            self._tell()

    def derived(self, n_tests: int) -> None:
        with self._lock:
            self._copied, self._derived = self._n_bytes, self._derived + n_tests
            self._tell()

    def pictured(self, n_pictures: int) -> None:
        with self._lock:
            self._pictured += n_pictures
            self._tell()

    def sited(self, done: int, total: int) -> None:
        with self._lock:
            self._sited = self._n_site * done // max(1, total)
            self._tell()

    def _tell(self) -> None:
        blocks = min(self._n_tests, self._n_tests * self._copied // self._n_bytes)
        done = blocks + self._derived + self._pictured + self._sited
        self._observe(done, 2 * self._n_tests + self._n_pictures + self._n_site)


def _copy_dataset(snapshot: Snapshot, target: ResumableStorage) -> None:
    """Copy the names and labels of the examples; the claim that says which they are goes first."""
    manifest, source = snapshot.manifest, snapshot.storage
    names = sorted(manifest.objects, key=lambda name: name != layout.GROUP_METADATA)
    for name in names:
        path = f"{layout.DATASET}/{name}"
        copy_object(source, path, target, path, manifest.objects[name])
    target.write_all({f"{group}/{layout.GROUP_METADATA}": group_metadata() for group in COPY_GROUPS})


def _newest_record(plan: PublicationPlan, target: ResumableStorage) -> SnapshotRecord | None:
    if plan.before is None:
        return None
    return published_snapshot(Store(target, plan.snapshot.manifest), plan.before).record


def _known_blocks(plan: PublicationPlan, target: ResumableStorage) -> dict[str, BlockInfo]:
    """Return the blocks of all published snapshots, by id."""
    found: dict[str, BlockInfo] = {}
    if plan.before is None:
        return found
    copy = Store(target, plan.snapshot.manifest)
    for item in plan.before.snapshots:
        record = published_snapshot(copy, plan.before, item.number).record
        found |= {info.block_id: info for info in record.blocks} if record else {}
    return found


def _is_same(record: SnapshotRecord, snapshot: Snapshot, blocks: tuple[BlockInfo, ...]) -> bool:
    return (record.models_sha256, record.blocks) == (snapshot.models_sha256, blocks)


def _has_derived(target: ResumableStorage, record: SnapshotRecord) -> bool:
    """Tell by sizes whether all that a snapshot names is there; without models, nothing is derived."""
    if record.derived is None:
        return record.n_models == 0
    return all(
        target.has(f"{folder}/{name}", info, checked=True)
        for folder, objects in record.derived.groups(record.number).items()
        for name, info in objects.items()
    )


def _new_record(
    plan: PublicationPlan, blocks: tuple[BlockInfo, ...], advance: Callable[[int], None]
) -> SnapshotRecord:
    """Derive what a snapshot holds besides blocks, and create its document.

    A document that an interrupted publication left is reused if it says the same.
    """
    snapshot, target = plan.snapshot, plan.target
    numbers = snapshot_numbers(target.names(layout.SNAPSHOTS))
    if numbers and (plan.before is None or numbers[-1] > plan.before.snapshot.number):
        path = layout.snapshot(numbers[-1])
        left = parse_record(snapshot.manifest, numbers[-1], target.read(path), f"{target.url}/{path}")
        if _is_same(left, snapshot, blocks) and _has_derived(target, left):
            return left
    number = (numbers[-1] if numbers else 0) + 1
    record = SnapshotRecord(
        number=number,
        store_id=snapshot.manifest.store_id,
        n_models=snapshot.n_models,
        models_sha256=snapshot.models_sha256,
        blocks=blocks,
        derived=_derived(plan, number, advance) if snapshot.n_models else None,
    )
    create_once(target.storage, layout.snapshot(number), plain_document(record.to_document()))
    return record


def _derived(plan: PublicationPlan, number: int, advance: Callable[[int], None]) -> Derived:
    with closing(Relations(plan.snapshot)) as relations:
        return derive(relations, plan.target, number, advance)


def _item(record: SnapshotRecord) -> PublishedSnapshot:
    info = describe({"": plain_document(record.to_document())})[""]
    return PublishedSnapshot(record.number, info, record.n_models, record.models_sha256, record.created_at)
