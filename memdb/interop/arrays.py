"""Arrays in other people's files, read a few rows at a time and never unpickled.

A file is material, not a friend: a header may claim any size, an archive may swell without end, an array may
hold pickled objects. Nothing is allocated before shape, type and the number of bytes agree. What is wrong
with an array matters once it is needed: files hold many that are not.
"""

from __future__ import annotations

import math
import re
import struct
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from memdb.errors import InvalidInputError, MemdbError, NotFoundError
from memdb.interop.foreign import PYTORCH, foreign
from memdb.wording import is_number

MAX_WHOLE_BYTES = 4 << 30  # of an array that is needed at once
MAX_SWELLING = 250  # bytes out of one byte in; masks and predictions swell less, zip bombs a thousandfold
SWELLING_MATTERS = 256 << 20
LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # of a zip entry, before its name
READ_BYTES = 16 << 20
BOOLEAN = "b"
OTHERS = "an array (.npy) or a table (.csv, .tsv, .parquet, .json)"
UNREADABLE = (  # what NumPy and zipfile raise
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, struct.error
)  # fmt: skip
SAVE_AGAIN = "save it again from NumPy with `numpy.save` or `numpy.savez`"


@dataclass(frozen=True)
class ArrayFile:
    """An array in a file; its values are read on demand.

    One that cannot be read has a ``problem``, which is raised when the array is needed.
    """

    place: str
    _shape: tuple[int, ...]
    _dtype: np.dtype[Any]
    read: Callable[[int, int], NDArray[Any]]  # rows of the first axis
    problem: MemdbError | None = None

    @classmethod
    def unreadable(cls, place: str, problem: MemdbError) -> ArrayFile:
        """Return an array of which nothing is known but why it cannot be read."""
        return cls(place, (0,), np.dtype(np.bool_), lambda _start, _stop: np.empty(0), problem)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        self._require_readable()
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its values."""
        self._require_readable()
        return self._dtype

    def _require_readable(self) -> None:
        if self.problem is not None:
            raise self.problem

    @property
    def n_bytes(self) -> int:
        """How many bytes it takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return some rows; reading on from where one left off is cheap."""
        self._require_readable()
        with _readable(self.place):
            return self.read(start, stop)

    def whole(self, shape: tuple[int | None, ...], kinds: str) -> NDArray[Any]:
        """Return all of it, after checking its type and what is known of its shape.

        Raises:
            InvalidInputError: another shape or type, or too big to be read at once.
        """
        self.require(shape, kinds)
        if self.n_bytes > MAX_WHOLE_BYTES:
            raise InvalidInputError(
                f"{self.place} takes {self.n_bytes:,} bytes, and is needed at once", hint="import it in parts"
            )
        if not self.shape:
            return np.array(self.rows(0, 1)).reshape(())
        return np.array(self.rows(0, self.shape[0]))

    def texts(self, n: int | None = None) -> list[str]:
        """Return all of it as text: bytes are taken for UTF-8, whole numbers are written out.

        Raises:
            InvalidInputError: neither text nor whole numbers, another number of them, or bytes that are no
                UTF-8.
        """
        values = self.whole((n,), "USiu")
        try:
            return [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{self.place} holds bytes that are not UTF-8", hint="save them as text"
            ) from error

    def require(self, shape: tuple[int | None, ...], kinds: str) -> None:
        """Refuse another shape (None: any length) or another kind of number.

        Raises:
            InvalidInputError: names what was found and what belongs there.
        """
        fits = len(shape) == len(self.shape) and all(
            wanted in {None, n} for wanted, n in zip(shape, self.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if n is None else f"{n:,}" for n in shape)
            found = ", ".join(f"{n:,}" for n in self.shape)
            raise InvalidInputError(
                f"{self.place} has shape ({found}); expected ({wanted})",
                hint="check that all arrays are of the same models and examples, models first",
            )
        if self.dtype.kind not in kinds:
            expected = " or ".join(KIND_NAMES[k] for k in kinds)
            is_bits = "b" in kinds and self.dtype.kind in "US"
            raise InvalidInputError(
                f"{self.place} is {self._kind()}; expected {expected}",
                hint="save what is true in it as bool, such as `array == '1'`"
                if is_bits
                else "convert it with `.astype(...)` and save it again",
            )

    def _kind(self) -> str:
        """Return its type in words; of text, what in it is not a number."""
        if self.dtype.kind not in "US":
            return str(self.dtype)
        values = np.ravel(self.rows(0, self.shape[0] if self.shape else 1)).astype(np.str_)
        odd = next((value for value in values.tolist() if value.strip() and not is_number(value)), None)
        return "text" if odd is None else f"text, such as {odd[:40]!r}"


KIND_NAMES = {
    "b": "bool", "i": "integers", "u": "unsigned integers", "f": "floats", "U": "text", "S": "bytes",
}  # fmt: skip


def open_arrays(path: Path) -> dict[str, ArrayFile]:
    """Return the arrays of an .npz file, of one .npy file, or of all .npy files in a folder, by name.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: something else.
    """
    if path.is_dir():
        return {file.stem: _opened(file) for file in listed(path, "*.npy")}
    if not path.exists():
        url, is_url = re.subn(r"^([a-z][a-z0-9+]+):/", r"\1://", str(path))  # of which Path keeps one slash
        raise NotFoundError(
            f"no file {url}",
            hint="download it, and import the file; ask a store where it is: `memdb info --store URL`"
            if is_url
            else "name an .npz file, or a folder of .npy files",
        )
    if not path.is_file():  # reading may never end
        raise InvalidInputError(f"{path} is a pipe or a device", hint="write what comes from it to a file")
    if path.suffix.lower() == ".npy":
        return {path.stem: open_array(path)}
    return _opened_archive(path)


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern, 9 before 10, without hidden ones such as ``._mask.npy``.

    Links to nowhere are among them: whoever opens them says so. Folders, pipes and devices are not.
    """
    found = (
        p
        for p in folder.glob(pattern)
        if not is_hidden(p.relative_to(folder).as_posix()) and (p.is_file() or not p.exists())
    )
    return sorted(found, key=lambda path: in_order(path.relative_to(folder).as_posix()))


def is_hidden(path: str) -> bool:
    """Tell whether a system or an editor left a file: its name or a folder's says so."""
    return any(re.match(r"\.[^.]|__MACOSX$", part) for part in path.split("/"))


def in_order(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts names as people count: by the numbers in them."""
    parts = re.split(r"(\d+)", name)
    return [(text, int(number or 0)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True)]


def _opened(path: Path) -> ArrayFile:
    try:
        return open_array(path)
    except InvalidInputError as error:
        return ArrayFile.unreadable(str(path), error)


def open_array(path: Path) -> ArrayFile:
    """Return the array of one .npy file.

    Raises:
        NotFoundError: nothing is there.
        InvalidInputError: it holds something else, or its size is not what its header says.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {path}", hint="name a .npy file, as `numpy.save` writes it")
    try:
        with _readable(str(path)), path.open("rb") as file:
            header = _header(file, str(path))
            size = path.stat().st_size
            _require_size(str(path), header, size - header.offset)
            return header.mapped(path, str(path), 0)
    except InvalidInputError as error:
        if (other := foreign(path)) is not None:
            raise other from error
        raise


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int  # of the numbers

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self, path: Path, place: str, at: int) -> ArrayFile:
        """Return an array stored uncompressed in a file, from an offset on."""
        order: Any = "F" if self.fortran else "C"

        def read(start: int, stop: int) -> NDArray[Any]:
            if not self.shape:  # a single value
                return np.memmap(path, self.dtype, "r", at + self.offset, (1,))[:]
            if self.n_bytes == 0:  # an empty file cannot be mapped
                return np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
            values = np.memmap(path, self.dtype, "r", at + self.offset, self.shape, order)
            return np.asarray(values[start:stop])

        return ArrayFile(place, self.shape, self.dtype, read)


def _header(file: IO[bytes], place: str) -> _Header:
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise InvalidInputError(f"{place} is .npy of version {version}", hint=SAVE_AGAIN)
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise InvalidInputError(
            f"{place} holds pickled Python objects, which memdb never loads",
            hint="save a plain array of numbers: `array.astype(bool)` or `.astype(float)` before saving",
        )
    if dtype.kind not in KIND_NAMES or any(n < 0 for n in shape):
        raise InvalidInputError(
            f"{place} is {dtype} of shape {shape}, not an array of real numbers", hint=SAVE_AGAIN
        )
    return _Header(shape, fortran, dtype, file.tell())


def _require_size(place: str, header: _Header, n_bytes: int) -> None:
    if header.n_bytes != n_bytes:
        raise InvalidInputError(
            f"{place} states {header.dtype} {header.shape}, which is {header.n_bytes:,} bytes, and holds "
            f"{n_bytes:,}",
            hint="it was cut or altered: get it again",
        )


def _opened_archive(path: Path) -> dict[str, ArrayFile]:
    with _readable(str(path)), _archive(path) as archive:
        found: dict[str, ArrayFile] = {}
        entries = [e for e in archive.infolist() if not e.is_dir() and not is_hidden(e.filename)]
        folder = _folder_of(entries)
        for entry in entries:
            name = entry.filename.removeprefix(folder).removesuffix(".npy")
            place = f"{path}: {name[:80]}"
            if name in found:
                twice = InvalidInputError(f"{place} is there twice", hint=SAVE_AGAIN)
                found[name] = ArrayFile.unreadable(place, twice)
                continue
            try:
                with _readable(place):
                    found[name] = _member(archive, entry, path, place)
            except InvalidInputError as error:
                found[name] = ArrayFile.unreadable(place, error)
        return found


def _folder_of(entries: Sequence[zipfile.ZipInfo]) -> str:
    """Return the folder that all entries are in, as those of a packed folder are; "" if there is none."""
    folders = {entry.filename.rpartition("/")[0] for entry in entries}
    folder = folders.pop() if len(folders) == 1 else ""
    return f"{folder}/" if folder.strip("./") else ""


def _archive(path: Path) -> zipfile.ZipFile:
    is_named_so = path.suffix.lower() == ".npz"
    other = "" if is_named_so else f", and its name is not that of {OTHERS}"
    refusal = foreign(path) or InvalidInputError(
        f"{path} is not a NumPy archive (.npz){other}", hint=SAVE_AGAIN
    )
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise refusal from error
    names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        archive.close()
        raise PYTORCH.refusal(path)
    if not is_named_so and not any(name.endswith(".npy") for name in names):
        archive.close()
        raise refusal  # archives of other things, as Excel writes them
    return archive


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, place: str) -> ArrayFile:
    swelling = entry.file_size > MAX_SWELLING * max(1, entry.compress_size)
    if swelling and entry.file_size > SWELLING_MATTERS:
        raise InvalidInputError(
            f"{place} would swell from {entry.compress_size:,} to {entry.file_size:,} bytes",
            hint="if it is not a zip bomb, save it without compression: `numpy.savez`",
        )
    with archive.open(entry) as file:
        header = _header(file, place)
    _require_size(place, header, entry.file_size - header.offset)
    if entry.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            fields = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        at = entry.header_offset + LOCAL_HEADER.size + fields[-2] + fields[-1]
        return header.mapped(path, place, at)
    if header.fortran and header.n_bytes > SWELLING_MATTERS:
        raise InvalidInputError(
            f"{place} is compressed column by column, and cannot be read in rows",
            hint="save `numpy.ascontiguousarray(array)`",
        )
    return ArrayFile(place, header.shape, header.dtype, _Stream(path, entry.filename, header).read)


class _Stream:
    """Reads the rows of a compressed entry one after the other; going back means starting again."""

    def __init__(self, path: Path, name: str, header: _Header) -> None:
        self._path, self._name, self._header = path, name, header
        self._row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
        self._file: IO[bytes] | None = None
        self._next = 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        header = self._header
        if not header.shape:
            self._open(0)
            return np.frombuffer(self._take(header.n_bytes), header.dtype)
        if header.fortran:
            self._open(0)
            return np.frombuffer(self._take(header.n_bytes), header.dtype).reshape(header.shape, order="F")[
                start:stop
            ]
        if self._file is None or start != self._next:
            self._open(start)
        data = self._take((stop - start) * self._row_bytes)
        self._next = stop
        return np.frombuffer(data, header.dtype).reshape((stop - start, *header.shape[1:]))

    def _open(self, row: int) -> None:
        if self._file is not None:
            self._file.close()
        with zipfile.ZipFile(self._path) as archive:  # stays open for its reader, and no longer
            file = archive.open(self._name)
        self._file = file
        weakref.finalize(self, file.close)
        self._take(self._header.offset)
        left = row * self._row_bytes
        while left:
            left -= len(self._take(min(left, READ_BYTES)))

    def _take(self, n_bytes: int) -> bytes:
        data = b"" if self._file is None else self._file.read(n_bytes)
        if len(data) != n_bytes:
            raise EOFError("it ends too early")
        return data


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn errors of NumPy and zipfile into one that names the file and says what may help."""
    try:
        yield
    except MemdbError:
        raise
    except UNREADABLE as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise InvalidInputError(f"{place} cannot be read: {said[:200]}", hint=SAVE_AGAIN) from error
    except OSError as error:
        raise InvalidInputError(
            f"{place} cannot be read: {error.strerror or error}", hint="check the path and your access"
        ) from error
