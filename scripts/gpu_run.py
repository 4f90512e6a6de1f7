"""What memdb does on a GPU, in steps that have a time limit each and do not stop one another.

    python scripts/gpu_run.py first 330   # facts, recipes against the CPU, pairs, convolutions, MNIST, kernels
    python scripts/gpu_run.py last 380    # CIFAR-100: seconds a model, accuracy, then models in a store
    python scripts/gpu_run.py first 900 --tiny    # everything once at a size for a CPU: does it run?

With `--tiny` a step may take as long as the call, since a CPU may have other work.
Results are printed as they come. The data lie under HOME/data, where `gpu_run.sh` puts what `gpu_prepare.sh`
gathered. Exit code 1 where something failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

CALLS = {  # the steps of each call, and the most seconds that each may take
    "first": {
        "facts": 40, "recipes": 100, "sieve": 60, "convolutions": 70, "mnist": 120, "command": 90, "kernels": 75,
    },
    "last": {"unpack": 90, "cifar": 120, "train": 10_000},
}  # fmt: skip
TRAINING = ("mnist", "command", "kernels", *CALLS["last"])
LEAST = 15.0  # seconds that a step is begun for
SPARE = 5.0  # for the output to come back


def drive(arguments: argparse.Namespace) -> bool:
    """Run the steps of a call one after the other; return whether all succeeded."""
    until = time.monotonic() + arguments.seconds
    well = True
    for name, most in CALLS[arguments.what].items():
        left = until - time.monotonic() - SPARE
        limit = left if arguments.tiny else min(most, left)
        if limit < LEAST:
            print(f"== {name}: no time left", flush=True)
            continue
        print(f"== {name} (at most {limit:.0f} s)", flush=True)
        started = time.monotonic()
        outcome = ended([sys.executable, __file__, name, str(limit), *sys.argv[3:]], limit)
        well &= outcome == "done"
        print(f"== {name}: {outcome} after {time.monotonic() - started:.1f} s", flush=True)
    return well


def ended(command: list[str], limit: float) -> str:
    """Run a step and say how it ended. What it started ends with it, or the next one would share the GPU."""
    step = subprocess.Popen(command, start_new_session=True)
    try:
        return "FAILED" if step.wait(limit) else "done"
    except subprocess.TimeoutExpired:
        return "out of time"
    finally:
        if step.returncode is None:
            os.killpg(step.pid, signal.SIGKILL)
            step.wait()


def main() -> None:
    steps = [step for call in CALLS.values() for step in call]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*CALLS, *steps], help="a call, or one of its steps")
    parser.add_argument("seconds", type=float, help="at most")
    parser.add_argument("--home", type=Path, default=Path("gpu-run"), help="data, and what is in the making")
    parser.add_argument("--out", type=Path, default=Path("gpu-run/out"), help="what is to come back")
    parser.add_argument("--tiny", action="store_true", help="everything once, at a size for a CPU")
    parser.add_argument("--options", type=json.loads, default={}, help="of resnet9, as JSON")
    parser.add_argument("--version", choices=("1", "2"), default="1", help="of resnet9, for the store")
    parser.add_argument("--workers", type=int, default=3, help="that train for the store on one GPU")
    parser.add_argument("--batch-models", type=int, default=0, help="models that go into the store together")
    arguments = parser.parse_args()
    if arguments.what in CALLS:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the step ends, too
        sys.exit(0 if drive(arguments) else 1)
    from gpu_memdb import Call, failed  # PyTorch: seconds, which the driver would wait for, too

    options = arguments.options
    if arguments.tiny and not options:
        options = {"width": 4, "epochs": 1, "batch_size": 16}
    batch = arguments.batch_models or (2 if arguments.tiny else 8)
    home, out, workers = arguments.home.resolve(), arguments.out.resolve(), arguments.workers
    call = Call(
        home, out, arguments.tiny, options, batch, arguments.version, 0 if arguments.tiny else workers
    )
    for folder in (call.data, call.out):
        folder.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module("gpu_training" if arguments.what in TRAINING else "gpu_checks")
    getattr(module, arguments.what)(call, arguments.seconds)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
