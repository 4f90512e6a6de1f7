"""The arrays of a file or folder by name: which of them were looked at, and how people spell their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from memdb.interop.arrays import ArrayFile


class Arrays(Mapping[str, ArrayFile]):
    """The arrays of a file or folder by name, which remembers those that were looked at."""

    def __init__(self, files: Mapping[str, ArrayFile]) -> None:
        self._files = dict(files)
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> ArrayFile:
        found = self._files[name]
        self._used.add(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def files(self) -> Mapping[str, ArrayFile]:
        """The arrays, without remembering who looks at them."""
        return self._files

    def leave(self, file: ArrayFile | None) -> None:
        """Count an array as not looked at: what it holds turned out to be of no use."""
        self._used -= {name for name, one in self._files.items() if one is file}

    @property
    def unused(self) -> list[str]:
        """The names of those that nobody looked at."""
        return sorted(self._files.keys() - self._used)


def is_of(arrays: Mapping[str, ArrayFile], name: str, kinds: str) -> bool:
    """Tell whether an array is there, readable and of one of these kinds, without looking at its values."""
    files = arrays.files if isinstance(arrays, Arrays) else arrays
    return name in files and files[name].problem is None and files[name].dtype.kind in kinds


def spelled(arrays: Iterable[str]) -> dict[str, str]:
    """Return the names of arrays by how they read in small letters and with underscores, as well as exactly.

    So ``trainMask``, ``Train-Mask`` and ``train mask`` are all ``train_mask``.
    """
    names = list(arrays)
    apart = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower(): name for name in names}
    found = {re.sub(r"[\s.-]+", "_", spelling): name for spelling, name in apart.items()}
    return found | {name: name for name in names}


def names_of(arrays: Iterable[str]) -> str:
    """Return the names of arrays, as an error says them."""
    shown = [f"{name[:80]}" for name in sorted(arrays)]
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "") or "nothing"
