"""Everything memdb raises on purpose, grouped by what a caller would do about it.

::

    MemdbError
    ├── NotFound          look elsewhere, or create it
    ├── AlreadyExists     use the one that is there, or pick another name
    ├── InvalidInput      correct the value that the message names
    │   ├── Mismatch      two things that must agree do not: use the right store, data or recipe
    │   └── UnnamedCode   a store names code: name it, too, if you know it
    ├── WrongFormat       not a memdb document, or one of a newer memdb
    ├── NotEnoughModels   train more
    ├── TrainingFailed    the recipe raised or returned something else than predictions
    └── StorageFailed     the storage refused or did not answer: try again, free space, get access
        └── Damaged       bytes are missing or altered: restore them from a copy
"""

from __future__ import annotations

from collections.abc import Mapping

from memdb.addresses import without_secrets


class MemdbError(Exception):
    """An error whose message carries the offending value and whose hint says what to do next.

    Neither shows a password or a token of an address that it names.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(without_secrets(message))
        self.hint = without_secrets(hint)


class NotFound(MemdbError):  # noqa: N818 - the group names the situation, not "error" six times
    """A store, an example, a data set or a file that is not there."""


class AlreadyExists(MemdbError):  # noqa: N818
    """Something stands where memdb would create something new."""


class InvalidInput(MemdbError):  # noqa: N818
    """A value that memdb cannot work with."""


class Mismatch(InvalidInput):
    """A data set or recipe that is not the one the store was made with."""


class UnnamedCode(InvalidInput):
    """Code that a store names and its user has not: ``named`` has import paths of `recipe` and `dataset`."""

    def __init__(self, message: str, *, hint: str = "", named: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.named = dict(named or {})


class WrongFormat(MemdbError):  # noqa: N818
    """A document that is no memdb document, or needs a newer memdb."""


class NotEnoughModels(MemdbError):  # noqa: N818
    """A question that the models trained so far cannot answer."""


class TrainingFailed(MemdbError):  # noqa: N818
    """A recipe that raised, or returned something else than what the Protocol asks for."""


class StorageFailed(MemdbError):  # noqa: N818
    """A read or write that the storage refused or did not finish."""


class Damaged(StorageFailed):
    """An object that is missing, cut or altered; never answered with a number."""
