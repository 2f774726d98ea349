"""The algebra of few particles for kernels, which do many operations in one call and on one thread.

The functions are those of `Particles` with a `Cut` before their arguments, made of the same products in the same order.
"""

from __future__ import annotations

import numpy as np

from solvers.accelerate import merged_kernel
from solvers.ensemble import products
from solvers.ensemble.random import fill_normals

_inner, _combine, _project = products.inner, products.combine, products.project


@merged_kernel
def _mean(cut, sums):  # type: ignore[no-untyped-def]
    total = sums[0].copy()
    for group in range(1, cut.groups):
        total += sums[group]
    return total / cut.particles


@merged_kernel
def inner(cut, parts, right):  # type: ignore[no-untyped-def]
    rows = 0
    for part in parts:
        rows += len(part)
    sums = np.zeros((cut.groups, rows, len(right)))
    first = 0
    for part in parts:
        _inner(part, right, right.dtype.type(0), 0, cut.groups, cut.group_size, first, sums)
        first += len(part)
    return _mean(cut, sums)


@merged_kernel
def gram(cut, vectors):  # type: ignore[no-untyped-def]
    sums = np.zeros((cut.groups, len(vectors), len(vectors)))
    _inner(vectors, vectors, 0.0, 0, cut.groups, cut.group_size, 0, sums)
    return _mean(cut, sums)


@merged_kernel
def project(cut, vectors, coordinates, directions):  # type: ignore[no-untyped-def]
    rest, count = np.empty_like(vectors), len(directions)
    sums = np.zeros((cut.groups, count + len(vectors), len(vectors)))
    coefficients = (-coordinates).astype(vectors.dtype)
    zero = vectors.dtype.type(0)
    _project(vectors, coefficients, directions, zero, 0, cut.groups, cut.group_size, rest, sums)
    met = _mean(cut, sums)
    return rest, met[:count].T, met[count:]


@merged_kernel
def combine(cut, out, terms, add):  # type: ignore[no-untyped-def]
    keep = 1.0 if add else 0.0
    for coefficients, vectors in terms:
        if coefficients.size > 0:
            _combine(coefficients.astype(out.dtype), vectors, 0, cut.particles, keep, out)
            keep = 1.0
    if keep == 0.0:
        out[:] = 0.0


@merged_kernel
def fill(cut, out, draw, rows):  # type: ignore[no-untyped-def]
    seed, stream, step, positions, finest, refinement, first = draw
    fill_normals(out, first, first + cut.particles, first, seed, stream, step, positions[rows], finest, refinement, 1.0)


@merged_kernel
def empty(cut, like):  # type: ignore[no-untyped-def]
    return np.empty((len(like), cut.particles), like.dtype)


@merged_kernel
def scale(cut, vectors, factor):  # type: ignore[no-untyped-def]
    vectors *= vectors.dtype.type(factor)


@merged_kernel
def copy(cut, vectors):  # type: ignore[no-untyped-def]
    return vectors.copy()


@merged_kernel
def stack(cut, first, second):  # type: ignore[no-untyped-def]
    out = np.empty((len(first) + len(second), first.shape[1]), first.dtype)
    out[: len(first)] = first
    out[len(first) :] = second
    return out
