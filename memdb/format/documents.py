"""Canonical JSON, documents that carry their own hash, and one error for all problems of a document."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

from memdb.environment import installed_version
from memdb.errors import DamagedError, WrongFormatError

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
T = TypeVar("T")

SELF_HASH = "self_sha256"
MAX_DOCUMENT = (
    16 << 20
)  # bytes; a snapshot of 100,000 models has at most 8 MB. In memory it may take 30 times as much
LARGE_DOCUMENT = 1 << 20
MAX_DEPTH = 32  # of values that a document may fill freely, such as a recipe's options
MAX_INTEGER = 2**63 - 1
MAX_PROBLEMS = 20  # that an error lists
NOT_OURS = "give the URL of a store that memdb made"
_one_large = threading.Lock()


def now() -> str:
    """Return the time in UTC to the second, as documents state it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache  # the version is read from a file
def own_version() -> str:
    """Return the version of memdb that writes, as documents state it."""
    return installed_version()


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


def parse_json(data: bytes, place: str) -> Any:
    """Parse untrusted JSON.

    Large documents are parsed one at a time: threads would only wait for each other, and use more memory.

    Raises:
        WrongFormatError: too long, not JSON in UTF-8, nested too deeply, or with numbers that JSON does not
            have.
    """
    if len(data) > MAX_DOCUMENT:
        raise WrongFormatError(
            f"{place} has {len(data):,} bytes; documents of memdb have at most {MAX_DOCUMENT:,}",
            hint=NOT_OURS,
        )
    try:
        with _one_large if len(data) > LARGE_DOCUMENT else contextlib.nullcontext():
            return _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise _no_document(data, place) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_group_metadata(data: bytes, place: str, *, checked: bool = False) -> dict[str, Any]:
    """Return the memdb document in a group's ``zarr.json``, after checking that no byte was altered.

    ``checked``: the bytes have been compared with a sha256 that another document states, which is the same
    check and several times as fast.

    Raises:
        WrongFormatError: not a Zarr v3 group that memdb wrote.
        DamagedError: memdb wrote it, but its bytes or its own hash no longer agree.
    """
    metadata = parse_json(data, place)
    try:
        document = metadata["attributes"]["memdb"]
        stated = document[SELF_HASH]
        if checked and b"\\u" not in data:  # half a surrogate pair would be one
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
        WrongFormatError: not a document that memdb wrote.
        DamagedError: memdb wrote it, but its bytes or its own hash no longer agree.
    """
    document = parse_json(data, place)
    try:
        stated = document[SELF_HASH]
        rewritten = plain_document(document)
        actual = fingerprint({**document, SELF_HASH: ""})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _no_document(data, place) from error
    return _intact(document, place, rewritten == data, actual == stated)


def _no_document(data: bytes, place: str) -> WrongFormatError:
    """Return the error for bytes that are not a document, such as a web page."""
    if not data.strip():
        return WrongFormatError(
            f"{place} is empty", hint="give the URL of a store that memdb made, or try again"
        )
    if data.lstrip()[:1] == b"<":
        return WrongFormatError(
            f"{place} is a web page, not a memdb document",
            hint="check the address, and whether this network or that server wants you to log in",
        )
    return WrongFormatError(f"{place} is not a memdb document", hint=NOT_OURS)


def _intact(document: dict[str, Any], place: str, same_bytes: bool, same_hash: bool) -> dict[str, Any]:  # noqa: FBT001
    restore = f"restore {place} from a copy of the store; `memdb verify` lists what is damaged"
    if not same_bytes:
        raise DamagedError(f"{place} was altered: its bytes are not as memdb writes them", hint=restore)
    if not same_hash:
        raise DamagedError(f"{place} was altered: it has another sha256 than it states", hint=restore)
    return dict(document)


class Reader:
    """Takes fields out of a parsed JSON object and collects everything that is wrong, with its place."""

    def __init__(self, document: Any, place: str, problems: Problems | None = None) -> None:
        self.problems = Problems() if problems is None else problems
        self.place = place
        self._document: Mapping[str, Any] = document if isinstance(document, dict) else {}
        if not isinstance(document, dict):
            self.problems.append(f"{place} is not an object")

    def take(self, key: str, kind: type[T], default: T, valid: Callable[[T], bool] = lambda _: True) -> T:
        """Return the field; if it is absent, mistyped or invalid, add a problem and return the default."""
        if key not in self._document:
            self.problems.append(f"{self.place}.{key} is missing")
            return default
        value = self._document[key]
        right_type = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        if type(value) is int:
            right_type = (right_type or kind is float) and -MAX_INTEGER <= value <= MAX_INTEGER
            value = float(value) if right_type and kind is float else value
        if not right_type or (kind is float and not math.isfinite(value)) or not valid(value):
            self.problems.append(f"{self.place}.{key} is {shown(value)}")
            return default
        return value  # type: ignore[no-any-return]

    def free(self, key: str) -> dict[str, Any]:
        """Return an object field with free content of bounded depth."""
        return self.take(key, dict, {}, lambda value: _is_shallow(value, MAX_DEPTH))

    def optional(self, key: str, kind: type[T], valid: Callable[[T], bool] = lambda _: True) -> T | None:
        """Return the field, None if it is absent or null."""
        if self._document.get(key) is None:
            return None
        return self.take(key, kind, kind(), valid)

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
            WrongFormatError: lists every problem with its place.
        """
        if self.problems:
            raise WrongFormatError("; ".join(self.problems), hint=hint)


class Problems(list[str]):
    """What is wrong with a document; checking stops at `MAX_PROBLEMS`."""

    def append(self, problem: str) -> None:
        """Add a problem.

        Raises:
            WrongFormatError: there are too many.
        """
        if len(self) >= MAX_PROBLEMS:
            raise WrongFormatError("; ".join([*self, "and more"]), hint=NOT_OURS)
        super().append(problem)


def shown(value: Any) -> str:
    """Return the beginning of an untrusted value, for an error message."""
    try:
        return json.dumps(value)[:60]
    except RecursionError:
        return "nested too deeply"


def _is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(
        _is_shallow(item, levels - 1) for item in inner if isinstance(item, dict | list)
    )
