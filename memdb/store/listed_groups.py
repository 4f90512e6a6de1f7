"""Folders of a published copy that belong to no snapshot's document: each has one that lists its objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from memdb.errors import DamagedError
from memdb.format import layout
from memdb.format.documents import Json, group_metadata, parse_group_metadata
from memdb.format.manifest import ObjectInfo
from memdb.format.published import ASK_AGAIN, DerivedGroup, ListedGroup, Published
from memdb.store.encoding import describe
from memdb.store.read_arrays import read_listed
from memdb.store.read_documents import StoreLike


def document_of(folder: str) -> str:
    """Return where the document of such a folder is."""
    return f"{folder}/{layout.GROUP_METADATA}"


def write_objects(store: StoreLike, folder: str, objects: Mapping[str, bytes]) -> dict[str, ObjectInfo]:
    """Write objects of such a folder; return what its document is to say of them."""
    store.storage.write_all({f"{folder}/{name}": data for name, data in objects.items()})
    return describe(objects)


def write_document(
    store: StoreLike, folder: str, objects: Mapping[str, ObjectInfo], metadata: Mapping[str, Json]
) -> ObjectInfo:
    """Write the document of such a folder, last of all; return its size and sha256."""
    info = ListedGroup(store.manifest.store_id, DerivedGroup(objects, metadata))
    data = group_metadata(info.to_document())
    store.storage.write_all({document_of(folder): data})
    return describe({"": data})[""]


def read_document(store: StoreLike, folder: str, document: ObjectInfo) -> ListedGroup:
    """Read the document of such a folder.

    Raises:
        DamagedError: it is missing, was altered, or belongs to another store.
    """
    place = f"{store.url}/{document_of(folder)}"
    data = read_listed(store.storage, document_of(folder), document)
    info = ListedGroup.from_document(parse_group_metadata(data, place), place)
    if info.store_id != store.manifest.store_id:
        raise DamagedError(f"{place} belongs to another store", hint=ASK_AGAIN)
    return info


def objects_of(store: StoreLike, published: Published) -> Iterator[tuple[str, ObjectInfo]]:
    """Yield every object of these folders with its path in the store."""
    for folder, document in published.groups.items():
        for name, item in read_document(store, folder, document).group.objects.items():
            yield f"{folder}/{name}", item
