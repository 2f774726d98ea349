"""FitzHugh–Nagumo neurons with electrical synapses."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System


class FitzHughNagumoArgs(NamedTuple):
    """J, I, ε, a, b and σ."""

    coupling: float
    current: float
    slowness: float
    offset: float
    damping: float
    volatility: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    v, w = x[0], x[1]
    pull = args.coupling * (m - v)
    return v - v * v * v / 3.0 - w + args.current + pull, args.slowness * (v + args.offset - args.damping * w)


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    return args.volatility, 0.0


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return x[0]


def fitzhugh_nagumo(
    coupling: float = 1.0,
    current: float = 0.5,
    slowness: float = 0.08,
    offset: float = 0.7,
    damping: float = 0.8,
    volatility: float = 0.3,
) -> System:
    """Return neurons dv = (v − v³/3 − w + I + J (E v − v)) dt + σ dW, dw = ε (v + a − b w) dt.

    Where all start alike and σ = 0, each is a single neuron. In a stationary state E v + a = b E w.

    Parameters
    ----------
    coupling, current, slowness, offset, damping, volatility : float
        J, I, ε, a, b and σ.

    Returns
    -------
    System
        Particles (v, w); starts from independent N(0, 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    References
    ----------
    J. Baladron, D. Fasoli, O. Faugeras, J. Touboul, "Mean-field description and propagation of chaos in networks of
    Hodgkin–Huxley and FitzHugh–Nagumo neurons", J. Math. Neurosci. 2 (2012).
    """
    given = checks.finite_numbers(
        coupling=coupling, current=current, slowness=slowness, offset=offset, damping=damping, volatility=volatility
    )
    equation = McKeanVlasov(_drift, _diffusion, _moments, noise="additive")
    return System(equation, FitzHughNagumoArgs(*given), Normal((0.0, 0.0)), ("v", "w"), {"scheme": "heun"})
