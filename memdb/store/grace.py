"""How long a writer may take, so that garbage collection is safe. No two machines' clocks are compared."""

from __future__ import annotations

import secrets
import time
from datetime import datetime, timedelta

from memdb.errors import StorageError
from memdb.format import layout
from memdb.storage.protocol import Storage

GRACE = timedelta(hours=24)  # what is younger than this may be a writer's or a reader's
STALLED = GRACE / 2  # a writer that took longer than this discards what it wrote, and starts again


class Stopwatch:
    """Measures how long a write has taken, including time that the machine was suspended."""

    def __init__(self) -> None:
        self._started = _now()

    def stalled(self) -> bool:
        """Tell whether what was written since the start may be old enough to be garbage-collected."""
        return _now() - self._started > STALLED.total_seconds()


def _now() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # a monotonic clock stops while a laptop sleeps
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def storage_time(storage: Storage) -> datetime:
    """Return the time by the clock that dates the storage's objects.

    Raises:
        StorageError: the storage is not writable.
    """
    path = f"{layout.PROBES}/{secrets.token_hex(8)}"
    storage.write_all({path: b"time"})
    try:
        probe = next((item for item in storage.find(layout.PROBES) if item.path == path), None)
    finally:
        storage.remove([path])
    if probe is None:
        raise StorageError(
            f"{storage.url}/{path} is not listed though it was written", hint="try again in a moment"
        )
    return probe.modified
