"""How fresh noise vectors are conditioned before they become images of a weight matrix.

By law nothing is done: N particles are then a network of width N, fluctuations included. For the
limit N → ∞ itself the second moments are known exactly: a fresh vector z is uncorrelated with
everything drawn before and has unit variance. `MatchedSampling` makes these relations exact for the N
particles at hand, which removes most of the Monte-Carlo error without bias as N → ∞.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from solvers.blocks import Blocks
from solvers.cholesky import IncrementalCholesky

Array = NDArray[np.floating]

# Vectors closer than this to the span of the others, relative to their norm, add no constraint.
_DEPENDENT = {np.dtype(np.float64): 1e-6, np.dtype(np.float32): 1e-3}


def orthonormalise(blocks: Blocks, vectors: Array) -> None:
    """Make the rows of `vectors`, (m, N), orthonormal in ⟨,⟩ in place, in row order."""
    if not len(vectors):
        return
    for _ in range(2):  # the second pass removes the rounding of the first
        gram = blocks.mean(lambda block: _inner(vectors[:, block], vectors[:, block]))
        inverse = solve_triangular(np.linalg.cholesky(gram), np.eye(len(vectors)), lower=True)
        combine(blocks, inverse, vectors, out=vectors)


def combine(blocks: Blocks, coefficients: Array, vectors: Array, out: Array) -> None:
    """Set out = coefficients @ vectors block by block; `out` may be `vectors`."""
    coefficients = coefficients.astype(vectors.dtype)

    def work(block: slice) -> None:
        out[:, block] = coefficients @ vectors[:, block]

    blocks.each(work)


def _inner(a: Array, b: Array) -> NDArray[np.float64]:
    return a.astype(np.float64, copy=False) @ b.astype(np.float64, copy=False).T


class Sampling:
    """Fresh vectors by law: independent standard normals, left as they are."""

    exhausted = False

    def condition(self, z: Array, families: Sequence[Array], passing: Sequence[Array]) -> None:
        """Condition the fresh vectors z, (m, N), in place.

        `families` come in the same order and only grow from call to call; `passing` vectors count for this call alone.
        """


class MatchedSampling(Sampling):
    """Fresh vectors orthogonal to what their limit is uncorrelated with, and orthonormal.

    One instance serves one layer. The Cholesky factor of the Gram matrix of the constraints grows with
    the bases, so that a call costs a few products with them and no factorisation from scratch.

    Parameters
    ----------
    blocks : Blocks
        The partition of the particles.
    constants : (k, N) array
        Vectors every fresh one is uncorrelated with: input weights and readout at initialisation.
    """

    def __init__(self, blocks: Blocks, constants: Array) -> None:
        self.blocks, self.constants = blocks, constants
        self.factor = IncrementalCholesky(_DEPENDENT[constants.dtype])
        self.members: list[tuple[int, int]] = []  # (family, row) in the order of the factor
        self.seen: list[int] = []
        self.exhausted = False

    def condition(self, z: Array, families: Sequence[Array], passing: Sequence[Array]) -> None:
        everything = [self.constants, *families, *passing]
        # Beyond half of the space the constraints would dominate the noise they are to correct.
        if self.exhausted or 2 * (sum(map(len, everything)) + len(z)) > self.blocks.particles:
            self.exhausted = True
            return
        self.seen = self.seen or [0] * (1 + len(families))
        lasting = everything[: len(self.seen)]
        for index, family in enumerate(lasting):
            self._admit(everything, index, self.seen[index])
            self.seen[index] = len(family)
        rank, members = self.factor.rank, len(self.members)
        for index in range(len(lasting), len(everything)):
            self._admit(everything, index, 0)
        for _ in range(2):  # the second projection removes the rounding of the first
            self._subtract(everything, z, self.factor.solve(self._products(everything, z)))
        self.factor.truncate(rank)
        del self.members[members:]
        orthonormalise(self.blocks, z)

    def _admit(self, everything: Sequence[Array], index: int, start: int) -> None:
        new = everything[index][start:]
        if not len(new):
            return
        gram = self.blocks.mean(lambda block: _inner(new[:, block], new[:, block]))
        kept = self.factor.append(self._products(everything, new), gram)
        self.members += [(index, start + int(row)) for row in kept]

    def _flat(self, everything: Sequence[Array]) -> NDArray[np.intp]:
        offsets = np.cumsum([0, *map(len, everything)])
        return np.array([offsets[index] + row for index, row in self.members], dtype=np.intp)

    def _products(self, everything: Sequence[Array], vectors: Array) -> NDArray[np.float64]:
        """Inner products of the members with `vectors`, (members, m)."""
        products = self.blocks.mean(
            lambda block: np.concatenate([family[:, block] @ vectors[:, block].T for family in everything])
        )
        return products[self._flat(everything)]

    def _subtract(self, everything: Sequence[Array], z: Array, amounts: NDArray[np.float64]) -> None:
        bounds = np.cumsum([0, *map(len, everything)])
        spread = np.zeros((bounds[-1], len(z)), z.dtype)
        spread[self._flat(everything)] = amounts

        def work(block: slice) -> None:
            for index, family in enumerate(everything):
                z[:, block] -= spread[bounds[index] : bounds[index + 1]].T @ family[:, block]

        self.blocks.each(work)


class MatchedAllSampling(Sampling):
    """Fresh vectors orthogonal to everything drawn so far, in every layer: one instance serves a run.

    For the identity activation all states are combinations of what was drawn, so every moment is exact
    up to rounding. It needs more particles than draws, and is a test rather than a method.
    """

    def __init__(self, blocks: Blocks, constants: Array) -> None:
        self.blocks = blocks
        self.drawn = constants
        self.exhausted = False

    def condition(self, z: Array, families: Sequence[Array], passing: Sequence[Array]) -> None:
        if self.exhausted or len(self.drawn) + len(z) >= self.blocks.particles:
            self.exhausted = True
            return
        for _ in range(2):
            self._project(z)
        orthonormalise(self.blocks, z)
        self.drawn = np.concatenate([self.drawn, z])

    def _project(self, z: Array) -> None:
        overlap = self.blocks.mean(lambda block: z[:, block] @ self.drawn[:, block].T).astype(z.dtype)

        def subtract(block: slice) -> None:
            z[:, block] -= overlap @ self.drawn[:, block]

        self.blocks.each(subtract)
