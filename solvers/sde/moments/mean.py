"""Means that see earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import reduction_kernel
from solvers.sde.moments.moment import Function, Moment

Matrix = NDArray[np.float64]


@reduction_kernel
def add_sums(values: Any, out: Any) -> None:
    """Add the sums of the rows of `values`, (rows, n), to out[:rows]."""
    for i in range(values.shape[0]):
        total = 0.0
        for p in range(values.shape[1]):
            total += values[i, p]
        out[i] += total


@reduction_kernel
def merge_sums(parts: Any, out: Any) -> None:
    """Add parts in their order."""
    for part in range(parts.shape[0]):
        for i in range(parts.shape[1]):
            out[i] += parts[part, i]


@dataclass(frozen=True, eq=False)
class Mean(Moment):
    """The mean of a function, as one that is given alone; a later one of several sees those before it."""

    function: Function

    kernels = (add_sums, merge_sums)

    def functions(self) -> dict[str, Function]:
        return {"moments": self.function}

    def width(self, rows: int) -> int:
        return rows

    def size(self, rows: int) -> int:
        return rows

    def finish(self, total: Matrix, particles: int) -> Matrix:
        return total / particles
