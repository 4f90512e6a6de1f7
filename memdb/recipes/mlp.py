"""The ``mlp`` recipe: options and presets. The program itself is in ``mlp_program``, which needs torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.documents import Json
from memdb.errors import InvalidInput
from memdb.recipes.protocol import Run


@dataclass(frozen=True)
class MLP:
    """Fully connected networks with ReLU, all models of a batch trained as one program.

    The defaults suit scikit-learn's digits. Integer inputs are divided by 255.

    Args:
        hidden: units of each hidden layer.
        optimizer: ``adamw`` or ``sgd``.
        lr: learning rate.
        schedule: ``constant``, ``linear`` or ``cosine`` (both down to 0).
        momentum: of SGD; AdamW ignores it.
        weight_decay: decoupled for AdamW, L2 for SGD.
        label_smoothing: 0 is none; smoothing underfits the memorized.
        batch_size: examples a step.
        epochs: passes over the subset.
    """

    name: ClassVar[str] = "mlp"
    version: ClassVar[str] = "1"

    hidden: tuple[int, ...] = (128,)
    optimizer: str = "adamw"
    lr: float = 3e-3
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    batch_size: int = 50
    epochs: int = 30

    def __post_init__(self) -> None:
        hidden: Any = self.hidden  # the command line gives a number or a list
        if isinstance(hidden, int | list):
            object.__setattr__(self, "hidden", (hidden,) if isinstance(hidden, int) else tuple(hidden))
        for name in ("lr", "momentum", "weight_decay", "label_smoothing"):
            if type(getattr(self, name)) is int:
                object.__setattr__(self, name, float(getattr(self, name)))
        checks = {
            "hidden": isinstance(self.hidden, tuple) and all(_natural(units) for units in self.hidden),
            "optimizer": self.optimizer in {"adamw", "sgd"},
            "lr": _real(self.lr) and self.lr > 0,
            "schedule": self.schedule in {"constant", "linear", "cosine"},
            "momentum": _real(self.momentum) and 0 <= self.momentum < 1,
            "weight_decay": _real(self.weight_decay) and self.weight_decay >= 0,
            "label_smoothing": _real(self.label_smoothing) and 0 <= self.label_smoothing < 1,
            "batch_size": _natural(self.batch_size),
            "epochs": _natural(self.epochs),
        }
        for name, right in checks.items():
            if not right:
                raise InvalidInput(
                    f"recipe option {name}={getattr(self, name)!r} is not valid",
                    hint="see `memdb init --help` and the recipe's page in the docs",
                )

    @property
    def options(self) -> Mapping[str, Json]:
        """All options, defaults filled in."""
        return {**asdict(self), "hidden": list(self.hidden)}

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models fit into half of the free memory; on a CPU, as many as its caches like."""
        from memdb.recipes import mlp_program  # noqa: PLC0415 - torch takes seconds to import

        sizes = self.layer_sizes(data)
        n_weights = sum(n_in * n_out + n_out for n_in, n_out in itertools.pairwise(sizes))
        n_state = 4 if self.optimizer == "adamw" else 3  # weights, gradients, moments
        n_rows = max(self.batch_size, mlp_program.EVALUATION_ROWS)
        bytes_a_model = 4 * (n_state * n_weights + 3 * n_rows * sum(sizes)) + 16 * len(data.train)
        fit = max(1, mlp_program.free_memory(device) // 2 // bytes_a_model)
        if device == "cpu":
            # Past these the products gain nothing more, and a commit should not take hours to come.
            fit = min(fit, max(8, (64 << 20) // (4 * n_state * n_weights)), 128)
        return int(min(fit, 1024))

    def layer_sizes(self, data: Dataset) -> list[int]:
        """Return the width of every layer, input and output included."""
        return [math.prod(data.train.array.shape[1:]), *self.hidden, data.n_classes]

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Train one network a mask (see `Recipe`)."""
        from memdb.recipes import mlp_program  # noqa: PLC0415 - torch takes seconds to import

        return mlp_program.train(self, data, masks, seeds, run)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "digits": {},
    "feldman-zhang-mnist": {
        "hidden": (512, 256),
        "optimizer": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "batch_size": 128,
        "epochs": 10,
    },
}
PRESET_OF_DATASET: Mapping[str, str] = {
    "mnist": "feldman-zhang-mnist",
    "fashion-mnist": "feldman-zhang-mnist",
}


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _real(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)
