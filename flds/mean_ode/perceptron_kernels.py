"""Compiled passes of two-layer perceptrons with ρ = tanh, H-(24): what NumPy does in ten calls, in one without the GIL.

Units are cut into chunks that stay in cache. Parameters u and v are (D, units) with any distance between rows;
products with them are BLAS's, to which C-ordered arrays are transposed. States and covectors are (rows, D).
"""

from __future__ import annotations

import numba
import numpy as np
from numba import types
from numba.extending import overload
from numba.np.linalg import ensure_blas

from solvers.accelerate import kernel
from solvers.sde.functions import tanh

ensure_blas()
# The matrix product behind numpy.dot inside compiled code; called directly, because numpy.dot there would
# copy chunks, which are strided. Arguments: kind, transposes, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc.
gemm = types.ExternalFunction(
    "numba_xxgemm",
    types.intc(
        types.char, types.char, types.char, types.intp, types.intp, types.intp, types.voidptr, types.voidptr,
        types.intp, types.voidptr, types.intp, types.voidptr, types.voidptr, types.intp,
    ),
)  # fmt: skip
NO, YES = np.int8(ord("n")), np.int8(ord("t"))

# Numbers of a chunk, so that its parameters and temporaries stay in cache.
_CACHED = 32_768
# Units in a chunk, at least and at most: short products waste BLAS's packing.
_SHORTEST, _LONGEST = 16, 1024


def letter(array):
    """BLAS's letter for the precision of an array; a compile-time constant."""


@overload(letter)
def _letter_of(array):
    code = np.int8(ord("d" if array.dtype == numba.float64 else "s"))
    return lambda array: code


@kernel
def value(scaled, u, v, out):
    """Add Σ_j v_j tanh(u_j·h/D) to `out`, (rows, D), where `scaled` is h/D."""
    rows, dimension = scaled.shape
    row_u, row_v = u.strides[0] // u.itemsize, v.strides[0] // v.itemsize
    size = min(_LONGEST, max(_SHORTEST, _CACHED // (2 * dimension + rows)))
    rho = np.empty((rows, size), u.dtype)
    one, zero = np.ones(1, u.dtype), np.zeros(1, u.dtype)
    for first in range(0, u.shape[1], size):
        units = min(size, u.shape[1] - first)
        gemm(letter(u), NO, NO, units, rows, dimension, one.ctypes, u[:, first:].ctypes, row_u, scaled.ctypes,
             dimension, zero.ctypes, rho.ctypes, size)  # fmt: skip
        for i in range(rows):
            for j in range(units):
                rho[i, j] = tanh(rho[i, j])
        gemm(letter(u), YES, NO, dimension, rows, units, one.ctypes, v[:, first:].ctypes, row_v, rho.ctypes, size,
             one.ctypes, out.ctypes, dimension)  # fmt: skip


@kernel
def descend(scaled, covector, u, v, step_u, step_v, out):
    """Add Σ_j D1φ(h, (u_j, v_j))ᵀ b to `out`, and move u_j and v_j by −step times D2φ(h, (u_j, v_j))ᵀ b.

    `scaled` is h/D and `covector` is b/D. A parameter whose step is 0 stays as it is.
    """
    rows, dimension = scaled.shape
    row_u, row_v = u.strides[0] // u.itemsize, v.strides[0] // v.itemsize
    size = min(_LONGEST, max(_SHORTEST, _CACHED // (2 * dimension + 2 * rows)))
    rho, slope = np.empty((rows, size), u.dtype), np.empty((rows, size), u.dtype)
    one, zero = np.ones(1, u.dtype), np.zeros(1, u.dtype)
    minus_u, minus_v = np.full(1, -step_u * dimension, u.dtype), np.full(1, -step_v * dimension, u.dtype)
    for first in range(0, u.shape[1], size):
        units = min(size, u.shape[1] - first)
        gemm(letter(u), NO, NO, units, rows, dimension, one.ctypes, u[:, first:].ctypes, row_u, scaled.ctypes,
             dimension, zero.ctypes, rho.ctypes, size)  # fmt: skip
        gemm(letter(u), NO, NO, units, rows, dimension, one.ctypes, v[:, first:].ctypes, row_v, covector.ctypes,
             dimension, zero.ctypes, slope.ctypes, size)  # fmt: skip
        for i in range(rows):
            for j in range(units):
                rho[i, j] = tanh(rho[i, j])
                slope[i, j] *= 1 - rho[i, j] * rho[i, j]
        gemm(letter(u), YES, NO, dimension, rows, units, one.ctypes, u[:, first:].ctypes, row_u, slope.ctypes, size,
             one.ctypes, out.ctypes, dimension)  # fmt: skip
        if step_u:
            gemm(letter(u), NO, YES, units, dimension, rows, minus_u.ctypes, slope.ctypes, size, scaled.ctypes,
                 dimension, one.ctypes, u[:, first:].ctypes, row_u)  # fmt: skip
        if step_v:
            gemm(letter(u), NO, YES, units, dimension, rows, minus_v.ctypes, rho.ctypes, size, covector.ctypes,
                 dimension, one.ctypes, v[:, first:].ctypes, row_v)  # fmt: skip
