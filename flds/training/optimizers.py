"""Rules that turn gradients into steps, in the feature-learning dynamics and in the Mean ODE.

Gradients of the units of a Mean ODE are arrays. Those of a network of particles are low-rank: sums over the samples of
a batch. Those of a weight matrix are in the coordinates of its operator, those of vectors, such as U and v, have the
particles' own arrays as second factor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


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
            return np.asarray(self.left * number)
        return np.asarray(number * self.weights[:, None] * self.left)


class Optimizer(ABC):
    """A rule for one parameter; rules hold no state of their own, so one serves all.

    Gradients are arrays, or `Gradient`, which is multiplied by numbers like one. What a rule does to a `Gradient` must
    keep it a sum of products, as multiples and sums are; a rule that takes each entry for itself, such as Adam, needs
    whole arrays.
    """

    def init(self, parameter: Any = None) -> Any:
        """Return what is remembered before the first step of a parameter: an array, or a weight matrix's operator."""
        return None

    @abstractmethod
    def step(self, gradient: Any, state: Any, rate: float) -> tuple[Any, Any]:
        """Return what is added to the parameter, and what is remembered next; `rate` is the learning rate."""


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: minus the rate times the gradient."""

    def step(self, gradient: Any, state: Any, rate: float) -> tuple[Any, Any]:
        return gradient * -rate, state
