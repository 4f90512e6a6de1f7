"""A page beside a published copy, which loads what it shows in small pieces from any web server.

What it reads are Zarr arrays in codecs that browsers decode by themselves, the sheets of the copy, and for
any pair the bits of its blocks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, NotEnoughModelsError
from memdb.format import layout
from memdb.format.documents import Json
from memdb.format.manifest import ObjectInfo
from memdb.format.published import ListedGroup
from memdb.format.segment import Segment
from memdb.format.snapshot_record import SnapshotRecord
from memdb.look.contents import Contents, Lists, contents_of, lists_of
from memdb.look.document import base64_of, document_around_data, inert_json
from memdb.query.relations import Relations
from memdb.render.sheets import COLUMNS, TILES, ShownOf, has_pillow, suffix
from memdb.store.encoding import BrowserArray, array_metadata
from memdb.store.listed_groups import read_document, write_document, write_objects
from memdb.store.published_sheets import PublishedSheets
from memdb.store.read_documents import StoreLike
from memdb.store.store import Store

LISTS_AT_ONCE, SETTLED_AT_ONCE, KEYS_AT_ONCE = 16, 256, 1024  # rows of a chunk: what one click loads
STRIPS_AT_ONCE = 32  # that are written together
SHA256_WORDS = 8
FACTS = "facts"
NO_MODELS = "train some with `memdb train --add 100`, or publish without the page"
BITS = {"mask": layout.MASK, "right": f"{layout.TEST}/correct"}

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SitePage:
    """The page that is put beside a published copy.

    Attributes:
        address: of the copy, where the page is to work from elsewhere.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            _origin(self.address)

    def document(self, store: StoreLike, number: int, site: ObjectInfo) -> bytes:
        """Return the page itself, which knows the sha256 of its facts; these know those of all else."""
        folder = layout.site(number)
        return page_of(store.manifest.dataset, folder, read_document(store, folder, site), self.address)

    def write(
        self,
        relations: Relations,
        copy: Store,
        record: SnapshotRecord,
        blocks: Sequence[Segment],
        progress: Progress,
    ) -> ObjectInfo:
        """Write what the page reads of a snapshot, below `layout.site` of its number; return its document.

        ``relations`` has the models, and ``copy`` the pictures.

        Raises:
            NotEnoughModelsError: there are no models.
        """
        return _write_site(relations, copy, record, blocks, progress)


def _write_site(
    relations: Relations, copy: Store, record: SnapshotRecord, blocks: Sequence[Segment], progress: Progress
) -> ObjectInfo:
    if not relations.snapshot.n_models:
        raise NotEnoughModelsError("a page shows counts of models, of which there are none", hint=NO_MODELS)
    writer = SiteWriter(copy, record.number)
    sets = [item.name for item in copy.manifest.sets if item.n_examples]
    has_sheets = copy.published is not None and copy.published.sheets is not None
    sheets = {name: PublishedSheets.of(copy, name) for name in sets} if has_sheets else {}
    if any(those.shape for those in sheets.values()) and not has_pillow():  # which encodes strips
        sheets = {}
    facts = {
        "bits": bits_of(blocks) or None, "store": "", "snapshot": record.number,
        "written_at": record.created_at[:10], "models_sha256": record.models_sha256,
    }  # fmt: skip
    return writer.write(relations, sheets, facts, progress)


class SiteWriter:
    """Writes what the page reads of one snapshot into a published copy."""

    def __init__(self, store: StoreLike, number: int) -> None:
        """Prepare to write below `layout.site` of that number."""
        self._store, self._folder = store, layout.site(number)
        self._objects: dict[str, ObjectInfo] = {}
        self._metadata: dict[str, Json] = {}
        self._arrays: dict[str, Any] = {}

    def write(
        self,
        relations: Relations,
        published: Mapping[str, PublishedSheets],
        known: Mapping[str, Any],
        progress: Progress,
    ) -> ObjectInfo:
        """Write all of it, with facts that are ``known``; return the document that lists it."""
        pictures = {name: those.as_shown() for name, those in published.items()}
        contents = contents_of(relations, 0.95, pictures)
        every = contents.every_array()
        lists = lists_of(relations, contents.orders, every["pairs"], progress)
        contents = contents.with_lists(lists)
        arrays = {**every, **contents.arrays}
        for name, values in arrays.items():
            self._array(name, values, SETTLED_AT_ONCE if name == "train/settled" else max(1, len(values)))
        self._keys(contents)
        for name, those in lists.items():
            self._lists(name, those, pictures)
        are_alike = len({those.shape for those in pictures.values()}) == 1
        are_all = len(pictures) == len(contents.orders)
        facts = {**contents.facts, **known, "pair_sheets": are_alike and are_all}
        if facts["pair_sheets"]:
            self._pair_sheets(arrays["pairs"][1:], pictures)
        described = {
            "facts": facts,
            "arrays": self._arrays,
            "sheets": {n: _listed(those) for n, those in published.items()},
        }
        data = json.dumps(described, allow_nan=False, separators=(",", ":")).encode()
        self._array(FACTS, np.frombuffer(data, np.uint8), len(data))
        return write_document(self._store, self._folder, self._objects, self._metadata)

    def _put(self, objects: Mapping[str, bytes]) -> None:
        self._objects |= write_objects(self._store, self._folder, objects)

    def _array(self, name: str, values: NDArray[Any], rows: int) -> None:
        def chunks() -> Iterator[NDArray[Any]]:
            for start in range(0, len(values), rows):
                yield values[start : start + rows]

        self._chunks(name, values.shape, values.dtype, rows, chunks())

    def _chunks(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows: int,
        chunks: Iterator[NDArray[Any]],
    ) -> None:
        encoder = BrowserArray(name, shape, dtype.str, rows)
        self._put(encoder.metadata)
        self._metadata |= array_metadata(encoder.metadata)
        digests = b""
        for number, chunk in enumerate(chunks):
            encoded = encoder.encode(number, chunk)
            self._put(encoded)
            digests += b"".join(hashlib.sha256(data).digest() for data in encoded.values())
        self._arrays[name] = {"kind": dtype.name, "shape": shape, "rows": rows, "sha256": base64_of(digests)}

    def _keys(self, contents: Contents) -> None:
        """Write the names of examples, padded with zeros, so that a few can be had alone."""
        for name, keys in contents.keys.items():
            if keys is None:
                continue
            texts = [key.replace("\0", "\ufffd").encode("utf-8", "replace") for key in keys]
            width = max(1, *map(len, texts))

            def chunks(texts: list[bytes] = texts, width: int = width) -> Iterator[NDArray[Any]]:
                for start in range(0, len(texts), KEYS_AT_ONCE):
                    some = np.array(texts[start : start + KEYS_AT_ONCE], dtype=f"S{width}")
                    yield some.view(np.uint8).reshape(-1, width)

            self._chunks(f"{name}/keys", (len(texts), width), np.dtype("u1"), KEYS_AT_ONCE, chunks())

    def _lists(self, name: str, lists: Lists, pictures: Mapping[str, ShownOf]) -> None:
        """Write the lists of a set, each with the sha256 of a strip: of pictures of all in it."""
        records = np.zeros(
            (len(lists.owners), lists.found[0].size + SHA256_WORDS if len(lists.owners) else 1), "<u4"
        )
        batch: dict[str, bytes] = {}
        for position, (owner, partners) in enumerate(zip(lists.owners.tolist(), lists.found, strict=True)):
            records[position, : partners.size] = partners.ravel()
            strip = strip_of(name, owner, partners, pictures)
            if strip is not None:
                records[position, partners.size :] = np.frombuffer(hashlib.sha256(strip).digest(), "<u4")
                batch[f"{name}/strips/{owner}"] = strip
            if len(batch) == STRIPS_AT_ONCE or (batch and position == len(records) - 1):
                self._put(batch)
                batch = {}
        self._array(f"{name}/partners", records, LISTS_AT_ONCE)

    def _pair_sheets(self, pairs: NDArray[Any], pictures: Mapping[str, ShownOf]) -> None:
        """Write what pairs look like in their order, training and test example beside each other."""
        hashes = []
        for number, start in enumerate(range(0, len(pairs), TILES // 2)):
            some = pairs[start : start + TILES // 2]
            sides = [
                pictures[name].rows(some[:, side].tolist())
                for side, name in enumerate((layout.TRAIN, layout.TEST))
            ]
            both = [one for pair in zip(*sides, strict=True) for one in pair]
            sheet = pictures[layout.TRAIN].encoded(both, TILES)
            self._put({f"pairs/sheets/{number}": sheet})
            hashes.append(hashlib.sha256(sheet).digest())
        self._arrays["pairs/sheets"] = {"sha256": base64_of(b"".join(hashes))}


def strip_of(
    set_name: str, owner: int, found: NDArray[np.uint32], pictures: Mapping[str, ShownOf]
) -> bytes | None:
    """Return one sheet of an example and all partners in its lists; None where it is not shown."""
    if set_name not in pictures:
        return None
    own = pictures[set_name]
    groups, shown = found.shape[:2]
    tiles: list[Any] = [own.rows([owner])[0], *[own.blank] * (groups * shown)]
    for group in range(groups):
        of_trains = set_name == layout.TEST or (group == 2 and groups == 4)
        other = layout.TRAIN if of_trains else layout.TEST
        ids = found[group, :, 0].astype(np.int64) - 1
        at = np.flatnonzero(ids >= 0)
        if other in pictures and pictures[other].shape == own.shape and len(at):
            found_there = pictures[other].rows(ids[at].tolist())
            for position, one in zip((1 + group * shown + at).tolist(), found_there, strict=True):
                tiles[position] = one
    return own.encoded(tiles, -(-len(tiles) // COLUMNS) * COLUMNS)


def _listed(sheets: PublishedSheets) -> dict[str, Any]:
    hashes = b"".join(bytes.fromhex(info.sha256) for _, info in sheets.objects)
    return {"suffix": suffix(sheets.shape), "sha256": base64_of(hashes)}


def page_of(title: str, folder: str, listed: ListedGroup, address: str | None = None) -> bytes:
    """Return the page for what lies in a folder, of the copy at an address if not where the page is."""
    sha256 = bytes.fromhex(listed.group.objects[f"{FACTS}/c.0"].sha256)
    described: Any = listed.group.metadata[FACTS]
    facts = {"sha256": base64_of(sha256), "length": described["shape"][0]}
    before, after = document_around_data(title, "site", "'self'" if address is None else _origin(address))
    site = {"root": "" if address is None else f"{address.rstrip('/')}/", "folder": folder, "facts": facts}
    return (before + inert_json("site", site) + after).encode()


def _origin(address: str) -> str:
    """Return the scheme, host and port of an address.

    Raises:
        InvalidInputError: it is not one that browsers load from.
    """
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.netloc):
        raise InvalidInputError(
            f"{address} is not an address that a browser loads from",
            hint="give the copy's, such as https://bucket.example.org/mnist",
        )
    return f"{parts.scheme}://{parts.netloc}"


def bits_of(blocks: Sequence[Segment]) -> list[dict[str, Any]]:
    """Return what the page has to know to count pairs from the bits of blocks; nothing if there are none."""
    described: list[dict[str, Any]] = []
    if any(path not in block.metadata for block in blocks for path in BITS.values()):
        return described
    for block in blocks:
        one: dict[str, Any] = {"group": block.group, "n_models": len(block.models)}
        for name, path in BITS.items():
            metadata: Any = block.metadata[path]
            chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
            codecs = metadata["codecs"]
            inner = (
                codecs[0]["configuration"]["chunk_shape"][0] if codecs[0]["name"] == "sharding_indexed" else 0
            )
            n_objects = -(-metadata["shape"][0] // chunk)
            infos = [block.objects[f"{path}/c.{number}.0"] for number in range(n_objects)]
            one[name] = {
                "name": path, "rows": chunk, "inner": inner, "sizes": [info.size for info in infos],
                "sha256": base64_of(b"".join(bytes.fromhex(info.sha256) for info in infos)),
            }  # fmt: skip
        described.append(one)
    return described
