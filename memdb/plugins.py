"""Objects that the user names as ``package.module:attribute``."""

from __future__ import annotations

import importlib
from typing import Any

from memdb.errors import InvalidInputError


def is_import_path(name: str) -> bool:
    """Tell ``package.module:attribute`` from the name of something built in."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def load(import_path: str, what: str) -> Any:
    """Import what an import path names. Only ever called with a name that the user gave.

    Raises:
        InvalidInputError: the module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = import_path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise InvalidInputError(
            f"{what} {import_path!r} cannot be imported: {type(error).__name__}: {error}",
            hint=f"check that `python -c 'import {module_name}'` works in this folder",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise InvalidInputError(
                f"{what} {import_path!r} cannot be found: {module_name} has no attribute {attribute!r}",
                hint="write it as package.module:attribute",
            )
        found = getattr(found, part)
    return found
