"""Fresh noise with the second moments of the limit.

For N → ∞ these are known exactly: a fresh vector z is uncorrelated with everything drawn before and has unit variance.
Making the relations exact for the N particles at hand removes most of the Monte-Carlo error, without bias as N → ∞.
"""

from __future__ import annotations

import numpy as np

from solvers.ensemble.particles import Array, Particles
from solvers.matrices.cholesky import rank_revealing_cholesky, triangular_inverse
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


class MatchedSampling(Sampling):
    """Fresh vectors orthogonal to u, v and the states of the batch, and orthonormal.

    These constraints keep nearly all of what there is to gain; those by bases and images of the matrix add little, and
    their number would grow with the rank. Vectors that are not remembered meet u and v alone.

    Parameters
    ----------
    ensemble : Particles
        The particles.
    constants : (k, N) array
        Input weights and readout at initialisation, orthonormal.
    """

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble, self.constants = ensemble, constants

    def condition(self, z: Array, states: Array | None) -> None:
        ensemble, count = self.ensemble, len(self.constants)
        met = ensemble.stack([z] if states is None else [states, z])
        if ROOM * (count + len(met)) > ensemble.particles:
            self.unmatched = True
            return
        old, new = slice(0, len(met) - len(z)), slice(len(met) - len(z), len(met))
        products = ensemble.inner([self.constants, met], met)
        on_constants, gram = products[:count], products[count:]
        gram = gram - on_constants.T @ on_constants  # of what lies outside the constants, which are orthonormal
        squares = np.diagonal(products[count:])
        factor, kept = rank_revealing_cholesky(gram[old, old], _DEPENDENT[z.dtype] ** 2 * squares[old])
        solve = triangular_inverse(factor[kept])
        rows = solve @ gram[old, new][kept]
        amounts = np.zeros((old.stop, len(z)))
        amounts[kept] = solve.T @ rows
        inverse = triangular_inverse(np.linalg.cholesky(gram[new, new] - rows.T @ rows))
        share = np.hstack([-inverse @ amounts.T, inverse])  # of states and fresh vectors in the conditioned ones
        ensemble.combine(z, [(share, met), (-share @ on_constants.T, self.constants)])


class MatchedAllSampling(Sampling):
    """Fresh vectors orthogonal to everything drawn so far, in every layer: one instance serves a run.

    For the identity activation all states are combinations of what was drawn, so every moment is exact
    up to rounding. It needs more particles than draws, and is a test rather than a method.
    """

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble = ensemble
        self.drawn = constants

    def condition(self, z: Array, states: Array | None) -> None:
        if len(self.drawn) + len(z) >= self.ensemble.particles:
            self.unmatched = True
            return
        for _ in range(2):
            self.ensemble.combine(z, [(-self.ensemble.inner(z, self.drawn), self.drawn)], add=True)
        orthonormalise(self.ensemble, z)
        if states is not None:
            self.drawn = self.ensemble.stack([self.drawn, z])
