"""Components that live on a circle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.events.box import Box
from solvers.sde.events.event import Act

Matrix = NDArray[np.float64]


@kernel
def wrap(moved: Matrix, box: Matrix) -> None:
    """Bring every row of `moved`, (D, n), by whole periods to box[0, i] ≤ x < box[1, i]."""
    for i in range(moved.shape[0]):
        low, high = box[0, i], box[1, i]
        if not high - low < np.inf:
            continue
        for p in range(moved.shape[1]):
            x = moved[i, p]
            if not low <= x < high:
                there = low + (x - low) % (high - low)
                moved[i, p] = low if there >= high else there  # which rounding may do


def _wrapping(*_: Any) -> Callable[..., None]:
    return lambda moved, s, arrival, numbers, old, new, held, draw: wrap(moved, numbers)


@dataclass(frozen=True)
class Periodic(Box):
    """Particles that leave an interval at one end enter it at the other, component by component.

    The order of the scheme stays, for coefficients that are periodic. A function as interaction has
    to take the shortest way between two particles itself; `Pairs` take it.

    Parameters
    ----------
    low, high : float or (D,) array
        The ends, for all components or for each; both infinite where a component is not periodic.

    Raises
    ------
    TypeError, ValueError
        If the ends are not numbers in order, or only one is infinite.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if (np.isinf(self.low) != np.isinf(self.high)).any():
            raise ValueError(f"a period needs two ends, got {self.low} and {self.high}")

    def orders(self) -> tuple[float, float]:
        """Return that the orders of the scheme stay."""
        return math.inf, math.inf

    def landing(self, jumps: bool) -> Act | None:
        return Act(_wrapping)
