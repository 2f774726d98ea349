"""Rank-revealing Cholesky factors against NumPy, and on singular matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.matrices.cholesky import rank_revealing_cholesky, triangular_inverse


def gram(rows, columns, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, columns))
    return vectors @ vectors.T


def test_regular_matrix_gives_the_ordinary_factor():
    matrix = gram(6, 20)
    factor, kept = rank_revealing_cholesky(matrix, np.zeros(6))
    np.testing.assert_array_equal(kept, np.arange(6))
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 8), st.integers(0, 10**6))
def test_singular_matrices_are_reproduced_at_their_rank(rank, extra, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((rank, 30))
    vectors = np.concatenate([vectors, rng.standard_normal((extra, rank)) @ vectors])
    matrix = vectors @ vectors.T
    factor, kept = rank_revealing_cholesky(matrix, 1e-9 * np.diagonal(matrix))
    assert list(kept) == list(range(rank))
    # pivots above 1e-9 amplify rounding by at most 1e9
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-6 * matrix.max())


def test_rows_below_their_own_tolerance_are_skipped_in_order():
    matrix = np.diag([1.0, 1e-6, 4.0, 0.0])
    factor, kept = rank_revealing_cholesky(matrix, np.full(4, 1e-4))
    np.testing.assert_array_equal(kept, [0, 2])
    np.testing.assert_array_equal(factor, [[1, 0], [0, 0], [0, 2], [0, 0]])


@pytest.mark.parametrize("size", [0, 1, 5, 128, 129])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_inverses_of_triangular_matrices(size, dtype):
    lower = np.linalg.cholesky(gram(size, 4 * size + 1) + np.eye(size)).astype(dtype)
    lower += np.triu(np.ones((size, size), dtype), 1)  # which is not to be read
    inverse = triangular_inverse(lower)
    assert inverse.dtype == np.float64
    # rounding of sums of so many, over a condition number of some tens
    np.testing.assert_allclose(inverse @ np.tril(lower), np.eye(size), atol=2e-14 * max(1, size))
    assert not np.triu(inverse, 1).any()


def test_nan_rows_start_no_direction():
    matrix = np.eye(3)
    matrix[1] = matrix[:, 1] = np.nan
    assert 1 not in rank_revealing_cholesky(matrix, np.zeros(3))[1]
