"""What memdb is installed as, and what it runs on."""

from __future__ import annotations

import os
from pathlib import Path

DISTRIBUTION = "memdb-scores"  # what pip knows the package `memdb` as: the name memdb is another project's
CLONE = Path(__file__).parent.parent / "pyproject.toml"


def install(extra: str) -> str:
    """Return what to type for the packages of an extra: by name, and in a clone."""
    return f"pip install '{DISTRIBUTION}[{extra}]' (in a clone: pip install -e '.[{extra}]')"


def installed_version() -> str:
    """Return the version of this package: of the clone that it runs from, or else of what is installed."""
    import tomllib  # noqa: PLC0415 - once a process that writes or says its version

    try:
        project = tomllib.loads(CLONE.read_text(encoding="utf-8"))["project"]
        if project["name"] == DISTRIBUTION:
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass  # no clone
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # copied without its metadata
        return "0+unknown"


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
