"""Recipes: how a name and options on the command line become something that trains models."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from memdb import plugins
from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, TrainingError
from memdb.format.documents import Json, canonical_json
from memdb.format.manifest import LOGIT_CONFIDENCE, RecipeInfo
from memdb.plugins import TORCHVISION
from memdb.recipes.cnn import CNN
from memdb.recipes.devices import THREADS, name_of, resolve_device, use_threads, worker_devices
from memdb.recipes.identity import (
    attribute,
    leads_back,
    path_of,
    refolded,
    require_identity,
    source_sha256,
    unfolded,
)
from memdb.recipes.mlp import MLP
from memdb.recipes.out_of_memory import Fitting, Train
from memdb.recipes.protocol import Recipe, Run
from memdb.recipes.resnet9 import ResNet9
from memdb.recipes.sklearn_adapter import PREFIX as SKLEARN
from memdb.recipes.sklearn_adapter import Classifier
from memdb.recipes.torchvision_adapter import Architecture

__all__ = [
    "THREADS",
    "BoundRecipe",
    "Fitting",
    "Recipe",
    "Run",
    "bind",
    "is_built_in",
    "name_of",
    "parse_options",
    "rebind",
    "require_name_of_its_own",
    "resolve",
    "resolve_device",
    "use_threads",
    "worker_devices",
]

PARAMETERS = ("data", "masks", "seeds", "run")  # of every recipe, in this order
BUILT_IN: Mapping[str, type[MLP | CNN | ResNet9]] = {"mlp": MLP, "cnn": CNN, "resnet9": ResNet9}


@dataclass(frozen=True)
class BoundRecipe:
    """A recipe ready to run, with its identity."""

    info: RecipeInfo
    train: Train

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models the recipe wants to train at once, 1 where it does not say."""
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
                hint=f"run: pip install 'memdb[train]', or install {error.name}",
            ) from error
        if not isinstance(n_models, int) or n_models < 1:
            raise InvalidInputError(
                f"recipe {self.info.name} wants {n_models!r} models a batch", hint="return an integer from 1"
            )
        return n_models

    def require_outcomes(self, names: Sequence[str]) -> None:
        """Refuse to keep what the recipe says that it does not give.

        Raises:
            InvalidInputError: names the outcome.
        """
        given = attribute(self.train, "outcomes")
        odd = next((name for name in names if given is not None and name not in given), None)
        if odd is not None and odd != LOGIT_CONFIDENCE.name:  # kept by default, given by some
            raise InvalidInputError(
                f"recipe {self.info.name} gives no {odd}", hint=f"it gives {', '.join(sorted(given or ()))}"
            )

    @functools.cached_property
    def source(self) -> str | None:
        """The beginning of a hash of the user's source; None of what memdb or a library brings."""
        kind = type(self.train)
        return None if kind.__module__.startswith("memdb.recipes.") else source_sha256(self.train)

    def change_since(self, sources: Iterable[str | None]) -> str:
        """Return a remark where models were trained with another source under the same version, or none."""
        before = {source for source in sources if source is not None}
        if self.source is None or not before or self.source in before:
            return ""
        return (
            f"the source of recipe {self.info.name} has changed since models of this store were trained, but "
            f"not its version, {self.info.version}: if its results change too, make another store with "
            "another version (`memdb init --recipe-version`)"
        )


def parse_options(texts: list[str]) -> dict[str, Json]:
    """Turn ``name=value`` into options: JSON where it is JSON, lists at commas, else text.

    Raises:
        InvalidInputError: no equals sign, or a name given twice.
    """
    options: dict[str, Json] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInputError(f"recipe option {text!r} is no name=value", hint="write e.g. epochs=10")
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

    For a built-in one, ``dataset`` picks the preset that fills in what the options leave out, unless an
    option ``preset`` names another.

    Raises:
        InvalidInputError: unknown names, options that the recipe does not take, a version that is not its
            own.
    """
    found = _by_prefix(name, options)
    if found is not None:
        return bind(found, version=version)
    if plugins.is_import_path(name):
        return bind(plugins.load(name, "recipe"), options=options, version=version, import_path=name)
    if name not in BUILT_IN:
        raise InvalidInputError(
            f"unknown recipe {name!r}",
            hint=f"use one of {', '.join(BUILT_IN)}, {TORCHVISION}resnet18, "
            f"{SKLEARN}sklearn.neighbors.KNeighborsClassifier, or package.module:attribute of your own"
            + (f", such as {name}:train" if name.isidentifier() else ""),
        )
    kind: Any = BUILT_IN[name]
    chosen = dict(options)
    presets = getattr(kind, "presets", {"": {}})
    preset = chosen.pop("preset", None) if len(presets) > 1 else None
    preset = preset or getattr(kind, "preset_of_dataset", {}).get(dataset or "", next(iter(presets)))
    if not isinstance(preset, str) or preset not in presets:
        raise InvalidInputError(f"unknown preset {preset!r}", hint=f"use one of {', '.join(presets)}")
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        listed = ", ".join([*known, *(["preset"] if len(presets) > 1 else [])])
        raise InvalidInputError(
            f"recipe {name} has no option {unknown[0]!r}", hint=f"its options are {listed}"
        )
    return bind(kind(**{**presets[preset], **chosen}), version=version)


def _by_prefix(name: str, options: Mapping[str, Json], *, complete: bool = False) -> Any:
    """Return the recipe of a classifier in torchvision or with scikit-learn's face, or None for another name.

    ``complete`` says that the options are a store's, with nothing to fill in.
    """
    if name.startswith(SKLEARN):
        return Classifier(name.removeprefix(SKLEARN), options, complete=complete)
    if not name.startswith(TORCHVISION):
        return None
    known = [field.name for field in fields(Architecture)][1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"recipe {name} has no option {unknown[0]!r}", hint=f"its options are {', '.join(known)}"
        )
    chosen: dict[str, Any] = dict(options)
    return Architecture(name.removeprefix(TORCHVISION), **chosen)


def rebind(info: RecipeInfo) -> BoundRecipe:
    """Return the recipe that a store names, as it is now; the store says whether it is still the same.

    Raises:
        InvalidInputError: it cannot be found, or a class does not take the stored options any more.
    """
    path = info.import_path or info.name
    found = _by_prefix(path, info.options, complete=True)
    if found is not None:
        return bind(found)
    if "<" in path or path.startswith("__main__:"):
        raise InvalidInputError(
            f"recipe {path} of this store has no import path: it was made in a script, a notebook or a "
            "function",
            hint="train from Python, where it is: memdb.open(url).train(add=100, recipe=...); for the shell, "
            "put it in a module and make a store with `memdb init --recipe module:attribute`",
        )
    if not plugins.is_import_path(path):
        return resolve(path, info.options)
    own = plugins.load(path, "recipe")
    options = info.options if isinstance(own, type) else {}
    if info.options and not isinstance(own, type | functools.partial) and not hasattr(own, "options"):
        own = refolded(own, info.options)
    version = info.version if attribute(own, "version") is None else None
    return bind(own, options=options, version=version, import_path=info.import_path)


def bind(
    recipe: Any,
    *,
    options: Mapping[str, Json] | None = None,
    version: str | None = None,
    import_path: str | None = None,
    wanted: str | None = None,
) -> BoundRecipe:
    """Return a ready recipe of an object that fits the Protocol, a plain function, or a class of recipes.

    A class is called with the options; anything else takes none, and what a `functools.partial` fixes counts
    as options. What has no name of its own needs an import path or a version that the user vouches for;
    where it is not the recipe of the ``wanted`` fingerprint, whoever wants that refuses it.

    Raises:
        InvalidInputError: not callable, options that it does not take or that are no JSON, two versions, or
            nothing that tells it from another recipe.
    """
    own, fixed = unfolded(recipe)
    given = {**fixed, **(options or {})}
    shown = import_path or (path_of(own) if callable(own) else repr(own))
    if isinstance(own, type):
        recipe = own = _made(own, given, shown)
    elif options:
        raise InvalidInputError(
            f"recipe {shown} takes no options: it is a {type(own).__name__}, not a class",
            hint="leave recipe_options out, or name a class whose arguments are the options; in Python, "
            "functools.partial(train, lr=0.1) is a recipe too",
            parameter="recipe_options",
        )
    _require_a_recipe(recipe, shown)
    own_version = attribute(recipe, "version")
    if version is not None and own_version is not None and version != str(own_version):
        raise InvalidInputError(
            f"recipe {shown} has version {own_version}, not {version}",
            hint="leave recipe_version out",
            parameter="recipe_version",
        )
    name = attribute(recipe, "name") or (path_of(own) if own is not recipe and leads_back(own) else shown)
    info = RecipeInfo(
        str(name), str(own_version or version or "0"), _own_options(recipe, own, given, shown), import_path
    )
    if import_path is None and version is None and wanted in {None, info.fingerprint}:
        require_identity(own, shown, has_options=bool(given) or hasattr(own, "options"))
    return BoundRecipe(info, recipe)


def _made(kind: type, options: Mapping[str, Json], shown: str) -> Any:
    """Return the recipe that a class makes of options."""
    _require_a_recipe(kind, shown)
    with plugins.blaming(
        f"recipe {shown} does not take the options {dict(options)}:",
        "correct them with recipe_options",
        parameter="recipe_options",
    ):
        return kind(**options)


def _own_options(recipe: Any, own: Any, given: Mapping[str, Json], shown: str) -> dict[str, Json]:
    """Return the options of a recipe: its own, or those that it was made with, and what a partial fixes."""
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


def is_built_in(name: str) -> bool:
    """Tell the name of a recipe that memdb brings along, whatever a store says of where it is found."""
    return name in BUILT_IN or name.startswith((TORCHVISION, SKLEARN))


def require_name_of_its_own(bound: BoundRecipe) -> None:
    """Refuse a recipe of the user's own under the name of a built-in one: its name would lead to that one.

    Raises:
        InvalidInputError: says the name.
    """
    built_in = (*BUILT_IN.values(), Architecture, Classifier)
    if is_built_in(bound.info.name) and (bound.info.import_path or not isinstance(bound.train, built_in)):
        shown = bound.info.import_path or path_of(bound.train)
        raise InvalidInputError(
            f"recipe {shown} calls itself {bound.info.name}, the name of a built-in one",
            hint="give it a name of its own",
        )


def _require_a_recipe(found: Any, shown: str) -> None:
    """Refuse what cannot be called as recipes are, before anything of it is: a class, by what it makes.

    Raises:
        InvalidInputError: says how it is called.
    """
    if not isinstance(found, type):
        plugins.require_call(found, PARAMETERS, "recipe", shown)
        return
    plugins.require_foreign(found, "recipe", shown)
    if not any("__call__" in vars(kind) for kind in found.__mro__):
        raise InvalidInputError(
            f"recipe {shown} is a class whose objects cannot be called, and was not called itself",
            hint=f"name a function, or a class of objects, that takes ({', '.join(PARAMETERS)})",
        )
    plugins.require_call(found.__call__, ("self", *PARAMETERS), "recipe", shown)
