"""Gradients of a network of particles: low-rank, sums over the samples of a batch.

Those of a weight matrix are in the coordinates of its operator, those of vectors, such as U and v, have the particles'
own arrays as second factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Gradient:
    """The mean over a batch of weight · left rightᵀ, times a number.

    Attributes
    ----------
    left : (samples, k) array
        Small, on the host.
    right : (samples, m) array
        Coordinates, or (samples, N) arrays of particles.
    weights : (samples,) float64, optional
        By default 1.
    batch : int
        Samples in the batch, of which those without a gradient are left out.
    multiplier, divisor, scale : float
        Factors. They are kept apart so that a step of SGD rounds them once.
    """

    left: NDArray[Any]
    right: Array
    weights: NDArray[np.float64] | None = None
    batch: int = 1
    multiplier: float = 1.0
    divisor: float = 1.0
    scale: float = 1.0

    def __mul__(self, factor: float) -> Gradient:
        return replace(self, scale=self.scale * factor)

    __rmul__ = __mul__

    def __neg__(self) -> Gradient:
        return self * -1.0

    def __truediv__(self, number: float) -> Gradient:
        return self * (1.0 / number)

    @property
    def coefficients(self) -> NDArray[Any]:
        """The first factor with all numbers, (samples, k): the whole is coefficientsᵀ @ right."""
        number = self.scale / self.batch * self.multiplier / self.divisor
        if self.weights is None:
            return self.left * number
        return number * self.weights[:, None] * self.left

    def squares(self, gram: Callable[[Array], Matrix]) -> float:
        """Return the sum of squares of the whole, with ⟨right_i, right_j⟩ = gram(right)."""
        coefficients = self.coefficients
        return float(np.sum((coefficients @ coefficients.T) * gram(self.right)))
