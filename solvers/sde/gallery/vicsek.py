"""Vicsek's flock in continuous time."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events.periodic import Periodic
from solvers.sde.gallery.system import System, Uniform, positive
from solvers.sde.pairs.pairs import Pairs


class VicsekArgs(NamedTuple):
    """The speed, ν and σ."""

    speed: float
    alignment: float
    volatility: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.speed * math.cos(x[2]), args.speed * math.sin(x[2]), 0.0


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return 0.0, 0.0, args.volatility


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return math.cos(x[2]), math.sin(x[2])


@njit
def _heading(x, y):  # type: ignore[no-untyped-def]
    return math.cos(y[2]), math.sin(y[2])


@njit
def _align(t, x, m, s, args):  # type: ignore[no-untyped-def]
    length = math.hypot(s[0], s[1])
    turn = (s[1] * math.cos(x[2]) - s[0] * math.sin(x[2])) / length if length > 0.0 else 0.0
    return 0.0, 0.0, args.alignment * turn


def vicsek(
    speed: float = 1.0, alignment: float = 1.0, volatility: float = 0.7, radius: float = 0.1, box: float = 1.0
) -> System:
    """Return a flock in a periodic square: particles (x, y, θ) move at one speed, and turn to those around them.

    dθ = ν sin(θ̄ − θ) dt + σ dW, with θ̄ the direction of the mean heading of those nearer than the radius, itself
    included. Where many are around, headings are von Mises with κ = 2ν/σ² about their common direction, so the order
    parameter |m| of the moments (E cos θ, E sin θ) is I₁(κ)/I₀(κ). The time is O(N) at a fixed number of neighbours.

    Parameters
    ----------
    speed, alignment, volatility : float
        The speed, ν and σ.
    radius, box : float
        How far particles see, and the side of the square.

    Returns
    -------
    System
        Starts from uniform positions and headings from −1 to 1.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number, or the radius or the box is not above 0.

    References
    ----------
    T. Vicsek et al., "Novel type of phase transition in a system of self-driven particles", Phys. Rev. Lett. 75 (1995).
    P. Degond, S. Motsch, "Continuum limit of self-driven particles with orientation interaction", Math. Models Methods
    Appl. Sci. 18 (2008), for continuous time.
    """
    args = VicsekArgs(*checks.finite_numbers(speed=speed, alignment=alignment, volatility=volatility))
    positive(radius=radius, box=box)
    pairs = Pairs(_heading, function=_align, cutoff=radius, space=2)
    equation = McKeanVlasov(_drift, _diffusion, _moments, noise="additive", interaction=pairs)
    high = np.array([box, box, np.inf])
    start = Uniform((0.0, 0.0, -1.0), (box, box, 1.0))
    return System(
        equation,
        args,
        start,
        ("x", "y", "θ"),
        {"scheme": "heun", "boundary": Periodic(np.where(np.isinf(high), -np.inf, 0.0), high)},
    )
