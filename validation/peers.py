"""The same equations through torchsde, on the same Brownian increments.

torchsde knows no interaction between particles, so the means m_t of an interacting equation are frozen: taken
from a run of `solvers.solve` that saved them at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchsde
from numpy.typing import NDArray

from flds.training.activations import get_activation
from solvers import checks
from solvers.ensemble.brownian import BrownianMotion
from solvers.ensemble.random import Address, Noise, Stream
from solvers.results.solution import Solution

Array = NDArray[np.float64]
Coefficient = Callable[[Any, torch.Tensor], torch.Tensor]

# Names of our schemes there, and the calculus of each.
_METHODS = {"euler_maruyama": ("euler", "ito"), "milstein": ("milstein", "ito"), "heun": ("heun", "stratonovich")}


class ReplayedBrownian(torchsde.BaseBrownian):  # type: ignore[misc]
    """The increments of a `BrownianMotion` as torchsde asks for them, (N, K) for one interval of the grid.

    torchsde knows only increasing times, so where t1 < t0 its clock is t0 + t1 − t and the intervals come in
    reverse.

    Parameters
    ----------
    brownian : BrownianMotion
        The grid and the increments.
    particles : int
        N.
    """

    def __init__(self, brownian: BrownianMotion, particles: int) -> None:
        super().__init__()
        self.brownian = brownian
        increments = brownian.increments(slice(0, particles))
        self.path = torch.from_numpy(increments if brownian.t0 < brownian.t1 else increments[::-1].copy())

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> torch.Tensor:
        """Return W(tb) − W(ta); raises ValueError if they are not neighbours on the grid."""
        start = min(self.brownian.t0, self.brownian.t1)
        first, last = ((float(t) - start) / self.brownian.dt for t in (ta, tb))
        if abs(last - first) < 1e-6:  # its clock adds up steps, and may end with a remainder of rounding
            return torch.zeros_like(self.path[0])
        if abs(last - first - 1) > 1e-6 or abs(first - round(first)) > 1e-6:
            raise ValueError(f"the increment from {float(ta):g} to {float(tb):g} is not one interval of the grid")
        return self.path[round(first)]

    def __repr__(self) -> str:
        return f"ReplayedBrownian({self.brownian!r})"

    @property
    def shape(self) -> torch.Size:
        """Shape of one increment, (N, K)."""
        return self.path.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the increments, float64."""
        return self.path.dtype

    @property
    def device(self) -> torch.device:
        """Where the increments are."""
        return self.path.device

    @property
    def levy_area_approximation(self) -> str:
        """What torchsde gets of the Lévy area, "none"."""
        return "none"


class _Equation(torch.nn.Module):
    def __init__(self, drift: Coefficient, diffusion: Coefficient, noise: str, calculus: str) -> None:
        super().__init__()
        self.f, self.g, self.noise_type, self.sde_type = drift, diffusion, noise, calculus


def solve_torchsde(
    drift: Coefficient,
    diffusion: Coefficient,
    x0: Array,
    brownian: BrownianMotion,
    scheme: str = "euler_maruyama",
    noise: str = "diagonal",
) -> Array:
    """Return the particles at t1 by ``torchsde.sdeint`` on the increments of `brownian`.

    Parameters
    ----------
    drift, diffusion : callable
        b(t, x) → (N, D), and s(t, x) → (N, D), or (N, D, K) with ``noise="general"``, of tensors.
    x0 : (N, D) float64
        The particles at t0 < t1.
    brownian : BrownianMotion
        The grid and the increments.
    scheme : str
        "euler_maruyama", "milstein" or "heun".
    noise : str
        "diagonal" or "general".

    Returns
    -------
    particles : (N, D) float64

    Raises
    ------
    ValueError
        If there is no such scheme.

    References
    ----------
    X. Li, T.-K. L. Wong, R. T. Q. Chen, D. Duvenaud, "Scalable gradients for stochastic differential equations",
    AISTATS 2020.
    """
    method, calculus = _METHODS[checks.choice("scheme", scheme, tuple(_METHODS))]
    with torch.no_grad():
        path = torchsde.sdeint(
            _Equation(drift, diffusion, noise, calculus),
            torch.from_numpy(x0),
            torch.tensor([brownian.t0, brownian.t1], dtype=torch.float64),
            bm=ReplayedBrownian(brownian, len(x0)),
            method=method,
            dt=brownian.dt,
        )
    end: Array = path[-1].numpy()
    return end


def frozen_moments(run: Solution) -> Callable[[Any], torch.Tensor]:
    """Return t → m_t, (M,), from a `run` of `solvers.solve` that saved the moments at every step."""
    times, moments = run.times, torch.from_numpy(run.moments)

    def at(t: Any) -> torch.Tensor:
        return moments[int(np.argmin(np.abs(times - float(t))))]

    return at


def first_pass(
    activation: str, initial_variance: float, horizon: float, particles: int, depth: int, seed: int
) -> tuple[Array, Array]:
    """Return h_T and g_0, (N,) each, of the forward and backward SDE of paper F by ``torchsde.sdeint``.

    All particles are one batch, so that means can be taken inside the diffusion. Noise and initial values are
    those of `flds.solve_forward` and `flds.solve_backward` with the same numbers.

    Parameters
    ----------
    activation : str
        φ.
    initial_variance, horizon : float
        |x|²/d and T.
    particles, depth : int
        N and the number of steps.
    seed : int
        Seed of the noise.

    Returns
    -------
    h, g : (N,) float64

    Raises
    ------
    ValueError, TypeError
        If an argument is not valid.

    References
    ----------
    Paper F, Propositions 2 and 3; the diffusion of g is |φ'(h)| E[g²]^½ with h where the step arrives.
    """
    phi = get_activation(activation)
    start = np.empty((2, particles))
    for row, stream in zip(start, (Stream.INPUT, Stream.READOUT), strict=True):
        Noise(seed).fill(row[None], slice(0, particles), Address(stream))
    grid = torch.linspace(0.0, horizon, depth + 1, dtype=torch.float64)

    def integrate(x: Array, diffusion: Coefficient, brownian: BrownianMotion) -> torch.Tensor:
        equation = _Equation(lambda t, y: torch.zeros_like(y), diffusion, "diagonal", "ito")
        with torch.no_grad():
            return torchsde.sdeint(
                equation,
                torch.from_numpy(x)[:, None],
                grid,
                bm=ReplayedBrownian(brownian, particles),
                method="euler",
                dt=brownian.dt,
            )

    def spread(t: Any, h: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(phi.value(h.numpy())).square().mean().sqrt().expand_as(h)

    forward = BrownianMotion(0.0, horizon, depth, 1, seed, stream=Stream.FORWARD)
    h = integrate(np.sqrt(initial_variance) * start[0], spread, forward)

    def pull(t: Any, g: torch.Tensor) -> torch.Tensor:
        arrival = depth - 1 - round(float(t) / horizon * depth)
        return torch.from_numpy(phi.derivative(h[arrival].numpy())) * g.square().mean().sqrt()

    backward = BrownianMotion(horizon, 0.0, depth, 1, seed, stream=Stream.BACKWARD)
    g = integrate(start[1], pull, backward)
    return h[-1, :, 0].numpy(), g[-1, :, 0].numpy()
