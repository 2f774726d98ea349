"""Motsch and Tadmor's flock."""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System
from solvers.sde.pairs.pairs import Pairs


class MotschTadmorArgs(NamedTuple):
    """K and β."""

    strength: float
    exponent: float


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    return x[2], x[3], 0.0, 0.0


@njit
def _influence(x, y, args):  # type: ignore[no-untyped-def]
    weight = (1.0 + (y[0] - x[0]) ** 2 + (y[1] - x[1]) ** 2) ** -args.exponent
    return weight, weight * (y[2] - x[2]), weight * (y[3] - x[3])


@njit
def _align(t, x, m, s, args):  # type: ignore[no-untyped-def]
    return 0.0, 0.0, args.strength * s[1] / s[0], args.strength * s[2] / s[0]


def motsch_tadmor(strength: float = 1.0, exponent: float = 1.0) -> System:
    """Return a flock in the plane that follows relative influence: dv_i = K Σ_j φ_ij (v_j − v_i) / Σ_j φ_ij dt.

    φ = (1 + |r_j − r_i|²)^−β, and dr_i = v_i dt. Unlike Cucker and Smale's, a small group is not held up by a large
    one far away, and the mean velocity is not kept unless β = 0, where v_i − v̄ falls like e^{−Kt}. The time is O(N²).

    Parameters
    ----------
    strength, exponent : float
        K and β.

    Returns
    -------
    System
        Particles (r₁, r₂, v₁, v₂); starts from independent N(0, 1).

    Raises
    ------
    TypeError, ValueError
        If a parameter is not a finite number.

    References
    ----------
    S. Motsch, E. Tadmor, "A new model for self-organized dynamics and its flocking behavior", J. Stat. Phys. 144
    (2011).
    """
    args = MotschTadmorArgs(*checks.finite_numbers(strength=strength, exponent=exponent))
    equation = McKeanVlasov(_drift, interaction=Pairs(_influence, function=_align))
    return System(equation, args, Normal((0.0, 0.0, 0.0, 0.0)), ("r₁", "r₂", "v₁", "v₂"), {"scheme": "heun"})
