"""What a step does with a part of the particles, compiled: rows are components, columns particles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solvers.accelerate import kernel, reduction_kernel

Array = NDArray[np.floating]
Matrix = NDArray[np.float64]


@reduction_kernel
def add_row(values: Array, row: int, start: int, stop: int, out: Matrix, place: int) -> None:
    """Add the sum of values[row, start:stop] to out[place]."""
    total = 0.0
    for p in range(start, stop):
        total += values[row, p]
    out[place] += total


@kernel
def load(source: Array, start: int, x: Matrix, moved: Matrix) -> None:
    """Copy source[:, start : start + n] into `x` and `moved`, (D, n)."""
    for row in range(x.shape[0]):
        here = source[row, start : start + x.shape[1]]
        for p in range(x.shape[1]):
            x[row, p] = here[p]
            moved[row, p] = here[p]


@kernel
def load_finite(source: Array, start: int, x: Matrix) -> int:
    """Copy source[:, start : start + n] into `x`, (D, n); return how many of its numbers are not finite."""
    bad = 0
    for row in range(x.shape[0]):
        here = source[row, start : start + x.shape[1]]
        for p in range(x.shape[1]):
            x[row, p] = here[p]
            bad += not abs(x[row, p]) < np.inf
    return bad


@kernel
def mix(x: Matrix, base: Array, weight: float, start: int) -> None:
    """Set `x`, (D, n), to (1 − weight) base[:, start : start + n] + weight x."""
    if weight != 1.0:
        for row in range(x.shape[0]):
            old = base[row, start : start + x.shape[1]]
            for p in range(x.shape[1]):
                x[row, p] = (1.0 - weight) * old[p] + weight * x[row, p]


@kernel
def put(x: Matrix, target: Array, start: int, limit: float) -> int:
    """Set target[:, start : start + n] to `x`, (D, n); count what is NaN or beyond limit."""
    bad = 0
    for row in range(x.shape[0]):
        there = target[row, start : start + x.shape[1]]
        for p in range(x.shape[1]):
            there[p] = x[row, p]
            bad += not abs(x[row, p]) <= limit
    return bad


@kernel
def between(field: Array, later: Array, share: float, start: int, stop: int, own: bool) -> Array:
    """Return the external field of particles start … stop − 1, or of all if it is not their `own`, (n or 1, F).

    It is that between `field` and `later` at a share of the way.
    """
    low, high = (start, stop) if own else (0, len(field))
    if share == 0.0:
        return field[low:high]
    if share == 1.0:
        return later[low:high]
    mixed = np.empty((high - low, field.shape[1]), field.dtype)
    for p in range(high - low):
        for i in range(field.shape[1]):
            mixed[p, i] = (1.0 - share) * field[low + p, i] + share * later[low + p, i]
    return mixed


@kernel
def note_fault(faults: NDArray[np.int64], group: int, first: int) -> int:
    """Count a new fault of a group, whose particle is then known by its number among all."""
    if faults[group, 0] > 0:
        faults[group, 0] = -faults[group, 0]
        faults[group, 1] += first
        return 1
    return 0


@kernel
def first_of(x: Matrix) -> Matrix:
    """Return the first column of `x`, (D, n), as (D, 1), or x itself where there is one."""
    return x if x.shape[1] <= 1 else x[:, :1].copy()


@kernel
def add_scaled(out: Matrix, values: Array, factor: float) -> None:
    """Add factor · values to `out`."""
    for i in range(out.shape[0]):
        for p in range(out.shape[1]):
            out[i, p] += factor * values[i, p]


@kernel
def add_multiples(out: Matrix, factors: Array, dw: Matrix) -> None:
    """Add factors[i, 0] · dw[i] to every row i of `out`, (D, n)."""
    if out.shape[1] > 0:
        for i in range(out.shape[0]):
            factor = factors[i, 0]
            for p in range(out.shape[1]):
                out[i, p] += factor * dw[i, p]


@kernel
def add_product(out: Matrix, values: Array, dw: Matrix) -> None:
    """Add values · dw to `out`, entry by entry; `dw` may have a single column for all particles."""
    for i in range(out.shape[0]):
        if dw.shape[1] == 1:
            for p in range(out.shape[1]):
                out[i, p] += values[i, p] * dw[i, 0]
        else:
            for p in range(out.shape[1]):
                out[i, p] += values[i, p] * dw[i, p]


@kernel
def add_matrix_product(out: Matrix, matrix: Array, dw: Matrix) -> None:
    """Add matrix @ dw of every particle to `out`; `matrix` is (D, K, n), `dw` (K, n) or (K, 1)."""
    for i in range(out.shape[0]):
        for k in range(matrix.shape[1]):
            if dw.shape[1] == 1:
                for p in range(out.shape[1]):
                    out[i, p] += matrix[i, k, p] * dw[k, 0]
            else:
                for p in range(out.shape[1]):
                    out[i, p] += matrix[i, k, p] * dw[k, p]


@kernel
def add_entries(values: Matrix, out: Matrix, first: int) -> None:
    """Add the entries of a matrix to out[first:]."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            out[first + i * values.shape[1] + j] += values[i, j]
