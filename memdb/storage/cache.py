"""Immutable objects of remote stores on a local disk, by their content rather than by their address.

Any number of processes may use one folder: files appear whole and are checked when read, and a missing or
damaged one is fetched again. A failure of the cache never fails a query.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from memdb.errors import InvalidInputError
from memdb.files import replacing

DIRECTORY, SIZE = "MEMDB_CACHE_DIR", "MEMDB_CACHE_SIZE"
NOWHERE = "none"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
DEFAULT_LIMIT = 10 * 2**30
DIGEST = 32  # bytes of the sha256 in front of the content
SUFFIX = ".obj"
KEPT = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")
HALF_WRITTEN = re.compile(rf"\.{KEPT.pattern}\.[0-9a-f-]+\.tmp")  # by a process that was killed


def default_folder() -> Path:
    """Return the folder that is used if neither an option nor the environment names one.

    Beside it lies what the user trusts, even if objects are cached elsewhere.
    """
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "memdb" / "objects"
    return home / ".cache" / "memdb" / "objects"


def n_bytes(option: str, text: str) -> int:
    """Parse a size such as 500MB, given as an option or variable.

    Raises:
        InvalidInputError: not a size.
    """
    number, unit = text.strip().upper().removesuffix("B"), ""
    if number[-1:] in UNITS:
        number, unit = number[:-1], number[-1:]
    try:
        size = int(float(number) * UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(f"{option} {text!r} is not a size", hint="use e.g. 500MB or 10GB") from error
    if size < 0:
        raise InvalidInputError(f"{option} {text!r} is below 0", hint="use e.g. 500MB or 10GB")
    return size


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cache holds. Sizes are bytes."""

    folder: Path
    n_objects: int
    size: int
    limit: int


@dataclass
class Cache:
    """A folder of about ``limit`` bytes of objects at most; the least recently read are removed first.

    It is measured at random, once in a twentieth of the limit that is written: also where each of many
    processes writes little.
    """

    folder: Path
    limit: int = DEFAULT_LIMIT

    @classmethod
    def of_user(cls, default: Path) -> Cache | None:
        """Return the cache that the environment names, as the command line uses it; None for ``none``.

        Raises:
            InvalidInputError: a limit that is not a size.
        """
        limit = n_bytes(f"${SIZE}", os.environ.get(SIZE) or str(DEFAULT_LIMIT))
        folder = os.environ.get(DIRECTORY)
        if folder == NOWHERE:
            return None
        return cls(Path(folder).expanduser() if folder else default, limit)

    def find(self, key: str) -> bytes | None:
        """Return what was kept under a key; None if it is missing or not intact."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(memoryview(data)[DIGEST:]).digest() != data[:DIGEST]:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data[DIGEST:]

    def takes(self, n_bytes: int) -> bool:
        """Whether an object of this size is kept: none may fill more than half of the cache."""
        return n_bytes <= self.limit // 2

    def keep(self, key: str, data: bytes) -> None:
        """Keep an object, if it fits and the disk allows it."""
        if not self.takes(len(data)):
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
        except OSError:
            return
        if secrets.randbelow(max(1, self.limit // 20)) < len(data) + DIGEST:
            self.shrink(self.limit)

    def usage(self) -> Usage:
        """Measure the folder."""
        files = self._files()
        return Usage(self.folder, len(files), sum(size for _, size, _ in files), self.limit)

    def shrink(self, limit: int) -> int:
        """Remove the least recently read until at most ``limit`` bytes are left; return the bytes removed."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        before = total
        for _, size, path in files:
            if total <= limit:
                break
            with contextlib.suppress(OSError):  # another process was quicker, or it is being read
                path.unlink()
                total -= size
        return before - total

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self.folder.glob("*/*"):
            name = path.name
            ours = KEPT.fullmatch(name) and path.parent.name == name[:2]
            if ours or (HALF_WRITTEN.fullmatch(name) and len(path.parent.name) == 2):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
        return files

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f"{name}{SUFFIX}"
