"""The user's own code: found by ``package.module:attribute``, checked before it is called, blamed by line."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from memdb.errors import InvalidInputError, MemdbError

TORCHVISION = "torchvision:"  # what follows is looked up among torchvision's classifiers, never imported
LONGEST = 200  # characters shown of a message from foreign code
INSTALLED = {"site-packages", "dist-packages"}


def is_import_path(name: str) -> bool:
    """Tell ``package.module:attribute`` from the name of something built in."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def load(import_path: str, what: str) -> Any:
    """Import what an import path names, from the working folder too, as `python -m` does.

    Only ever called with a name that the user gave: see `memdb.permission`.

    Raises:
        InvalidInputError: the module cannot be imported, has no such attribute, or belongs to Python itself,
            of which nothing is a recipe or a data set.
    """
    module_name, _, attribute = import_path.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise _of_python(what, import_path)
    _see_working_folder(module_name)
    with blaming(f"{what} {import_path!r} cannot be imported:", f"see `python -c 'import {module_name}'`"):
        target: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(target, part):
            raise InvalidInputError(
                f"{what} {import_path!r} cannot be found: {module_name} has no attribute {attribute!r}",
                hint="write it as package.module:attribute",
            )
        target = getattr(target, part)
    return target


def _see_working_folder(module_name: str) -> None:
    """Let my_file:train be found here; a folder that does not hold it stays out of every later import."""
    here, top = _working_folder(), module_name.partition(".")[0]
    if here and here not in sys.path and PathFinder.find_spec(top, [here]) is not None:
        sys.path.insert(0, here)


def require_call(code: Any, arguments: Sequence[str], what: str, shown: str) -> None:
    """Refuse, without calling it, what does not accept these arguments in this order.

    Raises:
        InvalidInputError: says how it is called, or that it belongs to Python itself.
    """
    require_foreign(code, what, shown)
    require_taking(code, arguments, what, shown)


def require_taking(code: Any, arguments: Sequence[str], what: str, shown: str) -> None:
    """Refuse the same, but for what is Python's own: the user's code may well hand over `copy.deepcopy`.

    Raises:
        InvalidInputError: says how it is called.
    """
    if not callable(code):
        raise InvalidInputError(
            f"{what} {shown} is of type {type(code).__name__}, which cannot be called",
            hint=f"name a callable that takes {_listed(arguments)}",
        )
    taken = "does not say what it takes"  # as some that are compiled
    try:
        signature = inspect.signature(code)
        taken = f"takes {signature}"
        signature.bind(*arguments)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{what} {shown} {taken}, but is called with {_listed(arguments)}",
            hint=f"it must take {_listed(arguments)}",
        ) from error


def require_foreign(code: Any, what: str, shown: str) -> None:
    """Refuse what comes from Python's own library, however it was reached.

    Raises:
        InvalidInputError: names it.
    """
    while isinstance(code, functools.partial):
        code = code.func
    is_named = inspect.isroutine(code) or inspect.isclass(code)
    module = getattr(code, "__module__", None) if is_named else None
    if (module or "").partition(".")[0] in sys.stdlib_module_names:
        raise _of_python(what, shown)


def _of_python(what: str, shown: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what} {shown} belongs to Python's own library, which has no {what}s; it was not called",
        hint="name your own as package.module:attribute; rename a file that is named as one of Python's",
    )


def _listed(arguments: Sequence[str]) -> str:
    return f"({', '.join(arguments)})"


@contextmanager
def blaming(
    sentence: str,
    hint: str,
    kind: type[MemdbError] = InvalidInputError,
    after: str = "",
    *,
    parameter: str | tuple[str, ...] = (),
) -> Iterator[None]:
    """Turn whatever the user's code raises, sys.exit included, into one error with its file and line.

    Args:
        sentence: how the message begins: who raised, or, with a colon at its end, what did not work.
        hint: what to do.
        kind: of the error.
        after: what else the message says, before file and line.
        parameter: what the hint speaks of, as in `MemdbError`.
    """
    try:
        yield
    except (MemdbError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # SystemExit, for one
        what = _said(error)
        verb = "called" if isinstance(error, SystemExit) else "raised"
        said = what if sentence.endswith(":") else f"{verb} {what}"
        place = _place(error)
        message = f"{sentence} {said}{after}{place and f', in {place}'}"
        raise kind(message, hint=hint, parameter=parameter) from error


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"sys.exit({'' if error.code is None else repr(error.code)[:LONGEST]})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:LONGEST] if text else 'no message'}"


def _place(error: BaseException) -> str:
    """Return file and line where the user's code was last: not those of a library that it called."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return place_of(error.filename, error.lineno)
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    python = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))
    others = ("<", f"{Path(__file__).parent}{os.sep}")
    frames = [(path, line) for path, line in frames if not path.startswith(others)]
    installed = [place for place in frames if INSTALLED.intersection(Path(place[0]).parts)]
    theirs = [place for place in frames if place not in installed and not place[0].startswith(python)]
    return place_of(*theirs[-1]) if theirs else place_of(*installed[0]) if installed else ""


def place_of(path: str, line: int) -> str:
    """Return a file and a line as they are shown: a path below the working folder from there."""
    here = _working_folder()
    inside = here and path.startswith(f"{here}{os.sep}")
    return f"{path[len(here) + 1 :] if inside else path}, line {line}"


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - sys.path holds text
    except OSError:  # it was removed
        return ""
