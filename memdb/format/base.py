"""The store that another one extends, as documents name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memdb.format.documents import Json, Reader

MAX_SNAPSHOTS = 10**9
MAX_URL = 4096
HEX64 = re.compile(r"[0-9a-f]{64}")
HEX32 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Base:
    """The store that another one extends, at the numbered snapshot whose models are part of its answers.

    Its sets, recipe and subsets are those of the store that extends it.
    """

    url: str
    store_id: str
    snapshot: int
    n_models: int
    models_sha256: str

    def to_document(self) -> dict[str, Json]:
        """Return the JSON object."""
        return {
            "url": self.url,
            "store_id": self.store_id,
            "snapshot": self.snapshot,
            "n_models": self.n_models,
            "models_sha256": self.models_sha256,
        }

    @classmethod
    def from_reader(cls, read: Reader) -> Base:
        """Parse the object; whether its address may be followed is decided where it is."""
        return cls(
            url=read.take("url", str, "", lambda v: 0 < len(v) <= MAX_URL and v.isprintable()),
            store_id=read.take("store_id", str, "", lambda v: bool(HEX32.fullmatch(v))),
            snapshot=read.take("snapshot", int, 1, lambda v: 0 < v < MAX_SNAPSHOTS),
            n_models=read.take("n_models", int, 0, lambda v: v >= 0),
            models_sha256=read.take("models_sha256", str, "", lambda v: bool(HEX64.fullmatch(v))),
        )
