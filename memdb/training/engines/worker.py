"""What one worker of an engine does, wherever it runs: batches of models, committed straight to the store."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import NoReturn

from memdb import datasets, recipes
from memdb.datasets import Dataset
from memdb.errors import MemdbError
from memdb.format import layout, subsets
from memdb.recipes import BoundRecipe
from memdb.storage.protocol import concurrently
from memdb.store import Store
from memdb.store.read_documents import read_segment
from memdb.store.selection import read_bits
from memdb.training.loop import Committed, Hooks, require_same, train
from memdb.training.seeds import Seeds

CLOCKS = timedelta(seconds=30)  # what the clocks of two machines may differ by
FEW_MODELS = 8


@dataclass(frozen=True)
class Work:
    """What every worker of a run is told: the data, or the name to load it by, and the recipe.

    No worker follows what a store names: whoever starts it has decided. Workers only add to the store: how a
    base is reached, which no other process could be told, is left out.
    ``share`` is how many workers a device, or the cores of a CPU, are divided among. ``n_threads`` is told to
    processes that have trained before and may have been given another number then.
    """

    store: Store
    dataset: Dataset | str
    recipe: BoundRecipe
    data_root: str | None = None
    device: str = "auto"
    batch_models: int | None = None
    checkpoints: Path | None = None
    share: int = 1
    n_threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", replace(self.store, base_access=None))


@dataclass(frozen=True)
class Bench:
    """A worker that has its data and its recipe, and knows how many models it trains at once."""

    work: Work
    dataset: Dataset
    recipe: BoundRecipe
    device: str
    n_models: int

    def train(self, seeds: Seeds, hooks: Hooks) -> Generator[Committed]:
        """Train these models and yield every batch once it is committed."""
        return train(
            self.work.store,
            self.dataset,
            self.recipe,
            seeds,
            device=self.device,
            batch_models=self.n_models,
            checkpoints=self.work.checkpoints,
            hooks=hooks,
        )

    def train_batch(self, batch: Sequence[int], hooks: Hooks) -> Generator[Committed]:
        """Train one batch of them, dealt by somebody else."""
        return self.train(Seeds(batch, len(batch), self.work.store.manifest.seed), hooks)


def set_up(work: Work) -> Bench:
    """Load the data and the recipe, and look whether they are the store's.

    Raises:
        MismatchError: they are not.
        NotFoundError: the data is not on this machine.
        InvalidInputError: the device or the recipe is not.
    """
    given, recipe = work.dataset, work.recipe
    dataset = datasets.load(given, work.data_root) if isinstance(given, str) else given
    require_same(work.store, dataset, recipe)
    if work.n_threads is not None:
        recipes.use_threads(work.n_threads)
    device = recipes.resolve_device(work.device)
    n_models = work.batch_models or recipe.models_per_batch(dataset, device)
    if work.batch_models is None and work.share > 1:
        n_models = min(n_models, max(FEW_MODELS, n_models // work.share))
    return Bench(work, dataset, recipe, device, n_models)


@dataclass(frozen=True)
class Failed:
    """An error on its way to whoever started the worker, and what it was raised from."""

    error: MemdbError
    cause: BaseException | None

    @classmethod
    def of(cls, error: MemdbError) -> Failed:
        """Pack an error: pickling leaves its cause out, and the cause's traceback."""
        cause = error.__cause__
        if cause is None:
            return cls(error, None)
        if type(cause).__module__ != "builtins" or not _survives(cause):  # others need not be known there
            cause = RuntimeError(f"{type(cause).__name__}: {cause}").with_traceback(cause.__traceback__)
        cause.add_note("In the worker:\n" + "".join(traceback.format_tb(cause.__traceback__)))
        return cls(error, cause)

    def reraise(self) -> NoReturn:
        """Raise the error as it was raised there."""
        raise self.error from self.cause


def _survives(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled just now
    except Exception:  # noqa: BLE001 - whatever it holds
        return False
    return True


def train_here(work: Work, seeds: Seeds, hooks: Hooks) -> Generator[Committed]:
    """Train in this process: the engine of one worker."""
    return set_up(work).train(seeds, hooks)


def committed_since(store: Store, since: datetime, seeds: Sequence[int]) -> list[Committed]:
    """Return what another attempt at these models has committed since it was begun.

    A worker may die after its commit and before anybody hears of it: training again would double it.
    """
    wanted = {subsets.model_id(store.manifest.seed, seed) for seed in seeds}
    earliest = layout.segment_id(since - CLOCKS, bytes(6))
    names = [name for name in store.storage.names(layout.SEGMENTS) if name >= earliest]
    names = [name for name in names if layout.is_segment_id(name)]
    read = concurrently(lambda name: read_segment(store, name), names)
    found = []
    n_train = store.manifest.train.n_examples
    for segment in read:
        if segment is None or wanted.isdisjoint(model.model_id for model in segment.models):
            continue
        keep = tuple(model.model_id in wanted for model in segment.models)
        wanted -= {model.model_id for model in segment.models}
        mask, correct = (
            read_bits(store.storage, segment, path, n_train, keep)[0]
            for path in (layout.MASK, f"{layout.TRAIN}/correct")
        )
        models = tuple(model for model, is_ours in zip(segment.models, keep, strict=True) if is_ours)
        found.append(Committed(models, mask, correct))
    return found


def missing(store: Store, found: Sequence[Committed], seeds: Sequence[int]) -> list[int]:
    """Return the seeds whose models are not among those that were found."""
    known = {model.model_id for batch in found for model in batch.models}
    return [seed for seed in seeds if subsets.model_id(store.manifest.seed, seed) not in known]
