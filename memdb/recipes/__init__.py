"""Recipes: resolve a name and options to a program that trains models."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import plugins
from memdb.datasets import Dataset
from memdb.environment import install
from memdb.errors import InvalidInputError, TrainingError
from memdb.format.documents import Json, canonical_json
from memdb.format.manifest import LOGIT_CONFIDENCE, RecipeInfo
from memdb.plugins import TORCHVISION
from memdb.recipes.built_in import BUILT_IN, by_prefix, is_built_in
from memdb.recipes.device_failure import device_failure
from memdb.recipes.devices import (
    THREADS,
    current,
    name_of,
    resolve_device,
    use_threads,
    without_gpus,
    worker_devices,
)
from memdb.recipes.identity import (
    attribute,
    leads_back,
    path_of,
    refolded,
    require_identity,
    source_sha256,
    unfolded,
)
from memdb.recipes.out_of_memory import Fitting, Train, is_out_of_memory
from memdb.recipes.protocol import Recipe, Run
from memdb.recipes.sklearn_adapter import PREFIX as SKLEARN
from memdb.recipes.sklearn_adapter import Classifier
from memdb.recipes.torchvision_adapter import Architecture

__all__ = [
    "BUILT_IN",
    "THREADS",
    "BoundRecipe",
    "Fitting",
    "Recipe",
    "Run",
    "bind",
    "current",
    "device_failure",
    "is_built_in",
    "is_out_of_memory",
    "name_of",
    "parse_options",
    "rebind",
    "require_name_of_its_own",
    "resolve",
    "resolve_device",
    "use_threads",
    "without_gpus",
    "worker_devices",
]

PARAMETERS = ("data", "masks", "seeds", "run")  # of every recipe, in this order


@dataclass(frozen=True)
class BoundRecipe:
    """A recipe with its options, ready to run, and its identity."""

    info: RecipeInfo
    train: Train

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return the number of models that the recipe prefers to train at once, by default 1."""
        wanted = attribute(self.train, "models_per_batch")
        try:
            with plugins.blaming(
                f"models_per_batch of recipe {self.info.name}",
                "give batch_models, or set MEMDB_TRACEBACK=1 to see where it was raised",
                TrainingError,
                parameter="batch_models",
            ):
                n_models = 1 if wanted is None else wanted(data, device)
        except TrainingError as failed:
            if not isinstance(error := failed.__cause__, ImportError):
                raise
            raise InvalidInputError(
                f"recipe {self.info.name} needs {error.name}, which is not installed",
                hint=f"run: {install('train')}, or install {error.name}",
            ) from error
        if not isinstance(n_models, int) or n_models < 1:
            raise InvalidInputError(
                f"recipe {self.info.name} wants {n_models!r} models a batch", hint="return an integer from 1"
            )
        return n_models

    def prepare(self, data: Dataset, seeds: NDArray[np.uint64], device: str) -> Any:
        """Return what the recipe draws ahead for a batch; None if it does not, or memory has run out.

        Raises:
            TrainingError: it raised.
        """
        prepare = attribute(self.train, "prepare")
        if prepare is None:
            return None
        hint = "take `prepare` out, or set MEMDB_TRACEBACK=1 to see where it was raised"
        try:
            with plugins.blaming(f"prepare of recipe {self.info.name}", hint, TrainingError), current(device):
                return prepare(data, seeds, device)
        except TrainingError as failed:
            if failed.__cause__ is None or not is_out_of_memory(failed.__cause__):
                raise
            return None

    def require_outcomes(self, names: Sequence[str]) -> None:
        """Check that the recipe provides these outcomes.

        Raises:
            InvalidInputError: the recipe declares its outcomes, and one is missing.
        """
        given = attribute(self.train, "outcomes")
        odd = next((name for name in names if given is not None and name not in given), None)
        if odd is not None and odd != LOGIT_CONFIDENCE.name:  # stored by default, provided by some recipes
            raise InvalidInputError(
                f"recipe {self.info.name} gives no {odd}", hint=f"it gives {', '.join(sorted(given or ()))}"
            )

    @functools.cached_property
    def source(self) -> str | None:
        """A truncated hash of the source of a user's recipe; None for a recipe of memdb or of a library."""
        parts = getattr(self.train, "made_of", ())
        if parts:
            hashes = [source_sha256(part) for part in parts]
            return None if None in hashes else "".join(map(str, hashes))
        kind = type(self.train)
        return None if kind.__module__.startswith("memdb.recipes.") else source_sha256(self.train)

    def change_since(self, sources: Iterable[str | None]) -> str:
        """Return a warning if models were trained from other source of this version, else an empty string."""
        before = {source for source in sources if source is not None}
        if self.source is None or not before or self.source in before:
            return ""
        return (
            f"the source of recipe {self.info.name} has changed since models of this store were trained, but "
            f"not its version, {self.info.version}: if its results change too, make another store with "
            "another version (`memdb init --recipe-version`)"
        )


def parse_options(texts: list[str]) -> dict[str, Json]:
    """Parse ``name=value`` options: values are JSON, comma-separated lists, or else text.

    Raises:
        InvalidInputError: a missing equals sign, or a name given twice.
    """
    options: dict[str, Json] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInputError(f"recipe option {text!r} is not name=value", hint="write e.g. epochs=10")
        if name in options:
            raise InvalidInputError(f"recipe option {name} is given twice", hint="give it once")
        parts = [_parse_value(part) for part in value.split(",") if part]
        options[name] = (
            parts if "," in value and not value.startswith(("[", "{", '"')) else _parse_value(value)
        )
    return options


def _parse_value(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except ValueError:
        return text
    return value


def resolve(
    name: str, options: Mapping[str, Json], version: str | None = None, dataset: str | None = None
) -> BoundRecipe:
    """Return the recipe of a built-in name or an import path, with these options.

    Options of a built-in recipe default to those of its option ``preset``, or of the preset for ``dataset``.

    Raises:
        InvalidInputError: an unknown name, options that the recipe does not take, or a version other than
            its own.
    """
    prefixed = by_prefix(name, options)
    if prefixed is not None:
        return bind(prefixed, version=version)
    if plugins.is_import_path(name):
        return bind(plugins.load(name, "recipe"), options=options, version=version, import_path=name)
    if name not in BUILT_IN:
        raise InvalidInputError(
            f"unknown recipe {name!r}",
            hint=f"use one of {', '.join(BUILT_IN)}, {TORCHVISION}resnet18, "
            f"{SKLEARN}sklearn.neighbors.KNeighborsClassifier, or package.module:attribute of your own"
            + (f", such as {name}:train" if name.isidentifier() else ""),
        )
    return bind(BUILT_IN[name].of_version(name, version).make(name, options, dataset), version=version)


def rebind(info: RecipeInfo) -> BoundRecipe:
    """Return the recipe that a store names, as it is now; its fingerprint may differ from the store's.

    Raises:
        InvalidInputError: it cannot be imported, or its class no longer takes the stored options.
    """
    path = info.import_path or info.name
    prefixed = by_prefix(path, info.options, complete=True)
    if prefixed is not None:
        return bind(prefixed)
    if "<" in path or path.startswith("__main__:"):
        raise InvalidInputError(
            f"recipe {path} of this store has no import path: it was given as an object",
            hint="name it, if a module has it: `memdb train --recipe module:attribute`; else train from "
            "Python, where it is: memdb.open(url).train(add=100, recipe=...)",
        )
    if not plugins.is_import_path(path):
        has_version = path in BUILT_IN and info.version in BUILT_IN[path].versions
        return resolve(path, info.options, info.version if has_version else None)
    own = plugins.load(path, "recipe")
    options = info.options if isinstance(own, type) else {}
    if info.options and not isinstance(own, type | functools.partial) and not hasattr(own, "options"):
        own = refolded(own, info.options)
    version = info.version if attribute(own, "version") is None else None
    return bind(own, options=options, version=version, import_path=info.import_path, wanted=info.fingerprint)


def bind(
    recipe: Any,
    *,
    options: Mapping[str, Json] | None = None,
    version: str | None = None,
    import_path: str | None = None,
    wanted: str | None = None,
) -> BoundRecipe:
    """Bind an object that fits `Recipe`, a plain function, or a class of recipes.

    A class is called with the options; anything else takes none, and the arguments of a `functools.partial`
    count as options. A recipe that its name does not identify needs an import path or a version that the
    user vouches for; not so if its fingerprint differs from ``wanted``, since the caller then refuses it.

    Raises:
        InvalidInputError: not callable, options that it does not take or that are not JSON, conflicting
            versions, or nothing that identifies the recipe.
    """
    own, fixed = unfolded(recipe)
    given = {**fixed, **(options or {})}
    shown = import_path or (path_of(own) if callable(own) else repr(own))
    if isinstance(own, type):
        recipe = own = _made(own, given, shown)
    elif options:
        raise InvalidInputError(
            f"recipe {shown} takes no options: it is a {type(own).__name__}, not a class",
            hint="omit recipe_options, or name a class whose arguments are the options; in Python, "
            "functools.partial(train, lr=0.1) is a recipe too",
            parameter="recipe_options",
        )
    _require_a_recipe(recipe, shown)
    own_version = _require_version(attribute(recipe, "version"), version, shown)
    name = attribute(recipe, "name") or (path_of(own) if own is not recipe and leads_back(own) else shown)
    info = RecipeInfo(str(name), own_version, _own_options(recipe, own, given, shown), import_path)
    if wanted not in {None, info.fingerprint}:
        info = next((one for one in _formerly(own, info, shown) if one.fingerprint == wanted), info)
    if import_path is None and version is None and wanted in {None, info.fingerprint}:
        require_identity(own, shown, has_options=bool(given) or hasattr(own, "options"))
    return BoundRecipe(info, recipe)


def _formerly(own: Any, info: RecipeInfo, shown: str) -> list[RecipeInfo]:
    """Return what identifies a recipe in stores from before it had its present name, if it says so."""
    former = getattr(own, "former_name", None)
    return [] if former is None else [replace(info, name=name) for name in (shown, former)]


def _require_version(own: Any, given: str | None, shown: str) -> str:
    """Return the version of a recipe: its own, the one given, or "0"."""
    if given is not None and own is not None and given != str(own):
        raise InvalidInputError(
            f"recipe {shown} has version {own}, not {given}",
            hint="omit recipe_version",
            parameter="recipe_version",
        )
    return str(own or given or "0")


def _made(kind: type, options: Mapping[str, Json], shown: str) -> Any:
    """Instantiate a class of recipes with these options."""
    _require_a_recipe(kind, shown)
    with plugins.blaming(
        f"recipe {shown} does not take the options {dict(options)}:",
        "correct them with recipe_options",
        parameter="recipe_options",
    ):
        return kind(**options)


def _own_options(recipe: Any, own: Any, given: Mapping[str, Json], shown: str) -> dict[str, Json]:
    """Return the options of a recipe: its own, or those it was made with, and arguments of a partial."""
    try:
        stated = dict(getattr(own, "options", given))
        options = stated if own is recipe else {**stated, **given}
        canonical_json(options)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the options of recipe {shown} are no JSON: {error}",
            hint="make `options` a dict of numbers, text and lists",
        ) from error
    return options


def require_name_of_its_own(bound: BoundRecipe) -> None:
    """Refuse a user's recipe with the name of a built-in one, since the name would resolve to the latter.

    Raises:
        InvalidInputError: it has such a name.
    """
    built_in = (*(entry.kind for entry in BUILT_IN.values()), Architecture, Classifier)
    if is_built_in(bound.info.name) and (bound.info.import_path or not isinstance(bound.train, built_in)):
        shown = bound.info.import_path or path_of(bound.train)
        raise InvalidInputError(
            f"recipe {shown} calls itself {bound.info.name}, the name of a built-in one",
            hint="give it a name of its own",
        )


def _require_a_recipe(recipe: Any, shown: str) -> None:
    """Check that an object, or the instances of a class, can be called as recipes are, without calling it.

    Raises:
        InvalidInputError: it cannot; the hint shows the call.
    """
    if not isinstance(recipe, type):
        plugins.require_call(recipe, PARAMETERS, "recipe", shown)
        return
    plugins.require_foreign(recipe, "recipe", shown)
    if not any("__call__" in vars(kind) for kind in recipe.__mro__):
        raise InvalidInputError(
            f"recipe {shown} is a class whose objects cannot be called, and was not called itself",
            hint=f"name a function, or a class of objects, that takes ({', '.join(PARAMETERS)})",
        )
    plugins.require_call(recipe.__call__, ("self", *PARAMETERS), "recipe", shown)
