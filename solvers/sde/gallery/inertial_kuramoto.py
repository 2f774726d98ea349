"""Kuramoto's oscillators with inertia."""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System, positive


class InertialKuramotoArgs(NamedTuple):
    """K, the mass and the temperature."""

    coupling: float
    mass: float
    temperature: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    pull = args.coupling * (math.cos(x[0]) * m[1] - math.sin(x[0]) * m[0])
    return x[1], (pull - x[1]) / args.mass


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return 0.0, math.sqrt(2.0 * args.temperature) / args.mass


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return math.cos(x[0]), math.sin(x[0])


def inertial_kuramoto(coupling: float = 3.0, mass: float = 0.5, temperature: float = 1.0) -> System:
    """Return oscillators M dω = (K r sin(ψ − θ) − ω) dt + √(2T) dW, dθ = ω dt, with r e^{iψ} = E e^{iθ}.

    The stationary law is Gibbs's: r = I₁(K r/T)/I₀(K r/T), which is above 0 for K > 2T whatever the mass, and
    Var ω = T/M.

    Parameters
    ----------
    coupling, mass, temperature : float
        K, M and T.

    Returns
    -------
    System
        Particles (θ, ω); starts from independent N(0, 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number, or the mass or the temperature is not above 0.

    References
    ----------
    J. A. Acebrón, L. L. Bonilla, R. Spigler, "Synchronization in populations of globally coupled oscillators with
    inertial effects", Phys. Rev. E 62 (2000).
    """
    args = InertialKuramotoArgs(*checks.finite_numbers(coupling=coupling, mass=mass, temperature=temperature))
    positive(mass=mass, temperature=temperature)
    equation = McKeanVlasov(_drift, _diffusion, _moments, noise="additive")
    return System(equation, args, Normal((0.0, 0.0)), ("θ", "ω"), {"scheme": "heun"})
