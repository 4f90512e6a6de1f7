"""A score table: scores that were published without their models, as a frozen value.

Such scores have no counts, and so no interval. They are kept beside the models of a store, never mixed with
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memdb.format import layout
from memdb.format.base import HEX32
from memdb.format.documents import Json, Reader, fingerprint, sealed
from memdb.format.manifest import MAX_EXAMPLES, Objects, objects_document, objects_from
from memdb.format.version import require_format

MEMORIZATION = "memorization"  # float64 [train]; NaN if not given
OFFSET = "influence_offset"  # int64 [test + 1]: the pairs of test example z are those from offset z on
TRAIN_ID = "influence_train_id"  # int32 [pairs], ascending within a test example
INFLUENCE = "influence"  # float32 or float64 [pairs], as it was given
LABEL = "{set}_label"  # int32 [examples], where the store was made without labels and the file has them
COVERAGES = ("listed", "same_class")
MAX_TABLES = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_table_name(name: str) -> bool:
    """Tell whether a score table may have this name."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The description of a score table; numbered from 1 in the order of import, immutable.

    ``coverage`` is which pairs it has: ``same_class``, all pairs of one class; ``listed``, those that its
    authors chose to publish.
    """

    number: int
    table_id: str
    store_id: str
    name: str
    source: str
    coverage: str
    n_memorization: int
    n_influence: int
    imported_at: str
    memdb_version: str
    objects: Objects
    metadata: Mapping[str, Json] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The path of its arrays in the store."""
        return f"{layout.SCORES}/{self.table_id}"

    @property
    def n_test(self) -> int | None:
        """How many test examples there were when its pairs were imported; None without pairs."""
        offsets = self.metadata.get(OFFSET)
        match offsets.get("shape") if isinstance(offsets, Mapping) else None:
            case [int(n)] if 1 < n <= MAX_EXAMPLES + 1:
                return n - 1
        return None

    @property
    def content(self) -> str:
        """Hash of its arrays: tables with the same scores have the same."""
        return fingerprint(objects_document(self.objects))

    def to_document(self) -> dict[str, Json]:
        """Return the sealed JSON document."""
        return sealed(
            {
                "format": layout.FORMAT,
                "required_features": [],
                "number": self.number,
                "table_id": self.table_id,
                "store_id": self.store_id,
                "name": self.name,
                "source": self.source,
                "coverage": self.coverage,
                "n_memorization": self.n_memorization,
                "n_influence": self.n_influence,
                "imported_at": self.imported_at,
                "memdb_version": self.memdb_version,
                "objects": objects_document(self.objects),
                "metadata": self.metadata,
            }
        )

    @classmethod
    def from_document(cls, document: Mapping[str, Any], place: str) -> ScoreTable:
        """Parse and check a score table's document.

        Raises:
            WrongFormatError: a newer format, features this memdb does not know, or a list of what is wrong.
        """
        require_format(document, place)
        read = Reader(document, place)
        table = cls(
            number=read.take("number", int, 1, lambda v: 0 < v <= MAX_TABLES),
            table_id=read.take("table_id", str, "", layout.is_segment_id),
            store_id=read.take("store_id", str, "", lambda v: bool(HEX32.fullmatch(v))),
            name=read.take("name", str, "", is_table_name),
            source=read.take("source", str, ""),
            coverage=read.take("coverage", str, "", lambda v: v in COVERAGES),
            n_memorization=read.take("n_memorization", int, 0, lambda v: v >= 0),
            n_influence=read.take("n_influence", int, 0, lambda v: v >= 0),
            imported_at=read.take("imported_at", str, ""),
            memdb_version=read.take("memdb_version", str, ""),
            objects=objects_from(read.inside("objects")),
            metadata=read.free("metadata"),
        )
        read.finish("import the table again, or restore the store from a copy")
        return table
