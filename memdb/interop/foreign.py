"""Files that memdb does not read, by how they begin or end, and how to make of each one that it reads."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from memdb.errors import InvalidInputError


class Foreign(NamedTuple):
    """A kind of file."""

    what: str
    suffixes: tuple[str, ...]
    beginnings: tuple[bytes, ...]
    hint: str

    def refusal(self, path: Path) -> InvalidInputError:
        """Return the error for a file of this kind."""
        return InvalidInputError(f"{path} is {self.what}", hint=self.hint)


PYTORCH = Foreign(
    "a PyTorch file",
    (".pt", ".pth", ".ckpt"),
    (),
    "read it by `torch.load`, and write its tensors by `numpy.savez`",
)
FOREIGN = (
    Foreign(
        "a Feather or Arrow file",
        (".feather", ".arrow", ".ipc"),
        (b"ARROW1", b"FEA1"),
        "write it as Parquet: `pandas.read_feather(path).to_parquet(...)`",
    ),
    Foreign(
        "a MATLAB file",
        (".mat",),
        (b"MATLAB ",),
        "read it by `scipy.io.loadmat`, or h5py from version 7.3 on, and write its arrays by `numpy.savez`",
    ),
    Foreign(
        "an HDF5 file",
        (".h5", ".hdf5", ".hdf"),
        (b"\x89HDF",),
        "read its arrays by h5py and write them by `numpy.savez`, or `pandas.read_hdf(path).to_parquet(...)`",
    ),
    PYTORCH,
    Foreign(
        "a pickle, which memdb never loads",
        (".pkl", ".pickle", ".joblib"),
        (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "if you trust it, load it yourself, and write its arrays by `numpy.savez`",
    ),
    Foreign("a pointer of Git LFS to a file", (), (b"version https://git-lfs",), "fetch it: `git lfs pull`"),
    Foreign(
        "a web page",
        (".html", ".htm"),
        (b"<!DOCTYPE", b"<!doctype", b"<html"),
        "download the file itself: this may be a page to sign in, or of an error",
    ),
    Foreign("a workbook", (".xlsx", ".xls", ".ods"), (), "save its sheet as CSV"),
    Foreign(
        "packed in a way that memdb does not unpack",
        (".xz", ".7z", ".rar", ".tar", ".tgz", ".zip", ".gz", ".bz2", ".zst", ".lz4"),
        (b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"),
        "unpack it; of packed files, memdb reads .npz, and .csv and .json as .gz, .bz2, .zst or .lz4",
    ),
    Foreign(
        "text",
        (".txt", ".dat", ".asc"),
        (),
        "call it .csv or .tsv if its first line has names; else `numpy.save(..., numpy.loadtxt(path))`",
    ),
)
ZARR = Foreign(
    "a store or another Zarr group",
    ("zarr.json", ".zgroup", ".zarray"),
    (),
    "ask a store itself, as `memdb info --store PATH`, and bring its models over by `memdb merge`; "
    "save others' arrays by `numpy.savez`",
)
LONGEST = max(len(beginning) for kind in FOREIGN for beginning in kind.beginnings)


def foreign(path: Path) -> InvalidInputError | None:
    """Return the error for a file of these kinds or a folder that Zarr wrote, None for any other."""
    if path.is_dir():
        return ZARR.refusal(path) if any((path / name).is_file() for name in ZARR.suffixes) else None
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(LONGEST)
    by_content = (kind for kind in FOREIGN if head.startswith(kind.beginnings))
    by_name = (kind for kind in FOREIGN if path.suffix.lower() in kind.suffixes)
    kind = next(by_content, None) or next(by_name, None)
    return None if kind is None else kind.refusal(path)
