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
from flds.training.branches import BranchLayer, BranchPull, SingleMatrix
from flds.training.network import BackwardPass, ForwardPass, Network
from flds.training.problem import TrainingProblem
from flds.training.solve import run
from solvers import checks

Array = NDArray[np.floating]

VERSIONS = ("exact", "printed", "uncorrected")


class _Past(NamedTuple):
    """One training step at one layer: −η L' for each sample, and φ(h_{ℓ-1}), φ'(h_{ℓ-1}) and g_ℓ."""

    rates: NDArray[np.float64]
    features: Array
    slopes: Array
    gradients: Array


class _PrintedBranch(SingleMatrix):
    """A branch with the term F-(6) as printed in its forward pass; methods are those of `SingleMatrix`.

    Parameters
    ----------
    root_tau : float
        √(T/L).
    depth : int
        L.
    """

    def __init__(self, root_tau: float, depth: int) -> None:
        self.root_tau = root_tau
        self.past: list[list[_Past]] = [[] for _ in range(depth)]
        self.last: dict[int, Array] = {}

    def forward(self, h: Array, layer: BranchLayer) -> tuple[Array, dict[str, Array]]:
        """𝒲_ℓ φ(h) plus τ^3/2 times the sum of F-(6), (b, N), which the step multiplies by √τ; and coordinates."""
        image, tape = super().forward(h, layer)
        home, phi = layer.residual, layer.phi
        features, slopes = home.map(phi.value, h), home.map(phi.derivative, h)
        for past in self.past[layer.number]:
            kernel = home.inner(past.features, features) * home.inner(past.slopes, slopes)
            weights = self.root_tau**3 * past.rates[:, None] * kernel
            home.combine(image, [(weights.T, past.gradients)], add=True)
        return image, tape

    def backward(self, g: Array, h: Array, tape: dict[str, Array], layer: BranchLayer) -> BranchPull:
        """Pull g back; it is kept for later forward passes."""
        self.last[layer.number] = layer.residual.copy(g)
        return super().backward(g, h, tape, layer)

    def remember(self, layer: BranchLayer, h: Array, rates: NDArray[np.float64]) -> None:
        """Keep the step whose passes were the last, with −η L' of its samples, whose states are h."""
        phi, derivative = (layer.residual.map(function, h) for function in (layer.phi.value, layer.phi.derivative))
        self.past[layer.number].append(_Past(rates, phi, derivative, self.last[layer.number]))


class PrintedNetwork(Network):
    """Independent weights, and in the forward pass the term F-(6) as printed; methods are those of `Network`.

    Raises
    ------
    ValueError
        As `Network`.

    References
    ----------
    Paper F, Proposition 4, eqs. (5) and (6).
    """

    def initialise(self) -> None:
        """Draw the network, which has not been trained."""
        self.branch = self.printed = _PrintedBranch(self.scale, self.settings.depth)
        super().initialise()

    def update(
        self, inputs: Array, slopes: NDArray[np.float64], forward: ForwardPass, backward: BackwardPass, step: int
    ) -> None:
        """One step of SGD, which is remembered."""
        super().update(inputs, slopes, forward, backward, step)
        rates = -self.problem.groups["hidden"].rates[step] / len(inputs) * backward.weights
        for layer, h in zip(self.layers, forward.states[:-1], strict=True):
            self.printed.remember(layer, h[backward.active], rates)


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
