"""Version 2 of the ``resnet9`` recipe: half the epochs, since filters are changed by orthogonal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from memdb.recipes.options import real, require
from memdb.recipes.resnet9 import ResNet9


@dataclass(frozen=True)
class ResNet9v2(ResNet9):
    """Residual networks of nine layers for small colour images, on a shorter schedule than version 1.

    The layers are those of version 1, but the first has half its channels. Filters are changed by Muon: what
    is subtracted is the orthogonal matrix nearest to their momentum. All else is trained by SGD with Nesterov
    momentum. Both rates rise linearly to their peak and fall linearly to 0.

    Args:
        filter_lr: learning rate of filters at the peak, the length of a step by that of a filter.
        filter_momentum: of their gradients.
    """

    version: ClassVar[str] = "2"
    program: ClassVar[str] = "resnet9_v2_torch"

    batch_size: int = 1024
    epochs: int = 8
    filter_lr: float = 0.12
    filter_momentum: float = 0.6

    @property
    def first_width(self) -> int:
        """Channels of the first layer, whose images are the largest."""
        return max(1, self.width // 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self,
            {
                "filter_lr": real(self.filter_lr) and self.filter_lr > 0,
                "filter_momentum": real(self.filter_momentum) and 0 <= self.filter_momentum < 1,
            },
        )
