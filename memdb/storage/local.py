"""A folder on a local or network disk, written so that a power cut loses nothing that was acknowledged.

Neither zarr nor fsspec calls fsync, and fsspec's local exclusive creation is racy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from memdb.errors import AlreadyExistsError, NotFoundError, StorageError, WrongFormatError
from memdb.format.documents import MAX_DOCUMENT
from memdb.storage.cache import Cache
from memdb.storage.protocol import Found, concurrently, reported, require_bounded

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)  # exFAT, some network mounts
TEMPORARY = ".tmp"
FSYNCS_AT_ONCE = 8  # a journal commits them together; more threads cost more than they wait


class LocalStorage:
    """A folder. Objects are fsynced, then appear under their names whole and at once."""

    can_list = True
    can_write = True
    cache: Cache | None = None

    def __init__(self, root: Path, url: str, derived: Cache | None = None) -> None:
        self.url = url
        self.derived = derived  # where what takes long to compute from a store is kept
        self._root = root
        self._entered: set[Path] = set()  # folders whose entries this process has fsynced

    def direct(self) -> LocalStorage:
        return self

    def read(
        self, path: str, start: int | None = None, stop: int | None = None, *, most: int = MAX_DOCUMENT
    ) -> bytes:
        with self._reported("read", path), open(self._root / path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise WrongFormatError(
                    f"{self.url}/{path} is not a file", hint="remove it, or restore it from a copy"
                )
            file.seek(first := start or 0)
            data = file.read(most + 1 if stop is None else max(0, min(most + 1, stop - first)))
        return require_bounded(data, most, self.url, path)

    def above(self) -> Iterator[LocalStorage]:
        for folder in self._root.resolve().parents:
            yield LocalStorage(folder, str(folder))

    def names(self, folder: str) -> list[str]:
        try:
            with reported(self.url, "list", folder):
                return sorted(os.listdir(self._root / folder))  # noqa: PTH208 - names, not paths
        except NotFoundError:
            return []
        except StorageError as error:
            if isinstance(error.__cause__, NotADirectoryError):
                raise AlreadyExistsError(
                    f"{self.url} is a file, not a folder", hint="name a folder"
                ) from error
            raise

    def find(self, folder: str) -> list[Found]:
        objects = []
        with self._reported("list", folder):
            for parent, _, names in os.walk(self._root / folder):
                for name in names:
                    path = Path(parent) / name
                    with contextlib.suppress(FileNotFoundError):  # its writer has finished
                        status = path.stat()
                        when = datetime.fromtimestamp(status.st_mtime, UTC)
                        objects.append(Found(path.relative_to(self._root).as_posix(), status.st_size, when))
        return sorted(objects, key=lambda item: item.path)

    def write_all(self, objects: Mapping[str, bytes]) -> None:
        folders = {self._root / PurePosixPath(path).parent for path in objects}
        for folder in sorted(folders):
            self._make(folder)
        concurrently(lambda item: self._put(*item, self._rename), objects.items(), FSYNCS_AT_ONCE)
        self._sync(folders)

    def create(self, path: str, data: bytes) -> None:
        folder = (self._root / path).parent
        self._make(folder)
        self._put(path, data, self._link)
        self._sync({folder})

    def remove(self, paths: Iterable[str]) -> None:
        targets = [self._root / path for path in paths]

        def unlink(target: Path) -> None:
            with self._reported("remove", str(target)):
                target.unlink(missing_ok=True)

        concurrently(unlink, targets)
        for folder in sorted({above for target in targets for above in target.parents}, reverse=True):
            if len(folder.parts) > len(self._root.parts) + 1:
                with contextlib.suppress(OSError):  # not empty: another writer's
                    folder.rmdir()
                    self._entered.discard(folder)

    def _make(self, folder: Path) -> None:
        with self._reported("create", str(folder)):
            folder.mkdir(parents=True, exist_ok=True)

    def _put(self, path: str, data: bytes, publish: Callable[[Path, Path], None]) -> None:
        """Write under a temporary name, fsync, and give the object its name in one step."""
        target = self._root / path
        temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}{TEMPORARY}"
        with self._reported("write", path):
            try:
                with temporary.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, target)
            finally:
                with contextlib.suppress(OSError):  # the error above says more
                    temporary.unlink(missing_ok=True)

    @staticmethod
    def _rename(temporary: Path, target: Path) -> None:
        temporary.replace(target)

    @staticmethod
    def _link(temporary: Path, target: Path) -> None:
        try:
            os.link(temporary, target)  # fails where the name is taken, even in a race, also on NFS
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with target.open("xb") as file:  # exclusive too, but a crash may leave it half written
                file.write(temporary.read_bytes())
                file.flush()
                os.fsync(file.fileno())

    def _sync(self, folders: set[Path]) -> None:
        """Fsync folders, and all above that this process has not: names are data too."""
        pending = set(folders)
        for folder in folders:
            for below in (folder, *folder.parents):
                if below in self._entered or below == self._root.parent:
                    break
                pending.add(below.parent)
        if os.name == "nt":
            return  # Windows cannot open a folder, and NTFS journals names itself
        concurrently(self._sync_folder, pending, FSYNCS_AT_ONCE)
        self._entered |= {folder for folder in pending if folder.parent in pending}

    def _sync_folder(self, folder: Path) -> None:
        try:
            with self._reported("fsync", str(folder)):
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except StorageError:
            if folder != self._root.parent:  # which need not be ours to open
                raise

    @contextlib.contextmanager
    def _reported(self, verb: str, path: str) -> Iterator[None]:
        with reported(self.url, verb, path.removeprefix(f"{self._root}/")):
            try:
                yield
            except NotADirectoryError as error:
                raise FileNotFoundError(*error.args) from error


def _at_once(path: str, flags: int) -> int:
    """Open a file without blocking: a named pipe in its place would block forever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
