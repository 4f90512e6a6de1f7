"""Write files and folders atomically: complete under their names, or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memdb.errors import MemdbError, StorageError

RUN = secrets.token_hex(4)  # of this process, in the names of files that it writes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside a file or folder; what was written there replaces it at the end.

    If writing fails, the temporary file is removed and ``path`` stays as it was. Without ``durable`` a power
    cut may leave ``path`` with other bytes: for readers that check what they read.
    """
    temporary = half_written(path)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        if temporary.is_dir() and path.is_dir():
            path.rmdir()  # only an empty folder is ever replaced
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def half_written(path: Path) -> Path:
    """Return the temporary path at which this thread writes a file."""
    return path.with_name(f".{path.name}.{RUN}-{threading.get_native_id():x}.tmp")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Write like `replacing`, and report failure as an error that says what to do.

    Raises:
        StorageError: the folder is missing, full or not writable.
    """
    try:
        with replacing(path) as temporary:
            yield temporary
    except MemdbError:  # some are OSErrors: what was to be written could not be read
        raise
    except OSError as error:
        hint = "name a file in a folder you may write to"
        if error.errno in FULL:
            hint = "free some space, or name a file on another disk"
        raise StorageError(f"cannot write {path}: {reason(error)}", hint=hint) from error


def reason(error: OSError) -> str:
    """Return the system's message for an error, without the paths and numbers that libraries add."""
    return os.strerror(error.errno) if error.errno else str(error).split(": ", maxsplit=1)[0]


def _sync(path: Path) -> None:
    """Fsync what was written: some disks report that they are full no earlier."""
    for file in path.iterdir() if path.is_dir() else (path,):
        with file.open("rb+") as written:
            os.fsync(written.fileno())
