r"""CIFAR-100 with resnet9, from the images to the answers: a slice on a CPU, all of it on a GPU.

Takes a folder with ``train/CLASS/*.png`` and ``test/CLASS/*.png``, copies the slice, then runs ``memdb init``,
``train``, ``info`` and ``top-memorized`` as a user would, and prints how long a model takes and how good it is.

    python scripts/figures_cifar.py --data-root ~/cifar100
    python scripts/figures_cifar.py --data-root ~/cifar100 --classes 100 --images 50000 --models 200 \
        --device cuda -- -p width=64 -p epochs=16

What follows ``--`` goes to ``memdb init``. The slice is 10 classes and 2,000 images by default, and the network
narrower and trained in smaller steps (OPTIONS): some minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memdb

MEMDB = Path(sys.executable).with_name("memdb")
OPTIONS = ("width=16", "epochs=10", "batch_size=128", "lr=0.2")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=2000, help="training images in all")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--store", help="where the store is to be kept; a temporary place if not given")
    parser.add_argument("init", nargs="*", help="arguments of `memdb init`")
    options = parser.parse_args()
    given = options.init or [word for option in OPTIONS for word in ("-p", option)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "slice"
        copy_slice(options.data_root, root, options.classes, options.images)
        store = options.store or f"{folder}/cifar.zarr"
        place = ("--store", store)
        outcomes = "correct,logit_confidence,cumulative_loss,first_learned"
        run("init", *place, "--dataset", "imagefolder", "--data-root", root, "-r", "resnet9",
            "--outcomes", outcomes, *given)  # fmt: skip
        started = time.perf_counter()
        run("train", *place, "--add", options.models, "--data-root", root, "--device", options.device)
        took = time.perf_counter() - started
        run("info", *place)
        run("top-memorized", *place, "-k", 5)
        report(store, took)
    return 0


def copy_slice(source: Path, target: Path, n_classes: int, n_images: int) -> None:
    """Copy the first classes, and of each as many images as make up the number."""
    classes = sorted(item.name for item in (source / "train").iterdir() if item.is_dir())[:n_classes]
    for part in ("train", "test"):
        for name in classes:
            files = sorted((source / part / name).iterdir())
            (target / part / name).mkdir(parents=True)
            for file in files[: n_images // n_classes] if part == "train" else files:
                shutil.copyfile(file, target / part / name / file.name)


def run(*arguments: object) -> None:
    command = [str(argument) for argument in arguments]
    print(f"$ memdb {' '.join(command)}", flush=True)
    subprocess.run([MEMDB, *command], check=True)


def report(store: str, took: float) -> None:
    with memdb.open(store) as db:
        models = [model for _, model in db.snapshot.models]
        losses = db.snapshot.outcome_values("train/cumulative_loss")
        learned = db.snapshot.outcome_values("train/first_learned")
        test = sum(model.test_accuracy or 0 for model in models) / len(models)
        inside = sum(model.train_accuracy or 0 for model in models) / len(models)
        print(
            f"{len(models)} models in {took:.0f} s with everything, {sum(m.seconds for m in models) / len(models):.1f} s "
            f"of training each, on {models[0].device}; accuracy {inside:.3f} on subsets, {test:.3f} on the test set"
        )
        print(
            f"learning signals: median loss of an example {float(sorted(losses[learned > 0])[learned.astype(bool).sum() // 2]):.2f}, "
            f"{(learned == 1).sum() / (learned > 0).sum():.1%} right from the first epoch on"
        )


if __name__ == "__main__":
    sys.exit(main())
