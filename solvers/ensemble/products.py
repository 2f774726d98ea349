"""Compiled products over stretches of particles: the arithmetic that solves spend their time on.

Arrays are (rows, N) and C-contiguous. Each kernel works through a contiguous range of particles in one call without the
GIL, a part of the particles at a time, which stays in cache, and in tiles of four rows by four, whose sums stay in
registers. BLAS, which packs its operands first, is up to three times slower on products of a few rows with many, and
about as fast on others.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from solvers.accelerate import reduction_kernel, reduction_part

# Particles that are multiplied at a time, with many rows and with few: memory is read faster in long pieces. Sums of so
# many are in the precision of the vectors, further ones in float64.
_SHORT_PART, _LONG_PART, _NUMBERS = 512, 4096, 8192


def _as(number, zero):
    """A number in the type of `zero`, in which its products are computed."""


@overload(_as)
def _as_type(number, zero):
    if number == zero:
        return lambda number, zero: number
    return lambda number, zero: np.float64(number)


_as.compiled_by = _as_type  # for keys of kernels that call it


@reduction_part
def _dots_4_4(a, i, x, b, j, size, zero, out):
    """Add the inner products of rows i … i + 3 of `a` and j … j + 3 of `b` to out[i:, j:], in the type of `zero`.

    Here and below these are of `size` particles, from x on in `a` and from 0 on in `b`.
    """
    a0, a1, a2, a3 = a[i, x : x + size], a[i + 1, x : x + size], a[i + 2, x : x + size], a[i + 3, x : x + size]
    b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
    s00, s01, s02, s03, s10, s11, s12, s13 = zero, zero, zero, zero, zero, zero, zero, zero
    s20, s21, s22, s23, s30, s31, s32, s33 = zero, zero, zero, zero, zero, zero, zero, zero
    for p in range(size):
        x0, x1, x2, x3 = _as(a0[p], zero), _as(a1[p], zero), _as(a2[p], zero), _as(a3[p], zero)
        y0, y1, y2, y3 = _as(b0[p], zero), _as(b1[p], zero), _as(b2[p], zero), _as(b3[p], zero)
        s00, s01, s02, s03 = s00 + x0 * y0, s01 + x0 * y1, s02 + x0 * y2, s03 + x0 * y3
        s10, s11, s12, s13 = s10 + x1 * y0, s11 + x1 * y1, s12 + x1 * y2, s13 + x1 * y3
        s20, s21, s22, s23 = s20 + x2 * y0, s21 + x2 * y1, s22 + x2 * y2, s23 + x2 * y3
        s30, s31, s32, s33 = s30 + x3 * y0, s31 + x3 * y1, s32 + x3 * y2, s33 + x3 * y3
    _put_four(s00, s01, s02, s03, out, i, j)
    _put_four(s10, s11, s12, s13, out, i + 1, j)
    _put_four(s20, s21, s22, s23, out, i + 2, j)
    _put_four(s30, s31, s32, s33, out, i + 3, j)


@reduction_part
def _put_four(s0, s1, s2, s3, out, i, j):
    out[i, j] += s0
    out[i, j + 1] += s1
    out[i, j + 2] += s2
    out[i, j + 3] += s3


@reduction_part
def _dots_4_1(a, i, x, b, j, size, zero):
    """Return the inner products of rows i … i + 3 of `a` with row j of `b`."""
    a0, a1, a2, a3 = a[i, x : x + size], a[i + 1, x : x + size], a[i + 2, x : x + size], a[i + 3, x : x + size]
    other = b[j]
    s0, s1, s2, s3 = zero, zero, zero, zero
    for p in range(size):
        factor = _as(other[p], zero)
        s0, s1 = s0 + _as(a0[p], zero) * factor, s1 + _as(a1[p], zero) * factor
        s2, s3 = s2 + _as(a2[p], zero) * factor, s3 + _as(a3[p], zero) * factor
    return s0, s1, s2, s3


@reduction_part
def _dot(x, y, zero):
    s = zero
    for p in range(len(x)):
        s += _as(x[p], zero) * _as(y[p], zero)
    return s


@reduction_part
def _tile(a, i, x, b, j, size, zero, out):
    """Add the inner products of up to four rows of each from i and j on to out[i:, j:]."""
    rows, columns = min(4, a.shape[0] - i), min(4, b.shape[0] - j)
    if rows == 4 and columns == 4:
        _dots_4_4(a, i, x, b, j, size, zero, out)
    elif rows == 4:
        for m in range(j, j + columns):
            s0, s1, s2, s3 = _dots_4_1(a, i, x, b, m, size, zero)
            out[i, m] += s0
            out[i + 1, m] += s1
            out[i + 2, m] += s2
            out[i + 3, m] += s3
    else:
        for k in range(rows):
            for m in range(j, j + columns):
                out[i + k, m] += _dot(a[i + k, x : x + size], b[m], zero)


@reduction_part
def _add_inner(a, x, b, size, zero, out):
    """Add Σ_p a[i, x + p] b[j, p] to out[i, j], (rows, rows); `a` is read once."""
    for i in range(0, a.shape[0], 4):
        for j in range(0, b.shape[0], 4):
            _tile(a, i, x, b, j, size, zero, out)


@reduction_part
def _add_four(c, i, k, vectors, x, out):
    """Add Σ_m c[i + n, k + m] vectors[k + m, x + p] over four m to out[i + n, p] for four n."""
    size = out.shape[1]
    v0, v1 = vectors[k, x : x + size], vectors[k + 1, x : x + size]
    v2, v3 = vectors[k + 2, x : x + size], vectors[k + 3, x : x + size]
    o0, o1, o2, o3 = out[i], out[i + 1], out[i + 2], out[i + 3]
    c00, c01, c02, c03 = c[i, k], c[i, k + 1], c[i, k + 2], c[i, k + 3]
    c10, c11, c12, c13 = c[i + 1, k], c[i + 1, k + 1], c[i + 1, k + 2], c[i + 1, k + 3]
    c20, c21, c22, c23 = c[i + 2, k], c[i + 2, k + 1], c[i + 2, k + 2], c[i + 2, k + 3]
    c30, c31, c32, c33 = c[i + 3, k], c[i + 3, k + 1], c[i + 3, k + 2], c[i + 3, k + 3]
    for p in range(size):
        x0, x1, x2, x3 = v0[p], v1[p], v2[p], v3[p]
        o0[p] += c00 * x0 + c01 * x1 + c02 * x2 + c03 * x3
        o1[p] += c10 * x0 + c11 * x1 + c12 * x2 + c13 * x3
        o2[p] += c20 * x0 + c21 * x1 + c22 * x2 + c23 * x3
        o3[p] += c30 * x0 + c31 * x1 + c32 * x2 + c33 * x3


@reduction_part
def _add_one(c, i, k, vectors, x, out):
    """The same for one row of `out` and four vectors."""
    size, there = out.shape[1], out[i]
    v0, v1 = vectors[k, x : x + size], vectors[k + 1, x : x + size]
    v2, v3 = vectors[k + 2, x : x + size], vectors[k + 3, x : x + size]
    c0, c1, c2, c3 = c[i, k], c[i, k + 1], c[i, k + 2], c[i, k + 3]
    for p in range(size):
        there[p] += c0 * v0[p] + c1 * v1[p] + c2 * v2[p] + c3 * v3[p]


@reduction_part
def _add_combination(c, vectors, x, out):
    """Add Σ_k c[i,k] vectors[k, x + p] to out[i,p]; `vectors` are read once."""
    rows, count = c.shape
    fours, quads = rows - rows % 4, count - count % 4
    for k in range(0, quads, 4):
        for i in range(0, fours, 4):
            _add_four(c, i, k, vectors, x, out)
        for i in range(fours, rows):
            _add_one(c, i, k, vectors, x, out)
    for k in range(quads, count):
        here = vectors[k, x : x + out.shape[1]]
        for i in range(rows):
            there, factor = out[i], c[i, k]
            for p in range(out.shape[1]):
                there[p] += factor * here[p]


@reduction_part
def _part_size(rows):
    """Return how many particles of so many rows that are held are multiplied at a time."""
    return max(_SHORT_PART, min(_LONG_PART, _NUMBERS // max(rows, 1)))


@reduction_part
def _held(memory, source, x, size):
    """Copy source[:, x : x + size] side by side into `memory`, and return it there, (rows, size).

    Rows of N particles lie far apart, and where N is a multiple of a large power of two they share few lines of cache.
    """
    rows = source.shape[0]
    part = memory[: rows * size].reshape(rows, size)
    for i in range(rows):
        here, there = source[i, x : x + size], part[i]
        for p in range(size):
            there[p] = here[p]
    return part


@reduction_part
def _put(part, out, x):
    """Copy a part to out[:, x:]."""
    for i in range(part.shape[0]):
        here, there = part[i], out[i, x : x + part.shape[1]]
        for p in range(part.shape[1]):
            there[p] = here[p]


@reduction_kernel
def inner(a, b, zero, first_group, last_group, group_size, row, sums):
    """Add Σ_p a[i,p] b[j,p] over the particles p of group g to sums[g, row + i, j], in parts of the type of `zero`."""
    more, fewer = a, b
    if a.shape[0] < b.shape[0]:
        more, fewer = b, a
    part = _part_size(fewer.shape[0])
    memory, found = np.empty(fewer.shape[0] * part, a.dtype), np.empty((more.shape[0], fewer.shape[0]))
    for group in range(first_group, last_group):
        stop = min((group + 1) * group_size, a.shape[1])
        found[:] = 0.0
        for first in range(group * group_size, stop, part):
            size = min(part, stop - first)
            _add_inner(more, first, _held(memory, fewer, first, size), size, zero, found)
        for i in range(a.shape[0]):
            for j in range(b.shape[0]):
                sums[group, row + i, j] += found[j, i] if a.shape[0] < b.shape[0] else found[i, j]


@reduction_kernel
def squares(a, first_group, last_group, group_size, sums):
    """Add Σ_p a[i,p]² over the particles p of group g to sums[g, i, 0] in float64."""
    for group in range(first_group, last_group):
        stop = min((group + 1) * group_size, a.shape[1])
        for first in range(group * group_size, stop, _LONG_PART):
            for i in range(a.shape[0]):
                here = a[i, first : min(first + _LONG_PART, stop)]
                sums[group, i, 0] += _dot(here, here, 0.0)


@reduction_kernel
def combine(coefficients, vectors, start, stop, keep, out):
    """Set out[i,p] = keep · out[i,p] + Σ_k coefficients[i,k] vectors[k,p] for start ≤ p < stop.

    `keep` is 0 or 1; with 0 what stood in `out` does not matter.
    """
    size = _part_size(out.shape[0])
    memory = np.empty(out.shape[0] * size, out.dtype)
    for first in range(start, stop, size):
        part = _held(memory, out, first, min(size, stop - first))
        if keep == 0:
            part[:] = 0
        _add_combination(coefficients, vectors, first, part)
        _put(part, out, first)


@reduction_kernel
def project(vectors, coefficients, directions, zero, first_group, last_group, group_size, rest, sums):
    """Set rest to vectors + coefficients @ directions, and add what it meets to sums[group], (r + b, b).

    These are its inner products with the directions, in parts of the type of `zero`, and with itself, in float64.
    """
    count, most = directions.shape[0], _part_size(vectors.shape[0])
    memory = np.empty(vectors.shape[0] * most, vectors.dtype)
    for group in range(first_group, last_group):
        stop = min((group + 1) * group_size, vectors.shape[1])
        for first in range(group * group_size, stop, most):
            size = min(most, stop - first)
            part = _held(memory, vectors, first, size)
            _add_combination(coefficients, directions, first, part)
            _add_inner(directions, first, part, size, zero, sums[group, :count])
            _add_inner(part, 0, part, size, 0.0, sums[group, count:])
            _put(part, rest, first)
