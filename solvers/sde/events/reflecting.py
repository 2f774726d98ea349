"""Reflection at the ends of an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solvers import checks
from solvers.accelerate import kernel
from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.events.box import Box
from solvers.sde.events.event import Act

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@kernel
def fold(moved: Matrix, box: Matrix) -> None:
    """Fold every row of `moved`, (D, n), into box[0, i] … box[1, i], as often as it takes."""
    for i in range(moved.shape[0]):
        low, high = box[0, i], box[1, i]
        size = high - low
        for p in range(moved.shape[1]):
            x = moved[i, p]
            if low <= x <= high or not math.isfinite(x):
                continue
            if not math.isfinite(size):
                moved[i, p] = 2.0 * low - x if x < low else 2.0 * high - x
            else:
                beyond = (x - low) % (2.0 * size)
                there = low + beyond if beyond <= size else high - (beyond - size)
                moved[i, p] = min(max(there, low), high)


@kernel
def project(moved: Matrix, box: Matrix) -> None:
    """Move what left the box to the end where it left."""
    for i in range(moved.shape[0]):
        for p in range(moved.shape[1]):
            if moved[i, p] < box[0, i]:
                moved[i, p] = box[0, i]
            elif moved[i, p] > box[1, i]:
                moved[i, p] = box[1, i]


@kernel
def turn(moved: Matrix, box: Matrix) -> None:
    """Turn the momenta of (q, p), rows of `moved`, where folding q comes back from the other side."""
    half = moved.shape[0] // 2
    for i in range(half):
        low, high = box[0, i], box[1, i]
        for p in range(moved.shape[1]):
            x = moved[i, p]
            if not low <= x <= high and math.isfinite(x):
                there = math.isfinite(high - low) and (x - low) % (2.0 * (high - low)) <= high - low
                if not there:
                    moved[half + i, p] = -moved[half + i, p]


def _folding(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Callable[..., None]:
    if not form.force:
        return lambda moved, s, arrival, numbers, old, new, held, draw: fold(moved, numbers)

    def bounce(
        moved: Matrix, s: Any, arrival: float, numbers: Matrix, old: Any, new: Any, held: Any, draw: Any
    ) -> None:
        turn(moved, numbers)
        fold(moved, numbers)

    return bounce


def _projecting(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Callable[..., None]:
    if form.force:
        raise ValueError("particles (q, p) stick to an end where they are projected; use folding, which turns p")
    return lambda moved, s, arrival, numbers, old, new, held, draw: project(moved, numbers)


_METHODS = {"folding": _folding, "projection": _projecting}


@dataclass(frozen=True)
class Reflecting(Box):
    """Particles are reflected at both ends of an interval, component by component.

    Parameters
    ----------
    low, high : float or (D,) array
        The ends, for all components or for each; infinite where there is none.
    method : str
        "folding": what a step does beyond an end is done backward, as often as it takes; weak order 1, strong order ½.
        Of particles (q, p) the momentum turns with it.
        "projection": a particle that leaves is put on the end; weak order ½, and strong order ½ up to a logarithm.

    Raises
    ------
    TypeError, ValueError
        If the ends are not numbers in order, or the method is unknown.

    References
    ----------
    L. Słomiński, "On approximation of solutions of multidimensional SDE's with reflecting boundary conditions",
    Stoch. Proc. Appl. 50 (1994), for projection.
    D. Lépingle, "Euler scheme for reflected stochastic differential equations", Math. Comput. Simul. 38 (1995).
    """

    low: ArrayLike
    high: ArrayLike
    method: str = "folding"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.choice("method", self.method, tuple(_METHODS))

    def orders(self) -> tuple[float, float]:
        """Return ½, and 1 for folding or ½ for projection."""
        return 0.5, 1.0 if self.method == "folding" else 0.5

    def landing(self, jumps: bool) -> Act | None:
        return Act(_METHODS[self.method])
