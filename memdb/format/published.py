"""The documents of a published copy: its root document, and what its snapshots name besides blocks.

Parsed once, at the border, like the manifest: a value that exists is valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from memdb.format import layout
from memdb.format.base import HEX32, HEX64
from memdb.format.documents import MAX_DOCUMENT, Json, Reader, sealed
from memdb.format.manifest import (
    MAX_EXAMPLES,
    ObjectInfo,
    Objects,
    objects_document,
    objects_from,
)
from memdb.format.score_table import MAX_TABLES
from memdb.format.version import require_format

INCLUDED = ("bits", "confidence")  # in a published copy by default
INCLUDABLE = (*INCLUDED, "sketches", "thumbnails")
MAX_SNAPSHOTS = 100_000  # of one published copy
ASK_AGAIN = "ask its owner to publish it again, or use another copy"


@dataclass(frozen=True, slots=True)
class Credits:
    """Whose work it is and what others may do with it, in the owner's words; shown, never acted upon.

    Attributes:
        title: of the copy; by default it names the data set.
        authors: their names, in order.
        licence: its name or words, such as ``CC-BY-4.0``.
        citation: what to cite, as text or BibTeX.
    """

    title: str = ""
    authors: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {
            "title": self.title,
            "authors": list(self.authors),
            "licence": self.licence,
            "citation": self.citation,
        }

    @classmethod
    def from_reader(cls, read: Reader) -> Credits:
        """Parse the field ``credits``."""
        authors = read.take("authors", list, [], lambda found: all(isinstance(v, str) for v in found))
        return cls(
            read.take("title", str, ""), tuple(authors), read.take("licence", str, ""),
            read.take("citation", str, ""),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedSnapshot:
    """A snapshot as the root document names it, with the size and sha256 of its own document."""

    number: int
    document: ObjectInfo
    n_models: int
    models_sha256: str
    published_at: str

    @property
    def path(self) -> str:
        """Where its document is."""
        return layout.snapshot(self.number)

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {
            "number": self.number,
            "path": self.path,
            **_document(self.document),
            "n_models": self.n_models,
            "models_sha256": self.models_sha256,
            "published_at": self.published_at,
        }

    @classmethod
    def from_reader(cls, read: Reader) -> PublishedSnapshot:
        """Parse one snapshot."""
        number = read.take("number", int, 1, lambda v: 0 < v < 10**9)
        read.take("path", str, "", lambda v: v == layout.snapshot(number))
        return cls(
            number,
            _document_from(read),
            read.take("n_models", int, 0, lambda v: v >= 0),
            read.take("models_sha256", str, "", lambda v: bool(HEX64.fullmatch(v))),
            read.take("published_at", str, ""),
        )


@dataclass(frozen=True, slots=True)
class Published:
    """The document ``published.json``: where a reader starts, and the only one that publishing replaces.

    Attributes:
        store_id: that of the manifest.
        snapshot: the newest snapshot.
        older: the other snapshots, by ascending number.
        credits: whose work it is.
        memdb_version: that wrote it.
        scores: documents of the score tables 1, 2, ...: imported scores, which belong to no snapshot.
        thumbnails: the document of small pictures of the examples as arrays, if there are any.
        sheets: that of the same as sheets.
        site: the snapshot that a page beside the copy shows, and the document of what it reads.
    """

    store_id: str
    snapshot: PublishedSnapshot
    older: tuple[PublishedSnapshot, ...]
    credits: Credits
    memdb_version: str
    scores: tuple[ObjectInfo, ...] = ()
    thumbnails: ObjectInfo | None = None
    sheets: ObjectInfo | None = None
    site: tuple[int, ObjectInfo] | None = None

    @property
    def groups(self) -> dict[str, ObjectInfo]:
        """Return the documents of what belongs to no snapshot's own document, by their folder."""
        documents = {layout.THUMBNAILS: self.thumbnails, layout.SHEETS: self.sheets}
        documents |= {layout.site(self.site[0]): self.site[1]} if self.site else {}
        return {folder: info for folder, info in documents.items() if info is not None}

    @property
    def snapshots(self) -> tuple[PublishedSnapshot, ...]:
        """All of them, by ascending number."""
        return (*self.older, self.snapshot)

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "store_id": self.store_id,
                "snapshot": self.snapshot.to_document(),
                "older": [item.to_document() for item in self.older],
                "credits": self.credits.to_document(),
                "memdb_version": self.memdb_version,
                "scores": [_document(info) for info in self.scores],
                "thumbnails": None if self.thumbnails is None else _document(self.thumbnails),
                **({} if self.sheets is None else {"sheets": _document(self.sheets)}),
                **(
                    {} if self.site is None else {"site": {"number": self.site[0], **_document(self.site[1])}}
                ),
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> Published:
        """Parse and check the document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        published = cls(
            store_id=read.take("store_id", str, "", lambda v: bool(HEX32.fullmatch(v))),
            snapshot=PublishedSnapshot.from_reader(read.inside("snapshot")),
            older=tuple(PublishedSnapshot.from_reader(item) for item in read.items("older")),
            credits=Credits.from_reader(read.inside("credits")),
            memdb_version=read.take("memdb_version", str, ""),
            scores=tuple(map(_document_from, read.items("scores") if "scores" in document else ())),
            thumbnails=_document_from(read.inside("thumbnails")) if document.get("thumbnails") else None,
            sheets=_document_from(read.inside("sheets")) if document.get("sheets") else None,
            site=_site_from(read.inside("site")) if document.get("site") else None,
        )
        n_bytes = sum(info.size for info in published.scores)
        if len(published.scores) > MAX_TABLES or n_bytes > MAX_DOCUMENT:
            read.problems.append(
                f"{place} names {len(published.scores):,} score tables with documents of {n_bytes:,} bytes"
            )
        numbers = [item.number for item in published.snapshots]
        if numbers != sorted(set(numbers)) or len(numbers) > MAX_SNAPSHOTS:
            read.problems.append(f"{place} does not list its snapshots once each and in order")
        read.finish(ASK_AGAIN)
        return published


@dataclass(frozen=True, slots=True)
class DerivedGroup:
    """A Zarr group of derived arrays: its objects, and the metadata of its arrays by path."""

    objects: Objects = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {"objects": objects_document(self.objects), "metadata": self.metadata}

    @classmethod
    def from_reader(cls, read: Reader) -> DerivedGroup:
        """Parse one group."""
        return cls(objects_from(read.inside("objects")), read.free("metadata"))


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What `memdb info` says of models, so that it need not read about each of them."""

    n_segments: int = 0
    n_diverged: int = 0
    diverged: tuple[str, ...] = ()  # their ids
    seconds_per_model: float | None = None
    train_accuracy: float | None = None
    out_accuracy: float | None = None
    test_accuracy: float | None = None

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {
            "diverged": list(self.diverged)
        }

    @classmethod
    def from_reader(cls, read: Reader) -> ModelFacts:
        """Parse it."""
        return cls(
            read.take("n_segments", int, 0, lambda v: v >= 0),
            read.take("n_diverged", int, 0, lambda v: v >= 0),
            tuple(read.take("diverged", list, [], _all_ids)),
            *(read.optional(item.name, float, lambda v: v >= 0) for item in fields(cls)[3:]),
        )


@dataclass(frozen=True, slots=True)
class Derived:
    """What a published snapshot holds besides its models: counts and lists that questions are answered from.

    Attributes:
        stats: counts of every example, ``train`` and ``test``.
        top_influence: the strongest pairs of every test example, ``pairs`` and ``scores``.
        tables: the same as Parquet, for other tools.
        models: sums over models.
        class_names: of each set.
        numbered: sets whose examples' keys are their row numbers.
        listed: how many pairs of each test example are kept.
        n_in: for each number of models, how many scored training examples were in the subsets of that many.
    """

    stats: DerivedGroup
    top_influence: DerivedGroup
    tables: Objects
    models: ModelFacts
    class_names: Mapping[str, tuple[str, ...]]
    numbered: tuple[str, ...]
    listed: int
    n_in: tuple[tuple[int, int], ...]

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {
            "stats": self.stats.to_document(),
            "top_influence": self.top_influence.to_document(),
            "tables": objects_document(self.tables),
            "models": self.models.to_document(),
            "class_names": {name: list(found) for name, found in self.class_names.items()},
            "numbered": list(self.numbered),
            "listed": self.listed,
            "n_in": [list(pair) for pair in self.n_in],
        }

    @classmethod
    def from_reader(cls, read: Reader) -> Derived:
        """Parse the field ``derived`` of a snapshot."""
        return cls(
            DerivedGroup.from_reader(read.inside("stats")),
            DerivedGroup.from_reader(read.inside("top_influence")),
            objects_from(read.inside("tables")),
            ModelFacts.from_reader(read.inside("models")),
            {name: tuple(value) for name, value in read.take("class_names", dict, {}, _all_texts).items()},
            tuple(read.take("numbered", list, [], lambda found: all(isinstance(v, str) for v in found))),
            read.take("listed", int, 0, lambda v: 0 <= v <= MAX_EXAMPLES),
            tuple((n, times) for n, times in read.take("n_in", list, [], _all_pairs)),
        )

    def groups(self, number: int) -> dict[str, Objects]:
        """Return the objects of a snapshot of that number by their folder."""
        return {
            f"{layout.STATS}/{number}": self.stats.objects,
            f"{layout.TOP_INFLUENCE}/{number}": self.top_influence.objects,
            f"{layout.TABLES}/{number}": self.tables,
        }


@dataclass(frozen=True, slots=True)
class ListedGroup:
    """The document that lists a folder of a copy: its objects, and what Zarr says of its arrays."""

    store_id: str
    group: DerivedGroup

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        facts: dict[str, Json] = {"format": layout.FORMAT, "required_features": [], "store_id": self.store_id}
        return sealed({**facts, **self.group.to_document()})

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> ListedGroup:
        """Parse and check the document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        published = cls(
            read.take("store_id", str, "", lambda v: bool(HEX32.fullmatch(v))), DerivedGroup.from_reader(read)
        )
        read.finish(ASK_AGAIN)
        return published


def _document(info: ObjectInfo) -> dict[str, Json]:
    return {"size": info.size, "sha256": info.sha256}


def _document_from(read: Reader) -> ObjectInfo:
    return ObjectInfo(
        read.take("size", int, 0, lambda v: v > 0),
        read.take("sha256", str, "", lambda v: bool(HEX64.fullmatch(v))),
    )


def _site_from(read: Reader) -> tuple[int, ObjectInfo]:
    return read.take("number", int, 1, lambda v: 0 < v < 10**9), _document_from(read)


def _all_ids(found: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and HEX32.fullmatch(value) for value in found)


def _all_texts(found: Mapping[str, Any]) -> bool:
    return all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in found.values()
    )


def _all_pairs(found: list[Any]) -> bool:
    def fits(pair: object) -> bool:
        return (
            isinstance(pair, list)
            and len(pair) == 2
            and all(type(n) is int and 0 < n < MAX_EXAMPLES for n in pair)
        )

    return all(map(fits, found))
