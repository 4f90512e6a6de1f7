"""The ``cnn`` recipe: options. The program itself is in ``cnn_torch``, which needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.format.documents import Json
from memdb.recipes.options import TINY, image_shape, n_outputs, naturals, normalize, require, torch_program
from memdb.recipes.protocol import BUILT_IN_OUTCOMES, Run

if TYPE_CHECKING:
    from memdb.recipes.batches import Memory


@dataclass(frozen=True)
class CNN:
    """Small convolutional networks without batch norm, for images such as 28 x 28 or 32 x 32.

    Trained by SGD with Nesterov momentum; the learning rate falls linearly to 0.

    Args:
        channels: of each convolution; after each the image is halved.
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: L2, on weights alone.
        label_smoothing: 0 for none; smoothing underfits memorized examples.
        batch_size: examples per step.
        epochs: passes over the subset.
        flip: mirror images at random.
        shift: shift images by up to this many pixels.
        cutout: blank a square with sides of this many pixels.
        precision: of products, ``float32``, ``tf32`` (float32 on a CPU) or ``bfloat16``.
    """

    name: ClassVar[str] = "cnn"
    version: ClassVar[str] = "1"
    outcomes: ClassVar[frozenset[str]] = BUILT_IN_OUTCOMES

    channels: tuple[int, ...] = (32, 64)
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    batch_size: int = 64
    epochs: int = 10
    flip: bool = False
    shift: int = 0
    cutout: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        normalize(self)
        require(self, {"channels": naturals(self.channels) and len(self.channels) > 0})

    @property
    def options(self) -> Mapping[str, Json]:
        """All options, defaults filled in."""
        return {**asdict(self), "channels": list(self.channels)}

    def rate(self, done: float) -> float:
        """Return the learning rate after this fraction of the steps."""
        return self.lr * (1 - done)

    def models_per_batch(self, data: Dataset, device: str) -> int:
        """Return how many models fit into the free memory, and on a CPU into its caches."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        if not self.side_by_side(device):
            return batches.MODELS_IN_TURN
        return batches.models_that_fit(self.memory(data), device, on_cpu=8)

    def side_by_side(self, device: str) -> bool:
        """Whether models are trained at once: not on a GPU, which is slow at grouped convolutions."""
        return device == "cpu" or max(self.channels) <= TINY

    def memory(self, data: Dataset) -> Memory:
        """Return what a training takes."""
        from memdb.recipes import batches  # noqa: PLC0415 - torch takes seconds to import

        height, width, n_channels = self._image(data)
        n_convolved, n_weights, n_in = 0, 0, n_channels
        for level, n_out in enumerate(self.channels):
            n_convolved += n_out * (height >> level) * (width >> level)
            n_weights += 9 * n_in * n_out
            n_in = n_out
        n_weights += n_outputs(data) * n_in * (height >> level + 1) * (width >> level + 1)
        size = 2 if self.precision == "bfloat16" else 4
        # The backward pass keeps each convolution, a quarter after pooling, and where it came from as int64.
        a_row = n_convolved * (1.6 * size + 2) + height * width * n_channels * 4
        rows = max(self.batch_size, batches.LEAST_EVALUATED)
        return batches.Memory.of(data, n_weights, 4 * 3 * n_weights + rows * a_row)

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Train one network per mask (see `Recipe`)."""
        program = torch_program("cnn_torch")
        make = partial(program.Network, self, self._image(data), n_outputs(data))
        trained: Mapping[str, NDArray[Any]] = program.train(self, make, data, masks, seeds, run)
        return trained

    def _image(self, data: Dataset) -> tuple[int, int, int]:
        least = max(2 ** len(self.channels), self.shift + 1)
        return image_shape(data.train.array.shape[1:], self.name, least)
