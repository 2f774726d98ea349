"""The scheme of Euler and Maruyama."""

from __future__ import annotations

from collections.abc import Iterator

from solvers.sde.coefficients import Coefficients
from solvers.sde.equation import Form, McKeanVlasov
from solvers.sde.schemes.scheme import Scheme, Stage, Term
from solvers.sde.schemes.terms import common_noise_terms, drift_terms, noise_terms


def euler_terms(equation: McKeanVlasov, coefficients: Coefficients, form: Form) -> Iterator[Term]:
    """Return the terms of b dt + s dW with the means of the particles where the stage starts."""
    yield from drift_terms(equation, coefficients, form)
    yield from noise_terms(equation, coefficients, form)
    yield from common_noise_terms(equation, coefficients, form)


class EulerMaruyama(Scheme):
    """A step adds b dt + s dW, with coefficients and means where it starts; "euler_maruyama" for short.

    Strong order 1 where the noise is additive and none is common, else ½. Weak order 1.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 10.2.
    """

    name = "euler_maruyama"
    stages = (Stage(euler_terms),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return 1 without a diffusion that may depend on x and without common noise, else ½."""
        additive = equation.noise == "additive" or equation.diffusion is None
        return 1.0 if additive and equation.common is None else 0.5

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1."""
        return 1.0
