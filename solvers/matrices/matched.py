"""Fresh noise with the second moments of the limit.

For N → ∞ these are known exactly: a fresh vector z is uncorrelated with everything drawn before and has unit variance.
Making the relations exact for the N particles at hand removes most of the Monte-Carlo error, without bias as N → ∞.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from solvers.ensemble.particles import Array, Particles
from solvers.matrices.cholesky import IncrementalCholesky
from solvers.matrices.sampling import Context, Sampling

# Vectors closer than this to the span of the others, relative to their norm, add no constraint.
_DEPENDENT = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-2}


def orthonormalise(ensemble: Particles, vectors: Array) -> None:
    """Make the rows of `vectors`, (m, N), orthonormal in ⟨,⟩ in place, in row order."""
    for _ in range(2):  # the second pass removes the rounding of the first
        inverse = solve_triangular(
            np.linalg.cholesky(ensemble.gram(vectors)), np.eye(len(vectors)), lower=True, check_finite=False
        )
        ensemble.combine(vectors, [(inverse, ensemble.copy(vectors))])


class MatchedSampling(Sampling):
    """Fresh vectors orthogonal to what their limit is uncorrelated with, and orthonormal.

    These are the input weights and readout at initialisation, bases and images of the operator, and the
    new directions and states of the call. One instance serves one layer: the factor of the Gram matrix
    of the constraints grows with the bases, so a call needs one product of them with what is new.

    Parameters
    ----------
    ensemble : Particles
        The particles.
    constants : (k, N) array
        Input weights and readout at initialisation.
    """

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble, self.constants = ensemble, constants
        self.factor = IncrementalCholesky(_DEPENDENT[constants.dtype], ensemble)
        self.members: list[tuple[int, int]] = []  # (family, row) in the order of the factor
        self.seen: list[int] = []  # rows of each family that were offered to the factor
        self.exhausted = False  # whether vectors that stay are no longer matched

    def condition(self, z: Array, context: Context) -> None:
        families = [self.constants, *context.families]
        passing = [context.directions, context.states]
        size = sum(map(len, families)) + sum(map(len, passing)) + len(z)
        # Beyond half of the space the constraints would dominate the noise they are to correct. A probe that
        # finds no room must not end the matching of what is trained.
        if self.exhausted or 2 * size > self.ensemble.particles:
            self.exhausted |= context.lasting
            self.unmatched = True
            return
        self.seen = self.seen or [0] * len(families)
        pending = [family[seen:] for family, seen in zip(families, self.seen, strict=True)]
        gram = self.ensemble.inner([*families, *passing], self.ensemble.stack([*pending, *passing, z]))

        # Rows of `gram` follow families and passing, its columns what is new and then z.
        starts = np.cumsum([0, *map(len, families), *map(len, passing)])
        new = [(index, row) for index, family in enumerate(families) for row in range(self.seen[index], len(family))]
        lasting = len(new) + len(context.directions)
        new += [(len(families) + index, row) for index, part in enumerate(passing) for row in range(len(part))]
        old = self._flat(starts, self.members)
        rank = self.factor.rank
        kept = self.factor.append(gram[old, : len(new)], gram[self._flat(starts, new), : len(new)])
        members = self.members + [new[index] for index in kept]
        rows = self._flat(starts, members)
        amounts = np.zeros((starts[-1], len(z)))
        amounts[rows] = self.factor.solve(gram[rows, len(new) :])
        pieces = np.split(-amounts, starts[1:-1])
        self.ensemble.combine(z, [(c.T, v) for c, v in zip(pieces, [*families, *passing], strict=True)], add=True)

        # A probe leaves everything as it was; otherwise the states go and the new directions join their family.
        if not context.lasting:
            self.factor.truncate(rank)
        else:
            self.factor.truncate(rank + int(np.sum(kept < lasting)))
            self.seen = [len(family) for family in families]
            joined = 1 + context.grows
            self.members = [
                (joined, self.seen[joined] + row) if family == len(families) else (family, row)
                for family, row in members[: self.factor.rank]
            ]
            self.seen[joined] += len(context.directions)
        orthonormalise(self.ensemble, z)

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            "matching_factor": self.factor.inverse,
            "matching_members": np.array(self.members, np.int64).reshape(-1, 2),
            "matching_seen": np.array(self.seen, np.int64),
            "matching_room": np.array([self.exhausted, self.unmatched], np.int8),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.factor.restore(state["matching_factor"])
        self.members = [(int(family), int(row)) for family, row in state["matching_members"]]
        self.seen = [int(count) for count in state["matching_seen"]]
        self.exhausted, self.unmatched = (bool(flag) for flag in state["matching_room"])

    def mark(self) -> Any:
        return self.factor.rank, self.members, self.seen, self.exhausted, self.unmatched

    def forget(self, mark: Any) -> None:
        rank, self.members, self.seen, self.exhausted, self.unmatched = mark
        self.factor.truncate(rank)

    @staticmethod
    def _flat(starts: NDArray[np.intp], members: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
        return np.array([starts[family] + row for family, row in members], dtype=np.intp)


class MatchedAllSampling(Sampling):
    """Fresh vectors orthogonal to everything drawn so far, in every layer: one instance serves a run.

    For the identity activation all states are combinations of what was drawn, so every moment is exact
    up to rounding. It needs more particles than draws, and is a test rather than a method.
    """

    def __init__(self, ensemble: Particles, constants: Array) -> None:
        self.ensemble = ensemble
        self.drawn = constants

    def condition(self, z: Array, context: Context) -> None:
        if len(self.drawn) + len(z) >= self.ensemble.particles:
            self.unmatched = True
            return
        for _ in range(2):
            self.ensemble.combine(z, [(-self.ensemble.inner(z, self.drawn), self.drawn)], add=True)
        orthonormalise(self.ensemble, z)
        if context.lasting:
            self.drawn = self.ensemble.stack([self.drawn, z])
