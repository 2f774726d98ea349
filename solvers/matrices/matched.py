"""Fresh noise with the second moments of the limit.

For N → ∞ these are known exactly: a fresh vector z is uncorrelated with everything drawn before and has unit variance.
Making the relations exact for the N particles at hand removes most of the Monte-Carlo error, without bias as N → ∞.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from solvers.accelerate import merged_kernel
from solvers.ensemble.particles import Array, Particles
from solvers.matrices.algebra import OF_FEW, OF_PARTICLES, Algebra
from solvers.matrices.cholesky import triangular_inverse
from solvers.matrices.sampling import Sampling

# Particles for each vector that noise is matched to or made of: constraints that take more than half of the space would
# dominate the noise they are to correct.
ROOM = 2
# Vectors closer than this to the span of the others, relative to their norm, add no constraint.
_DEPENDENT = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-2}


def orthonormalise(ensemble: Particles, vectors: Array) -> None:
    """Make the rows of `vectors`, (m, N), orthonormal in ⟨,⟩ in place, in row order."""
    for _ in range(2):  # the second pass removes the rounding of the first
        inverse = triangular_inverse(np.linalg.cholesky(ensemble.gram(vectors)))
        ensemble.combine(vectors, [(inverse, ensemble.copy(vectors))])


def conditioning(algebra: Algebra, dependent: float) -> Callable[..., bool]:
    """Return a function that makes fresh vectors z orthonormal, and orthogonal to states and constants.

    It returns whether there was room for it. States within `dependent` of the others add no constraint.
    """
    inner, combine, stack = algebra.inner, algebra.combine, algebra.stack
    revealing, inverse_of = algebra.revealing, algebra.inverse

    def condition(e, z, states, constants):  # type: ignore[no-untyped-def]
        count, old = len(constants), len(states)
        if ROOM * (count + old + len(z)) > e.particles:
            return False
        met = stack(e, states, z)
        products = inner(e, (constants, met), met)
        on_constants, squares = products[:count].copy(), np.diag(products[count:])
        # of what lies outside the constants, which are orthonormal
        gram = products[count:] - on_constants.T.copy() @ on_constants
        factor, kept = revealing(gram[:old, :old].copy(), dependent**2 * squares[:old], old)
        solve = inverse_of(factor[kept])
        rows = solve @ gram[:old, old:][kept]
        inverse = inverse_of(np.linalg.cholesky(gram[old:, old:] - rows.T.copy() @ rows))
        amounts = np.zeros((len(z), old))  # of states in the conditioned vectors
        amounts[:, kept] = -inverse @ (rows.T.copy() @ solve)
        share = np.hstack((amounts, inverse))
        combine(e, z, ((share, met), (-share @ on_constants.T.copy(), constants)), False)
        return True

    return condition


class MatchedSampling(Sampling):
    """Fresh vectors orthogonal to u, v and the states of the batch, and orthonormal.

    These constraints keep nearly all of what there is to gain; those by bases and images of the matrix add little, and
    their number would grow with the rank. Vectors that are not remembered meet u and v alone.

    Parameters
    ----------
    ensemble : Particles
        The particles.
    constants : (k, N) array
        Input weights and readout at initialisation, orthonormal; none inside branches, where fresh vectors need only be
        orthonormal.
    """

    constants: Array

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble, self.constants = ensemble, constants

    def condition(self, z: Array, states: Array) -> bool:
        condition = conditioning(OF_PARTICLES, _DEPENDENT[self.ensemble.precision(z)])
        return condition(self.ensemble, z, states, self.constants)

    def compiled(self, dtype: np.dtype) -> Callable[..., bool]:
        return _compiled(_DEPENDENT[dtype])


@lru_cache
def _compiled(dependent: float) -> Callable[..., bool]:
    return merged_kernel(conditioning(OF_FEW, dependent))


class MatchedAllSampling(Sampling):
    """Fresh vectors orthogonal to everything drawn so far, in every layer: one instance serves a run.

    For the identity activation all states are combinations of what was drawn, so every moment is exact
    up to rounding. It needs more particles than draws, and is a test rather than a method.
    """

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble = ensemble
        self.drawn = constants

    def compiled(self, dtype: np.dtype) -> None:
        return None

    def condition(self, z: Array, states: Array) -> bool:
        if len(self.drawn) + len(z) >= self.ensemble.particles:
            return False
        for _ in range(2):
            self.ensemble.combine(z, [(-self.ensemble.inner(z, self.drawn), self.drawn)], add=True)
        orthonormalise(self.ensemble, z)
        if len(states):
            self.drawn = self.ensemble.stack([self.drawn, z])
        return True
