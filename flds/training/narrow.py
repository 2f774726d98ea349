"""Passes of narrow dense networks, written out for one thread: there, calls take longer than what they do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation
from flds.training.branches import ResidualBranch, SingleMatrix
from solvers.ensemble.particles import Array, Particles
from solvers.ensemble.threads import ThreadParticles
from solvers.matrices.dense import DenseOperator
from solvers.matrices.operator import WeightOperator

# Above this width threads share the products of a layer, which outweigh the calls.
NARROW = 512


class NarrowPasses:
    """Both passes through layers of one dense matrix: what `SingleMatrix` says, to rounding.

    Parameters
    ----------
    operators : sequence of DenseOperator
        The matrix of every layer, from the input to the output.
    phi : Activation
    width : int
        n.
    scale : float
        s, that of branches.
    """

    def __init__(self, operators: Sequence[DenseOperator], phi: Activation, width: int, scale: float) -> None:
        self.operators, self.phi, root = operators, phi, math.sqrt(width)
        self.share, self.scale = 1 / root, scale * root  # of coordinates, and of their images

    @classmethod
    def of(
        cls,
        operators: Sequence[WeightOperator],
        branch: ResidualBranch,
        ensemble: Particles,
        phi: Activation,
        scale: float,
    ) -> NarrowPasses | None:
        """Return the passes of a network with these matrices, or None where they are not for it."""
        narrow = type(ensemble) is ThreadParticles and ensemble.particles <= NARROW
        dense = [one for one in operators if isinstance(one, DenseOperator)]
        if not narrow or len(dense) < len(operators) or type(branch) is not SingleMatrix:
            return None
        return cls(dense, phi, ensemble.particles, scale)

    def forward(self, h: Array, probe: bool) -> tuple[list[Array], list[dict[str, Array]], list[float]]:
        """Return h_0 … h_L, or h_L alone of a probe, the tapes, and E h² of all but the first."""
        states, tapes, variance = [h], list[dict[str, Array]](), list[float]()
        for one in self.operators:
            met = self.phi.value(h) * self.share
            h = h + self.scale * (one.weights @ met.T).T  # faster than met times the transpose
            states = [h] if probe else [*states, h]
            if not probe:
                tapes.append({"hidden": met})
            variance.append(_mean_square(h))
        return states, tapes, variance

    def backward(
        self, g: Array, states: Sequence[Array], active: NDArray[np.intp]
    ) -> tuple[list[Array], list[dict[str, Array]], list[float]]:
        """Return g_0, what is pulled by matrices, from the output to the input, and E g² of all but the first."""
        gradients, variance = list[dict[str, Array]](), list[float]()
        for one, h in zip(self.operators[::-1], states[-2::-1], strict=True):
            pulled = g * self.share
            slope = self.phi.derivative(h if len(active) == len(h) else h[active])
            g = g + self.scale * slope * (one.backward_weights.T @ pulled.T).T
            gradients.append({"hidden": pulled})
            variance.append(_mean_square(g))
        return [g], gradients, variance


def _mean_square(x: Array) -> float:
    flat = x.reshape(-1)
    return float(flat @ flat) / x.size
