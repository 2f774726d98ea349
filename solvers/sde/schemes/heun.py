"""The scheme of Heun, for equations in the sense of Stratonovich."""

from __future__ import annotations

from solvers.sde.equation import McKeanVlasov
from solvers.sde.schemes.scheme import Scheme, Stage
from solvers.sde.schemes.terms import euler_terms


class Heun(Scheme):
    """The mean of the changes of Euler–Maruyama at both ends of a step; "heun" for short.

    It solves the equation in the sense of Stratonovich. Strong order 1 where the motions of a particle commute, which
    they do where each s_i depends on x_i only; ½ for a general matrix and with common noise. Weak order 1.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 11.1.
    W. Rümelin, "Numerical treatment of stochastic differential equations", SIAM J. Numer. Anal. 19 (1982).
    """

    name = "heun"
    stages = (Stage(euler_terms), Stage(euler_terms, weight=0.5))

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return ½ if the equation has general or common noise, else 1."""
        return 0.5 if equation.noise == "general" or equation.common is not None else 1.0

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0
