"""Compiled products over stretches of particles: the arithmetic that solves spend their time on.

Arrays are (rows, N) and C-contiguous. Each kernel works through a contiguous range of stretches in one call
without the GIL and calls BLAS on the stretches where they lie.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import overload
from numba.np.linalg import ensure_blas

from solvers.accelerate import kernel, reduction_kernel
from solvers.ensemble.random import STRETCH

ensure_blas()
# The matrix product behind numpy.dot inside compiled code; called directly, because numpy.dot there would
# copy stretches, which are strided. Arguments: kind, transposes, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc.
gemm = types.ExternalFunction(
    "numba_xxgemm",
    types.intc(
        types.char, types.char, types.char, types.intp, types.intp, types.intp, types.voidptr, types.voidptr,
        types.intp, types.voidptr, types.intp, types.voidptr, types.voidptr, types.intp,
    ),
)  # fmt: skip
# Likewise matrix times vector: kind, transpose, m, n, alpha, a, lda, x, beta, y.
_gemv = types.ExternalFunction(
    "numba_xxgemv",
    types.intc(
        types.char, types.char, types.intp, types.intp, types.voidptr, types.voidptr, types.intp, types.voidptr,
        types.voidptr, types.voidptr,
    ),
)  # fmt: skip
NO, YES = np.int8(ord("n")), np.int8(ord("t"))
# Up to this many rows on the narrow side products with a vector beat the matrix product, which packs its
# operands first: these are bound by memory.
_NARROW = 2


def letter(array):
    """BLAS's letter for the precision of an array; a compile-time constant."""


@overload(letter)
def _letter_of(array):
    code = np.int8(ord("d" if array.dtype == numba.float64 else "s"))
    return lambda array: code


@kernel
def inner(a, b, first_group, last_group, group_size, row, sums):
    """Add Σ_p a[i,p] b[j,p] over the particles p of group g to sums[g, row + i, j], stretch after stretch."""
    rows, columns, particles = a.shape[0], b.shape[0], a.shape[1]
    part = np.empty((rows, columns), a.dtype)
    column = np.empty(rows, a.dtype)
    one, zero = np.ones(1, a.dtype), np.zeros(1, a.dtype)
    for group in range(first_group, last_group):
        stop = min((group + 1) * group_size, particles)
        for first in range(group * group_size, stop, STRETCH):
            size = min(STRETCH, stop - first)
            # BLAS counts columns first, so (rows, N) arrays are N × rows matrices to it
            if rows <= _NARROW:
                for i in range(rows):
                    _gemv(letter(a), YES, size, columns, one.ctypes, b[:, first:].ctypes, particles,
                          a[i, first:].ctypes, zero.ctypes, part[i].ctypes)  # fmt: skip
            elif columns <= _NARROW:
                for j in range(columns):
                    _gemv(letter(a), YES, size, rows, one.ctypes, a[:, first:].ctypes, particles,
                          b[j, first:].ctypes, zero.ctypes, column.ctypes)  # fmt: skip
                    part[:, j] = column
            else:
                gemm(letter(a), YES, NO, columns, rows, size, one.ctypes, b[:, first:].ctypes, particles,
                     a[:, first:].ctypes, particles, zero.ctypes, part.ctypes, columns)  # fmt: skip
            for i in range(rows):
                for j in range(columns):
                    sums[group, row + i, j] += part[i, j]


@reduction_kernel
def squares(a, first_group, last_group, group_size, sums):
    """Add Σ_p a[i,p]² over the particles p of group g to sums[g, i, 0] in float64."""
    for group in range(first_group, last_group):
        stop = min((group + 1) * group_size, a.shape[1])
        for first in range(group * group_size, stop, STRETCH):
            for i in range(a.shape[0]):
                total = 0.0
                for p in range(first, min(first + STRETCH, stop)):
                    total += np.float64(a[i, p]) * np.float64(a[i, p])
                sums[group, i, 0] += total


@kernel
def combine(coefficients, vectors, start, stop, keep, out):
    """Set out[i,p] = keep · out[i,p] + Σ_k coefficients[i,k] vectors[k,p] for start ≤ p < stop.

    `keep` is 0 or 1; with 0 what stood in `out` is not read.
    """
    rows, count = coefficients.shape
    one, beta = np.ones(1, out.dtype), np.full(1, keep, out.dtype)
    for first in range(start, stop, STRETCH):
        size = min(STRETCH, stop - first)
        if rows <= _NARROW:
            for i in range(rows):
                _gemv(letter(out), NO, size, count, one.ctypes, vectors[:, first:].ctypes, vectors.shape[1],
                      coefficients[i].ctypes, beta.ctypes, out[i, first:].ctypes)  # fmt: skip
        else:
            gemm(letter(out), NO, NO, size, rows, count, one.ctypes, vectors[:, first:].ctypes,
                 vectors.shape[1], coefficients.ctypes, count, beta.ctypes, out[:, first:].ctypes,
                 out.shape[1])  # fmt: skip
