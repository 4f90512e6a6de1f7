"""The identity of a user's recipe: a name that resolves to it, its options, its source.

Two recipes that train differently must not share a fingerprint. So a name identifies a recipe only if it
resolves to that object, as in pickle, and arguments bound by a `functools.partial` count as options.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from memdb.errors import InvalidInputError
from memdb.format.documents import Json, canonical_json

PROTOCOL = ("data", "masks", "seeds", "run")
DIGITS = 16  # of a hash that detects changes but need not withstand attacks


def path_of(recipe: Any) -> str:
    """Return ``module:name`` of a function or class, or of the class of an object."""
    owner = _owner(recipe)
    return f"{owner.__module__}:{owner.__qualname__}"


def _owner(recipe: Any) -> Any:
    return recipe if hasattr(recipe, "__qualname__") else type(recipe)


def attribute(recipe: Any, name: str) -> Any:
    """Return an attribute of a recipe, or of the function of a partial; None if absent."""
    value = getattr(recipe, name, None)
    if value is None and isinstance(recipe, functools.partial):
        return attribute(recipe.func, name)
    return value


def unfolded(recipe: Any) -> tuple[Any, dict[str, Json]]:
    """Return the function of nested partials and the arguments that they bind, by name.

    Raises:
        InvalidInputError: arguments that do not fit, or with values that JSON cannot represent.
    """
    args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    while isinstance(recipe, functools.partial):
        args, keywords = (*recipe.args, *args), {**recipe.keywords, **keywords}
        recipe = recipe.func
    if not args and not keywords:
        return recipe, {}
    try:
        bound = inspect.signature(recipe).bind_partial(*args, **keywords)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"recipe {path_of(recipe)} does not take the arguments of its partial: {error}",
            hint="fix arguments that it has, by name",
        ) from error
    fixed: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        is_rest = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        fixed |= value if is_rest else {name: value}
    taken = next((name for name in PROTOCOL if name in fixed), None)
    if taken is not None:
        raise InvalidInputError(
            f"recipe {path_of(recipe)} is a partial that fixes {taken}, which memdb gives it",
            hint=f"fix what precedes or follows {', '.join(PROTOCOL)} alone",
        )
    return recipe, {
        name: _as_json(value, f"{name} of recipe {path_of(recipe)}") for name, value in fixed.items()
    }


def refolded(recipe: Any, options: Mapping[str, Json]) -> Any:
    """Return a partial that `unfolded` maps to these options; those before the data are positional."""
    try:
        parameters = inspect.signature(recipe).parameters
    except (TypeError, ValueError):
        return recipe
    left: dict[str, Any] = dict(options)
    args: list[Any] = []
    for name, parameter in parameters.items():
        if name not in left or parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            break
        args += left.pop(name) if parameter.kind is inspect.Parameter.VAR_POSITIONAL else [left.pop(name)]
    return functools.partial(recipe, *args, **left)


def _as_json(value: Any, what: str) -> Json:
    try:
        converted: Json = json.loads(canonical_json(value))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the argument {what} is {_shown(value)}, which JSON does not have: no identity can hold it",
            hint="fix numbers, text and lists alone, such as 3 for numpy.int64(3); write the rest into a "
            "function of its own",
        ) from error
    return converted


def require_identity(recipe: Any, shown: str, *, has_options: bool) -> None:
    """Check that a recipe is identified well enough to be told from any other.

    Raises:
        InvalidInputError: says what it lacks.
    """
    if inspect.isfunction(recipe) and "version" in vars(recipe) and not hasattr(recipe, "__wrapped__"):
        return  # the user vouches for it with a version
    if _owner(recipe) is not recipe and not has_options:
        lacks = "has no `options`, which would say what it was made with"
        way = "give it an attribute `options`, a dict of what it was made with ({} for nothing)"
    elif not getattr(recipe, "name", None) and not leads_back(recipe):
        lacks = "has no name that leads to it alone: others can have the same one"
        way = "define it at the top of a module"
    else:
        return
    raise InvalidInputError(
        f"recipe {shown} {lacks}",
        hint=f'{way}; or vouch for it with recipe_version="1", and another version whenever '
        "its results change",
        parameter="recipe_version",
    )


def leads_back(recipe: Any) -> bool:
    """Whether module and name resolve to this very function or class, or to the class of an object.

    A name that does not resolve, such as one in a script that is not a module, is accepted unless it belongs
    to a lambda or to something defined inside a function.
    """
    owner = _owner(recipe)
    if "<" in owner.__qualname__ or (inspect.ismethod(owner) and not inspect.isclass(owner.__self__)):
        return False
    found: Any = sys.modules.get(owner.__module__)
    for part in owner.__qualname__.split("."):
        found = getattr(found, part, None)
    return not getattr(owner, "__closure__", None) if found is None else bool(found == owner)


def source_sha256(recipe: Any) -> str | None:
    """Return a truncated hash of a recipe's source and of the values that it was defined with.

    None if there is no source. Functions that it calls are not included.
    """
    while isinstance(recipe, functools.partial):
        recipe = recipe.func
    source = _source(inspect.unwrap(_owner(recipe)))
    if source is None:
        return None
    return hashlib.sha256("\n".join([source, *_values(recipe)]).encode()).hexdigest()[:DIGITS]


def _values(recipe: Any) -> Iterator[str]:
    """Yield what determines a function besides its source: its defaults and its closure.

    Only immutable values, since a list may change while it runs.
    """
    held = [
        *(getattr(recipe, "__defaults__", None) or ()),
        *(getattr(recipe, "__kwdefaults__", None) or {}).values(),
    ]
    for cell in getattr(recipe, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # an empty one
            held.append(cell.cell_contents)
    for value in held:
        if inspect.isfunction(value):
            yield _source(value) or ""
        elif isinstance(value, str | int | float | tuple):
            with contextlib.suppress(TypeError, ValueError):
                yield canonical_json(value).decode()


def _source(owner: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(owner)).strip()
    except (OSError, TypeError, IndentationError):
        return None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"a {type(value).__name__}"
