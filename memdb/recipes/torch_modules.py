"""A recipe of what PyTorch users have: a function that makes a model, and one that trains it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from memdb import plugins
from memdb.format.documents import canonical_json
from memdb.recipes.identity import path_of
from memdb.recipes.logits import log_odds
from memdb.recipes.protocol import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memdb.datasets import Dataset

AT_ONCE = 1024  # examples that are predicted at once
FORMER_NAME = "memdb.recipes.torch_modules:torch_recipe.<locals>.recipe"  # of all, in stores made before


def torch_recipe(
    make_model: Callable[[], Any],
    train: Callable[[Any, Any, str], None],
    *,
    version: str,
    models_per_batch: int = 10,
) -> TorchRecipe:
    """Return a recipe that trains one `torch.nn.Module` after the other.

    Stores call it by both functions, such as ``mine:train<Small>``; with the version, they are its identity.

    Args:
        make_model: returns a new model; PyTorch's seed is set before, to that of the model.
        train: trains a model on a `torch.utils.data.TensorDataset` of the subset's examples, as the data set
            has them, and labels; its third argument is the device, where the model is already.
        version: part of the recipe's identity: change it when these functions change their results.
        models_per_batch: models a commit.

    Raises:
        InvalidInputError: these functions are not called like that.
    """
    _require_calls(make_model, train)
    return TorchRecipe(make_model, train, version, models_per_batch)


@dataclass(frozen=True)
class TorchRecipe:
    """What `torch_recipe` returns: a recipe that workers can be sent, if its functions can."""

    make_model: Callable[[], Any]
    train: Callable[[Any, Any, str], None]
    version: str
    at_once: int
    options: ClassVar[dict[str, Any]] = {}
    former_name: ClassVar = FORMER_NAME

    @property
    def name(self) -> str:
        """Both functions, without the module of the second where it is that of the first."""
        trained, made = _name_of(self.train), _name_of(self.make_model)
        module = trained.partition(":")[0]
        return f"{trained}<{made.removeprefix(f'{module}:')}>"

    @property
    def made_of(self) -> tuple[Callable[..., Any], ...]:
        """The user's functions, whose source is the recipe's."""
        return self.make_model, self.train

    def models_per_batch(self, data: Dataset, device: str) -> int:  # noqa: ARG002 - the protocol's
        """Return how many models are committed together."""
        return self.at_once

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> dict[str, NDArray[Any]]:
        """Train these models; return their outcomes."""
        import torch  # noqa: PLC0415 - training needs it, asking doesn't
        from torch.utils.data import TensorDataset  # noqa: PLC0415

        found = []
        for done, (mask, seed) in enumerate(zip(masks, seeds.tolist(), strict=True)):
            if run.stop_requested():
                raise KeyboardInterrupt
            run.progress(done, len(masks))
            torch.manual_seed(seed)
            inside = data.train.array[mask], data.train.labels[mask].astype(np.int64)
            model = self.make_model().to(run.device)
            self.train(model, TensorDataset(*map(torch.from_numpy, inside)), run.device)
            found.append(_outcomes(model.eval(), data, run.device))
        return {path: np.stack([outcomes[path] for outcomes in found]) for path in found[0]}


def _name_of(function: Any) -> str:
    """Return module and name of a function, with the arguments of a partial, which tell it from others."""
    if not isinstance(function, functools.partial):
        return path_of(function)
    bound = [*map(_shown, function.args), *(f"{k}={_shown(v)}" for k, v in sorted(function.keywords.items()))]
    return f"{_name_of(function.func)}({', '.join(bound)})"


def _shown(value: Any) -> str:
    """Return an argument as text that is the same in every process: JSON, with names for what has none."""
    match value:
        case np.generic():
            return _shown(value.item())
        case list() | tuple():
            return f"[{','.join(map(_shown, value))}]"
        case dict():
            pairs = sorted(f"{_shown(key)}:{_shown(bound)}" for key, bound in value.items())
            return "{" + ",".join(pairs) + "}"
    try:
        return canonical_json(value).decode()
    except (TypeError, ValueError):  # no JSON: a class of layers, an object
        return path_of(value)


def _require_calls(make_model: Any, train: Any) -> None:
    """Refuse, without calling them, functions that take something else."""
    for function, arguments, what in (
        (make_model, (), "make_model"),
        (train, ("model", "subset", "device"), "train"),
    ):
        plugins.require_taking(function, arguments, what, getattr(function, "__qualname__", repr(function)))


def _outcomes(model: Any, data: Dataset, device: str) -> dict[str, NDArray[Any]]:
    """Return the outcomes of one model, by set and outcome."""
    found = {}
    for name, examples in data.sets.items():
        logits = _logits(model, examples.array, device)
        predicted = logits.argmax(axis=1)
        found[f"{name}/correct"] = predicted == examples.labels
        found[f"{name}/prediction"] = predicted.astype(np.uint32)
        found[f"{name}/logit_confidence"] = log_odds(logits, examples.labels)
    return found


def _logits(model: Any, examples: NDArray[Any], device: str) -> NDArray[np.float32]:
    """Return what a model says of examples, as many as fit the device's memory at once."""
    import torch  # noqa: PLC0415 - as above

    parts = (examples[start : start + AT_ONCE] for start in range(0, len(examples), AT_ONCE))
    with torch.inference_mode():
        logits: NDArray[np.float32] = (
            torch.cat([model(torch.from_numpy(part).to(device)).cpu() for part in parts]).float().numpy()
        )
    return logits
