"""Exact errors of untrained networks of infinite width and finite depth, on the Brownian path of a deeper one.

h^L is h_0 plus the integral of a step function σ^L that does not depend on chance, so h^L and h^L* are jointly
Gaussian; g^L is v plus the integral of φ'(h^L) √p^L along the backward path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import Activation, get_activation
from validation.closed_forms import feature_variance, gradient_variance

Array = NDArray[np.float64]

# Gauss and Hermite's rule in each of two variables; for tanh' and variances of 1.5 it is exact to 1e-7.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(96)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def feature_error(activation: str | Activation, initial: float, horizon: float, depth: int, deeper: int) -> float:
    """Return E|h^L_T − h^L*_T|², that is ∫ (σ^L − σ^L*)² dt.

    Parameters and errors are those of `feature_variance`; L* is `deeper`, a multiple of L. The variances are those of
    Proposition 2 of paper F.
    """
    coarse, fine = (_rates(activation, initial, horizon, steps, deeper) for steps in (depth, deeper))
    return float(np.sum((coarse - fine) ** 2) * horizon / deeper)


def gradient_error(activation: str | Activation, initial: float, horizon: float, depth: int, deeper: int) -> float:
    """Return E|g^L_0 − g^L*_0|², that is ∫ E(φ'(h^L) √p^L − φ'(h^L*) √p^L*)² dt.

    The derivative of φ must be smooth, or that of relu. Parameters and errors are those of `feature_error`; the
    integrand takes h where a step of the backward pass arrives and p where it starts (Proposition 3 of paper F).
    """
    phi, every, dt = get_activation(activation), deeper // depth, horizon / deeper
    coarse, fine = (_rates(activation, initial, horizon, steps, deeper) for steps in (depth, deeper))
    q, finer_q = (feature_variance(activation, initial, horizon, steps) for steps in (depth, deeper))
    p, finer_p = (gradient_variance(activation, initial, horizon, steps) for steps in (depth, deeper))
    shared = initial + dt * np.concatenate([[0.0], np.cumsum(coarse * fine)])  # covariance of h^L and h^L* at one time
    total = 0.0
    for step in range(deeper):
        layer = step // every
        covariance = np.array([[q[layer], shared[layer * every]], [shared[layer * every], finer_q[step]]])
        total += _difference(phi, covariance, float(np.sqrt(p[layer + 1])), float(np.sqrt(finer_p[step + 1]))) * dt
    return total


def exponent(errors: Sequence[float], gaps: Array) -> float:
    """Return the power of the gaps that fits errors, as `validation.rates` fits it."""
    return float(np.polyfit(np.log(gaps), np.log(errors), 1)[0])


def _rates(activation: str | Activation, initial: float, horizon: float, depth: int, deeper: int) -> Array:
    """σ^L of every step of the deeper grid, (deeper,)."""
    squares = np.diff(feature_variance(activation, initial, horizon, depth)) * depth / horizon
    return np.asarray(np.repeat(np.sqrt(squares), deeper // depth))


def _difference(phi: Activation, covariance: Array, first: float, second: float) -> float:
    """E(first φ'(a) − second φ'(b))² for centred Gaussians a and b."""
    if phi.name == "relu":
        correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        both = 0.25 + np.arcsin(min(correlation, 1.0)) / (2 * np.pi)  # the probability that both are positive
        return first**2 / 2 + second**2 / 2 - 2 * first * second * both
    root = np.sqrt(covariance[0, 0])
    slope = covariance[0, 1] / root
    rest = np.sqrt(max(covariance[1, 1] - slope**2, 0.0))
    a = first * phi.derivative(root * _NODES)[:, None]
    b = second * phi.derivative(slope * _NODES[:, None] + rest * _NODES)
    return float(_WEIGHTS @ (a - b) ** 2 @ _WEIGHTS)
