"""Names inside a store (format 1). ``schemas/layout.md`` describes each of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

FORMAT = 1
GROUP_METADATA = "zarr.json"
MANIFEST = GROUP_METADATA
DATASET = "dataset"
SEGMENTS = "segments"
BLOCKS = "blocks"
SNAPSHOTS = "snapshots"
RETRACTIONS = "retractions"
SCORES = "scores"  # made when the first score table comes
BASES = "bases"  # only of a store that extends another
PROBES = "probes"
STATS = "stats"  # from here on: in published copies only
TOP_INFLUENCE = "top_influence"
TABLES = "tables"
THUMBNAILS = (
    "thumbnails"  # only where the owner includes them, in copies of memdb up to 0.1 or without Pillow
)
SHEETS = "sheets"  # the same, encoded many together
SITE = "site"  # what a page beside the copy reads
PUBLISHED = "published.json"
README = "README.md"
PAGE = "index.html"
GROUPS = (SEGMENTS, BLOCKS, SNAPSHOTS, RETRACTIONS)  # made at creation: do not trust a listing that lacks one
MASK = "mask"
COUNTS = "counts"  # of a block: what its bits add up to
TRAIN = "train"
TEST = "test"

_SEGMENT_ID = re.compile(r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{12}")
_SNAPSHOT = re.compile(r"([1-9][0-9]{0,8})\.json")
_SET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_OBJECT = re.compile(r"[a-z0-9_.-]+(/[a-z0-9_.-]+)*")


def segment_id(now: datetime, token: bytes) -> str:
    """Return an id that sorts by time and cannot collide: UTC milliseconds and six random bytes."""
    utc = now.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}{utc.microsecond // 1000:03d}Z-{token[:6].hex()}"


def is_segment_id(name: str) -> bool:
    """Tell a segment's folder from anything else that may lie beside it."""
    return _SEGMENT_ID.fullmatch(name) is not None


def is_set_name(name: str) -> bool:
    """Tell whether a set of examples may be called so: it becomes a folder."""
    return _SET_NAME.fullmatch(name) is not None


def is_object_name(name: str) -> bool:
    """Tell whether a document may name this object: relative, without ``..`` and odd characters."""
    return _OBJECT.fullmatch(name) is not None and not any(
        part.startswith(".") or part.endswith(".") for part in name.split("/")
    )


def counts(set_name: str) -> str:
    """Return the path, in a block, of what its models add up to for each example of a set."""
    return f"{COUNTS}/{set_name}"


def segment(identifier: str) -> str:
    """Return the path of a segment's group."""
    return f"{SEGMENTS}/{identifier}"


def block(identifier: str) -> str:
    """Return the path of a block's group."""
    return f"{BLOCKS}/{identifier}"


def snapshot(number: int) -> str:
    """Return the path of a snapshot's document."""
    return f"{SNAPSHOTS}/{number}.json"


def base(number: int) -> str:
    """Return the path of the document of a store's n-th base update."""
    return f"{BASES}/{number}.json"


def snapshot_number(name: str) -> int | None:
    """Return the number of a snapshot's, or a base's, file; None for anything else that may lie beside it."""
    match = _SNAPSHOT.fullmatch(name)
    return int(match[1]) if match else None


def retraction(identifier: str) -> str:
    """Return the path of a retraction's document."""
    return f"{RETRACTIONS}/{identifier}.json"


def score_table(number: int) -> str:
    """Return the path of a score table's document."""
    return f"{SCORES}/{number}.json"


def site(number: int) -> str:
    """Return the folder of what a page reads of a snapshot."""
    return f"{SITE}/{number}"
