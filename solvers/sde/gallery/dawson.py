"""Dawson's double well."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System


class DawsonArgs(NamedTuple):
    """θ and σ."""

    coupling: float
    volatility: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    return x - x * x * x - args.coupling * (x - m)


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.volatility


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return x


def dawson(coupling: float = 1.0, volatility: float = 0.8) -> System:
    """Return Dawson's double well, dX = (X − X³ − θ (X − E X)) dt + σ dW of numbers.

    The stationary law has the density ∝ exp(−2/σ² (x⁴/4 − x²/2 + θ (x − m)²/2)) where m is its mean. Below a critical
    noise there are two such means beside 0, and the population chooses one.

    Parameters
    ----------
    coupling, volatility : float
        θ and σ.

    Returns
    -------
    System
        Starts from N(1, 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    References
    ----------
    D. A. Dawson, "Critical dynamics and fluctuations for a mean-field model of cooperative behavior", J. Stat. Phys. 31
    (1983).
    """
    args = DawsonArgs(*checks.finite_numbers(coupling=coupling, volatility=volatility))
    equation = McKeanVlasov(_drift, _diffusion, _moments, noise="additive")
    return System(equation, args, Normal(1.0), ("x",), {"scheme": "heun"})
