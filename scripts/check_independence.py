"""Does what a model predicts depend on who shares its batch?

Trains one seed alone and as one of 64 and prints the largest difference of its logit confidences and how
many of its predictions turned around, for mlp, cnn and resnet9, on digits. ``grouped`` is a batch of resnet9
side by side, as on a GPU; on a CPU its models take turns and are the same to the last bit. The same seed
against another one shows what a real difference is.

    python scripts/check_independence.py
    python scripts/check_independence.py --device cuda --precision bfloat16 --examples 1437

Exits with 1 where a prediction of a float32 recipe turned around on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memdb import Dataset, Run, datasets, recipes, subsets
from memdb.recipes import resnet9_program
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.resnet9 import ResNet9

N_MODELS = 64
Train = Callable[[Dataset, NDArray[np.bool_], NDArray[np.uint64], Run], Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--examples", type=int, default=400, help="training examples")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = recipes.resolve_device(options.device)
    whole = datasets.load("digits")
    data = Dataset(
        whole.train.array[: options.examples],
        whole.train.labels[: options.examples],
        whole.test.array,
        whole.test.labels,
    )
    small = replace(
        ResNet9(width=4, lr=0.1, batch_size=64, epochs=8, shift=1, flip=False), precision=options.precision
    )
    ways: dict[str, Train] = {
        "mlp": MLP(precision=options.precision),
        "cnn": CNN(channels=(8, 16), shift=1, precision=options.precision),
        "resnet9": small,
        "resnet9 grouped": partial(grouped, small),
    }
    print(f"digits, {len(data.train)} training examples, {device}, {options.precision}, batch of {N_MODELS}")
    print(f"{'':16}{'largest difference':>20}{'turned around':>15}{'another seed':>14}{'accuracy':>10}")
    failed = False
    for name, train in ways.items():
        difference, turned, other, accuracy = compare(train, data, device)
        print(f"{name:16}{difference:20.2e}{turned:15}{other:14.2f}{accuracy:10.3f}", flush=True)
        failed |= turned > 0
    return int(failed and (device, options.precision) == ("cpu", "float32"))


def compare(train: Train, data: Dataset, device: str) -> tuple[float, int, float, float]:
    seeds = list(range(N_MODELS))
    size = subsets.subset_size(len(data.train), 0.7)
    masks = subsets.subset_masks(0, seeds, len(data.train), size)
    run = Run(device, lambda _done, _total: None, lambda: False, Path("unused"))
    row = N_MODELS // 2
    part = slice(row, row + 1)
    together = train(data, masks, np.array(seeds, dtype=np.uint64), run)
    alone = train(data, masks[part], np.array(seeds[part], dtype=np.uint64), run)
    difference, turned, other = 0.0, 0, 0.0
    for name in data.sets:
        confidences = together[f"{name}/logit_confidence"]
        difference = max(difference, np.abs(confidences[row] - alone[f"{name}/logit_confidence"][0]).max())
        other = max(other, np.abs(confidences[row] - confidences[row + 1]).max())
        turned += int((together[f"{name}/correct"][row] != alone[f"{name}/correct"][0]).sum())
    return float(difference), turned, float(other), float(alone["test/correct"].mean())


def grouped(
    recipe: ResNet9, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Any:
    make = partial(resnet9_program.Network, recipe, 1, data.n_classes)
    return resnet9_program.train(recipe, make, data, masks, seeds, run)


if __name__ == "__main__":
    sys.exit(main())
