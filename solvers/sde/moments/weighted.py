"""Means with weights that are known by their logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel
from solvers.sde.moments.moment import Function, Moment, function_of

Matrix = NDArray[np.float64]


@kernel
def add_weighted(values: Any, out: Any) -> None:
    """Take in particles with logarithms of weights values[0] and values[1:]; out is (largest, Σ w, Σ w v).

    Weights are relative to the largest so far, so that none overflows.
    """
    if values.shape[1] == 0:
        return
    largest = values[0, 0] if out[1] == 0.0 else out[0]
    for p in range(values.shape[1]):
        if not values[0, p] <= largest:  # NaN stays
            largest = values[0, p]
    if largest == -math.inf:  # weights of 0
        return
    if out[1] > 0.0 and largest != out[0]:
        scale = math.exp(out[0] - largest)
        for i in range(1, len(out)):
            out[i] *= scale
    out[0] = largest
    for p in range(values.shape[1]):
        weight = math.exp(values[0, p] - largest)
        out[1] += weight
        for i in range(1, values.shape[0]):
            out[i + 1] += weight * values[i, p]


@kernel
def merge_weighted(parts: Any, out: Any) -> None:
    """Take in parts of the same form."""
    for part in range(parts.shape[0]):
        if parts[part, 1] == 0.0:
            continue
        largest = parts[part, 0] if out[1] == 0.0 or not parts[part, 0] <= out[0] else out[0]
        before = math.exp(out[0] - largest) if out[1] != 0.0 else 0.0
        scale = math.exp(parts[part, 0] - largest)
        for i in range(1, len(out)):
            out[i] = before * out[i] + scale * parts[part, i]
        out[0] = largest


@dataclass(frozen=True, eq=False)
class WeightedMean(Moment):
    """E[v e^ℓ]/E[e^ℓ] and ln E e^ℓ, of values v and logarithms of weights ℓ of any size: no weight overflows.

    With ℓ = −α f it is the consensus point of minimisers, and −1/α times the last entry is a smooth minimum of f.

    Parameters
    ----------
    log_weight : callable
        ℓ(t, x[, m][, args]), a number, written as coefficients are; m holds what earlier moments gave, and is left out
        in the first.
    value : callable, optional
        v(t, x[, m][, args]), a number or M numbers; without it there is ln E e^ℓ alone.

    Raises
    ------
    TypeError
        If one is no function.

    References
    ----------
    R. Pinnau, C. Totzeck, O. Tse, S. Martin, "A consensus-based model for global optimization and its mean-field
    limit", Math. Models Methods Appl. Sci. 27 (2017), for the consensus point.
    """

    log_weight: Function
    value: Function | None = None

    hint = ": some particle needs a weight above 0"
    kernels = (add_weighted, merge_weighted)

    def __post_init__(self) -> None:
        function_of("log_weight", self.log_weight)
        if self.value is not None:
            function_of("value", self.value)

    def functions(self) -> dict[str, Function]:
        return {"log_weight": self.log_weight} | ({} if self.value is None else {"value": self.value})

    def check(self, counts: tuple[tuple[int, bool], ...]) -> None:
        if counts[0][0] != 1:
            raise ValueError(f"log_weight must return a number, got {counts[0][0]}")

    def width(self, rows: int) -> int:
        return rows + 1

    def size(self, rows: int) -> int:
        return rows

    def finish(self, total: Matrix, particles: int) -> Matrix:
        return np.append(total[2:] / total[1], total[0] + np.log(total[1] / particles))
