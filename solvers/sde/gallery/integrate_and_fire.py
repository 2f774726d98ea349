"""A population of leaky integrate-and-fire neurons that excite each other."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.events.reset import Reset
from solvers.sde.gallery.system import Normal, System, positive


class IntegrateAndFireArgs(NamedTuple):
    """μ, J, σ and the length of a step."""

    drive: float
    coupling: float
    volatility: float
    dt: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.drive - x + args.coupling * m[0] / args.dt


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.volatility


def integrate_and_fire(
    drive: float = 0.8, coupling: float = 0.2, volatility: float = 0.5, dt: float = 0.005, threshold: float = 1.0
) -> System:
    """Return neurons dV = (μ − V + J r) dt + σ dW that fire at a threshold and go back to 0; r is their rate.

    The rate is the share that fired in the last step over its length `dt`, which the run has to have. A stationary rate
    solves 1/r = √π ∫ e^{u²} (1 + erf u) du from −(μ + J r)/σ to (threshold − μ − J r)/σ.

    Parameters
    ----------
    drive, coupling, volatility : float
        μ, J and σ.
    dt : float
        Length of a step, in units of the time in which the potential leaks away.
    threshold : float
        Where a neuron fires.

    Returns
    -------
    System
        Particles V, and the number of times each fired as `resets`; starts from N(−2, 1) below the threshold.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number, or `dt` or the threshold is not above 0.

    References
    ----------
    N. Brunel, V. Hakim, "Fast global oscillations in networks of integrate-and-fire neurons with low firing rates",
    Neural Comput. 11 (1999). M. J. Cáceres, J. A. Carrillo, B. Perthame, "Analysis of nonlinear noisy integrate and
    fire neuron models", J. Math. Neurosci. 1 (2011).
    """
    args = IntegrateAndFireArgs(*checks.finite_numbers(drive=drive, coupling=coupling, volatility=volatility, dt=dt))
    positive(dt=dt, threshold=threshold)
    equation = McKeanVlasov(_drift, _diffusion, noise="additive")
    return System(
        equation,
        args,
        Normal(-2.0, largest=0.99 * threshold),
        ("V",),
        {"reset": Reset(threshold=threshold, value=0.0)},
    )
