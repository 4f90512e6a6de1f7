"""Canonical JSON, documents that carry their own hash, and one error for all that is wrong with one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from memdb.errors import Damaged, WrongFormat

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
T = TypeVar("T")

SELF_HASH = "self_sha256"


def canonical_json(value: Json) -> bytes:
    """Encode with sorted keys and no white space, as UTF-8: one value, one sequence of bytes.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def fingerprint(value: Json) -> str:
    """Sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sealed(document: Mapping[str, Json]) -> dict[str, Json]:
    """Add ``self_sha256``: the hash of the document with that field empty."""
    return {**document, SELF_HASH: fingerprint({**document, SELF_HASH: ""})}


def group_metadata(document: Mapping[str, Json] | None = None) -> bytes:
    """Return the bytes of a Zarr v3 group's ``zarr.json`` that carries a document in its attributes."""
    attributes: dict[str, Json] = {} if document is None else {"memdb": dict(document)}
    return canonical_json({"attributes": attributes, "node_type": "group", "zarr_format": 3})


def parse_group_metadata(data: bytes, place: str, *, checked: bool = False) -> dict[str, Any]:
    """Return the memdb document in a group's ``zarr.json``, after checking that no byte was altered.

    ``checked`` says that the bytes were compared with a sha256 that another document states: that is the
    same check, and several times as fast.

    Raises:
        WrongFormat: not a Zarr v3 group that memdb wrote.
        Damaged: memdb wrote it, but its bytes or its own hash no longer agree.
    """
    try:
        metadata = json.loads(data)
        document = metadata["attributes"]["memdb"]
        stated = document[SELF_HASH]
        if checked:
            return dict(document)
        rewritten = group_metadata(document)
        actual = fingerprint({**document, SELF_HASH: ""})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_document(data, place) from error
    return _intact(document, place, rewritten == data, actual == stated)


def plain_document(document: Mapping[str, Json]) -> bytes:
    """Return the bytes of a document that is a file of its own."""
    return canonical_json(document)


def parse_plain_document(data: bytes, place: str) -> dict[str, Any]:
    """Return a document that is a file of its own, after checking that no byte was altered.

    Raises:
        WrongFormat: not a document that memdb wrote.
        Damaged: memdb wrote it, but its bytes or its own hash no longer agree.
    """
    try:
        document = json.loads(data)
        stated = document[SELF_HASH]
        rewritten = plain_document(document)
        actual = fingerprint({**document, SELF_HASH: ""})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_document(data, place) from error
    return _intact(document, place, rewritten == data, actual == stated)


def _no_document(data: bytes, place: str) -> WrongFormat:
    """Return what to say of bytes that hold no document: who gets a web page asks why."""
    if not data.strip():
        return WrongFormat(f"{place} is empty", hint="give the URL of a store that memdb made, or try again")
    if data.lstrip()[:1] == b"<":
        return WrongFormat(
            f"{place} is a web page, not a memdb document",
            hint="check the address, and whether this network or that server wants you to log in",
        )
    return WrongFormat(f"{place} is not a memdb document", hint="give the URL of a store that memdb made")


def _intact(document: dict[str, Any], place: str, same_bytes: bool, same_hash: bool) -> dict[str, Any]:  # noqa: FBT001
    restore = f"restore {place} from a copy of the store; `memdb verify` lists what is damaged"
    if not same_bytes:
        raise Damaged(f"{place} was altered: its bytes are not as memdb writes them", hint=restore)
    if not same_hash:
        raise Damaged(f"{place} was altered: it has another sha256 than it states", hint=restore)
    return dict(document)


class Reader:
    """Takes fields out of a parsed JSON object and remembers everything that is wrong, with its place."""

    def __init__(self, document: Any, place: str, problems: list[str] | None = None) -> None:
        self.problems: list[str] = [] if problems is None else problems
        self.place = place
        self._document: Mapping[str, Any] = document if isinstance(document, dict) else {}
        if not isinstance(document, dict):
            self.problems.append(f"{place} is not an object")

    def take(self, key: str, kind: type[T], default: T, valid: Callable[[T], bool] = lambda _: True) -> T:
        """Return the field, or the default and one more problem where it is absent, mistyped or not valid."""
        if key not in self._document:
            self.problems.append(f"{self.place}.{key} is missing")
            return default
        value = self._document[key]
        right_type = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        if kind is float and type(value) is int:
            value, right_type = float(value), True
        if not right_type or not valid(value):
            self.problems.append(f"{self.place}.{key} is {json.dumps(value)[:60]}")
            return default
        return value  # type: ignore[no-any-return]

    def optional(self, key: str, kind: type[T]) -> T | None:
        """Return the field, None where it is absent or null."""
        if self._document.get(key) is None:
            return None
        return self.take(key, kind, kind())

    def items(self, key: str) -> list[Reader]:
        """Return a reader for each element of a list field."""
        return [
            Reader(item, f"{self.place}.{key}[{position}]", self.problems)
            for position, item in enumerate(self.take(key, list, []))
        ]

    def inside(self, key: str) -> Reader:
        """Return a reader for an object field."""
        return Reader(self.take(key, dict, {}), f"{self.place}.{key}", self.problems)

    def entries(self) -> Mapping[str, Any]:
        """Return the object itself, for fields whose keys are data."""
        return self._document

    def finish(self, hint: str) -> None:
        """Raise one error for all problems found.

        Raises:
            WrongFormat: lists every problem with its place.
        """
        if self.problems:
            raise WrongFormat("; ".join(self.problems), hint=hint)
