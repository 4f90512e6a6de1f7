"""The training loop: derive masks from seeds, train a batch of models with the recipe, commit it, repeat.

The loop yields each committed batch; its caller shows progress and decides when to stop.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb import plugins
from memdb.datasets import Dataset
from memdb.errors import InvalidInputError, TrainingError
from memdb.format import bits, layout, subsets
from memdb.format.documents import now, own_version
from memdb.format.manifest import Manifest
from memdb.format.segment import ModelInfo
from memdb.recipes import BoundRecipe, Fitting, Run, current, name_of
from memdb.recipes.protocol import SketchRequest
from memdb.store import Store
from memdb.training.accuracies import Classes, accuracies
from memdb.training.ahead import Ahead, with_next
from memdb.training.commits import Commits
from memdb.training.seeds import Batches, Seeds
from memdb.training.sketching import Quota, SketchTarget
from memdb.training.validate import checked, doubts

WORTH_WAITING = 0.01  # of a batch's seconds: where commits are short, each is told before the next batch
MOST_SECONDS = 0.05  # to wait for that
SOURCE = "recipe"  # the key of the hash of a user's recipe among the versions of a model


@dataclass(frozen=True)
class Committed:
    """A committed batch: its models, their masks and their correctness on the training set.

    ``doubt`` is a warning about outcomes that look wrong but do not stop the run, or an empty string.
    """

    models: tuple[ModelInfo, ...]
    mask: bits.Packed  # [train, ceil(models / 8)]
    correct: bits.Packed  # the same
    doubt: str = ""


@dataclass(frozen=True)
class Hooks:
    """The callbacks of a run.

    Attributes:
        in_flight: called with the progress of the batches in flight, in models.
        remark: called with a message about a failure that does not stop the run.
        committed: called with a batch that is known to be committed while the next one is trained, which is
            then not yielded; None to have all of them yielded, between batches.
        may_begin: called before every batch; return False to end the run after the batches in flight.
        stop_requested: polled; return True to end the run and drop the batches in flight.
        looks_back: whether what was committed decides if the next batch may begin, which then waits for it.
        looks_ahead: whether the next batch is known while one is trained, and prepared.
    """

    in_flight: Callable[[float], None] = lambda _models: None
    remark: Callable[[str], None] = lambda _text: None
    committed: Callable[[Committed], None] | None = None
    may_begin: Callable[[], bool] = lambda: True
    stop_requested: Callable[[], bool] = lambda: False
    looks_back: bool = False
    looks_ahead: bool = True


Engine = Callable[[Seeds, Hooks], Generator[Committed]]  # runs the loop: here, in workers or on a cluster


def train(  # noqa: PLR0913 - what to train, on what, how; four have defaults
    store: Store,
    dataset: Dataset,
    recipe: BoundRecipe,
    seeds: Batches,
    *,
    device: str = "cpu",
    batch_models: int | None = None,
    checkpoints: Path | None = None,
    sketch: SketchTarget | None = None,
    hooks: Hooks = Hooks(),
) -> Generator[Committed]:
    """Train one model per seed and yield every batch once it is committed.

    While a batch is trained, the one before is committed and the next one is prepared, each in a thread. A
    batch that follows is not asked for before its time if what was committed decides on it. A commit that is
    made meanwhile is passed to `Hooks.committed` instead, as soon as the recipe reports progress.
    Closing the generator waits for the commit and loses at most the batch in flight. The data set and the
    recipe must be the store's: see `require_same`.

    Raises:
        TrainingError: the recipe raised, or returned invalid outcomes.
        StorageError: a batch could not be committed.
    """
    trainer = _Trainer(store, dataset, recipe, device, checkpoints, Quota(store, sketch))
    batches = seeds.batches(batch_models or recipe.models_per_batch(dataset, device))
    with Commits[Committed]() as commits:
        try:
            yield from _one_by_one(trainer, batches, commits, hooks)
        except BaseException:  # Ctrl-C while the last commit was awaited, too
            yield from commits.made()  # of GeneratorExit nothing: none is pending where this yields
            raise


def _one_by_one(
    trainer: _Trainer, batches: Iterator[list[int]], commits: Commits[Committed], hooks: Hooks
) -> Generator[Committed]:
    """Train batches in turn; each is committed while the one after it is trained, but for the last."""
    patience = 0.0
    with Ahead(trainer.prepare) as ahead:
        for batch, following in with_next(batches, look=hooks.looks_ahead and not hooks.looks_back):
            yield from commits.made(patience)
            if not hooks.may_begin():
                break
            trained = trainer.train(ahead.take(batch, following), hooks, commits)
            if trained is None:
                break
            yield from commits.made()
            commits.begin(partial(trainer.commit, trained), len(batch))
            patience = min(MOST_SECONDS, WORTH_WAITING * trained.seconds)
            if hooks.looks_back or trainer.quota.is_open:
                yield from commits.made()
    yield from commits.made()


@dataclass(frozen=True)
class _Prepared:
    """A batch that can be trained: its masks, and what the recipe has drawn ahead."""

    seeds: NDArray[np.uint64]
    masks: NDArray[np.bool_]
    drawn: Any


@dataclass(frozen=True)
class _Trained:
    """A batch that can be committed: what the recipe was asked for and returned."""

    batch: _Prepared
    returned: Any
    asked: SketchRequest | None
    device: str  # with its make
    seconds: float
    folder: Path


@dataclass(frozen=True)
class _Trainer:
    """The steps of a batch. Only `train` is called in the thread of the loop."""

    store: Store
    dataset: Dataset
    recipe: BoundRecipe
    device: str
    checkpoints: Path | None
    quota: Quota

    @cached_property
    def _fitting(self) -> Fitting:
        return Fitting(self.recipe.train, self.recipe.info.name)

    @cached_property
    def _classes(self) -> Classes:
        return Classes.of(self.dataset.train.labels)

    def prepare(self, seeds: Sequence[int]) -> _Prepared:
        """Return the masks of a batch, and what the recipe can draw of it without the device."""
        chosen = np.asarray(seeds, dtype=np.uint64)
        drawn = self.recipe.prepare(self.dataset, chosen, self.device)
        return _Prepared(chosen, masks_of(self.store.manifest, seeds), drawn)

    def train(self, batch: _Prepared, hooks: Hooks, commits: Commits[Committed]) -> _Trained | None:
        """Call the recipe; None if it obeyed a request to stop, or since the commit before has failed."""
        manifest, n_models = self.store.manifest, len(batch.seeds)

        def progress(done: int, total: int) -> None:
            if hooks.committed is not None:
                for committed in commits.made_meanwhile():
                    hooks.committed(committed)
            hooks.in_flight(commits.n_pending + n_models * done / max(1, total))

        def stop_requested() -> bool:
            return hooks.stop_requested() or commits.have_failed()

        folder = _checkpoint_dir(self.checkpoints, manifest.store_id, batch.seeds)
        kept = frozenset(outcome.name for outcome in manifest.outcomes)
        started = time.perf_counter()
        asked = self.quota.request(n_models)
        run = Run(self.device, progress, stop_requested, folder, kept, asked, batch.drawn)
        try:
            returned = _call(self.recipe.info.name, self._fitting, self.dataset, batch, run)
        except KeyboardInterrupt:
            if stop_requested():
                return None
            raise
        seconds = time.perf_counter() - started
        spent = replace(batch, drawn=None)  # initial weights may take gigabytes
        return _Trained(spent, returned, asked, name_of(self.device), seconds, folder)

    def commit(self, trained: _Trained) -> Committed:
        """Check what the recipe returned, and commit it."""
        name, batch = self.recipe.info.name, trained.batch
        masks, n_models = batch.masks, len(batch.seeds)
        outcomes, finite = checked(trained.returned, self.store.manifest.arrays(), name, masks)
        sketches = self.quota.arrays(trained.returned, trained.asked, finite, name)
        versions = _versions(self.recipe)
        models = tuple(
            ModelInfo(
                model_id=subsets.model_id(self.store.manifest.seed, seed),
                seed=seed,
                seconds=trained.seconds / n_models,
                trained_at=now(),
                device=trained.device,
                host=platform.node(),
                versions=versions,
                **right,
            )
            for seed, right in zip(
                batch.seeds.tolist(), accuracies(masks, outcomes, self._classes, finite), strict=True
            )
        )
        correct = bits.pack(outcomes[f"{layout.TRAIN}/correct"])
        committed = Committed(models, bits.pack(masks), correct, doubts(outcomes, finite, name))
        self.store.commit(models, masks, outcomes, sketches)  # last: what fails before can be done again
        shutil.rmtree(trained.folder, ignore_errors=True)
        return committed


def masks_of(manifest: Manifest, seeds: Sequence[int]) -> NDArray[np.bool_]:
    """Return the subsets of models by their seeds, bool [models, train]."""
    n_train = manifest.train.n_examples
    if manifest.experiment is not None:
        return manifest.experiment.masks(manifest.seed, seeds, n_train)
    size = subsets.subset_size(n_train, manifest.subset_fraction)
    return subsets.subset_masks(manifest.seed, seeds, n_train, size)


def require_same(store: Store, dataset: Dataset, recipe: BoundRecipe) -> None:
    """Check that the data set and the recipe are the store's.

    Raises:
        MismatchError: a fingerprint differs.
    """
    store.manifest.require_same(dataset.infos, recipe.info, store.url)


def _checkpoint_dir(root: Path | None, store_id: str, seeds: NDArray[np.uint64]) -> Path:
    """Return the folder for checkpoints of a batch, the same whenever the batch is trained again."""
    return (root or checkpoint_root()) / store_id / hashlib.sha256(seeds.tobytes()).hexdigest()[:32]


def checkpoint_root() -> Path:
    """Return the default folder for checkpoints of recipes."""
    try:
        return Path.home() / ".cache" / "memdb" / "checkpoints"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "memdb" / "checkpoints"


def _call(
    name: str,
    fitting: Fitting,
    dataset: Dataset,
    batch: _Prepared,
    run: Run,
) -> Any:
    seeds = batch.seeds
    shown = ", ".join([*(str(seed) for seed in seeds[:3]), *(["..."] if len(seeds) > 3 else [])])
    with (
        plugins.blaming(
            f"recipe {name}",
            "what was committed before is safe; MEMDB_TRACEBACK=1 shows where it was raised",
            TrainingError,
            after=f" (model seeds {shown})",
        ),
        current(run.device),
    ):
        return fitting(dataset, batch.masks, seeds, run)


def _versions(recipe: BoundRecipe) -> dict[str, str]:
    loaded: dict[str, str] = {
        name: str(sys.modules[name].__version__)
        for name in ("torch", "torchvision", "sklearn")
        if name in sys.modules
    }
    return {
        "memdb": own_version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        **({} if recipe.source is None else {SOURCE: recipe.source}),
        **loaded,
    }


def require_positive(value: int, parameter: str) -> int:
    """Refuse counts below 1, naming the parameter.

    Raises:
        InvalidInputError: zero or less.
    """
    if value < 1:
        raise InvalidInputError(
            f"{parameter} {value} is not a number from 1",
            hint=f"use e.g. {parameter}=100",
            parameter=parameter,
        )
    return value
