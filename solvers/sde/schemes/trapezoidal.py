"""The trapezoidal rule for the drift, for stiff equations."""

from __future__ import annotations

from solvers.sde.coefficients import Function
from solvers.sde.equation import McKeanVlasov
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.schemes.newton import Implicit, implicit_terms
from solvers.sde.schemes.scheme import Stage


class Trapezoidal(Implicit):
    """A step adds the mean of b dt where it starts and where it arrives, and s dW; "trapezoidal" for short.

    Stable for stiff drifts at any step. Of dX = −k X dt + σ dW the stationary variance is σ²/(2 k), that of the
    equation, whatever the step; but where k dt is large, what the start was swings and dies out slowly. Means, field
    and interaction are those of the start, and the equation is solved as by "drift_implicit_euler". Orders are those of
    Euler–Maruyama.

    Parameters
    ----------
    jacobian : callable, optional
        ∂b/∂x as a function of the drift's arguments: a number, or a (D, D) matrix; by default by differences.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 12.2.
    """

    name = "trapezoidal"

    def __init__(self, jacobian: Function | None = None) -> None:
        super().__init__(jacobian)
        self.stages = (Stage(implicit_terms, settings=(0.5, jacobian)),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return that of Euler–Maruyama."""
        return EulerMaruyama().strong_order(equation)

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0
