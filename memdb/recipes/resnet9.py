"""The ``resnet9`` recipe: options. The program itself is in ``resnet9_torch``, which needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.format.documents import Json
from memdb.recipes.options import (
    TINY,
    image_shape,
    n_outputs,
    natural,
    normalize,
    real,
    require,
    torch_program,
)
from memdb.recipes.protocol import BUILT_IN_OUTCOMES, Run

if TYPE_CHECKING:
    from memdb.recipes.batches import Memory


@dataclass(frozen=True)
class ResNet9:
    """Residual networks of nine layers for small colour images, on a short schedule.

    Trained by SGD with Nesterov momentum; the learning rate rises linearly to its peak and falls linearly to
    0.

    Args:
        width: channels of the first layer; the last has eight times as many.
        lr: learning rate at the peak.
        warmup: the fraction of the steps before the peak.
        momentum: of SGD.
        weight_decay: L2, on weights alone.
        label_smoothing: 0 for none; smoothing underfits memorized examples.
        batch_size: examples per step.
        epochs: passes over the subset.
        flip: mirror images at random.
        shift: shift images by up to this many pixels.
        cutout: blank a square with sides of this many pixels.
        precision: of products, ``bfloat16``, ``tf32`` (float32 on a CPU) or ``float32``.
    """

    name: ClassVar[str] = "resnet9"
    version: ClassVar[str] = "1"
    outcomes: ClassVar[frozenset[str]] = BUILT_IN_OUTCOMES
    program: ClassVar[str] = "resnet9_torch"

    width: int = 64
    lr: float = 0.4
    warmup: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    batch_size: int = 512
    epochs: int = 16
    flip: bool = True
    shift: int = 4
    cutout: int = 0
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        normalize(self)
        require(self, {"width": natural(self.width), "warmup": real(self.warmup) and 0 < self.warmup < 1})

    @property
    def options(self) -> Mapping[str, Json]:
        """All options, defaults filled in."""
        return asdict(self)

    def rate(self, done: float) -> float:
        """Return the learning rate after this fraction of the steps."""
        return self.lr * min(done / self.warmup, (1 - done) / (1 - self.warmup))

    @property
    def first_width(self) -> int:
        """Channels of the first layer."""
        return self.width

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models to commit together; 1 on a CPU, which takes long for one."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        if not self.side_by_side(device):
            return 1 if device == "cpu" else batches.MODELS_IN_TURN
        return batches.models_that_fit(self.memory(data), device, on_cpu=1)

    def side_by_side(self, device: str) -> bool:
        """Whether models are trained at once: one keeps a CPU or GPU busy unless it is tiny."""
        return device != "cpu" and 8 * self.width <= TINY

    def memory(self, data: Dataset) -> Memory:
        """Return what a training takes."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        height, width, n_channels = self._image(data)
        stages = ((1, 0, 1), (2, 0, 1), (2, 1, 3), (4, 1, 1), (4, 2, 1), (8, 2, 1), (8, 3, 3))
        per_pixel = sum(n * factor * self.width / 4**level for factor, level, n in stages)
        n_weights = 9 * self.width**2 * (2 + 2 * 4 + 8 + 32 + 2 * 64) + 8 * self.width * n_outputs(data)
        size = 2 if self.precision == "bfloat16" else 4
        # The backward pass keeps what each layer convolved, pooled and rectified, and positions as int64.
        a_row = height * width * (n_channels * 12 + per_pixel * (1.6 * size + 1))
        rows = max(self.batch_size, batches.LEAST_EVALUATED)
        return batches.Memory.of(data, n_weights, (4 * 3 + 2) * n_weights + rows * a_row)

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Train one network per mask (see `Recipe`), one by one unless they are tiny."""
        program = torch_program(self.program)
        make = partial(program.Network, self, self._image(data)[2], n_outputs(data))
        trained: Mapping[str, NDArray[Any]] = program.train(self, make, data, masks, seeds, run)
        return trained

    def _image(self, data: Dataset) -> tuple[int, int, int]:
        return image_shape(data.train.array.shape[1:], self.name, least=max(8, self.shift + 1))
