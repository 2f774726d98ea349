"""The scheme of Euler and Maruyama."""

from __future__ import annotations

from solvers.sde.equation import McKeanVlasov
from solvers.sde.schemes.scheme import Scheme, Stage
from solvers.sde.schemes.terms import euler_terms


class EulerMaruyama(Scheme):
    """A step adds b dt + s dW, with coefficients and means where it starts; "euler_maruyama" for short.

    Strong order 1 where the noise is additive and none is common, else ½. Weak order 1.

    References
    ----------
    G. Maruyama, "Continuous Markov processes and stochastic equations", Rend. Circ. Mat. Palermo 4 (1955).
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 10.2.
    """

    name = "euler_maruyama"
    stages = (Stage(euler_terms),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return 1 if the equation has neither a diffusion that may depend on x nor common noise, else ½."""
        additive = equation.noise == "additive" or equation.diffusion is None
        return 1.0 if additive and equation.common is None else 0.5

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0
