"""What a moment is: numbers of each particle, and how those of all become entries of m."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Matrix = NDArray[np.float64]
Function = Callable[..., Any]


class Moment:
    """Entries of m that are computed of all particles at once; a kind of one's own is a subclass.

    A part of the particles is summed up in some numbers, which begin at zero, and those of all parts are merged in the
    order of the particles, so m does not depend on threads or ranks.
    """

    def functions(self) -> dict[str, Function]:
        """Return the functions of a particle, (t, x[, m][, args]), by what errors call them; their values are rows."""
        raise NotImplementedError

    def check(self, counts: tuple[tuple[int, bool], ...]) -> None:
        """Raise ValueError if a function, of those returning so many numbers, must return one."""

    def width(self, rows: int) -> int:
        """Return how many numbers a part of the particles is summed up in, where functions return so many rows."""
        raise NotImplementedError

    def size(self, rows: int) -> int:
        """Return how many entries of m there are."""
        raise NotImplementedError

    @property
    def kernels(self) -> tuple[Function, Function]:
        """Compiled add(values, out), of (rows, n) to (width,), and merge(parts, out), of (parts, width) to (width,)."""
        raise NotImplementedError

    def finish(self, total: Matrix, particles: int) -> Matrix:
        """Return the entries of m, (size,), from what all particles are summed up in, (width,)."""
        raise NotImplementedError


def function_of(name: str, given: Any) -> Function:
    """Return a function; raises TypeError if it is none."""
    if not callable(given):
        raise TypeError(f"{name} must be a function, got {checks.shown(given)}")
    found: Function = given
    return found
