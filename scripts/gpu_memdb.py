"""What the steps of `gpu_run.py` share, and the one place where they reach into the package.

When a module of memdb moves, the imports below are all that has to follow.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memdb import Run, datasets, recipes
from memdb.format import bits
from memdb.query.pairs.kernel_torch import kernel_on
from memdb.query.pairs.search import PairSearch
from memdb.query.pairs.types import PairBits, PairChoice

__all__ = ["PairBits", "PairChoice", "PairSearch", "bits", "datasets", "kernel_on", "recipe_of"]

SUBSET_FRACTION = 0.7
DEVICE = "cuda:0" if torch.cuda.is_available() else "cpu"
failed: list[str] = []  # attempts of this step


@dataclass(frozen=True)
class Call:
    """The arguments of one run: where things are, how large they may be, and the recipe of the store."""

    home: Path
    out: Path
    tiny: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    models_per_batch: int = 8
    version: str = "1"  # of resnet9
    workers: int = 3  # that share the GPU, while models go into the store

    @property
    def data(self) -> Path:
        """The folder of the data sets."""
        return self.home / "data"


def recipe_of(name: str, *, version: str | None = None, dataset: str | None = None, **options: Any) -> Any:
    """Return a recipe by its name and version, with the data set's preset."""
    return recipes.resolve(name, options, version, dataset).train


def memdb(call: Call, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command, with its options; it prints where the step does."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value]
    return subprocess.Popen([sys.executable, "-m", "memdb", *words, *given], cwd=call.home)


def finished(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command.

    Raises:
        RuntimeError: it failed.
    """
    if process.wait():
        raise RuntimeError(f"exit code {process.returncode}")


def subsets_of(n_models: int, n_train: int) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """Return masks [models, train] of equal sizes, and seeds."""
    masks = np.zeros((n_models, n_train), dtype=np.bool_)
    for row, mask in enumerate(masks):
        mask[np.random.default_rng(row).permutation(n_train)[: int(SUBSET_FRACTION * n_train)]] = True
    return masks, np.arange(n_models, dtype=np.uint64)


def run_on(
    device: str,
    call: Call,
    outcomes: frozenset[str] = frozenset(),
    watch: Callable[[int, int], None] = lambda _done, _total: None,
) -> Run:
    """Return the `Run` that a recipe gets."""
    return Run(device, watch, lambda: False, call.home / "checkpoints", outcomes)


@contextmanager
def attempt(name: str) -> Iterator[None]:
    """Say what failed and run on: the minutes of a borrowed machine are for all that still works."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may work
        failed.append(name)
        print(f"  FAILED {name}: {type(error).__name__}: {str(error)[:400]}", flush=True)


def wait() -> None:
    """Wait until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(call: Callable[[], object], times: int = 5) -> float:
    """Return the median seconds of a call, after one to warm up."""
    call()
    took = []
    for _ in range(times):
        wait()
        started = time.perf_counter()
        call()
        wait()
        took.append(time.perf_counter() - started)
    return sorted(took)[len(took) // 2]


def peak_memory() -> float:
    """Return the most GiB that were used on the device since `fresh`."""
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")


def fresh() -> None:
    """Give back what PyTorch keeps of the device's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
