"""Everything memdb raises on purpose, grouped by what a caller would do about it.

::

    MemdbError
    ├── NotFoundError          look elsewhere, or create it
    ├── AlreadyExistsError     use the one that is there, or pick another name
    ├── InvalidInputError      correct the value that the message names
    │   ├── MismatchError      two things that must agree do not: use the right store, data or recipe
    │   └── UnnamedCodeError   a store names code: name it, too, if you know it
    ├── WrongFormatError       not a memdb document, or one of a newer memdb
    ├── NotEnoughModelsError   train more
    ├── TrainingError          the recipe raised or returned something other than predictions
    └── StorageError           the storage refused or did not answer: try again, free space, get access
        └── DamagedError       bytes are missing or altered: restore them from a copy

Each is also the closest builtin error, so that ``except ValueError`` or ``except OSError``
works.
"""

from __future__ import annotations

from collections.abc import Mapping

from memdb.addresses import without_secrets


class MemdbError(Exception):
    """An error whose message carries the offending value and whose hint says what to do next.

    Neither shows a password or a token of an address that it names.

    Attributes:
        hint: what to do next.
        parameters: names of the parameters that the message and the hint speak of, as Python has them; the
            command line puts its options in their place.
    """

    def __init__(self, message: str, *, hint: str = "", parameter: str | tuple[str, ...] = ()) -> None:
        super().__init__(without_secrets(message))
        self.hint = without_secrets(hint)
        self.parameters = (parameter,) if isinstance(parameter, str) else parameter
        if hint:
            self.add_note(f"{self.hint[0].upper()}{self.hint[1:]}.")  # Python shows it below a traceback


class NotFoundError(MemdbError, FileNotFoundError):
    """A store, an example, a data set or a file that is not there."""


class AlreadyExistsError(MemdbError, FileExistsError):
    """Something already exists where memdb would create something new."""


class InvalidInputError(MemdbError, ValueError):
    """A value that memdb cannot work with."""


class MismatchError(InvalidInputError):
    """A data set or recipe that is not the one the store was made with."""


class UnnamedCodeError(InvalidInputError):
    """Code that a store names and its user has not: ``named`` has import paths of `recipe` and `dataset`."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        parameter: str | tuple[str, ...] = (),
        named: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, parameter=parameter)
        self.named = dict(named or {})


class WrongFormatError(MemdbError, ValueError):
    """A document that memdb did not write, or that needs a newer memdb."""


class NotEnoughModelsError(MemdbError, ValueError):
    """A question that the models trained so far cannot answer."""


class TrainingError(MemdbError, RuntimeError):
    """A recipe raised, or returned something other than what the Protocol requires."""


class StorageError(MemdbError, OSError):
    """A read or write that the storage refused or did not finish."""


class DamagedError(StorageError):
    """An object that is missing, cut or altered; never answered with a number."""
