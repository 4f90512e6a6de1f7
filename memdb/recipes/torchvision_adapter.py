"""Any torchvision classifier by name, ``torchvision:resnet50``; the program is in ``torchvision_torch``."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memdb.datasets import Dataset
from memdb.environment import install
from memdb.errors import InvalidInputError
from memdb.format.documents import Json
from memdb.format.manifest import CORRECT, LOGIT_CONFIDENCE, PREDICTION
from memdb.format.sketches import SKETCH
from memdb.plugins import TORCHVISION
from memdb.recipes.options import natural, normalize, real, require, torch_program
from memdb.recipes.out_of_memory import in_turns
from memdb.recipes.protocol import Run


@dataclass(frozen=True)
class Architecture:
    """A torchvision classifier, trained from scratch, one model after the other.

    Images are read on demand, by several processes. Trained by SGD with Nesterov momentum; the learning rate
    rises linearly to its peak and falls to 0 as a cosine.

    Args:
        architecture: its name in torchvision, such as ``resnet50``.
        image_size: the side of the network's input in pixels.
        crop: the smallest fraction of the area for a random crop; 1 for a center crop.
        flip: mirror images at random.
        lr: learning rate at the peak.
        warmup: the fraction of the steps before the peak.
        momentum: of SGD.
        weight_decay: L2.
        label_smoothing: 0 for none; smoothing underfits memorized examples.
        batch_size: examples per step.
        epochs: passes over the subset.
        precision: of products, ``bfloat16``, ``tf32`` (float32 on a CPU) or ``float32``.
    """

    architecture: str
    image_size: int = 224
    crop: float = 0.25
    flip: bool = True
    lr: float = 0.1
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    batch_size: int = 256
    epochs: int = 30
    precision: str = "bfloat16"

    version = "1"
    outcomes = frozenset({CORRECT.name, LOGIT_CONFIDENCE.name, PREDICTION.name, SKETCH})

    def __post_init__(self) -> None:
        normalize(self)
        require(
            self,
            {
                "image_size": natural(self.image_size),
                "crop": real(self.crop) and 0 < self.crop <= 1,
                "warmup": real(self.warmup) and 0 < self.warmup < 1,
            },
        )
        try:
            known = torch_program("torchvision_torch").names()
        except ImportError as error:
            raise InvalidInputError(
                f"recipe {self.name} needs {error.name}, which is not installed",
                hint=f"run: {install('train')}",
            ) from error
        if self.architecture not in known:
            near = difflib.get_close_matches(self.architecture, known, 3) or ["resnet18", "resnet50"]
            raise InvalidInputError(
                f"torchvision has no classifier {self.architecture!r}", hint=f"try {', '.join(near)}"
            )

    @property
    def name(self) -> str:
        """The name of the recipe."""
        return f"{TORCHVISION}{self.architecture}"

    @property
    def options(self) -> Mapping[str, Json]:
        """All options, defaults filled in."""
        options = asdict(self)
        del options["architecture"]
        return options

    def rate(self, done: float) -> float:
        """Return the learning rate after this fraction of the steps."""
        fallen = (1 + math.cos(math.pi * max(0.0, done - self.warmup) / (1 - self.warmup))) / 2
        return self.lr * (done / self.warmup if done < self.warmup else fallen)

    def extras(self) -> dict[str, Any]:
        """Return extra arguments of some architectures: no auxiliary heads, the size of their input."""
        if self.architecture in {"googlenet", "inception_v3"}:
            return {"aux_logits": False, "init_weights": True}
        return {"image_size": self.image_size} if self.architecture.startswith("vit_") else {}

    def __call__(
        self, data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
    ) -> Mapping[str, NDArray[Any]]:
        """Train one network per mask (see `Recipe`), resuming from checkpoints."""
        program = torch_program("torchvision_torch")

        def alone(
            data: Dataset, masks: NDArray[np.bool_], seeds: NDArray[np.uint64], run: Run
        ) -> Mapping[str, NDArray[Any]]:
            found = program.train(self, data, masks[0], int(seeds[0]), run)
            return {path: values[None] for path, values in found.items()}

        return in_turns(alone, data, masks, seeds, run)  # type: ignore[no-any-return]
