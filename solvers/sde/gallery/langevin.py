"""Underdamped Langevin dynamics with a mean-field interaction."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System, positive
from solvers.sde.schemes.baoab import BAOAB


class LangevinArgs(NamedTuple):
    """k, c and κ."""

    stiffness: float
    quartic: float
    attraction: float


@njit
def _force(t, x, m, args):  # type: ignore[no-untyped-def]
    q = x[0]
    return -args.stiffness * q - args.quartic * q * q * q - args.attraction * (q - m)


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return x[0]


def langevin(
    stiffness: float = 1.0,
    quartic: float = 0.0,
    attraction: float = 1.0,
    friction: float = 1.0,
    temperature: float = 1.0,
) -> System:
    """Return dq = p dt, dp = −(k q + c q³ + κ (q − E q)) dt − γ p dt + √(2γT) dW.

    The stationary law of q has the density ∝ exp(−(k q²/2 + c q⁴/4 + κ (q − m)²/2)/T), where m is its mean, and p is
    N(0, T). Without c, Var q = T/(k + κ), which the scheme BAOAB gives for steps of any length.

    Parameters
    ----------
    stiffness, quartic, attraction : float
        k, c and κ; a negative k with c > 0 makes a double well.
    friction, temperature : float
        γ and T.

    Returns
    -------
    System
        Particles (q, p); starts from independent N(0, 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number, or friction or temperature is not above 0.

    References
    ----------
    B. Leimkuhler, C. Matthews, "Rational construction of stochastic numerical methods for molecular sampling", Appl.
    Math. Res. Express (2013). F. Bolley, A. Guillin, F. Malrieu, "Trend to equilibrium and particle approximation for a
    weakly selfconsistent Vlasov–Fokker–Planck equation", ESAIM M2AN 44 (2010).
    """
    args = LangevinArgs(*checks.finite_numbers(stiffness=stiffness, quartic=quartic, attraction=attraction))
    positive(friction=friction, temperature=temperature)
    equation = McKeanVlasov(_force, moments=_moments)
    scheme = BAOAB(friction=friction, temperature=temperature)
    return System(equation, args, Normal((0.0, 0.0)), ("q", "p"), {"scheme": scheme})
