"""The names of the examples in an answer, beside their row numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memdb.query.arrow import text
from memdb.query.examples import set_of
from memdb.store.examples import KEY, LABEL, OFFSET
from memdb.store.published_arrays import derived_of, is_numbered

if TYPE_CHECKING:
    import pyarrow as pa

    from memdb.query.relations import Relations

FEW_BYTES = 10**6  # of names that a question to a published copy may read beside its list
IDS = ("test_id", "target_id")


def named(relations: Relations, rows: pa.Table, listed: str = "train_id") -> pa.Table:
    """Add ``key`` and ``class_name`` of the example in the column ``listed``.

    Keys are NULL where a published copy has so many that reading them would take longer than the answer.
    """
    label = "label" if "label" in rows.column_names else listed.replace("_id", "_label")
    return _with_names(relations, rows, {"": (listed, label)})


def named_pair(relations: Relations, rows: pa.Table) -> pa.Table:
    """Add ``key`` and ``class_name`` of training examples and, of pairs, the same of their targets."""
    rows = named(relations, rows)
    kinds = [name.removesuffix("_id") for name in IDS if name in rows.column_names]
    return _with_names(relations, rows, {f"{kind}_": (f"{kind}_id", f"{kind}_label") for kind in kinds})


def _with_names(relations: Relations, rows: pa.Table, of: Mapping[str, tuple[str, str]]) -> pa.Table:
    for prefix, (identifier, label) in of.items():
        set_name, class_names = set_of(identifier), relations.class_names
        ids, labels = (rows.column(name).to_pylist() for name in (identifier, label))
        are_read = _has_light_keys(relations, set_name)
        keys = [relations.key_of(set_name, row) if are_read else None for row in ids]
        classes = [class_names[n] if n is not None and n < len(class_names) else None for n in labels]
        rows = rows.append_column(f"{prefix}key", text(keys))
        rows = rows.append_column(f"{prefix}class_name", text(classes))
    return rows


def _has_light_keys(relations: Relations, set_name: str) -> bool:
    snapshot = relations.snapshot
    if derived_of(snapshot) is None or is_numbered(snapshot, set_name):
        return True
    parts = tuple(f"{set_name}/{name}/" for name in (KEY, OFFSET, LABEL))
    return sum(o.size for name, o in snapshot.manifest.objects.items() if name.startswith(parts)) <= FEW_BYTES
