"""What passes through a matrix are made of: operations on particles as functions, of any home or compiled for few."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from solvers.ensemble import few
from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.random import Address, Noise
from solvers.matrices.cholesky import (
    inverse_of_triangle,
    rank_revealing_cholesky,
    revealing_factor,
    triangular_inverse,
)

Function = Callable[..., Any]


class Algebra(NamedTuple):
    """Operations on particles, which stand first, and on small matrices.

    Those of particles are the ones of `Particles`; `fill` takes where noise is found and the rows that are wanted.
    """

    inner: Function
    gram: Function
    project: Function
    combine: Function
    fill: Function
    empty: Function
    copy: Function
    scale: Function
    stack: Function
    revealing: Function
    inverse: Function


class Place(NamedTuple):
    """Where noise is found, for particles in any home; kernels take a `Draw`."""

    noise: Noise
    address: Address
    layer: int


def _fill(e: Particles, out: Array, place: Place, rows: Any) -> None:
    e.fill(out, place.noise, place.address.rows(rows), place.layer)


OF_PARTICLES = Algebra(
    inner=lambda e, parts, right: e.inner(parts, right),
    gram=lambda e, vectors: e.gram(vectors),
    project=lambda e, *operands: e.project(*operands),
    combine=lambda e, out, terms, add: e.combine(out, terms, add),
    fill=_fill,
    empty=lambda e, like: e.allocate(len(like), like.dtype),
    copy=lambda e, vectors: e.copy(vectors),
    scale=lambda e, vectors, factor: e.scale(vectors, factor),
    stack=lambda e, *parts: e.stack(parts),
    revealing=rank_revealing_cholesky,
    inverse=triangular_inverse,
)

OF_FEW = Algebra(
    inner=few.inner,
    gram=few.gram,
    project=few.project,
    combine=few.combine,
    fill=few.fill,
    empty=few.empty,
    copy=few.copy,
    scale=few.scale,
    stack=few.stack,
    revealing=revealing_factor,
    inverse=inverse_of_triangle,
)
