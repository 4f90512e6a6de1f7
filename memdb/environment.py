"""What memdb runs as and on: its own version, and the cores that this process may use."""

from __future__ import annotations

import functools
import os


@functools.cache
def own_version() -> str:
    """Return the version of memdb; finding it parses a file, which once a model would show."""
    from importlib.metadata import version  # noqa: PLC0415 - takes as long as the rest of `memdb --help`

    return version("memdb")


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
