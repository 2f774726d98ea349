"""Infinite width at finite depth, n → ∞ with L fixed, in its three versions.

- "exact": the full dependence of the forward pass on the transposed weights; the solver with tied weights at
  that depth.
- "printed": Proposition 4 of paper F. Forward F-(5)–(6) with the expectations at ℓ − 1 as printed (appendix F
  derives the first one at ℓ − 2, and at ℓ = 1 a term of U instead); backward without a correction, since none
  is printed.
- "uncorrected": F-(5) without F-(6), which is the Euler–Maruyama scheme of Definition 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import flds
from flds.results.solution import Solution
from flds.training.network import BackwardPass, ForwardPass, Network
from flds.training.problem import TrainingProblem
from flds.training.solve import run
from solvers import checks
from solvers.ensemble.random import Address
from solvers.matrices.lazy import Coordinates

Array = NDArray[np.floating]

VERSIONS = ("exact", "printed", "uncorrected")


class _Past(NamedTuple):
    """One training step at one layer: −η L' for each sample, and φ(h_{ℓ-1}), φ'(h_{ℓ-1}) and g_ℓ."""

    rates: NDArray[np.float64]
    features: Array
    slopes: Array
    gradients: Array


class PrintedNetwork(Network):
    """Independent weights, and in the forward pass the term F-(6) as printed; methods are those of `Network`.

    References
    ----------
    Paper F, Proposition 4, eqs. (5) and (6).
    """

    def initialise(self) -> None:
        """Draw the network; nothing has been trained."""
        super().initialise()
        self.past: list[list[_Past]] = [[] for _ in self.layers]
        self.gradients: list[Array] = [np.empty((0, 0))] * len(self.layers)

    def forward_image(self, layer: int, h: Array, address: Address, probe: bool) -> tuple[Array, Coordinates]:
        """𝒲_ℓ φ(h) plus τ^3/2 times the sum of F-(6), (b, N), which the step multiplies by √τ; and coordinates."""
        image, coordinates = super().forward_image(layer, h, address, probe)
        features = self._apply(self.problem.phi.value, h)
        slopes = self._apply(self.problem.phi.derivative, h)
        for past in self.past[layer]:
            kernel = self.blocks.inner(past.features, features) * self.blocks.inner(past.slopes, slopes)
            weights = self.root_tau**3 * past.rates[:, None] * kernel
            self.blocks.combine(image, [(weights.T, past.gradients)], add=True)
        return image, coordinates

    def backward_image(self, layer: int, g: Array, slope: Array, address: Address) -> tuple[Array, Coordinates]:
        """𝒲̃_ℓᵀ g, (b, N), and the coordinates of g; g is kept for later forward passes."""
        self.gradients[layer] = g.copy()
        return super().backward_image(layer, g, slope, address)

    def update(self, inputs: Array, slopes: NDArray[np.float64], forward: ForwardPass, backward: BackwardPass,
               rate: float) -> None:  # fmt: skip
        """One step of SGD, which is remembered."""
        super().update(inputs, slopes, forward, backward, rate)
        rates = -rate / len(inputs) * backward.weights
        for layer, past in enumerate(self.past):
            h = forward.states[layer][backward.active]
            phi = self.problem.phi
            past.append(_Past(rates, self._apply(phi.value, h), self._apply(phi.derivative, h), self.gradients[layer]))


def solve(
    problem: TrainingProblem,
    *,
    version: str = "exact",
    particles: int = 20_000,
    depth: int = 16,
    sampling: str = "matched",
    **options: Any,
) -> Solution:
    """Solve the recursion of infinite width at depth L.

    Parameters
    ----------
    problem : TrainingProblem
        What is trained.
    version : str
        "exact", "printed" or "uncorrected".
    particles, depth : int
        N and L.
    sampling : str
        As for `flds.solve_flds`.
    **options
        As for `flds.solve_flds`, without `backward_weights`. The printed version keeps every past step, so its
        memory grows like steps · batch · depth · particles.

    Returns
    -------
    flds.Solution
        As for `flds.solve_flds`; the setting `version` says which recursion it is.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As for `flds.solve_flds`, or if the version is not one of the three.

    References
    ----------
    Paper F, Proposition 4, eqs. (5) and (6), and appendix F.
    """
    checks.choice("version", version, VERSIONS)
    if "backward_weights" in options:
        raise TypeError("the version decides on backward_weights; leave it out")
    weights = "tied" if version == "exact" else "independent"
    if version != "printed":
        solution = flds.solve_flds(
            problem, particles=particles, depth=depth, sampling=sampling, backward_weights=weights, **options
        )
        solution.settings["version"] = version
        return solution
    options["backward_weights"] = weights
    solution = run(problem, particles, depth, sampling, False, options, "tensor_program", PrintedNetwork)  # type: ignore[arg-type]
    solution.settings["version"] = version
    return solution
