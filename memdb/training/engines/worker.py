"""One worker of an engine, wherever it runs: it trains batches and commits them directly to the store."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import compress
from pathlib import Path
from typing import NoReturn

from memdb import datasets, recipes
from memdb.datasets import Dataset
from memdb.errors import MemdbError, TrainingError
from memdb.format import layout, subsets
from memdb.recipes import BoundRecipe
from memdb.storage.protocol import concurrently
from memdb.store import Store
from memdb.store.access import PLAIN
from memdb.store.read_documents import read_segment
from memdb.store.selection import read_bits
from memdb.training.loop import Committed, Hooks, require_same, train
from memdb.training.seeds import Batches, Seeds
from memdb.training.sketching import SketchTarget

CLOCK_SKEW = timedelta(seconds=30)  # between two machines
FEW_MODELS = 8


@dataclass(frozen=True)
class Work:
    """What every worker of a run needs: the store, the recipe, and the data or the name to load it by.

    Workers never import code that a store names: the process that starts them chose the recipe and data.
    Since they only add to the store, its access, which may hold secrets and functions, is dropped.

    Attributes:
        looks_back: whether what was committed decides on the next batch.
        share: the number of workers that share a device, or the cores of the CPU.
        n_threads: threads per worker, for processes that are reused and may have had another number.
    """

    store: Store
    dataset: Dataset | str
    recipe: BoundRecipe
    data_root: str | None = None
    device: str = "auto"
    batch_models: int | None = None
    checkpoints: Path | None = None
    sketch: SketchTarget | None = None
    looks_back: bool = False
    share: int = 1
    n_threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "store", replace(self.store, access=PLAIN))


@dataclass(frozen=True)
class Bench:
    """A worker with its data and recipe loaded, and the number of models that it trains at once."""

    work: Work
    dataset: Dataset
    recipe: BoundRecipe
    device: str
    n_models: int

    def train(self, seeds: Batches, hooks: Hooks) -> Generator[Committed]:
        """Train these models and yield every batch once it is committed."""
        return train(
            self.work.store,
            self.dataset,
            self.recipe,
            seeds,
            device=self.device,
            batch_models=self.n_models,
            checkpoints=self.work.checkpoints,
            sketch=self.work.sketch,
            hooks=hooks,
        )


def set_up(work: Work) -> Bench:
    """Load the data, and check that data and recipe are the store's.

    Raises:
        MismatchError: they are not.
        NotFoundError: the data is not on this machine.
        InvalidInputError: the device is not available, or the recipe lacks a package.
    """
    given, recipe = work.dataset, work.recipe
    loaded = datasets.load(given, work.data_root) if isinstance(given, str) else given
    dataset = loaded.of(work.store.manifest)
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
    """An error of a worker and its cause, to be raised in the driver."""

    error: MemdbError
    cause: BaseException | None

    @classmethod
    def of(cls, error: MemdbError) -> Failed:
        """Pack an error: pickling would drop its cause, and the traceback of the cause."""
        cause = error.__cause__
        if cause is None:
            return cls(error, None)
        if type(cause).__module__ != "builtins" or not _survives(
            cause
        ):  # the driver may be unable to import others
            cause = RuntimeError(f"{type(cause).__name__}: {cause}").with_traceback(cause.__traceback__)
        cause.add_note("In the worker:\n" + "".join(traceback.format_tb(cause.__traceback__)))
        return cls(error, cause)

    def reraise(self) -> NoReturn:
        """Raise the error with its cause."""
        raise self.error from self.cause


def _survives(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled just now
    except Exception:  # noqa: BLE001 - whatever its attributes raise
        return False
    return True


def train_here(work: Work, seeds: Seeds, hooks: Hooks) -> Generator[Committed]:
    """Train in this process: the engine of one worker.

    Raises:
        MemdbError: a batch failed; those before are committed.
    """
    try:
        yield from set_up(work).train(seeds, hooks)
    except TrainingError as error:
        if recipes.device_failure(error) is None:
            raise
        raise TrainingError(
            str(error),
            hint="this process can no longer use the device, but another one may: with workers=1 it would be "
            "replaced, and its batch trained again; what was committed before is safe",
            parameter="workers",
        ) from error.__cause__


def committed_since(store: Store, since: datetime, seeds: Sequence[int]) -> list[Committed]:
    """Return what another attempt at these models has committed since it began.

    A worker may die after a commit but before reporting it; training again would duplicate the models.
    """
    wanted = {subsets.model_id(store.manifest.seed, seed) for seed in seeds}
    earliest = layout.segment_id(since - CLOCK_SKEW, bytes(6))
    names = [name for name in store.storage.names(layout.SEGMENTS) if name >= earliest]
    names = [name for name in names if layout.is_segment_id(name)]
    read = concurrently(lambda name: read_segment(store, name), names)
    committed = []
    n_train = store.manifest.train.n_examples
    for segment in read:
        if segment is None or wanted.isdisjoint(segment.model_ids):
            continue
        keep = tuple(identifier in wanted for identifier in segment.model_ids)
        wanted.difference_update(segment.model_ids)
        mask, correct = (
            read_bits(store.storage, segment, path, n_train, keep)[0]
            for path in (layout.MASK, f"{layout.TRAIN}/correct")
        )
        committed.append(Committed(tuple(compress(segment.models, keep)), mask, correct))
    return committed


def missing(store: Store, committed: Sequence[Committed], seeds: Sequence[int]) -> list[int]:
    """Return the seeds whose models were not committed."""
    known = {model.model_id for batch in committed for model in batch.models}
    return [seed for seed in seeds if subsets.model_id(store.manifest.seed, seed) not in known]
