"""The training loop: masks from seeds, a batch of models by the recipe, one commit a batch.

It yields what was committed; whoever calls it shows progress and decides when to stop.
"""

from __future__ import annotations

import functools
import hashlib
import math
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import plugins
from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, TrainingError
from memdb.format import bits, layout, subsets
from memdb.format.segment import ModelInfo
from memdb.recipes import BoundRecipe, Fitting, Run, name_of
from memdb.store import Store
from memdb.training.seeds import Seeds
from memdb.training.validate import checked, doubts

ROUNDING = 1e-9
SOURCE = "recipe"  # among the versions of a model, the hash of the source of a recipe of the user's own


@dataclass(frozen=True)
class Committed:
    """A batch that is in the store: its models, their masks and what they got right on the training set.

    ``doubt`` is what looks wrong in what the recipe gave, and does not stop the run.
    """

    models: tuple[ModelInfo, ...]
    mask: bits.Packed  # [train, ceil(models / 8)]
    correct: bits.Packed  # the same
    doubt: str = ""


@dataclass(frozen=True)
class Hooks:
    """What a run tells its caller, and asks it.

    Attributes:
        in_flight: hears what the batches in flight amount to, in models.
        remark: hears of what went wrong and does not stop the run.
        may_begin: asked before every batch; false ends the run once those in flight are in.
        stop_requested: asked all the time; true ends the run without the batches in flight.
    """

    in_flight: Callable[[float], None] = lambda _models: None
    remark: Callable[[str], None] = lambda _text: None
    may_begin: Callable[[], bool] = lambda: True
    stop_requested: Callable[[], bool] = lambda: False


Engine = Callable[[Seeds, Hooks], Generator[Committed]]  # the loop, wherever it runs


def train(  # noqa: PLR0913 - what to train, on what, how; four of them have defaults
    store: Store,
    dataset: Dataset,
    recipe: BoundRecipe,
    seeds: Seeds,
    *,
    device: str = "cpu",
    batch_models: int | None = None,
    checkpoints: Path | None = None,
    hooks: Hooks = Hooks(),
) -> Generator[Committed]:
    """Train one model a seed and yield every batch once it is committed.

    Stopping between two yields loses at most the batch in flight. Data and recipe are the store's: see
    `require_same`.

    Raises:
        TrainingError: the recipe raised, or returned something else than predictions.
        StorageError: a batch could not be committed.
    """
    manifest = store.manifest
    size = subsets.subset_size(manifest.train.n_examples, manifest.subset_fraction)
    wanted = batch_models or recipe.models_per_batch(dataset, device)
    fitting = Fitting(recipe.train, recipe.info.name)
    outcomes_kept = frozenset(outcome.name for outcome in manifest.outcomes)
    trained_on = name_of(device)
    for batch in seeds.batches(wanted):
        if not hooks.may_begin():
            return
        masks = subsets.subset_masks(manifest.seed, batch, manifest.train.n_examples, size)
        part = np.asarray(batch, dtype=np.uint64)
        folder = checkpoints or checkpoint_root()
        kept = folder / manifest.store_id / hashlib.sha256(part.tobytes()).hexdigest()[:32]

        def progress(done: int, total: int, n_models: int = len(batch)) -> None:
            hooks.in_flight(n_models * done / max(1, total))

        started = time.perf_counter()
        run = Run(device, progress, hooks.stop_requested, kept, outcomes_kept)
        try:
            returned = _call(recipe.info.name, fitting, dataset, masks, part, run)
        except KeyboardInterrupt:
            if hooks.stop_requested():
                return  # the recipe left off because it was asked to
            raise
        seconds = time.perf_counter() - started
        outcomes, finite = checked(returned, manifest.arrays(), recipe.info.name, masks)
        models = tuple(
            ModelInfo(
                model_id=subsets.model_id(manifest.seed, seed),
                seed=seed,
                subset_size=size,
                seconds=seconds / len(batch),
                trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
                device=trained_on,
                host=platform.node(),
                versions=_versions(recipe),
                **_accuracies(row, masks[row], outcomes, dataset, finite=bool(finite[row])),
            )
            for row, seed in enumerate(batch)
        )
        store.commit(models, masks, outcomes)
        shutil.rmtree(kept, ignore_errors=True)
        correct = bits.pack(outcomes[f"{layout.TRAIN}/correct"])
        yield Committed(models, bits.pack(masks), correct, doubts(outcomes, finite, recipe.info.name))


def require_same(store: Store, dataset: Dataset, recipe: BoundRecipe) -> None:
    """Refuse to add models of other data or another recipe.

    Raises:
        MismatchError: names both fingerprints.
    """
    store.manifest.require_same(dataset.infos, recipe.info, store.url)


def checkpoint_root() -> Path:
    """Return the folder below which recipes may keep half-trained models."""
    try:
        return Path.home() / ".cache" / "memdb" / "checkpoints"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "memdb" / "checkpoints"


def _call(
    name: str,
    fitting: Fitting,
    dataset: Dataset,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.uint64],
    run: Run,
) -> Any:
    shown = ", ".join([*(str(seed) for seed in seeds[:3]), *(["..."] if len(seeds) > 3 else [])])
    with plugins.blaming(
        f"recipe {name}",
        "what was committed before is safe; MEMDB_TRACEBACK=1 shows where it was raised",
        TrainingError,
        after=f" (model seeds {shown})",
    ):
        return fitting(dataset, masks, seeds, run)


def _accuracies(
    row: int, mask: NDArray[np.bool_], outcomes: Mapping[str, NDArray[Any]], dataset: Dataset, *, finite: bool
) -> dict[str, Any]:
    """Return how well one model did, and whether it diverged.

    It did if it gave numbers that are not finite, or has learned nothing of its own subset.
    """
    correct = outcomes[f"{layout.TRAIN}/correct"][row]
    test = outcomes.get(f"{layout.TEST}/correct")
    inside = float(correct[mask].mean())
    return {
        "train_accuracy": inside,
        "out_accuracy": float(correct[~mask].mean()),
        "test_accuracy": None if test is None else float(test[row].mean()),
        "diverged": not finite or _learned_nothing(correct[mask], dataset.train.labels[mask]),
    }


def _learned_nothing(correct: NDArray[np.bool_], labels: NDArray[np.int32]) -> bool:
    """Tell whether a model does no better on its subset than guessing can, however common each class is.

    Who guesses, be it always the same class, names each with some probability whatever the label is: over the
    classes, the shares that are right add up to 1. More than that, by two standard errors, was learned. The
    probabilities are fitted to the shares, rare classes giving way; of two classes this is the usual test of
    two proportions.
    """
    counts = np.bincount(labels)
    there = counts > 0
    if there.sum() == 1 or correct.all():
        return False
    shares = np.bincount(labels, weights=correct)[there] / counts[there]
    variances = 1 / counts[there]
    excess = float(shares.sum()) - 1
    guessed = np.clip(shares - excess * variances / variances.sum(), 0, 1)
    return excess <= 2 * math.sqrt(float((guessed * (1 - guessed) * variances).sum())) + ROUNDING


def _versions(recipe: BoundRecipe) -> dict[str, str]:
    loaded: dict[str, str] = {
        name: str(sys.modules[name].__version__)
        for name in ("torch", "torchvision", "sklearn")
        if name in sys.modules
    }
    return {
        "memdb": _own_version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        **({} if recipe.source is None else {SOURCE: recipe.source}),
        **loaded,
    }


@functools.cache
def _own_version() -> str:
    return version("memdb")  # which parses a file: once a model was a fifth of a small batch


def require_positive(value: int, option: str) -> int:
    """Refuse counts below 1, naming the option.

    Raises:
        InvalidInputError: zero or less.
    """
    if value < 1:
        raise InvalidInputError(f"{option} {value} is not a number from 1", hint=f"use e.g. {option} 100")
    return value
