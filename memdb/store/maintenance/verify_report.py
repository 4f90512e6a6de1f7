"""The report of a verification: what was checked and what is damaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from memdb.errors import DamagedError, NotFoundError, WrongFormatError
from memdb.format.manifest import ObjectInfo
from memdb.storage.protocol import Storage, concurrently
from memdb.store.read_arrays import check_object

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written, and the models that are unusable because of it."""

    kind: str  # group, dataset, snapshot, base, block, segment, retraction, scores, or a folder of a copy
    identifier: str  # the name of the group or set, the id or number of the others
    place: str
    problem: str
    models: tuple[str, ...] = ()


@dataclass
class Report:
    """What was checked and what is damaged; sizes are bytes."""

    n_objects: int = 0
    n_bytes: int = 0
    models: set[str] = field(default_factory=set)  # those in blocks and segments that are intact
    damages: list[Damage] = field(default_factory=list)

    @property
    def n_models(self) -> int:
        """How many models can be read in full."""
        return len(self.models)

    def tried(self, kind: str, identifier: str, place: str, read: Callable[[], T]) -> T | None:
        """Read a self-checking document; if it is altered or missing, report the damage and return None."""
        try:
            document = read()
        except (DamagedError, WrongFormatError, NotFoundError) as error:
            self.damages.append(Damage(kind, identifier, place, str(error)))
            return None
        self.n_objects += document is not None
        return document

    def objects(
        self,
        storage: Storage,
        group: str,
        objects: Mapping[str, ObjectInfo],
        keep: tuple[str, ...] = (),
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        """Check all objects; return those whose names start with ``keep``, by path, and problems by place."""

        def check(item: tuple[str, ObjectInfo]) -> bytes | DamagedError:
            try:
                data = check_object(storage, f"{group}/{item[0]}", item[1])
            except DamagedError as error:
                return error
            return data if item[0].startswith(keep) else b""

        held, problems = {}, {}
        for (name, info), found in zip(objects.items(), concurrently(check, objects.items()), strict=True):
            self.n_objects += 1
            if isinstance(found, DamagedError):
                problems[f"{storage.url}/{group}/{name}"] = str(found)
            else:
                held[f"{group}/{name}"] = found
                self.n_bytes += info.size
        return held, problems
