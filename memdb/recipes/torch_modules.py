"""A recipe of what PyTorch users have: a function that makes a model, and one that trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from memdb import plugins
from memdb.recipes.logits import log_odds
from memdb.recipes.protocol import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memdb.datasets import Dataset

AT_ONCE = 1024  # examples that are predicted at once


def torch_recipe(
    make_model: Callable[[], Any],
    train: Callable[[Any, Any, str], None],
    *,
    version: str,
    models_per_batch: int = 10,
) -> Callable[..., dict[str, NDArray[Any]]]:
    """Return a recipe that trains one `torch.nn.Module` after the other.

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

    def recipe(
        data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> dict[str, NDArray[Any]]:
        import torch  # noqa: PLC0415 - training needs it, asking doesn't
        from torch.utils.data import TensorDataset  # noqa: PLC0415

        found = []
        for done, (mask, seed) in enumerate(zip(masks, seeds.tolist(), strict=True)):
            if run.stop_requested():
                raise KeyboardInterrupt
            run.progress(done, len(masks))
            torch.manual_seed(seed)
            inside = data.train.array[mask], data.train.labels[mask].astype(np.int64)
            model = make_model().to(run.device)
            train(model, TensorDataset(*map(torch.from_numpy, inside)), run.device)
            found.append(_outcomes(model.eval(), data, run.device))
        return {path: np.stack([outcomes[path] for outcomes in found]) for path in found[0]}

    recipe.version = version  # type: ignore[attr-defined]
    recipe.models_per_batch = lambda _data, _device: models_per_batch  # type: ignore[attr-defined]
    return recipe


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
