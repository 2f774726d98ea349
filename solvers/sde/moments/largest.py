"""The largest value among all particles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.moments.moment import Function, Moment, function_of

Matrix = NDArray[np.float64]


@kernel
def add_largest(values: Any, out: Any) -> None:
    """Take in the largest value of each row; out[0] says whether there is any. NaN stays."""
    for i in range(values.shape[0]):
        for p in range(values.shape[1]):
            value = values[i, p]
            if (out[0] == 0.0 and p == 0) or value > out[i + 1] or value != value:
                out[i + 1] = value
    if values.shape[1] > 0:
        out[0] = 1.0


@kernel
def merge_largest(parts: Any, out: Any) -> None:
    """Take in the largest of parts."""
    for part in range(parts.shape[0]):
        if parts[part, 0] == 0.0:
            continue
        for i in range(1, parts.shape[1]):
            value = parts[part, i]
            if out[0] == 0.0 or value > out[i] or value != value:
                out[i] = value
        out[0] = 1.0


@dataclass(frozen=True, eq=False)
class Largest(Moment):
    """The largest value of a function of the particles, number by number, instead of its mean.

    Parameters
    ----------
    function : callable
        (t, x[, m][, args]) → a number or M numbers, written as coefficients are; m holds what earlier moments gave, and
        is left out in the first.

    Raises
    ------
    TypeError
        If it is no function.
    """

    function: Function

    kernels = (add_largest, merge_largest)

    def __post_init__(self) -> None:
        function_of("the function of Largest", self.function)

    def functions(self) -> dict[str, Function]:
        return {"function of Largest": self.function}

    def width(self, rows: int) -> int:
        return rows + 1

    def size(self, rows: int) -> int:
        return rows

    def finish(self, total: Matrix, particles: int) -> Matrix:
        return total[1:].copy()
