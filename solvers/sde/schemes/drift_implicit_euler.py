"""The scheme of Euler and Maruyama with an implicit drift, for stiff equations."""

from __future__ import annotations

from solvers.sde.coefficients import Function
from solvers.sde.equation import McKeanVlasov
from solvers.sde.schemes.euler_maruyama import EulerMaruyama
from solvers.sde.schemes.newton import Implicit, implicit_terms
from solvers.sde.schemes.scheme import Stage


class DriftImplicitEuler(Implicit):
    """A step adds b dt where it arrives, and s dW where it starts; "drift_implicit_euler" for short.

    Stable for stiff drifts at any step. The equation of each particle is solved by Newton's method, to 1e-10 relative
    to 1 + |x|; the run fails where that does not converge. Means, field and interaction are those of the start. Orders
    are those of Euler–Maruyama; of dX = −k X dt + σ dW the stationary variance is σ²/(k (2 + k dt)).

    Parameters
    ----------
    jacobian : callable, optional
        ∂b/∂x as a function of the drift's arguments: a number, or a (D, D) matrix; by default by differences.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 12.2.
    D. J. Higham, X. Mao, A. M. Stuart, "Strong convergence of Euler-type methods for nonlinear stochastic differential
    equations", SIAM J. Numer. Anal. 40 (2002).
    """

    name = "drift_implicit_euler"

    def __init__(self, jacobian: Function | None = None) -> None:
        super().__init__(jacobian)
        self.stages = (Stage(implicit_terms, settings=(1.0, jacobian)),)

    def strong_order(self, equation: McKeanVlasov) -> float:
        """Return that of Euler–Maruyama."""
        return EulerMaruyama().strong_order(equation)

    def weak_order(self, equation: McKeanVlasov) -> float:
        """Return 1, whatever the equation."""
        return 1.0
