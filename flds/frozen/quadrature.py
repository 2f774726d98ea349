"""Means of products of functions of Gaussians, for many pairs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flds.training.activations import ACTIVATIONS, Activation

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

# Hermite functions that are used, and the grid on which coefficients are summed, midpoints that are symmetric about 0:
# of smooth functions, and of one's own, which may have kinks.
_TERMS, _STEP, _FINE_STEP, _REACH = 160, 5e-3, 1e-3, 14.0
# Shares of a mean that are left out, and that a pair is done anew for.
_NEGLIGIBLE, _LOST = 1e-15, 1e-9


def product_means(phi: Activation, derivative: bool, covariance: Array) -> Array:
    """Return E f(h_a) f(h_b) with f = φ or φ', (m, m), for centred Gaussians of this covariance, (m, m).

    That of relu is exact. For others f(√q z) is expanded in Hermite polynomials of z, so that the mean is a power
    series in the correlation. Pairs of which 160 terms leave out more than 1e-9, such as nearly equal inputs and
    functions with kinks, are found by smoothing f with the Gaussian that parts them. A jump of f other than at 0 costs
    some 1e-4 of its square.

    References
    ----------
    Cho and Saul, "Kernel Methods for Deep Learning" (2009), for relu; Daniely, Frostig and Singer, "Toward Deeper
    Understanding of Neural Networks" (2016), for the expansion.
    """
    sizes = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
    scales = np.outer(sizes, sizes)
    correlation = np.clip(np.divide(covariance, scales, out=np.zeros_like(covariance), where=scales > 0), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    if phi is ACTIVATIONS["relu"]:
        return _relu(correlation, scales, derivative)
    nodes, functions, weights = _grid(_STEP if phi is ACTIVATIONS.get(phi.name) else _FINE_STEP)
    function = phi.derivative if derivative else phi.value
    plain = np.array([function(size * nodes) for size in sizes])
    values = plain * weights
    coefficients = values @ functions.T  # (m, terms)
    total, power, squares = np.zeros_like(covariance), np.ones_like(covariance), np.sum(values**2, axis=1)
    left = squares.copy()
    for column in coefficients.T:
        if np.any(column**2 > _NEGLIGIBLE * squares):
            total += np.outer(column, column) * power
            left -= column**2
        if np.all(left <= _NEGLIGIBLE * squares):
            break
        power *= correlation
    np.fill_diagonal(total, squares)
    lost = np.sqrt(np.outer(np.maximum(left, 0.0), np.maximum(left, 0.0))) * np.abs(power)
    for one, other in np.argwhere(np.triu(lost > _LOST * np.sqrt(np.outer(squares, squares)), 1)):
        smooth = _smoothed(nodes, plain[other], float(correlation[one, other]))
        total[one, other] = total[other, one] = np.sum(values[one] * weights * smooth)
    return total


def _smoothed(nodes: Array, values: Array, correlation: float) -> Array:
    """Return E f(c u + √(1 − c²) w) over w at the nodes u, for f with these values there and the correlation c."""
    from scipy.interpolate import CubicSpline

    spread = math.sqrt(max(0.0, 1.0 - correlation**2))
    padded = np.pad(values, len(values) // 2, mode="edge")  # so that one end does not meet the other
    frequencies = 2 * math.pi * np.fft.rfftfreq(len(padded), nodes[1] - nodes[0])
    damped = np.fft.rfft(padded) * np.exp(-0.5 * (spread * frequencies) ** 2)
    smooth = np.fft.irfft(damped, len(padded))[len(values) // 2 :][: len(values)]
    return np.asarray(CubicSpline(nodes, smooth)(correlation * nodes))


@lru_cache(maxsize=2)
def _grid(step: float) -> tuple[Array, Array, Array]:
    """Return nodes, Hermite functions h_k √w there, (terms, nodes), and √w, with w the weights of E f(z)."""
    nodes = np.arange(-_REACH, _REACH, step) + step / 2
    root = np.exp(-0.25 * nodes**2) * math.sqrt(step) / (2 * math.pi) ** 0.25
    functions = np.empty((_TERMS, len(nodes)))
    functions[0], functions[1] = root, nodes * root
    for k in range(1, _TERMS - 1):
        functions[k + 1] = (nodes * functions[k] - math.sqrt(k) * functions[k - 1]) / math.sqrt(k + 1)
    return nodes, functions, root


def _relu(correlation: Array, scales: Array, derivative: bool) -> Array:
    angle = np.arccos(correlation)
    if derivative:
        return np.asarray((math.pi - angle) / (2 * math.pi))
    return np.asarray(scales * (np.sin(angle) + (math.pi - angle) * correlation) / (2 * math.pi))
