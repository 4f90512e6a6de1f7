"""What workers give, and what their deaths cost: local processes and Ray tasks, against one of them.

rate   Models a second of digits by the ``mlp`` recipe, once a third is committed: by then all processes have
       started and imported PyTorch, each in its own time. One worker has all cores (``1``; of Ray's only with
       ``--all-cores``: its threads wait for each other, on a busy machine ten times longer than they work)
       or one (``1 core``); two have half of them each. They take turns, ``--rounds`` times; the ratio is that of the
       medians. ``CPU`` is what the workers' processes took of it, in seconds a model.
kills  Two workers, one of which, drawn at random, is killed every ``--every`` seconds, unless nothing was
       committed since: models asked for, models found, models committed twice.

    python scripts/figures_engines.py
    python scripts/figures_engines.py --only kills --engine local --models 400 --every 3

Ray is started once: that takes seconds, and so do its workers' first tasks. Expect three minutes on two quiet
cores, and a line as soon as a number is there. Target: as many models found as asked for, none doubled.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import memdb
from memdb import TrainingStatus

WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "local": {"1": {"workers": 1}, "2": {"workers": 2}},
    "ray": {
        "1 core": {"ray": "local", "workers": 1},
        "1": {"ray": "local", "workers": 1, "task_cpus": os.cpu_count()},
        "2": {"ray": "local", "workers": 2, "task_cpus": max(1, (os.cpu_count() or 2) // 2)},
    },
}
TRAINING = ("spawn_main", "ray::_train")  # how worker processes are called, and those between two tasks
WAITING = ("ray::IDLE", "ray::_measure")
FIELDS = ("n_models", "n_repeats")


@dataclass(frozen=True)
class Rate:
    """How fast models came, and what each took of the processor, in seconds."""

    models_a_second: float
    cpu_a_model: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("rate", "kills"))
    parser.add_argument("--engine", choices=tuple(WAYS), help="both by default")
    parser.add_argument("--models", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16, help="models of a batch")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all-cores", action="store_true", help="one Ray worker with all cores, too")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two kills")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; digits, batches of {options.batch} models")
    engines = [options.engine] if options.engine else list(WAYS)
    right = True
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            with started(engine):
                if options.only != "kills":
                    show_rates(engine, Path(folder), options)
                if options.only != "rate":
                    right &= show_kills(engine, Path(folder), options)
    return 0 if right else 1


@contextlib.contextmanager
def started(engine: str) -> Iterator[None]:
    """Start Ray for all its measurements, with as many cores as there are."""
    if engine != "ray":
        yield
        return
    import ray

    began = time.perf_counter()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    ray.init(address="local", num_cpus=max(2, os.cpu_count() or 2), **quiet)
    print(f"Ray {ray.__version__} started in {time.perf_counter() - began:.1f} s", flush=True)
    try:
        yield
    finally:
        ray.shutdown()  # type: ignore[no-untyped-call, unused-ignore] # it has types where it is installed


def show_rates(engine: str, folder: Path, options: argparse.Namespace) -> None:
    ways = {
        name: way for name, way in WAYS[engine].items() if options.all_cores or (engine, name) != ("ray", "1")
    }
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    if engine == "ray":
        rate(folder / "warm-up.zarr", options, ways["2"])  # its processes go on to serve the others
    for number in range(options.rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            found = rate(folder / f"{engine}-{name}-{number}.zarr", options, way)
            rates[name].append(found)
            print(
                f"{engine}, round {number + 1}, workers {name}: {found.models_a_second:.2f} models/s, "
                f"{found.cpu_a_model:.3f} s of CPU a model; all in all {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    speeds = {name: [each.models_a_second for each in found] for name, found in rates.items()}
    medians = {name: statistics.median(speed) for name, speed in speeds.items()}
    costs = {name: statistics.median(each.cpu_a_model for each in part) for name, part in rates.items()}
    for name, speed in speeds.items():
        spread = f"{min(speed):.2f} to {max(speed):.2f}"
        print(f"{engine}, workers {name}: {medians[name]:.2f} models/s ({spread})")
    two, two_cost = medians.pop("2"), costs["2"]
    for name, one in medians.items():
        print(
            f"{engine}: 2 workers against {name}: {two / one:.2f} times the rate, "
            f"{two_cost / costs[name]:.2f} times the CPU a model"
        )


def rate(url: Path, options: argparse.Namespace, way: dict[str, Any]) -> Rate:
    """Return how fast models come once a third of them is committed."""
    seen: list[tuple[float, int, float]] = []

    def progress(status: TrainingStatus) -> None:
        if 3 * status.n_committed >= options.models and (not seen or status.n_committed > seen[-1][1]):
            seen.append((time.perf_counter(), status.n_committed, cpu_seconds()))

    with memdb.init(str(url), recipe_options={"epochs": options.epochs}) as db:
        db.train(options.models, batch_models=options.batch, device="cpu", progress=progress, **way)
    (first, n_first, cpu_first), (last, n_last, cpu_last) = seen[0], seen[-1]
    n_models = n_last - n_first
    return Rate(n_models / (last - first), (cpu_last - cpu_first) / n_models)


def cpu_seconds() -> float:
    """Return what the workers took of the processor so far."""
    total = 0.0
    for process in workers(TRAINING + WAITING):
        with contextlib.suppress(psutil.Error):  # it ended meanwhile
            times = process.cpu_times()
            total += times.user + times.system
    return total


def show_kills(engine: str, folder: Path, options: argparse.Namespace) -> bool:
    over = threading.Event()
    killed: list[int] = []
    news = threading.Event()

    def progress(status: TrainingStatus) -> None:
        if status.n_committed and not status.n_in_flight and not status.remark:
            news.set()

    def kill() -> None:
        chance = random.Random(0)  # noqa: S311 - any victim will do
        while not over.wait(options.every):
            victims = workers()
            if victims and news.is_set():
                news.clear()
                victim = chance.choice(victims)
                victim.kill()
                killed.append(victim.pid)

    started = time.perf_counter()
    with memdb.init(str(folder / f"{engine}-kills.zarr"), recipe_options={"epochs": options.epochs}) as db:
        killer = threading.Thread(target=kill)
        killer.start()
        try:
            way = WAYS[engine]["2"]
            db.train(options.models, batch_models=options.batch, device="cpu", progress=progress, **way)
        finally:
            over.set()
            killer.join()
        n_models, n_repeats = db.info().project(", ".join(FIELDS)).fetchall()[0]
    seconds = time.perf_counter() - started
    print(
        f"{engine}, a worker killed every {options.every:g} s: {len(killed)} killed in {seconds:.0f} s, models "
        f"asked {options.models}, found {n_models}, doubled {n_repeats}"
    )
    return bool(n_models == options.models and n_repeats == 0)


def workers(names: tuple[str, ...] = TRAINING) -> list[psutil.Process]:
    """Return the processes that train for this one, or are called otherwise."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:  # it ended meanwhile
            continue
        if any(name in command for name in names):
            found.append(process)
    return found


if __name__ == "__main__":
    sys.exit(main())
