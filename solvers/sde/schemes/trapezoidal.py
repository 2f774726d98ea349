"""The trapezoidal rule for the drift, for stiff equations."""

from __future__ import annotations

from solvers.sde.schemes.newton import Implicit


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

    Raises
    ------
    TypeError
        If the Jacobian is not a function.

    References
    ----------
    P. E. Kloeden, E. Platen, "Numerical solution of stochastic differential equations", 1992, section 12.2.
    """

    name = "trapezoidal"
    implicit = 0.5
