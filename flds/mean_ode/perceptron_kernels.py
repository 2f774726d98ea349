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

from solvers.accelerate import kernel, part_kernel, reduction_part
from solvers.ensemble.atomic import APART, fetch_add, give_way, load, store
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
# Up to so many rows and numbers of a state loops are faster than BLAS, which packs what it multiplies.
_FEW = 24


def letter(array):
    """BLAS's letter for the precision of an array; a compile-time constant."""


@overload(letter)
def _letter_of(array):
    code = np.int8(ord("d" if array.dtype == numba.float64 else "s"))
    return lambda array: code


# x P(x²)/Q(x²) is tanh x up to |x| = 8.6, where it is 1 in float32, to a relative error of 1.4e-8: the rational
# function whose largest error is smallest, found by Lawson's iteration. Computed in float32 it errs by 4e-7.
_FARTHEST = np.float32(8.6)
_P = tuple(map(np.float32, (
    9.9999998674015811e-01, 1.3406877056806168e-01, 3.5264036828657722e-03, 2.1122416807706183e-05,
    1.4082521579397759e-08,
)))  # fmt: skip
_Q = tuple(map(np.float32, (
    1.0, 4.6740198595056492e-01, 2.5993907894655284e-02, 3.3362737191945505e-04, 8.0706571544331916e-07,
)))  # fmt: skip
_P0, _P1, _P2, _P3, _P4 = _P
_Q0, _Q1, _Q2, _Q3, _Q4 = _Q
_ONE = np.float32(1.0)


def squash(x):
    """Tanh of a number in its own precision, in loops that vectorise; NaN stays NaN."""


@overload(squash, inline="always")
def _squash_of(x):
    if x == numba.float64:
        return lambda x: tanh(x)

    def short(x):
        y = _FARTHEST if x > _FARTHEST else -_FARTHEST if x < -_FARTHEST else x
        z = y * y
        found = y * (_P0 + z * (_P1 + z * (_P2 + z * (_P3 + z * _P4))))
        found = found / (_Q0 + z * (_Q1 + z * (_Q2 + z * (_Q3 + z * _Q4))))
        return _ONE if found > _ONE else -_ONE if found < -_ONE else found

    return short


def rows_are_whole(array):
    """Whether rows of an array lie side by side, so that loops over them vectorise; a compile-time constant."""


@overload(rows_are_whole)
def _rows_are_whole(array):
    whole = array.layout == "C"
    return lambda array: whole


@part_kernel
def add_combinations(weights, rows, begin, out, start, units):
    """Add Σ_d weights[i, d] rows[d, begin + j] to out[i, start + j] for so many units j, four rows at a time."""
    count = weights.shape[1]
    for i in range(weights.shape[0]):
        here, d = out[i, start : start + units], 0
        while d + 3 < count:
            a, b, c, e = weights[i, d], weights[i, d + 1], weights[i, d + 2], weights[i, d + 3]
            p, q = rows[d, begin : begin + units], rows[d + 1, begin : begin + units]
            r, s = rows[d + 2, begin : begin + units], rows[d + 3, begin : begin + units]
            for j in range(units):
                here[j] += a * p[j] + b * q[j] + c * r[j] + e * s[j]
            d += 4
        while d < count:
            a, p = weights[i, d], rows[d, begin : begin + units]
            for j in range(units):
                here[j] += a * p[j]
            d += 1


@reduction_part
def add_products(left, right, begin, units, out):
    """Add Σ_j left[i, j] right[d, begin + j] over so many units j to out[i, d], two by two."""
    for i in range(0, left.shape[0], 2):
        for d in range(0, right.shape[0], 2):
            last_i, last_d = min(i + 1, left.shape[0] - 1), min(d + 1, right.shape[0] - 1)
            a, b = left[i, :units], left[last_i, :units]
            p, q = right[d, begin : begin + units], right[last_d, begin : begin + units]
            zero = out[i, d] - out[i, d]
            first, second, third, fourth = zero, zero, zero, zero
            for j in range(units):
                first += a[j] * p[j]
                second += a[j] * q[j]
                third += b[j] * p[j]
                fourth += b[j] * q[j]
            out[i, d] += first
            if last_d > d:
                out[i, last_d] += second
            if last_i > i:
                out[last_i, d] += third
                if last_d > d:
                    out[last_i, last_d] += fourth


@kernel
def set_products(scaled, u, begin, units, out):
    """Set out[i, j] to Σ_d scaled[i, d] u[d, begin + j] for so many units j."""
    rows, dimension = scaled.shape
    if rows_are_whole(u) and max(rows, dimension) <= _FEW:
        out[:, :units] = 0
        add_combinations(scaled, u, begin, out, 0, units)
        return
    one, zero = np.ones(1, u.dtype), np.zeros(1, u.dtype)
    gemm(letter(u), NO, NO, units, rows, dimension, one.ctypes, u[:, begin:].ctypes, u.strides[0] // u.itemsize,
         scaled.ctypes, dimension, zero.ctypes, out.ctypes, out.shape[1])  # fmt: skip


@kernel
def add_sums(rho, v, begin, units, out):
    """Add Σ_j rho[i, j] v[d, begin + j] over so many units j to out[i, d]."""
    rows, dimension = out.shape
    if rows_are_whole(v) and max(rows, dimension) <= _FEW:
        add_products(rho, v, begin, units, out)
        return
    one = np.ones(1, v.dtype)
    gemm(letter(v), YES, NO, dimension, rows, units, one.ctypes, v[:, begin:].ctypes, v.strides[0] // v.itemsize,
         rho.ctypes, rho.shape[1], one.ctypes, out.ctypes, dimension)  # fmt: skip


@kernel
def move(scaled, slope, step, u, begin, units):
    """Add −step Σ_i scaled[i, d] slope[i, j] to u[d, begin + j] for so many units j."""
    rows, dimension = scaled.shape
    factor, one = np.full(1, -step, u.dtype), np.ones(1, u.dtype)
    if rows_are_whole(u) and max(rows, dimension) <= _FEW:
        add_combinations(scaled.T.copy() * factor[0], slope, 0, u, begin, units)
        return
    gemm(letter(u), NO, YES, units, dimension, rows, factor.ctypes, slope.ctypes, slope.shape[1], scaled.ctypes,
         dimension, one.ctypes, u[:, begin:].ctypes, u.strides[0] // u.itemsize)  # fmt: skip


@kernel
def value(scaled, u, v, begin, end, out):
    """Add Σ_j v_j tanh(u_j·h/D) over units begin … end − 1 to `out`, (rows, D), where `scaled` is h/D."""
    rows, dimension = scaled.shape
    size = min(_LONGEST, max(_SHORTEST, _CACHED // (2 * dimension + rows)))
    rho = np.empty((rows, size), u.dtype)
    for first in range(begin, end, size):
        units = min(size, end - first)
        set_products(scaled, u, first, units, rho)
        for i in range(rows):
            for j in range(units):
                rho[i, j] = squash(rho[i, j])
        add_sums(rho, v, first, units, out)


@kernel
def descend(scaled, covector, u, v, begin, end, step_u, step_v, out):
    """Add Σ_j D1φ(h, (u_j, v_j))ᵀ b to `out`, and move u_j and v_j by −step times D2φ(h, (u_j, v_j))ᵀ b.

    Units are begin … end − 1, `scaled` is h/D and `covector` is b/D. A parameter whose step is 0 stays as it is.
    """
    rows, dimension = scaled.shape
    size = min(_LONGEST, max(_SHORTEST, _CACHED // (2 * dimension + 2 * rows)))
    rho, slope = np.empty((rows, size), u.dtype), np.empty((rows, size), u.dtype)
    for first in range(begin, end, size):
        units = min(size, end - first)
        set_products(scaled, u, first, units, rho)
        set_products(covector, v, first, units, slope)
        for i in range(rows):
            for j in range(units):
                rho[i, j] = squash(rho[i, j])
                slope[i, j] *= 1 - rho[i, j] * rho[i, j]
        add_sums(slope, u, first, units, out)
        if step_u:
            move(scaled, slope, step_u * dimension, u, first, units)
        if step_v:
            move(covector, rho, step_v * dimension, v, first, units)


# Words that threads share in a pass: the next part to be handed out, how many are done, and the node that is open.
NEXT, DONE, OPEN = (APART * place for place in range(3))
WORDS = 3 * APART


@kernel
def go_on(node, nodes, sums, scale, x, fields, states):
    """Add up the field of x at a node, and set `states` at the next one: Adams' predictor and corrector of order three.

    `sums` are those of all parts, (parts, rows, D); `fields`, (3, rows, D), holds the last three, newest first.
    """
    step = 1.0 / (nodes - 1)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            total = 0.0
            for part in range(sums.shape[0]):
                total += sums[part, i, j]
            fields[2, i, j] = fields[1, i, j]
            fields[1, i, j] = fields[0, i, j]
            fields[0, i, j] = scale * total
            new, old, older = fields[0, i, j], fields[1, i, j], fields[2, i, j]
            if node == 1:
                x[i, j] += step * (new + old) / 2.0
            elif node > 1:
                x[i, j] += step * (5.0 * new + 8.0 * old - older) / 12.0
            if node + 1 < nodes:
                states[node + 1, i, j] = x[i, j] + step * (new if node == 0 else 1.5 * new - 0.5 * old)


@kernel
def forward(control, cuts, u, v, alpha, x, states, fields, sums):
    """Take part in a pass of x, (rows, D) float64, through all nodes, whose states are set; x then is h(1)."""
    nodes, parts = len(u), len(cuts) - 1
    dimension, units = u.shape[1], u.shape[2]
    while True:
        ticket = fetch_add(control, NEXT, 1)
        node, part = ticket // parts, ticket % parts
        if node >= nodes:
            return
        while load(control, OPEN) < node:
            give_way()
        first, last = cuts[part], cuts[part + 1]
        sums[part] = 0.0
        value(states[node] / u.dtype.type(dimension), u[node], v[node], first, last, sums[part])
        if fetch_add(control, DONE, 1) + 1 == (node + 1) * parts:
            go_on(node, nodes, sums, alpha / units, x, fields, states)
            store(control, OPEN, node + 1)


@kernel
def back(control, cuts, u, v, alpha, step_u, step_v, states, x, covectors, fields, sums):
    """Take part in a pass of the covector x from the last node to the first, set in this order; units move."""
    nodes, parts = len(u), len(cuts) - 1
    dimension, units = u.shape[1], u.shape[2]
    while True:
        ticket = fetch_add(control, NEXT, 1)
        place, part = ticket // parts, ticket % parts
        if place >= nodes:
            return
        while load(control, OPEN) < place:
            give_way()
        first, last, node = cuts[part], cuts[part + 1], nodes - 1 - place
        sums[part] = 0.0
        descend(states[node] / u.dtype.type(dimension), covectors[place] / u.dtype.type(dimension),
                u[node], v[node], first, last, step_u, step_v, sums[part])  # fmt: skip
        if fetch_add(control, DONE, 1) + 1 == (place + 1) * parts:
            go_on(place, nodes, sums, alpha / units, x, fields, covectors)
            store(control, OPEN, place + 1)
