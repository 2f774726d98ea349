"""The ensemble Kalman sampler, for two unknowns and a linear map."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers import checks
from solvers.sde.equation import McKeanVlasov
from solvers.sde.gallery.system import Normal, System, positive

Array = NDArray[np.float64]


class EnsembleKalmanArgs(NamedTuple):
    """The precision of the posterior, (2, 2), and precision times mean, (2,)."""

    precision: Array
    shift: Array


@njit
def _drift(t, x, m, args):  # type: ignore[no-untyped-def]
    first = args.precision[0, 0] * x[0] + args.precision[0, 1] * x[1] - args.shift[0]
    second = args.precision[1, 0] * x[0] + args.precision[1, 1] * x[1] - args.shift[1]
    a, b, c = m[2] - m[0] * m[0], m[3] - m[0] * m[1], m[4] - m[1] * m[1]
    return -(a * first + b * second), -(b * first + c * second)


@njit
def _diffusion(t, x, m, args):  # type: ignore[no-untyped-def]
    a, b, c = m[2] - m[0] * m[0], m[3] - m[0] * m[1], m[4] - m[1] * m[1]
    left = math.sqrt(2.0 * max(a, 1e-300))
    low = 2.0 * b / left
    return (left, 0.0), (low, math.sqrt(max(2.0 * c - low * low, 0.0)))


@njit
def _moments(t, x):  # type: ignore[no-untyped-def]
    return x[0], x[1], x[0] * x[0], x[0] * x[1], x[1] * x[1]


def ensemble_kalman(forward: Any = ((1.0, 1.0),), data: Any = (2.0,), noise: float = 0.5, prior: float = 4.0) -> System:
    """Return a sampler of the posterior of u, dU = −C ∇Φ(U) dt + √(2C) dW, with C the covariance of the particles.

    Φ = |A u − y|²/(2γ²) + |u|²/(2τ²), so the stationary law is the posterior of A u + γ ξ = y with the prior N(0, τ²),
    which is normal; C makes the rate at which it is reached the same whatever its shape.

    Parameters
    ----------
    forward : (k, 2) array
        A.
    data : (k,) array
        y.
    noise, prior : float
        γ and τ².

    Returns
    -------
    System
        Particles u; starts from independent N(0, 1).

    Raises
    ------
    TypeError, ValueError
        If arrays do not fit, or noise or prior is not above 0.

    References
    ----------
    A. Garbuno-Inigo, F. Hoffmann, W. Li, A. M. Stuart, "Interacting Langevin diffusions: gradient structure and
    ensemble Kalman sampler", SIAM J. Appl. Dyn. Syst. 19 (2020).
    """
    matrix = np.asarray(checks.finite("forward", forward), np.float64)
    wanted = np.asarray(checks.finite("data", data), np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != 2 or wanted.shape != matrix.shape[:1]:
        raise ValueError(f"forward must be (k, 2) and data (k,), got {matrix.shape} and {wanted.shape}")
    positive(noise=noise, prior=prior)
    args = EnsembleKalmanArgs(matrix.T @ matrix / noise**2 + np.eye(2) / prior, matrix.T @ wanted / noise**2)
    equation = McKeanVlasov(_drift, _diffusion, _moments, noise="general")
    return System(equation, args, Normal((0.0, 0.0)), ("u₁", "u₂"))
