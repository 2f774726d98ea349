"""The scheme of Euler and Maruyama with an implicit drift, for stiff equations."""

from __future__ import annotations

from solvers.sde.schemes.newton import Implicit


class DriftImplicitEuler(Implicit):
    """A step adds b dt where it arrives, and s dW where it starts; "drift_implicit_euler" for short.

    Stable for stiff drifts at any step. The equation of each particle is solved by Newton's method, to 1e-10 relative
    to 1 + |x|; the run fails where that does not converge. Means, field and interaction are those of the start. Orders
    are those of Euler–Maruyama; of dX = −k X dt + σ dW the stationary variance is σ²/(k (2 + k dt)).

    Parameters
    ----------
    jacobian : callable, optional
        ∂b/∂x as a function of the drift's arguments: a number, or a (D, D) matrix; by default by differences.

    Raises
    ------
    TypeError
        If the Jacobian is not a function.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 12.2.
    D. J. Higham, X. Mao, A. M. Stuart, "Strong convergence of Euler-type methods for nonlinear stochastic differential
    equations", SIAM J. Numer. Anal. 40 (2002).
    """

    name = "drift_implicit_euler"
    implicit = 1.0
