"""Rules by which gradients become steps of the units."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


class Rule(Protocol):
    """What moves parameters: a step from a gradient, a learning rate, and what the rule remembers of earlier ones.

    Both methods are called for one array of parameters at a time and work on each of its numbers alone.
    """

    def init(self, parameters: Array) -> Any:
        """Return what the rule remembers before the first step of these parameters, an array of any shape."""

    def step(self, gradient: Array, state: Any, rate: float) -> tuple[Array, Any]:
        """Return what is subtracted from the parameters, in the shape of `gradient`, and the state after it."""


class SGD:
    """Gradient descent: a step is the rate times the gradient, and nothing is remembered."""

    def init(self, parameters: Array) -> None:
        """Return None, whatever the shape of the parameters."""

    def step(self, gradient: Array, state: None, rate: float) -> tuple[Array, None]:
        """Return rate times gradient, in its shape."""
        return gradient * rate, None
