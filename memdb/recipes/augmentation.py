"""Whole batches of images changed on the device, each example by its own draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

N_DRAWS = 5  # a mirror image, a shift down and to the right, a square's centre


@dataclass(frozen=True)
class Augmentation:
    """Mirror images, shifts by up to so many pixels (edges are mirrored), and a square that is blanked.

    All zero is none at all: examples are taken as they are.
    """

    flip: bool = False
    shift: int = 0
    cutout: int = 0

    @property
    def wanted(self) -> bool:
        """Whether anything is changed."""
        return self.flip or self.shift > 0 or self.cutout > 0

    def draws(self, n_examples: int, generators: list[torch.Generator], device: torch.device) -> Tensor:
        """Return what chance says for an epoch, uniform [model, example, draw], each model by its own."""
        drawn = [torch.rand(n_examples, N_DRAWS, generator=generator) for generator in generators]
        return torch.stack(drawn).to(device)

    def take(self, images: Tensor, rows: Tensor, draws: Tensor | None) -> Tensor:
        """Return these rows of images [example, height, width, channel], changed: [model, row, h, w, c]."""
        if draws is None:
            return images[rows]
        height, width = images.shape[1:3]
        mirrored, down, right, middle_y, middle_x = draws.unbind(-1)
        ys = _moved(down, self.shift, height)
        xs = _moved(right, self.shift, width)
        if self.flip:
            xs = torch.where(mirrored[..., None] < 0.5, width - 1 - xs, xs)
        taken = images[rows[..., None, None], ys[..., :, None], xs[..., None, :]]
        if self.cutout:
            hidden = (
                _near(middle_y, self.cutout, height)[..., :, None]
                & _near(middle_x, self.cutout, width)[..., None, :]
            )
            taken = taken.masked_fill(hidden[..., None], 0)
        return taken


def _moved(draw: Tensor, shift: int, size: int) -> Tensor:
    """Return the pixels that stand at 0 to size - 1 after a shift; those from beyond an edge mirror it."""
    by = (draw * (2 * shift + 1)).floor().long() - shift
    places = (torch.arange(size, device=draw.device) + by[..., None]).abs()
    return size - 1 - (size - 1 - places).abs()


def _near(draw: Tensor, side: int, size: int) -> Tensor:
    """Return which of the pixels 0 to size - 1 a blank of this side hides."""
    first = (draw * size).floor()[..., None] - side // 2
    places = torch.arange(size, device=draw.device)
    return (places >= first) & (places < first + side)
