"""Does what a model predicts depend on who shares its batch?

Trains one seed alone, as one of 64, and as one of 64 others at another place, and prints the largest
differences of its logit confidences, and how many of its predictions alone turned around, for mlp, cnn and
resnet9, on digits. ``grouped`` is a batch of resnet9 side by side, as on a GPU; on a CPU its models take turns
and are the same to the last bit. Another seed shows what a real difference is.

Where a batch of another size rounds otherwise, batch norm at high learning rates lets it grow from step to
step: that is the first column. What neighbours do is the third: it should be nothing.

``--precision float64`` tells rounding from a leak: rounding is half a billion times smaller there, and what grew
from it all but goes away; what one model let through to another stays as it is. The programs do not offer this
precision, so PyTorch's defaults are changed here (``mlp`` is excluded: it asks for float32 itself).

    python scripts/check_independence.py
    python scripts/check_independence.py --only "resnet9 grouped" --epochs 30 --models 8
    python scripts/check_independence.py --only "resnet9 grouped" --epochs 30 --models 8 --precision float64
    python scripts/check_independence.py --device cuda --precision bfloat16 --examples 1437

Exits with 1 where neighbours made a difference above 0.001 in float32 on a CPU, or anything one above 0.00001
in float64.
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

from memdb import Dataset, Run, datasets, recipes
from memdb.format import subsets
from memdb.recipes import grouped as grouped_program
from memdb.recipes.batches import images_of
from memdb.recipes.cnn import CNN
from memdb.recipes.mlp import MLP
from memdb.recipes.resnet9 import ResNet9

Train = Callable[[Dataset, NDArray[np.bool_], NDArray[np.uint64], Run], Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float64"))
    parser.add_argument("--epochs", type=int, help="of every program; by default each program's own")
    parser.add_argument("--only", help="one of mlp, cnn, resnet9, resnet9 grouped")
    parser.add_argument("--examples", type=int, default=300, help="training examples")
    parser.add_argument("--models", type=int, default=64, help="models of a batch, 4 or more")
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
    ways = recipes_of(options.precision, options.epochs, options.only)
    print(
        f"digits, {len(data.train)} training examples, {device}, {options.precision}, batch of {options.models}"
    )
    print(f"{'':16}{'alone':>11}{'turned':>8}{'other mates':>13}{'another seed':>14}{'accuracy':>10}")
    failed = False
    for name, train in ways.items():
        alone, turned, mates, other, accuracy = compare(train, data, device, options.models)
        print(f"{name:16}{alone:11.1e}{turned:8}{mates:13.1e}{other:14.2f}{accuracy:10.3f}", flush=True)
        failed |= mates > 1e-3 or (options.precision == "float64" and alone > 1e-5)
    return int(
        failed and (options.precision == "float64" or (device, options.precision) == ("cpu", "float32"))
    )


def recipes_of(precision: str, epochs: int | None, only: str | None) -> dict[str, Train]:
    said = "float32" if precision == "float64" else precision
    resnet9 = ResNet9(width=4, lr=0.05, batch_size=64, epochs=8, shift=1, flip=False, precision=said)
    mlp, cnn = MLP(precision=said), CNN(channels=(8, 16), shift=1, precision=said)
    if epochs is not None:
        mlp, cnn = replace(mlp, epochs=epochs), replace(cnn, epochs=epochs)
        resnet9 = replace(resnet9, epochs=epochs)
    ways: dict[str, Train] = {
        "mlp": mlp,
        "cnn": cnn,
        "resnet9": resnet9,
        "resnet9 grouped": partial(grouped, resnet9),
    }
    if precision == "float64":
        del ways["mlp"]
        in_float64()
    return {name: train for name, train in ways.items() if only in {None, name}}


def in_float64() -> None:
    """Make the grouped programs reckon in float64: what they create, what they read, what they round."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    bent = {"images_of": lambda examples, device: images_of(examples, device).double()}
    vars(grouped_program).update(bent)


def compare(
    train: Train, data: Dataset, device: str, n_models: int
) -> tuple[float, int, float, float, float]:
    seeds = np.arange(2 * n_models, dtype=np.uint64)
    size = subsets.subset_size(len(data.train), 0.7)
    masks = subsets.subset_masks(0, seeds.tolist(), len(data.train), size)
    run = Run(device, lambda _done, _total: None, lambda: False, Path("unused"))
    row = n_models // 2
    first, others = np.arange(n_models), np.arange(n_models, 2 * n_models)
    others[3] = row  # the same seed at another place, among others
    together, mixed, alone = (train(data, masks[rows], seeds[rows], run) for rows in (first, others, [row]))

    def apart(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
        return float(np.abs(one - two).max())

    paths = [f"{name}/logit_confidence" for name in data.sets]
    turned = sum(int((together[f"{s}/correct"][row] != alone[f"{s}/correct"][0]).sum()) for s in data.sets)
    return (
        max(apart(together[path][row], alone[path][0]) for path in paths),
        turned,
        max(apart(together[path][row], mixed[path][3]) for path in paths),
        max(apart(together[path][row], together[path][row + 1]) for path in paths),
        float(alone["test/correct"].mean()),
    )


def grouped(
    recipe: ResNet9, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
) -> Any:
    """Train side by side, where the recipe would take turns."""

    class SideBySide(ResNet9):
        def side_by_side(self, device: str) -> bool:  # noqa: ARG002 - on any
            return True

    options: dict[str, Any] = dict(recipe.options)
    return SideBySide(**options)(data, masks, seeds, run)


if __name__ == "__main__":
    sys.exit(main())
