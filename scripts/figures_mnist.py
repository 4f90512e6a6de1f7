"""What MNIST by Feldman and Zhang's recipe takes: time, memory, disk; and how accurate its models are.

Runs the installed ``memdb`` command in a temporary folder: init, train, info, top-memorized. The preset for
MNIST is theirs: 512 and 256 hidden units, SGD with momentum 0.9 and learning rate 0.1, 10 epochs, batches of
128, subsets of 0.7.

    python scripts/figures_mnist.py --data-root DIR
    python scripts/figures_mnist.py --data-root DIR --models 2

DIR is what torchvision.datasets.MNIST(DIR) reads. Expect 10 to 15 seconds a model on two quiet cores, half a
minute for the rest, and a mean test accuracy of at least 97.5 %, the target.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from memdb.format import bits
from memdb.storage import open_storage
from memdb.store import Store

MEMDB = str(Path(sys.executable).with_name("memdb"))
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
TARGET = 0.975
STORING_TARGET = 0.02


@dataclass(frozen=True)
class Done:
    """A command that ran to its end."""

    output: str
    seconds: float
    peak_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="the folder that holds MNIST")
    parser.add_argument("--models", type=int, default=20)
    options = parser.parse_args()
    root = str(options.data_root.resolve())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("  seconds   peak memory  command")
        memdb(folder, "init", "--dataset", "mnist", "--data-root", root)
        training = memdb(folder, "train", "--add", str(options.models), "--data-root", root)
        info = memdb(folder, "info", "--format", "json")
        top = memdb(folder, "top-memorized", "-k", "10")
        store = folder / "memdb.zarr"
        n_bytes, segment_bytes = size(store), size(store / "segments")
        memdb(folder, "init", "--dataset", "mnist", "--data-root", root, "--store", "again.zarr")
        storing = seconds_to_store(store, folder / "again.zarr") / training.seconds

    facts = json.loads(info.output)["rows"][0]
    print(f"\n{top.output}")
    print(f"models           {facts['n_models']:,} in {facts['n_segments']:,} segments")
    print(f"seconds a model  {training.seconds / options.models:.2f}, start of the command included")
    print(f"store            {n_bytes:,} bytes, {segment_bytes / options.models:,.0f} a model")
    print(f"accuracy         {facts['train_accuracy']:.4f} in, {facts['out_accuracy']:.4f} held out")
    accuracy = facts["test_accuracy"]
    met = [accuracy >= TARGET, storing <= STORING_TARGET]
    words = ["met" if is_met else "MISSED" for is_met in met]
    print(f"target test accuracy at least {TARGET:.1%}, is {accuracy:.2%}: {words[0]}")
    print(f"target storing at most {STORING_TARGET:.0%} of the training, is {storing:.2%}: {words[1]}")
    return 0 if all(met) else 1


def seconds_to_store(trained: Path, empty: Path) -> float:
    """Return the seconds it takes to commit a store's segments again, to another one."""
    source, target = (Store.open(open_storage(str(path))) for path in (trained, empty))
    snapshot = source.snapshot()
    masks = bits.unpack(snapshot.mask(), snapshot.n_models)
    outcomes = {
        path: bits.unpack(snapshot.outcome_bits(path), snapshot.n_models)
        if outcome.kind == "bit"
        else snapshot.outcome_values(path).T
        for path, (outcome, _) in source.manifest.arrays().items()
    }
    seconds, start = 0.0, 0
    for segment in snapshot.segments:
        rows = slice(start, start := start + len(segment.models))
        batch = {path: values[rows] for path, values in outcomes.items()}
        began = time.perf_counter()
        target.commit(segment.models, masks[rows], batch)
        seconds += time.perf_counter() - began
    return seconds


def memdb(folder: Path, *arguments: str) -> Done:
    """Run a command in a folder, print its time and peak memory, and return what it said."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([MEMDB, *arguments], cwd=folder, stdout=output)
        _, status, usage = os.wait4(
            process.pid, 0
        )  # the only call that tells one child's memory from another's
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        done = Done(output.read(), time.perf_counter() - started, usage.ru_maxrss * RSS_UNIT)
    print(f"{done.seconds:9.1f} {done.peak_bytes / 2**20:9,.0f} MiB  memdb {' '.join(arguments)}", flush=True)
    if process.returncode:
        sys.exit(f"memdb {arguments[0]} failed with exit code {process.returncode}")
    return done


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
