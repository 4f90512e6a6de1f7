"""The ``mlp`` recipe: options and presets. The program itself is in ``mlp_torch``, which needs torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.format.documents import Json
from memdb.recipes.devices import ACCELERATORS
from memdb.recipes.options import image_shape, n_outputs, naturals, normalize, require, torch_program
from memdb.recipes.protocol import BUILT_IN_OUTCOMES, Run

if TYPE_CHECKING:
    from memdb.recipes.batches import Memory

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
MOST_IN_BFLOAT16 = 0.95  # momentum: rounding loses up to 6 % of equal gradients' sum; at 0.99, 25 %
ADDED_LATER: Mapping[str, Json] = {"flip": False, "shift": 0, "cutout": 0, "precision": "float32"}


@dataclass(frozen=True)
class MLP:
    """Fully connected networks with ReLU; all models of a batch are trained as one program.

    The defaults suit scikit-learn's digits. Integer inputs are divided by 255.

    Args:
        hidden: units of each hidden layer.
        optimizer: ``adamw`` or ``sgd``.
        lr: learning rate.
        schedule: ``constant``, ``linear`` or ``cosine`` (both down to 0).
        momentum: of SGD; AdamW ignores it.
        weight_decay: decoupled for AdamW, L2 for SGD.
        label_smoothing: 0 for none; smoothing underfits memorized examples.
        batch_size: examples per step.
        epochs: passes over the subset.
        flip: mirror images at random.
        shift: shift images by up to this many pixels.
        cutout: blank a square with sides of this many pixels.
        precision: of matrix products, ``float32``, ``tf32`` (float32 on a CPU) or ``bfloat16``; on GPUs
            ``bfloat16`` is also that of the momentum of SGD, up to a momentum of 0.95.
    """

    name: ClassVar[str] = "mlp"
    version: ClassVar[str] = "1"
    outcomes: ClassVar[frozenset[str]] = BUILT_IN_OUTCOMES

    hidden: tuple[int, ...] = (128,)
    optimizer: str = "adamw"
    lr: float = 3e-3
    schedule: str = "constant"
    momentum: float = 0.9
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    batch_size: int = 50
    epochs: int = 30

    flip: bool = False
    shift: int = 0
    cutout: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        normalize(self)
        require(
            self,
            {
                "hidden": naturals(self.hidden),
                "optimizer": self.optimizer in ("adamw", "sgd"),
                "schedule": self.schedule in ("constant", "linear", "cosine"),
            },
        )

    @property
    def options(self) -> Mapping[str, Json]:
        """All options, including defaults, except options `ADDED_LATER` at their defaults.

        So the fingerprint of a recipe in older stores is unchanged.
        """
        found = {**asdict(self), "hidden": list(self.hidden)}
        return {name: value for name, value in found.items() if ADDED_LATER.get(name, ...) != value}

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models fit into the free memory, and on a CPU roughly into its caches."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        n_weights = self._n_weights(data)
        # On a CPU, larger batches are no faster, and commits should not be hours apart.
        on_cpu = min(128, max(8, (64 << 20) // (4 * self._n_state * n_weights)))
        return batches.models_that_fit(self.memory(data, device), device, on_cpu)

    @property
    def _n_state(self) -> int:
        return 4 if self.optimizer == "adamw" else 3  # weights, gradients, moments

    def _n_weights(self, data: Dataset) -> int:
        return sum(n_in * n_out + n_out for n_in, n_out in itertools.pairwise(self.layer_sizes(data)))

    def keeps_no_gradients(self, device: str) -> bool:
        """Whether SGD adds gradients to their momentum at once, as on GPUs; a CPU rounds as it always did.

        The momentum then has the precision of products, which must not round away what is added to it.
        """
        rounds_away = self.precision == "bfloat16" and self.momentum > MOST_IN_BFLOAT16
        return self.optimizer == "sgd" and device.partition(":")[0] in ACCELERATORS and not rounds_away

    def memory(self, data: Dataset, device: str = "cpu") -> Memory:
        """Return what a training takes."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        sizes, n_weights = self.layer_sizes(data), self._n_weights(data)
        keeps_none, size = self.keeps_no_gradients(device), 2 if self.precision == "bfloat16" else 4
        held = n_weights * (4 + size if keeps_none else 4 * self._n_state)
        if self.precision == "bfloat16":  # the lowered weights, and the gradients of the largest layer
            held += 2 * n_weights
        working = held + size * self.batch_size * (sizes[0] + 2 * sum(sizes[1:]))
        if self.precision == "bfloat16" and not keeps_none:
            working += 2 * max(n_in * n_out for n_in, n_out in itertools.pairwise(sizes))
        moves = bool(self.flip or self.shift or self.cutout)
        if moves:
            working += (4 + size) * self.batch_size * sizes[0]  # images and where their pixels come from
        evaluated = held + size * batches.EVALUATION_ROWS * sum(sizes[1:])
        return batches.Memory.of(data, n_weights, working, n_evaluated=evaluated, size=size, moves=moves)

    def prepare(self, data: Dataset, seeds: NDArray[np.uint64], device: str) -> Any:
        """Draw initial weights ahead; on a CPU, training would wait for the cores that draw."""
        if device == "cpu":
            return None
        return torch_program("mlp_torch").prepare(self, data, seeds, device)

    def layer_sizes(self, data: Dataset) -> list[int]:
        """Return the width of every layer, input and output included."""
        return [math.prod(data.train.array.shape[1:]), *self.hidden, n_outputs(data)]

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Train one network per mask (see `Recipe`)."""
        if self.flip or self.shift or self.cutout:
            image_shape(data.train.array.shape[1:], "augmentation", least=self.shift + 1)
        trained: Mapping[str, NDArray[Any]] = torch_program("mlp_torch").train(self, data, masks, seeds, run)
        return trained
