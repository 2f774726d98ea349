"""What a moment is: numbers of each particle, and how those of all become entries of m."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers import checks

Matrix = NDArray[np.float64]
Function = Callable[..., Any]


class Moment(ABC):
    """Entries of m that are computed of all particles at once; a kind of one's own is a subclass.

    A part of the particles is summed up in some numbers, which begin at zero, and those of all parts are merged in the
    order of the particles, so m does not depend on threads or ranks.
    """

    @abstractmethod
    def functions(self) -> dict[str, Function]:
        """Return one or two functions of a particle, (t, x[, m][, args]), by what errors call them.

        Their values, one below the other, are rows.
        """

    # what to say where its entries of m are not finite
    hint: ClassVar[str] = ""

    def check(self, counts: tuple[tuple[int, bool], ...]) -> None:  # noqa: B027
        """Raise ValueError if a function must return one number; `counts` says how many each does, and if as one."""

    @abstractmethod
    def width(self, rows: int) -> int:
        """Return how many numbers a part of the particles is summed up in, where functions return so many `rows`."""

    @abstractmethod
    def size(self, rows: int) -> int:
        """Return how many entries of m there are, where functions return so many `rows`."""

    @property
    @abstractmethod
    def kernels(self) -> tuple[Function, Function]:
        """Compiled add(values, out), of (rows, n) to (width,), and merge(parts, out), of (parts, width) to (width,)."""

    @abstractmethod
    def finish(self, total: Matrix, particles: int) -> Matrix:
        """Return the entries of m, (size,), from `total`, (width,), in which so many `particles` are summed up."""


def function_of(name: str, given: Any) -> Function:
    """Return a function; raises TypeError if it is none."""
    if not callable(given):
        raise TypeError(f"{name} must be a function, got {checks.shown(given)}")
    found: Function = given
    return found
