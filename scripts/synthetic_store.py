"""A synthetic store of any size, written through the real store code: what a large store is tried on.

Its structure is that of real ones. Most training examples are easy; memorization is distributed as Feldman
and Zhang found it on CIFAR-100. Accuracies on test examples spread widely with most near 1. For some
test examples, part of the accuracy is due to one or two memorized training examples of their class: true
influences, of .05 to .6.
Masks are the ones that the models' seeds give. The same options give the same bits and the same scores.

    python scripts/synthetic_store.py STORE
    python scripts/synthetic_store.py STORE --models 2000 --train 1281167 --test 50000 --classes 1000
    python scripts/synthetic_store.py STORE --confidences --truth truth.npz

It is compacted in the end unless ``--loose`` is given. ``--truth`` writes what the estimates are of:
``memorization`` [train], and ``train_id``, ``test_id`` and ``influence`` of every planted pair; all other
influences are 0. A run prints its figures.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.format import subsets
from memdb.format.documents import own_version
from memdb.format.segment import ModelInfo
from memdb.storage import open_storage
from memdb.store import Store
from memdb.store.maintenance.compact import compact

STORE_SEED = 7
FRACTION = 0.7
LEVELS = 1 << 16  # chances are multiples of 1 / LEVELS
SPREAD = 2.0  # of logit confidences: how much wider than a logistic distribution
BATCH_BYTES = 96 << 20  # of outcomes in memory at once, in each process
# memorization of the 50,000 training examples of CIFAR-100 in 18 bins of [0, 1] (Feldman and Zhang 2020)
MEMORIZATION = [24370, 3116, 2131, 1621, 1433, 1279, 1118, 1079, 974, 924, 912, 933, 930, 961, 1013, 1198, 1470, 4538]  # fmt: skip

Bools = NDArray[np.bool_]
Chances = NDArray[np.int32]  # in units of 1 / LEVELS
Batch = tuple[list[ModelInfo], Bools, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Size:
    """How large a store is, and whether it keeps confidences."""

    n_models: int
    n_train: int
    n_test: int
    n_classes: int = 100
    confidences: bool = False

    @property
    def batch(self) -> int:
        """Models a segment: as many as memory allows, in whole bytes of bits."""
        model_bytes = (self.n_train + self.n_test) * (4 if self.confidences else 1)
        return max(1, min(256, BATCH_BYTES // model_bytes // 8 * 8))


@dataclass(frozen=True)
class Truth:
    """The chances of being right, and the pairs whose training example changes them."""

    train_in: Chances  # [train]: of a model that has the example in its subset
    train_out: Chances  # [train]
    test: Chances  # [test]: of a model that has none of the example's influences in its subset
    train_id: NDArray[np.int32]  # [planted]
    test_id: NDArray[np.int32]  # [planted]
    effect: Chances  # [planted]: added to `test`

    def save(self, path: Path) -> None:
        """Write the scores that estimates are of."""
        np.savez(
            path,
            memorization=(self.train_in - self.train_out) / LEVELS,
            train_id=self.train_id,
            test_id=self.test_id,
            influence=self.effect / LEVELS,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="a folder that does not exist")
    parser.add_argument("--models", type=int, default=4000)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--confidences", action="store_true", help="keep logit confidences as well")
    parser.add_argument("--seed", type=int, default=0, help="of everything but the masks")
    parser.add_argument("--truth", type=Path, help="write the true scores to this .npz")
    parser.add_argument("--loose", action="store_true", help="leave it as segments")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    size = Size(options.models, options.train, options.test, options.classes, options.confidences)
    started = time.perf_counter()
    truth = write(options.store, size, options.seed, options.processes)
    print(f"{size.n_models:,} models written in {time.perf_counter() - started:.1f} seconds", flush=True)
    if options.truth:
        truth.save(options.truth)
    store = Store.open(open_storage(options.store))
    if not options.loose:
        started = time.perf_counter()
        compact(store)
        print(f"compacted in {time.perf_counter() - started:.1f} seconds", flush=True)
        for segment in store.snapshot().compacted:  # they have no readers: this store is new
            store.storage.remove([item.path for item in store.storage.find(f"segments/{segment}")])
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"peak memory {own * unit / 2**20:,.0f} MiB, and {workers * unit / 2**20:,.0f} MiB a process")
    return 0


def write(url: str, size: Size, seed: int, processes: int) -> Truth:
    """Create a store and fill it from several processes; return its true scores."""
    labels = labels_of(size, seed)
    outcomes = ["correct", "logit_confidence"] if size.confidences else ["correct"]
    new_store(url, *labels, outcomes, [f"class {label}" for label in range(size.n_classes)])
    starts = range(0, size.n_models, size.batch)
    with ProcessPoolExecutor(min(processes, len(starts)), get_context("spawn")) as pool:
        jobs = [pool.submit(commit_batch, url, size, seed, start) for start in starts]
        for done, job in enumerate(as_completed(jobs), 1):
            job.result()
            print(f"\r{done} of {len(jobs)} segments", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return draw_truth(size, *labels, seed)


def new_store(
    url: str,
    train_labels: NDArray[np.integer[Any]],
    test_labels: NDArray[np.integer[Any]],
    outcomes: list[str],
    class_names: list[str] | None = None,
    seed: int = STORE_SEED,
) -> Store:
    """Create a store whose examples are their row numbers and whose recipe cannot train."""
    import memdb  # only the parent needs all of it

    def recipe(*_: object) -> dict[str, Any]:
        raise NotImplementedError

    train, test = (np.arange(len(labels))[:, None] for labels in (train_labels, test_labels))
    data = memdb.Dataset(train, train_labels, test, test_labels, class_names)
    return memdb.init(
        url, data, recipe, recipe_version="0", outcomes=outcomes, seed=seed, subset_fraction=FRACTION
    ).store


def labels_of(size: Size, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the labels of both sets: classes of equal size, in random order."""
    random = np.random.default_rng([seed, 1])
    train, test = (
        random.permutation(np.arange(n) % size.n_classes).astype(np.int32)
        for n in (size.n_train, size.n_test)
    )
    return train, test


def draw_truth(
    size: Size, train_labels: NDArray[np.int32], test_labels: NDArray[np.int32], seed: int
) -> Truth:
    """Draw the chances of every example, and plant influences."""
    random = np.random.default_rng([seed, 2])
    weights = np.asarray(MEMORIZATION) / sum(MEMORIZATION)
    bins = random.choice(len(weights), size.n_train, p=weights)
    # in the first bin most are 0 or nearly so: the cube of a uniform draw
    within = np.where(bins == 0, random.random(size.n_train) ** 3, random.random(size.n_train))
    train_in = 1 - 0.02 * random.random(size.n_train) ** 4
    train_out = np.maximum(0, train_in - (bins + within) / len(weights))
    test = random.beta(1.2, 0.35, size.n_test)
    train_id, test_id, effect = _planted(random, train_in - train_out, train_labels, test_labels)
    gained = np.bincount(test_id, effect, size.n_test)
    test = np.where(gained > 0, np.maximum(0, np.maximum(test, 0.9) - gained), test)
    return Truth(_chances(train_in), _chances(train_out), _chances(test), train_id, test_id, _chances(effect))


def _planted(
    random: np.random.Generator,
    memorization: NDArray[np.float64],
    train_labels: NDArray[np.int32],
    test_labels: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Give every tenth test example or so one influence, and some of them two, of memorized examples."""
    pairs: list[tuple[int, int, float]] = []
    n_classes = int(max(train_labels.max(), test_labels.max())) + 1
    for label in range(n_classes):
        causes = np.flatnonzero((train_labels == label) & (memorization >= 0.25))
        targets = np.flatnonzero(test_labels == label)
        for target in targets[random.random(len(targets)) < 0.1]:
            chosen = random.permutation(causes)[: 1 + (random.random() < 0.15)]
            pairs += [(cause, target, min(0.6, 0.05 + random.exponential(0.12))) for cause in chosen]
    planted = np.array(sorted(pairs, key=lambda pair: (pair[1], pair[0])), dtype=np.float64).reshape(-1, 3)
    return planted[:, 0].astype(np.int32), planted[:, 1].astype(np.int32), planted[:, 2]


def _chances(values: NDArray[np.float64]) -> Chances:
    return np.rint(values * LEVELS).astype(np.int32)


def commit_batch(url: str, size: Size, seed: int, start: int) -> None:
    """Commit one segment of models, from a process of its own."""
    truth = draw_truth(size, *labels_of(size, seed), seed)
    store = Store.open(open_storage(url))
    store.commit(*batch(store, size, truth, seed, range(start, min(size.n_models, start + size.batch))))


def batch(store: Store, size: Size, truth: Truth, seed: int, model_seeds: range) -> Batch:
    """Return models, their masks and their outcomes, one model after the other."""
    shape = (len(model_seeds), size.n_train)
    masks, train = np.empty(shape, dtype=np.bool_), np.empty(shape, dtype=np.bool_)
    test = np.empty((len(model_seeds), size.n_test), dtype=np.bool_)
    soft = {
        f"{name}/logit_confidence": np.empty(values.shape, dtype=np.float16)
        for name, values in {"train": train, "test": test}.items()
        if size.confidences
    }
    n_in = subsets.subset_size(size.n_train, FRACTION)
    for row, model_seed in enumerate(model_seeds):
        mask = subsets.subset_mask(store.manifest.seed, model_seed, size.n_train, n_in)
        masks[row] = mask
        on_test = truth.test.copy()
        np.add.at(on_test, truth.test_id, truth.effect * mask[truth.train_id])
        chances = np.concatenate([np.where(mask, truth.train_in, truth.train_out), on_test])
        raw = np.random.SFC64([seed, 3, model_seed]).random_raw(-(-len(chances) // 4))
        draws = raw.view(np.uint16)[: len(chances)]
        correct = draws < chances
        train[row], test[row] = correct[: size.n_train], correct[size.n_train :]
        if size.confidences:
            confidences = logit_confidences(chances, draws)
            soft["train/logit_confidence"][row] = confidences[: size.n_train]
            soft["test/logit_confidence"][row] = confidences[size.n_train :]
    models = [
        model_info(store, model_seed, masks[row], train[row], test[row])
        for row, model_seed in enumerate(model_seeds)
    ]
    return models, masks, {"train/correct": train, "test/correct": test, **soft}


def logit_confidences(chances: Chances, draws: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return confidences above 0 where the draw is below the chance: where the model is right."""
    chosen = np.where(draws < chances, np.clip(chances, 1, LEVELS), np.clip(chances, 0, LEVELS - 1))
    values = SPREAD * (_LOGITS[2 * chosen] - _LOGITS[2 * draws.astype(np.int32) + 1])
    clipped: NDArray[np.float32] = np.clip(values, -30, 30)
    return clipped


def _logits() -> NDArray[np.float32]:
    """Return log(p / (1 - p)) of the multiples of half a level, the ends drawn in."""
    p = np.clip(np.arange(2 * LEVELS + 1) / (2 * LEVELS), 0.1 / LEVELS, 1 - 0.1 / LEVELS)
    return np.log(p / (1 - p)).astype(np.float32)


_LOGITS = _logits()


def model_info(store: Store, seed: int, mask: Bools, train: Bools, test: Bools) -> ModelInfo:
    """Describe a model that was never trained."""
    return ModelInfo(
        model_id=subsets.model_id(store.manifest.seed, seed),
        seed=seed,
        subset_size=int(mask.sum()),
        seconds=1.0,
        trained_at="2026-01-01T00:00:00+00:00",
        train_accuracy=float(train[mask].mean()),
        out_accuracy=float(train[~mask].mean()),
        test_accuracy=float(test.mean()),
        diverged=False,
        device="cpu",
        host=platform.node(),
        versions={"memdb": own_version()},
    )


if __name__ == "__main__":
    sys.exit(main())
