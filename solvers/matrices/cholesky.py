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
from solvers.ensemble.particles import Particles, partition

Matrix = NDArray[np.float64]

# Pivots this small against the diagonal have lost twelve of sixteen digits.
_ROUNDING = 1e-12
# LAPACK is faster on larger matrices than this, and slower to call on smaller ones.
_LARGE = 128
# Rows of a triangular factor that one thread takes at a time.
_ROWS = 128


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
    size = len(gram)
    factor, kept = np.zeros((size, size)), np.empty(size, np.intp)
    smallest = np.maximum(smallest_pivot, _ROUNDING * np.diagonal(gram))
    count = _factor(np.ascontiguousarray(gram), smallest, size if most is None else most, factor, kept)
    return factor[:, :count], kept[:count]


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


def triangular_inverse(lower: NDArray[np.floating]) -> Matrix:
    """Return the inverse of a lower triangular matrix, (n, n) float64; what stands above its diagonal is not read."""
    if len(lower) > _LARGE:
        return np.asarray(solve_triangular(lower, np.eye(len(lower)), lower=True, check_finite=False))
    out = np.zeros((len(lower), len(lower)))
    _invert(np.ascontiguousarray(lower), out)
    return out


@reduction_kernel
def _invert(lower: Matrix, out: Matrix) -> None:
    """Set `out`, which is zero, to the inverse of a lower triangular matrix."""
    for row in range(len(lower)):
        there, pivot = out[row], lower[row, row]
        for k in range(row):
            factor, other = lower[row, k], out[k]
            for column in range(k + 1):
                there[column] -= factor * other[column]
        for column in range(row):
            there[column] /= pivot
        there[row] = 1.0 / pivot


class IncrementalCholesky:
    """The Cholesky factor of a growing Gram matrix of linearly independent vectors.

    Vectors that depend on the earlier ones, up to `tolerance` relative to their norm, are refused. The
    inverse of the factor is held, which makes solving a product; the tolerance bounds its condition.

    Parameters
    ----------
    tolerance : float
        Smallest residual of a vector that is kept, relative to its norm.
    ensemble : Particles
        Whose threads share the products.
    """

    def __init__(self, tolerance: float, ensemble: Particles) -> None:
        self.tolerance, self.ensemble = tolerance, ensemble
        self.rank = 0
        self._inverse = np.zeros((16, 16))

    @property
    def inverse(self) -> Matrix:
        """The inverse of the factor, (rank, rank)."""
        return self._inverse[: self.rank, : self.rank]

    def restore(self, inverse: Matrix) -> None:
        """Take over the inverse of another factor, which is left as it is."""
        self.rank, self._inverse = len(inverse), inverse

    def append(self, cross: Matrix, gram: Matrix) -> NDArray[np.intp]:
        """Take in m new vectors.

        Parameters
        ----------
        cross : (rank, m) float64
            Inner products of the members with the new vectors.
        gram : (m, m) float64
            Inner products of the new vectors.

        Returns
        -------
        kept : (k,) int
            Indices of those that were kept, in ascending order.
        """
        rows = self._lower(cross).T
        smallest = self.tolerance**2 * np.diagonal(gram)
        new, kept = rank_revealing_cholesky(gram - rows @ rows.T, smallest)
        total = self.rank + len(kept)
        if total > len(self._inverse):
            grown = np.zeros((max(total, 2 * len(self._inverse)),) * 2)
            grown[: self.rank, : self.rank] = self._inverse[: self.rank, : self.rank]
            self._inverse = grown
        corner = triangular_inverse(new[kept])
        self._inverse[self.rank : total, : self.rank] = -corner @ self._upper(rows[kept].T).T
        self._inverse[self.rank : total, self.rank : total] = corner
        self.rank = total
        return kept

    def truncate(self, rank: int) -> None:
        """Forget every member after the first `rank`."""
        self.rank = rank

    def solve(self, right: Matrix) -> Matrix:
        """Return a of (F Fᵀ) a = right; both are (rank, m) float64."""
        return self._upper(self._lower(right))

    def _lower(self, right: Matrix) -> Matrix:
        """F⁻¹ right, on all threads, leaving out the zeros above the diagonal."""
        out = np.empty_like(right)

        def work(rows: slice) -> None:
            out[rows] = self._inverse[rows, : rows.stop] @ right[: rows.stop]

        self.ensemble.each(work, partition(self.rank, _ROWS))
        return out

    def _upper(self, right: Matrix) -> Matrix:
        """F⁻ᵀ right, likewise."""
        out = np.empty_like(right)

        def work(rows: slice) -> None:
            out[rows] = self._inverse[rows.start : self.rank, rows].T @ right[rows.start :]

        self.ensemble.each(work, partition(self.rank, _ROWS))
        return out
