"""Sketches with less variance in the few directions that have most of it, so that rounding loses little.

A handful of directions, about as many as there are classes, have a thousand times the variance of the others.
Whole numbers large enough for them are coarse for the rest, which whitened products are made of. The
products stay what they are: what one side is multiplied with, the other is divided by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIRECTIONS = 64  # of a sketch: an eighth of k = 512, and of the cost of whitening all of them
LEAST = 1e-30

Floats = NDArray[np.float32]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Levelled:
    """A symmetric matrix that scales some directions, and nothing else.

    Attributes:
        directions: orthonormal, [k, directions].
        factors: what these are multiplied with, [directions].
    """

    directions: Floats
    factors: Floats

    @classmethod
    def of(cls, moment: Numbers) -> Levelled:
        """Return one that gives the directions of most variance that of the least of them.

        The directions are those of one step of subspace iteration: any will do, and these are cheap.
        """
        k = len(moment)
        drawn = np.random.default_rng(0).normal(size=(k, min(DIRECTIONS, -(-k // 2))))
        rough = np.linalg.qr(moment @ drawn)[0]
        variance, turned = np.linalg.eigh(rough.T @ moment @ rough)
        factors = np.sqrt(np.maximum(variance[0], LEAST) / np.maximum(variance, LEAST))
        return cls((rough @ turned).astype(np.float32), factors.astype(np.float32))

    @property
    def inverse(self) -> Levelled:
        """What undoes it."""
        return Levelled(self.directions, np.float32(1) / self.factors)

    def __call__(self, rows: Floats) -> Floats:
        """Return rows times the matrix."""
        along: Floats = (rows @ self.directions) * (self.factors - np.float32(1))
        rest: Floats = along @ self.directions.T
        return rows + rest
