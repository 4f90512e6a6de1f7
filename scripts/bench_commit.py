"""What does the commit of a large batch cost, alone and beside training, here and in another checkout?

    python scripts/bench_commit.py
    python scripts/bench_commit.py --against ../before
    python scripts/bench_commit.py --models 250 --train 50000 --rounds 5

Random outcomes of 1,000 models on MNIST's 60,000 and 10,000 examples are committed as ``memdb train`` does, to a store
in a temporary folder, by a process of each checkout in turn; the medians are printed.

user, system    CPU seconds of the process during a commit while nothing else is done
grown           memory at its peak, beyond what the recipe returned and the masks
alone, beside   seconds of a commit while the loop waits for it, and while it launches small operations as a training
                on a GPU does, which hold Python's lock
training        how many of these operations are launched meanwhile, beside those without a commit

The bytes that both checkouts store must be the same. Target beside a checkout that keeps confidences as the recipe
returned them until they are stored: at most .55 times the memory, and no more CPU seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.machinery
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

ROOT = Path(__file__).parents[1]
SHOWN = ("user", "system", "grown", "alone", "beside", "training")
UNITS = {"grown": "MB", "training": "%"}
OPERATIONS = 100  # between two looks at the clock
MEMORY = 0.55
SECONDS = 1.0  # of operations without a commit


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout to compare with")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--train", type=int, default=60_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.of is not None:
        print(json.dumps(measured(options)))
        return 0
    checkouts = [ROOT] if options.against is None else [options.against.resolve(), ROOT]
    print(f"load {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} cores; medians of {options.rounds}")
    rounds = [[in_process(checkout) for checkout in checkouts] for _ in range(options.rounds)]
    medians = [
        {name: statistics.median(some[name] for some in ours) for name in SHOWN}
        for ours in zip(*rounds, strict=True)
    ]
    for checkout, found in zip(checkouts, medians, strict=True):
        shown = ", ".join(f"{name} {found[name]:.2f} {UNITS.get(name, 's')}" for name in SHOWN)
        print(f"{shown}  {checkout}")
    if options.against is None:
        return 0
    same = len({found["stored"] for some in rounds for found in some}) == 1
    cpu, memory = (
        sum(medians[1][name] for name in names) / sum(medians[0][name] for name in names)
        for names in (("user", "system"), ("grown",))
    )
    print(f"stored bytes {'are the same' if same else 'DIFFER'}; {cpu:.2f} times the CPU seconds, {memory:.2f} times the memory")  # fmt: skip
    return 0 if same and cpu <= 1 and memory <= MEMORY else 1


def in_process(checkout: Path) -> dict[str, Any]:
    """Measure a checkout in a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--of", str(checkout)]
    done = subprocess.run(
        words, check=True, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Checkout:
    """Finds ``memdb`` in a checkout, whichever is installed."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Any:
        """Find the package, and its schemas, which installing puts into it and a checkout has beside it."""
        if name in {"memdb", "memdb.schemas"}:
            return importlib.machinery.PathFinder.find_spec(name.rpartition(".")[2], [self._root])
        return None


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Train twice on what is returned at once: a batch alone, and one beside which another is trained."""
    sys.meta_path.insert(0, Checkout(options.of))
    import memdb
    from memdb.training import loop

    sizes = {"train": options.train, "test": options.test}
    recipe = Returning(options.models, sizes)
    ours = loop._Trainer.commit  # noqa: SLF001 - to be measured
    loop._Trainer.commit = lambda *arguments: recipe.watch(lambda: ours(*arguments))  # type: ignore[method-assign] # noqa: SLF001
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            made = memdb.init(f"{folder}/{number}.zarr", data_of(sizes), recipe, seed=1)
            made.train(seeds=range(options.models * (number + 1)), batch_models=options.models, compact=False)
            recipe.is_alone = False
        stored = hashlib.sha256()
        for path in sorted(Path(folder, "0.zarr", "segments").rglob("c.*")):
            stored.update(path.name.encode() + path.read_bytes())
    alone, beside, _last = recipe.commits
    return {
        **alone,
        "beside": beside["alone"],
        "training": 100 * recipe.launched_beside / recipe.launched(lambda: False),
        "stored": stored.hexdigest(),
    }


class Returning:
    """A recipe that returns the same random outcomes at once; its second batch waits for the first one's commit."""

    name, version = "returning", "1"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, n_models: int, sizes: dict[str, int]) -> None:
        rng = np.random.default_rng(0)
        self._n_models = n_models
        self._outcomes: dict[str, Any] = {}
        for name, n in sizes.items():
            confidences = rng.standard_normal((n_models, n), dtype=np.float32)
            confidences *= 4
            confidences += 6
            self._outcomes |= {f"{name}/logit_confidence": confidences, f"{name}/correct": confidences > 0}
        self.is_alone, self._n_calls, self._made = True, 0, threading.Event()
        self.commits: list[dict[str, float]] = []
        self.launched_beside = 0.0

    def models_per_batch(self, _data: Any, _device: str) -> int:
        """Return that of all models."""
        return self._n_models

    def __call__(self, _data: Any, _masks: Any, _seeds: Any, _run: Any) -> dict[str, Any]:
        """Return the outcomes; beside a commit, launch operations until it is made."""
        if not self.is_alone:
            self._n_calls += 1
            if self._n_calls == 2:
                self.launched_beside = self.launched(self._made.is_set)
        return self._outcomes

    def launched(self, is_over: Callable[[], bool]) -> float:
        """Launch small operations until it is over, or for a second at most; return how many a second."""
        import torch

        one, n, began = torch.zeros(8), 0, time.perf_counter()
        until = began + (SECONDS if self.commits[2:] else 60)
        while not is_over() and time.perf_counter() < until:
            for _ in range(OPERATIONS):
                one.add_(1)
            n += OPERATIONS
        return n / (time.perf_counter() - began)

    def watch(self, commit: Callable[[], Any]) -> Any:
        """Commit, and note what it took."""
        held, used, began = memory_held(), resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        try:
            return commit()
        finally:
            after = resource.getrusage(resource.RUSAGE_SELF)
            self.commits.append(
                {
                    "alone": time.perf_counter() - began,
                    "user": after.ru_utime - used.ru_utime,
                    "system": after.ru_stime - used.ru_stime,
                    "grown": after.ru_maxrss * 1024 / 1e6 - held,
                }
            )
            if not self.is_alone:
                self._made.set()


def memory_held() -> float:
    """Return the memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def data_of(sizes: dict[str, int]) -> Any:
    """Return small pictures of ten classes."""
    import memdb

    sets: list[Any] = []
    for n in sizes.values():
        sets += [np.arange(n * 16, dtype=np.uint32).view(np.uint8).reshape(n, 8, 8), np.arange(n) % 10]
    return memdb.Dataset(*sets)


if __name__ == "__main__":
    sys.exit(main())
