"""Rank-revealing Cholesky factors, built row by row in the order the vectors arrive.

A Gram matrix may be singular (repeated inputs, converged training). Rows whose pivot falls below the
tolerance are skipped instead of dividing by rounding errors, and the order of the others is kept, so
that runs of different particle number and depth choose the same directions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from solvers.accelerate import reduction_kernel

Matrix = NDArray[np.float64]

# Pivots this small against the diagonal have lost twelve of sixteen digits.
_ROUNDING = 1e-12
# LAPACK is faster on larger matrices than this, and slower to call on smaller ones.
_LARGE = 128


def rank_revealing_cholesky(
    gram: Matrix, smallest_pivot: Matrix, most: int | None = None
) -> tuple[Matrix, NDArray[np.intp]]:
    """Factor gram ≈ C Cᵀ, skipping rows below their tolerance.

    Pivots below 1e-12 of their diagonal entry are skipped in any case: what the subtractions leave there is
    rounding.

    Parameters
    ----------
    gram : (b, b) float64
        Positive semidefinite matrix of inner products.
    smallest_pivot : (b,) float64
        Smallest squared residual norm for which row s starts a new direction.
    most : int, optional
        Largest number of directions, where the vectors live in a space of so many dimensions.

    Returns
    -------
    factor : (b, m) float64
        Coordinates of the b vectors on the m directions that were kept.
    kept : (m,) int
        The rows that started a direction, in ascending order; factor[kept] is lower triangular.

    References
    ----------
    N. J. Higham, "Analysis of the Cholesky decomposition of a semi-definite matrix", in Reliable Numerical Computation,
    Oxford 1990.
    """
    return revealing_factor(np.ascontiguousarray(gram), smallest_pivot, len(gram) if most is None else most)


@reduction_kernel
def _factor(gram: Matrix, smallest: Matrix, most: int, factor: Matrix, kept: NDArray[np.intp]) -> int:
    """Set columns of `factor`, which are zero, and the rows that started them; return how many there are."""
    size, count = len(gram), 0
    residual = np.empty(size)
    for row in range(size):
        residual[row] = gram[row, row]
    for row in range(size):
        if not residual[row] > smallest[row] or count == most:
            continue
        pivot = math.sqrt(residual[row])
        factor[row, count] = pivot
        here = factor[row]
        for below in range(row + 1, size):
            there, product = factor[below], 0.0
            for k in range(count):
                product += there[k] * here[k]
            there[count] = (gram[below, row] - product) / pivot
            residual[below] -= there[count] * there[count]
        kept[count] = row
        count += 1
    return count


@reduction_kernel
def revealing_factor(gram: Matrix, smallest_pivot: Matrix, most: int) -> tuple[Matrix, NDArray[np.intp]]:
    """The same, for kernels; `gram` is C-contiguous."""
    size = len(gram)
    factor, kept = np.zeros((size, size)), np.empty(size, np.intp)
    smallest = np.empty(size)
    for row in range(size):
        smallest[row] = np.maximum(smallest_pivot[row], _ROUNDING * gram[row, row])
    count = _factor(gram, smallest, most, factor, kept)
    return factor[:, :count].copy(), kept[:count]


@reduction_kernel
def square_factor(gram: Matrix) -> Matrix:
    """Return (b, b) C with C Cᵀ = gram, for kernels too; each direction stands in the column of the row it began in."""
    size = len(gram)
    factor, kept = revealing_factor(gram, np.zeros(size), size)
    square = np.zeros((size, size))
    for direction in range(len(kept)):
        for row in range(size):
            square[row, kept[direction]] = factor[row, direction]
    return square


def triangular_inverse(lower: NDArray[np.floating]) -> Matrix:
    """Return the inverse of a lower triangular matrix, (n, n) float64; what stands above its diagonal is not read."""
    if len(lower) > _LARGE:
        return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False))
    return inverse_of_triangle(np.ascontiguousarray(lower))


@reduction_kernel
def inverse_of_triangle(lower: Matrix) -> Matrix:
    """The same, for kernels."""
    out = np.zeros((len(lower), len(lower)))
    for row in range(len(lower)):
        there, pivot = out[row], lower[row, row]
        for k in range(row):
            factor, other = lower[row, k], out[k]
            for column in range(k + 1):
                there[column] -= factor * other[column]
        for column in range(row):
            there[column] /= pivot
        there[row] = 1.0 / pivot
    return out
