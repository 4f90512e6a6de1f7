"""Recipes: how a name and options on the command line become something that trains models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from memdb import plugins
from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, MemdbError, TrainingError
from memdb.format.documents import Json, canonical_json
from memdb.format.manifest import LOGIT_CONFIDENCE, RecipeInfo
from memdb.recipes.cnn import CNN
from memdb.recipes.devices import THREADS, name_of, resolve_device, use_threads, worker_devices
from memdb.recipes.mlp import MLP
from memdb.recipes.out_of_memory import Fitting, Train
from memdb.recipes.protocol import Recipe, Run
from memdb.recipes.resnet9 import ResNet9
from memdb.recipes.sklearn_adapter import PREFIX as SKLEARN
from memdb.recipes.sklearn_adapter import Classifier
from memdb.recipes.torchvision_adapter import PREFIX as TORCHVISION
from memdb.recipes.torchvision_adapter import Architecture

__all__ = [
    "THREADS",
    "BoundRecipe",
    "Fitting",
    "Recipe",
    "Run",
    "bind",
    "name_of",
    "parse_options",
    "rebind",
    "resolve",
    "resolve_device",
    "use_threads",
    "worker_devices",
]

BUILT_IN: Mapping[str, type[MLP | CNN | ResNet9]] = {"mlp": MLP, "cnn": CNN, "resnet9": ResNet9}


@dataclass(frozen=True)
class BoundRecipe:
    """A recipe ready to run, with its identity."""

    info: RecipeInfo
    train: Train

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models the recipe wants to train at once, 1 where it does not say."""
        wanted = getattr(self.train, "models_per_batch", None)
        try:
            n_models = 1 if wanted is None else wanted(data, device)
        except MemdbError:
            raise
        except ImportError as error:
            raise InvalidInputError(
                f"recipe {self.info.name} needs {error.name}, which is not installed",
                hint=f"run: pip install 'memdb[train]', or install {error.name}",
            ) from error
        except Exception as error:  # the user's code may raise anything
            raise TrainingError(
                f"models_per_batch of recipe {self.info.name} raised {type(error).__name__}: {error}",
                hint="give --batch-models, or set MEMDB_TRACEBACK=1 to see where it was raised",
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
        given = getattr(self.train, "outcomes", None)
        odd = next((name for name in names if given is not None and name not in given), None)
        if odd is not None and odd != LOGIT_CONFIDENCE.name:  # kept by default, given by some
            raise InvalidInputError(
                f"recipe {self.info.name} gives no {odd}", hint=f"it gives {', '.join(sorted(given or ()))}"
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
            f"{SKLEARN}sklearn.neighbors.KNeighborsClassifier, or package.module:attribute of your own",
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
    if not plugins.is_import_path(path):
        return resolve(path, info.options)
    own = plugins.load(path, "recipe")
    options = info.options if isinstance(own, type) else {}
    version = info.version if getattr(own, "version", None) is None else None
    return bind(own, options=options, version=version, import_path=info.import_path)


def bind(
    recipe: Any,
    *,
    options: Mapping[str, Json] | None = None,
    version: str | None = None,
    import_path: str | None = None,
) -> BoundRecipe:
    """Return a ready recipe of an object that fits the Protocol, a plain function, or a class of recipes.

    A class is called with the options; anything else takes none.

    Raises:
        InvalidInputError: not callable, options that it does not take or that are no JSON, two versions.
    """
    options = dict(options or {})
    shown = import_path or _path_of(recipe)
    if isinstance(recipe, type):
        try:
            recipe = recipe(**options)
        except MemdbError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise InvalidInputError(
                f"recipe {shown} does not take the options {options}: {error}",
                hint="correct them with --recipe-option name=value",
            ) from error
    elif options and import_path:
        raise InvalidInputError(
            f"recipe {shown} takes no options: it is a {type(recipe).__name__}, not a class",
            hint="leave --recipe-option out, or name a class whose arguments are the options",
        )
    if not callable(recipe):
        raise InvalidInputError(
            f"recipe {shown} is a {type(recipe).__name__}, which cannot be called",
            hint="name a function or an object that fits memdb.Recipe",
        )
    own_version = getattr(recipe, "version", None)
    if version is not None and own_version is not None and version != str(own_version):
        raise InvalidInputError(
            f"recipe {shown} has version {own_version}, not {version}", hint="leave --recipe-version out"
        )
    own_options = dict(getattr(recipe, "options", options))
    try:
        canonical_json(own_options)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the options of recipe {shown} are no JSON: {error}", hint="use numbers, text and lists"
        ) from error
    name = getattr(recipe, "name", None) or shown
    identity = RecipeInfo(str(name), str(own_version or version or "0"), own_options, import_path)
    return BoundRecipe(identity, recipe)


def _path_of(recipe: Any) -> str:
    owner = recipe if hasattr(recipe, "__qualname__") else type(recipe)
    return f"{owner.__module__}:{owner.__qualname__}"
