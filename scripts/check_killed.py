"""Is the curve of a removal experiment that is killed at random the curve of one that is not?

.venv/bin/python scripts/check_killed.py [--kills 10] [--models 200] [--repetitions 6] [--seed 0] [--folder DIR]

Trains digits, runs `memdb experiment removal` to its end, and again from the same seed, killed (SIGKILL, workers
included) after random times, as often as asked for. Between kills it says how many models are there; a kill before
the first commit counts, too. Exits with 1 unless both experiments have the same rows, sentences and models.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import memdb

MEMDB = str(Path(sys.executable).with_name("memdb"))
SAME = ("rows", "in_words", "n_models", "models_sha256", "lost")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--models", type=int, default=200, help="of the store that chooses")
    parser.add_argument("--repetitions", type=int, default=6)
    parser.add_argument("--start", type=float, default=2.0, help="seconds that a command is left at least")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "chooses.zarr"
    if not store.exists():
        memdb.init(str(store), seed=1).train(seeds=range(given.models))
    started = time.perf_counter()
    whole = _run(folder, "whole", given.repetitions)
    _, error = whole.communicate()
    if whole.returncode:
        sys.exit(error.decode())
    took = time.perf_counter() - started
    rng = np.random.default_rng(given.seed)
    n_kills = 0
    while n_kills < given.kills:
        process = _run(folder, "killed", given.repetitions)
        try:
            process.wait(2 * took * rng.random() / given.kills + given.start)
            sys.exit(f"it ended after {n_kills} kills: ask for more --repetitions, or a smaller --start")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            n_kills += 1
        process.communicate()
        print(f"{n_kills:3} killed, {_n_models(folder)} models are there", flush=True)
    last = _run(folder, "killed", given.repetitions)
    last.communicate()
    answers = [json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "killed")]
    odd = [name for name in SAME if answers[0].get(name) != answers[1].get(name)]
    print(
        f"{answers[0]['n_models']} models, {took:.0f} s at a stretch: {', '.join(odd) or 'nothing'} differs"
    )
    return 1 if odd else 0


def _run(folder: Path, name: str, repetitions: int) -> subprocess.Popen[bytes]:
    """Start an experiment, or go on with one, in a session of its own."""
    options = ["--models", repetitions, "--seed", 3, "--batch-models", 2]
    command = [MEMDB, "experiment", "removal", "--into", f"{name}.zarr", "-o", f"{name}.json", *options]
    return subprocess.Popen(
        [*map(str, command), "--store", "chooses.zarr"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def _n_models(folder: Path) -> int:
    try:
        with memdb.open(str(folder / "killed.zarr")) as db:
            return db.n_models
    except memdb.MemdbError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
