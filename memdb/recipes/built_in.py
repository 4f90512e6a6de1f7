"""The recipes that come with memdb, by name, and those of torchvision and scikit-learn by prefix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from memdb.errors import InvalidInputError
from memdb.format.documents import Json
from memdb.plugins import TORCHVISION
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.mlp import PRESET_OF_DATASET as MLP_PRESET_OF_DATASET
from memdb.recipes.mlp import PRESETS as MLP_PRESETS
from memdb.recipes.resnet9 import ResNet9
from memdb.recipes.resnet9_v2 import ResNet9v2
from memdb.recipes.sklearn_adapter import PREFIX as SKLEARN
from memdb.recipes.sklearn_adapter import Classifier
from memdb.recipes.torchvision_adapter import Architecture


@dataclass(frozen=True)
class BuiltIn:
    """A recipe that comes with memdb.

    Attributes:
        kind: a dataclass that fits `Recipe`; its fields are the options.
        presets: options by the name of a preset; the first is the default.
        preset_of_dataset: the preset for the data sets that another than the default suits.
        versions: other versions of it, by their number.
    """

    kind: type[Any]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    preset_of_dataset: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, type[Any]] = field(default_factory=dict)

    def of_version(self, name: str, version: str | None) -> BuiltIn:
        """Return the recipe in a version that it has, by default the first.

        Raises:
            InvalidInputError: it has no such version.
        """
        known = {self.kind.version: self.kind, **self.versions}
        if version is not None and version not in known:
            raise InvalidInputError(
                f"recipe {name} has version{'s' * bool(self.versions)} {' and '.join(known)}, not {version}",
                hint=f"omit recipe_version, or give {' or '.join(known)}",
                parameter="recipe_version",
            )
        return replace(self, kind=known.get(version or "", self.kind))

    def make(self, name: str, options: Mapping[str, Json], dataset: str | None) -> Any:
        """Return the recipe with a preset's options, overridden by those given.

        Raises:
            InvalidInputError: an unknown preset or option, or an invalid value.
        """
        chosen = dict(options)
        preset = chosen.pop("preset", None) if len(self.presets) > 1 else None
        preset = preset or self.preset_of_dataset.get(dataset or "", next(iter(self.presets)))
        if not isinstance(preset, str) or preset not in self.presets:
            raise InvalidInputError(
                f"unknown preset {preset!r}", hint=f"use one of {', '.join(self.presets)}"
            )
        _require_options(name, chosen, self.kind, ["preset"] if len(self.presets) > 1 else [])
        return self.kind(**{**self.presets[preset], **chosen})


BUILT_IN: Mapping[str, BuiltIn] = {
    "mlp": BuiltIn(MLP, MLP_PRESETS, MLP_PRESET_OF_DATASET),
    "cnn": BuiltIn(CNN),
    "resnet9": BuiltIn(ResNet9, versions={ResNet9v2.version: ResNet9v2}),
}


def is_built_in(name: str) -> bool:
    """Whether a name is that of a built-in recipe, whatever import path a store gives for it."""
    return name in BUILT_IN or name.startswith((TORCHVISION, SKLEARN))


def _require_options(
    name: str, options: Mapping[str, Json], kind: type[Any], others: Sequence[str] = (), first: int = 0
) -> None:
    """Check that options are fields of a recipe's class, from the ``first``, or one of the others.

    Raises:
        InvalidInputError: an unknown option; lists the known ones.
    """
    known = [item.name for item in fields(kind)][first:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidInputError(
            f"recipe {name} has no option {unknown[0]!r}",
            hint=f"its options are {', '.join([*known, *others])}",
        )


def by_prefix(name: str, options: Mapping[str, Json], *, complete: bool = False) -> Any:
    """Return the recipe of a torchvision or scikit-learn classifier, or None for any other name.

    ``complete``: the options are all those of a store's recipe, so no defaults are filled in.
    """
    if name.startswith(SKLEARN):
        return Classifier(name.removeprefix(SKLEARN), options, complete=complete)
    if not name.startswith(TORCHVISION):
        return None
    _require_options(name, options, Architecture, first=1)
    chosen: dict[str, Any] = dict(options)
    return Architecture(name.removeprefix(TORCHVISION), **chosen)
